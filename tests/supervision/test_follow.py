"""Following real writers: every line once and in order, soon, and without holding up the event loop."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from daemon.domain.lines import Line
from daemon.supervision import follow
from daemon.supervision.follow import Follower
from daemon.supervision.lines import LINE_LIMIT, Cutter
from daemon.supervision.output import Gone, OutputFile
from daemon.supervision.watch import Watcher
from tests.support.daemon_process import wait_for

pytestmark = pytest.mark.anyio

ODD = b"".join(
    [
        b'{"type": "result"}\n',
        b"\n\n\n",
        b"carriage return\r\n",
        b"\r\n",
        b"nul \x00\x00 bytes\n",
        b"\x00" * 10_000 + b"\n",
        b"invalid \xff\xfe\xc3 utf-8\n",
        "ünïcödé ␤ \u2028 \x85 \x0b\x0c\n".encode(),
        b"x" * 10_000_000 + b"\n",
        b"y" * LINE_LIMIT + b"\n",
        b"without an end",
    ]
)
PRINT = "import os, sys; data = sys.stdin.buffer.read()\nwhile data: data = data[os.write(1, data):]"
FLOOD = """
import os, sys
data = (b"x" * 99 + b"\\n") * 10_000
for _ in range(int(sys.argv[1])): os.write(1, data)
"""
TICKS = """
import os, sys, time
number, count, every = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
os.write(1, b"ready\\n")
os.read(0, 1)
begin = time.monotonic() + every * number / 50
for turn in range(count):
    time.sleep(max(0, begin + turn * every - time.monotonic()))
    os.write(1, b"%d %d %s\\n" % (time.monotonic_ns(), turn, b"x" * 80))
"""


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both event loops that the daemon may run on."""
    return "asyncio", {"use_uvloop": request.param}


ON_UVLOOP = pytest.mark.parametrize("anyio_backend", [True], indirect=True, ids=["uvloop"])


@pytest.fixture
async def watcher(anyio_backend: Any) -> AsyncIterator[Watcher]:
    made = Watcher()
    await made.start()
    yield made
    await made.close()


def written(directory: Path, data: bytes) -> OutputFile:
    (directory / "stdout").write_bytes(data)
    return OutputFile(directory / "stdout")


def appended(file: OutputFile, data: bytes) -> None:
    with file.path.open("ab", buffering=0) as writer:
        writer.write(data)


def started(directory: Path, program: str, *arguments: str, **more: Any) -> "subprocess.Popen[bytes]":
    """Start a Python program that appends its output to the directory's file."""
    with (directory / "stdout").open("ab") as stdout:
        return subprocess.Popen([sys.executable, "-ISc", program, *arguments], stdout=stdout, **more)


def expected(data: bytes, start: int = 0) -> list[Line]:
    cutter = Cutter(start)
    return cutter.feed(data) + cutter.flush()


async def until(fact: Callable[[], Any], seconds: float = 10) -> None:
    """Wait for a fact while the event loop runs."""
    await asyncio.to_thread(wait_for, fact, seconds)


async def soon(awaitable: Awaitable[list[Line]], seconds: float = 10) -> list[Line]:
    return await asyncio.wait_for(awaitable, seconds)


async def all_of(follower: Follower) -> list[Line]:
    """Return every line up to the end."""
    found = list[Line]()
    while lines := await soon(follower.next()):
        found += lines
        assert follower.position == lines[-1].end
    return found


async def lag(samples: list[float]) -> None:
    """Measure for as long as it runs how late the loop is, in seconds."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + 0.001
        await asyncio.sleep(0.001)
        samples.append(loop.time() - due)


async def turns(samples: list[float]) -> None:
    """Measure for as long as it runs what each turn of the loop costs, in seconds of CPU: others' load is not in it."""
    while True:
        began = time.thread_time()
        await asyncio.sleep(0)
        samples.append(time.thread_time() - began)


def p99(samples: list[float]) -> float:
    return sorted(samples)[int(len(samples) * 0.99)]


async def test_a_writer_with_odd_lines_is_followed_to_its_end(watcher: Watcher, tmp_path: Path) -> None:
    follower = Follower(OutputFile(tmp_path / "stdout"), 0)
    reading = asyncio.create_task(all_of(follower))
    watcher.watch(tmp_path, lambda _: follower.wake())
    child = started(tmp_path, PRINT, stdin=subprocess.PIPE)
    await asyncio.to_thread(child.communicate, ODD)
    follower.end()
    found = await reading
    assert found == expected(ODD)
    assert [line.part for line in found if line.part] == list(range(1, 11))
    assert (found[-1].data, found[-1].end) == (b"without an end", len(ODD))
    assert await soon(follower.next()) == await soon(follower.next()) == []


@ON_UVLOOP
async def test_a_reader_resumes_at_the_end_of_any_line(tmp_path: Path) -> None:
    file = written(tmp_path, ODD)
    lines = expected(ODD)
    for number, line in enumerate(lines, 1):
        follower = Follower(file, line.end)
        follower.end()
        rest = await all_of(follower)
        assert [(one.end, one.data, one.more) for one in rest] == [
            (one.end, one.data, one.more) for one in lines[number:]
        ]


async def test_a_reader_waits_until_it_is_woken_and_for_whole_lines(tmp_path: Path) -> None:
    file = OutputFile(tmp_path / "stdout")
    follower = Follower(file, 0)
    waiting = asyncio.create_task(follower.next())
    for data in (b"", b"one", b" line"):
        appended(file, data)
        follower.wake()
        await until(lambda: follower._cutter.pending == file.size())
        assert not waiting.done()
    appended(file, b"\nand")
    follower.wake()
    assert await soon(waiting) == [Line(9, b"one line")]
    follower.end()
    assert await soon(follower.next()) == [Line(12, b"and")]
    assert await soon(follower.next()) == []


async def test_what_was_written_before_the_end_is_read_after_it(tmp_path: Path) -> None:
    file = OutputFile(tmp_path / "stdout")
    follower = Follower(file, 0)
    waiting = asyncio.create_task(follower.next())
    await until(lambda: not follower._news.is_set())
    appended(file, b"last\nwords")
    follower.end()
    assert await soon(waiting) == [Line(5, b"last")]
    assert await soon(follower.next()) == [Line(10, b"words")]


async def test_a_call_that_is_cancelled_anywhere_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"".join(b"%d %s\n" % (number, b"x" * (number % 300)) for number in range(20_000))
    file = written(tmp_path, data)
    monkeypatch.setattr(OutputFile, "read_now", lambda *_: None)  # each step then waits for a thread
    follower, found, cancelled = Follower(file, 0), list[Line](), 0
    follower.end()
    while follower.position < len(data):
        reading = asyncio.create_task(follower.next())
        for _ in range(cancelled % 5):
            await asyncio.sleep(0)
        cancelled += reading.cancel()
        with suppress(asyncio.CancelledError):
            found += await reading
        found += await soon(follower.next())
    assert cancelled > 10
    assert found == expected(data)


async def test_freed_bytes_are_gone_for_who_begins_there_and_for_who_is_too_slow(tmp_path: Path) -> None:
    data = b"".join(b"%0999d\n" % number for number in range(1_000))
    file = written(tmp_path, data)
    slow, other = Follower(file, 0), Follower(file, 0)
    assert (await soon(slow.next()))[-1].end < 100_000
    assert len(await soon(other.next(10_000))) == 10
    if not file.free(500_000):
        pytest.skip("the head of a file cannot be freed here")
    first = file.first_kept()
    for late in (slow, other, Follower(file, 0), Follower(file, first - 1_000), Follower(file, first - 1)):
        with pytest.raises(Gone) as gone:
            await soon(late.next())
        assert gone.value.first_kept == first
    resumed = Follower(file, first)
    resumed.end()
    assert await all_of(resumed) == expected(data[first:], first)


async def test_a_reader_learns_that_the_process_has_emptied_its_output(tmp_path: Path) -> None:
    file = written(tmp_path, b"old\n" * 100)
    follower = Follower(file, 0)
    assert len(await soon(follower.next())) == 100
    waiting = asyncio.create_task(follower.next())
    subprocess.run(["/bin/sh", "-c", "echo new >/dev/stdout"], stdout=file.path.open("ab"), check=True)
    follower.wake()
    with pytest.raises(Gone) as gone:
        await soon(waiting)
    assert gone.value.first_kept == 0
    assert await soon(Follower(file, 0).next()) == [Line(4, b"new")]


async def test_what_is_not_in_memory_is_read_by_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"".join(b"%d\n" % number for number in range(500_000))
    file = written(tmp_path, data)
    with file.path.open("rb") as opened:
        os.fsync(opened.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    threads = 0
    read = OutputFile.read

    def counted(self: OutputFile, offset: int, limit: int) -> bytes:
        nonlocal threads
        threads += 1
        return read(self, offset, limit)

    monkeypatch.setattr(OutputFile, "read", counted)
    follower = Follower(file, 0)
    follower.end()
    assert await all_of(follower) == expected(data)
    print(f"\n{threads} of {len(data) // follow.STEP_BYTES + 1} steps waited for the disk in a thread")
    assert threads < len(data) / follow.STEP_BYTES + 2  # the kernel reads ahead, so it may be none at all


async def test_lines_without_content_do_not_hold_up_the_loop(tmp_path: Path) -> None:
    file = written(tmp_path, b"\n" * 300_000)
    follower, samples, count, most = Follower(file, 0), list[float](), 0, 0
    follower.end()
    measuring = asyncio.create_task(turns(samples))
    while lines := await soon(follower.next()):
        count, most = count + len(lines), max(most, len(lines))
    measuring.cancel()
    print(f"\nempty lines: p99 {p99(samples) * 1e3:.2f} ms of CPU a turn")
    assert (count, most <= 2_000) == (300_000, True)
    assert p99(samples) < 0.01


class Listener:
    """Follows one writer of ticks, and notes how late each line is."""

    def __init__(self, watcher: Watcher, directory: Path) -> None:
        directory.mkdir()
        self.follower = Follower(OutputFile(directory / "stdout"), 0)
        self.calls = 0
        self.turns, self.late = list[int](), list[float]()
        watcher.watch(directory, self._told)
        self.task = asyncio.create_task(self._listen())

    def _told(self, _: str) -> None:
        self.calls += 1
        self.follower.wake()

    async def _listen(self) -> None:
        assert [line.data for line in await soon(self.follower.next(), 30)] == [b"ready"]
        while lines := await soon(self.follower.next(), 30):
            now = time.monotonic_ns()
            for line in lines:
                written_at, turn, _ = line.data.split()
                self.turns.append(int(turn))
                self.late.append((now - int(written_at)) / 1e9)


@ON_UVLOOP
async def test_fifty_writers_are_heard_soon(watcher: Watcher, tmp_path: Path) -> None:
    writers, count = 50, 60
    hold, release = os.pipe()  # the writers begin together once its other end is closed
    listeners = [Listener(watcher, tmp_path / f"s{number}") for number in range(writers)]
    running = [
        started(tmp_path / f"s{number}", TICKS, str(number), str(count), "0.05", stdin=hold)
        for number in range(writers)
    ]
    await until(lambda: all(one.follower.position for one in listeners), 30)
    cpu = time.thread_time()
    os.close(release)
    await asyncio.to_thread(lambda: [child.wait(30) for child in running])
    cpu = time.thread_time() - cpu
    os.close(hold)
    for one in listeners:
        one.follower.end()
        await one.task
        assert one.turns == list(range(count))
    late = [late for one in listeners for late in one.late]
    calls = sum(one.calls for one in listeners)
    middle = sorted(late)[len(late) // 2]
    print(
        f"\n{writers} writers, {len(late)} lines: p50 {middle * 1e3:.1f} p99 {p99(late) * 1e3:.1f}"
        f" max {max(late) * 1e3:.1f} ms from the write to the line; {calls} calls, {cpu:.2f} s of CPU"
    )
    assert middle < 0.1
    assert p99(late) < 1


async def test_a_flood_is_followed_fast_and_leaves_the_loop_to_others(watcher: Watcher, tmp_path: Path) -> None:
    megabytes, count, late, spent = 200, 0, list[float](), list[float]()
    follower = Follower(OutputFile(tmp_path / "stdout"), 0)
    watcher.watch(tmp_path, lambda _: follower.wake())
    process = psutil.Process()
    before = most = process.memory_info().rss
    child = started(tmp_path, FLOOD, str(megabytes))
    await until(follower._file.size)
    measuring = [asyncio.create_task(lag(late)), asyncio.create_task(turns(spent))]
    began, cpu = time.monotonic(), time.thread_time()
    while follower.position < megabytes * 1_000_000:
        lines = await soon(follower.next())
        count += len(lines)
        if count % 100 == 0:
            most = max(most, process.memory_info().rss)
    seconds, cpu = time.monotonic() - began, time.thread_time() - cpu
    for task in measuring:
        task.cancel()
    await asyncio.to_thread(child.wait, 20)
    follower.end()
    assert await soon(follower.next()) == []
    print(
        f"\n{megabytes} MB in {seconds:.2f} s: {megabytes / seconds:.0f} MB/s ({megabytes / cpu:.0f} per CPU second),"
        f" loop lag p50 {sorted(late)[len(late) // 2] * 1e3:.2f} p99 {p99(late) * 1e3:.2f} ms,"
        f" CPU a turn p99 {p99(spent) * 1e3:.2f} ms, {(most - before) / 1e6:.1f} MB more memory"
    )
    assert count == megabytes * 10_000
    assert megabytes / cpu > 50  # the machine may be busy otherwise
    assert p99(spent) < 0.005
    assert most - before < 30_000_000

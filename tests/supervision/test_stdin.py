"""Lines to a command's stdin: nothing blocks, nothing is torn unseen, and after a kill it can be told what entered."""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from daemon.supervision.stdin import Entered, Progress, Stdin, StdinClosed, entered, progress
from tests.support.daemon_process import REPOSITORY, untraced

MIB = 1_048_576


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "stdin", 0o600)
    return tmp_path


@pytest.fixture
def reader(directory: Path) -> Iterator[int]:
    """What the keeper and the command hold, in one; a test may close it."""
    fd = os.open(directory / "stdin", os.O_RDONLY | os.O_NONBLOCK)
    yield fd
    with contextlib.suppress(OSError):
        os.close(fd)


@pytest.fixture
async def stdin(directory: Path, reader: int) -> AsyncIterator[Stdin]:
    made = Stdin(directory)
    yield made
    made.close()


def _room(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


def _read(fd: int) -> bytes:
    """Read what is there."""
    parts = []
    with contextlib.suppress(BlockingIOError):
        while part := os.read(fd, 65_536):
            parts.append(part)
    return b"".join(parts)


async def _fill(stdin: Stdin, reader: int) -> int:
    """Fill the FIFO as far as it can be enlarged, and return with how much."""
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, MIB)
    await asyncio.wait_for(stdin.write(1, b"x" * MIB), 5)
    return MIB


async def _waiting(stdin: Stdin, turn: int, line: bytes) -> asyncio.Task[None]:
    writing = asyncio.create_task(stdin.write(turn, line))
    await asyncio.wait({writing}, timeout=0.05)
    assert not writing.done()
    return writing


async def test_lines_enter_and_are_recorded(stdin: Stdin, reader: int, directory: Path) -> None:
    assert progress(directory) is None
    assert entered(directory, 0) is Entered.NEVER
    await stdin.write(0, b"one\n")
    assert progress(directory) == Progress(0, 4, 4)
    await stdin.write(7, b"seven\n")
    assert progress(directory) == Progress(7, 6, 6)
    assert entered(directory, 7) is Entered.WHOLE
    assert entered(directory, 8) is Entered.NEVER
    assert entered(directory, 3) is Entered.UNCERTAIN
    assert _read(reader) == b"one\nseven\n"
    assert (directory / "sent").stat().st_mode & 0o777 == 0o600


async def test_the_record_goes_on_with_the_next_daemon(stdin: Stdin, reader: int, directory: Path) -> None:
    await stdin.write(2**62, b"long\n" * 1000)
    stdin.close()
    with contextlib.closing(Stdin(directory)) as again:
        assert progress(directory) == Progress(2**62, 5000, 5000)
        await again.write(2**62 + 1, b"x\n")
    assert progress(directory) == Progress(2**62 + 1, 2, 2)


@pytest.mark.parametrize("size", [1, 4096, 65_536, 65_537, MIB - 1, MIB])
async def test_a_line_that_fits_enters_at_once(
    stdin: Stdin, reader: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    write = os.write

    def counted(fd: int, part: bytes) -> int:
        sizes.append(write(fd, part))
        return sizes[-1]

    monkeypatch.setattr(os, "write", counted)
    await asyncio.wait_for(stdin.write(1, b"x" * size), 5)
    assert sizes == [size]
    assert _room(reader) <= MIB


async def test_many_lines_nobody_reads_yet(stdin: Stdin, reader: int) -> None:
    lines = [b"%d " % number + b"y" * 20_000 + b"\n" for number in range(42)]
    for number, line in enumerate(lines):
        await asyncio.wait_for(stdin.write(number, line), 5)
    assert _read(reader) == b"".join(lines)


@pytest.mark.parametrize("size", [MIB + 1, MIB + 70_000, 5 * MIB])
async def test_a_line_that_never_fits(stdin: Stdin, reader: int, directory: Path, size: int) -> None:
    line = os.urandom(size)
    writing = await _waiting(stdin, 1, line)
    assert entered(directory, 1) is Entered.UNCERTAIN
    found = progress(directory)
    assert found is not None
    assert 0 < found.entered < found.total == size
    got = bytearray()
    while len(got) < size:
        got += _read(reader)
        await asyncio.wait({writing}, timeout=0.001)
    await asyncio.wait_for(writing, 5)
    assert bytes(got) == line
    assert entered(directory, 1) is Entered.WHOLE


async def test_a_fifo_that_stays_small(
    stdin: Stdin, reader: int, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.supervision.stdin.PIPE_LIMIT", 0)
    line = os.urandom(300_000)
    writing = await _waiting(stdin, 1, line)
    assert progress(directory) == Progress(1, _room(reader), len(line))
    got = bytearray()
    while len(got) < len(line):
        got += os.read(reader, 1000)
        await asyncio.sleep(0)
        with contextlib.suppress(BlockingIOError):
            got += os.read(reader, 100_000)
        await asyncio.wait({writing}, timeout=0.001)
    await asyncio.wait_for(writing, 5)
    assert bytes(got) == line
    assert entered(directory, 1) is Entered.WHOLE


async def test_a_reader_that_never_reads_blocks_nothing_else(stdin: Stdin, reader: int, directory: Path) -> None:
    await _fill(stdin, reader)
    writings = [await _waiting(stdin, turn, b"%d\n" % turn) for turn in (2, 3)]
    assert progress(directory) == Progress(2, 0, 2)
    late = 0.0
    for _ in range(100):
        begun = time.perf_counter()
        await asyncio.wait(writings, timeout=0.001)
        late = max(late, time.perf_counter() - begun)
    assert late < 0.5
    assert len(_read(reader)) >= MIB
    await asyncio.wait_for(asyncio.gather(*writings), 5)
    assert _read(reader).endswith(b"2\n3\n")


async def test_cancelling_halfway_is_recorded_and_ends_all(stdin: Stdin, reader: int, directory: Path) -> None:
    writing = await _waiting(stdin, 2, b"z" * (MIB + 500))
    queued = await _waiting(stdin, 3, b"later\n")
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    with pytest.raises(StdinClosed, match="cut short"):
        await queued
    assert progress(directory) == (2, len(_read(reader)), MIB + 500)
    assert entered(directory, 2) is Entered.UNCERTAIN
    assert entered(directory, 3) is Entered.NEVER


async def test_cancelling_before_anything_entered(stdin: Stdin, reader: int, directory: Path) -> None:
    await _fill(stdin, reader)
    writing = await _waiting(stdin, 2, b"z" * (MIB + 500))
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert entered(directory, 2) is Entered.NEVER
    assert len(_read(reader)) == MIB
    await asyncio.wait_for(stdin.write(2, b"later\n"), 5)
    assert _read(reader) == b"later\n"


async def test_cancelling_what_waits_its_turn(stdin: Stdin, reader: int, directory: Path) -> None:
    await _fill(stdin, reader)
    first, second, third = [await _waiting(stdin, turn, b"%d\n" % turn) for turn in (2, 3, 4)]
    second.cancel()
    await asyncio.wait({second})
    _read(reader)
    await asyncio.wait_for(asyncio.gather(first, third), 5)
    assert _read(reader) == b"2\n4\n"
    assert second.cancelled()


async def test_an_interjection_is_no_turn(stdin: Stdin, reader: int, directory: Path) -> None:
    await _fill(stdin, reader)
    interjecting = asyncio.create_task(stdin.interject(b"stop\n"))
    await asyncio.wait({interjecting}, timeout=0.05)
    assert not interjecting.done()
    assert len(_read(reader)) == MIB
    await asyncio.wait_for(interjecting, 5)
    assert _read(reader) == b"stop\n"
    assert progress(directory) == Progress(1, MIB, MIB)
    os.close(reader)
    with pytest.raises(StdinClosed):
        await stdin.interject(b"stop\n")


async def test_without_a_reader_there_is_no_stdin(directory: Path) -> None:
    with pytest.raises(StdinClosed):
        Stdin(directory)
    (directory / "stdin").unlink()
    with pytest.raises(StdinClosed):
        Stdin(directory)


@pytest.mark.parametrize("size", [5, 2 * MIB])
async def test_the_reader_goes(stdin: Stdin, reader: int, directory: Path, size: int) -> None:
    waiting = await _waiting(stdin, 1, b"x" * size) if size > MIB else None
    os.close(reader)
    with pytest.raises(StdinClosed):
        await asyncio.wait_for(waiting or stdin.write(1, b"x" * size), 5)
    assert entered(directory, 1) is (Entered.UNCERTAIN if waiting else Entered.NEVER)
    with pytest.raises(StdinClosed):
        await stdin.write(2, b"y\n")
    assert entered(directory, 2) is Entered.NEVER


async def test_closing_ends_what_waits(stdin: Stdin, reader: int, directory: Path) -> None:
    await _fill(stdin, reader)
    writings = [await _waiting(stdin, turn, b"%d\n" % turn) for turn in (2, 3)]
    stdin.close()
    for writing in writings:
        with pytest.raises(StdinClosed):
            await asyncio.wait_for(writing, 5)
    with pytest.raises(StdinClosed):
        await stdin.write(4, b"4\n")
    stdin.close()
    assert progress(directory) == Progress(2, 0, 2)
    assert len(_read(reader)) == MIB
    assert os.read(reader, 1) == b""


async def test_a_record_that_cannot_be_kept_keeps_the_line_out(
    stdin: Stdin, reader: int, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    await stdin.write(1, b"one\n")
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            await stdin.write(2, b"two\n")
    assert entered(directory, 2) is Entered.NEVER
    await stdin.write(2, b"again\n")
    assert _read(reader) == b"one\nagain\n"


def test_a_record_that_makes_no_sense(directory: Path) -> None:
    (directory / "sent").write_bytes(b"what?\n")
    with pytest.raises(ValueError, match="no sense"):
        progress(directory)
    assert entered(directory, 1) is Entered.UNCERTAIN


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from daemon.supervision.stdin import Stdin
directory, point, size, loop = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
calls = []
def killing(name, real):
    def call(*arguments):
        calls.append(name)
        at = f"{name} {calls.count(name)}"
        if point == f"before {at}":
            os.kill(os.getpid(), signal.SIGKILL)
        done = real(*arguments)
        if point == f"after {at}":
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    return call
async def main():
    stdin = Stdin(directory)
    await stdin.write(1, sys.argv[5].encode())
    os.write, os.pwrite = killing("write", os.write), killing("pwrite", os.pwrite)
    writing = asyncio.ensure_future(stdin.write(2, b"z" * (size - 1) + b"\\n"))
    await asyncio.wait({writing}, timeout=0.2)
    os.kill(os.getpid(), signal.SIGKILL)
if loop == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


KILLS: list[tuple[str, int, Entered, int | None]] = [
    ("before pwrite 1", 10, Entered.NEVER, 0),
    ("after pwrite 1", 10, Entered.UNCERTAIN, 0),
    ("before write 1", 10, Entered.UNCERTAIN, 0),
    ("after write 1", 10, Entered.UNCERTAIN, 10),
    ("before pwrite 2", 10, Entered.UNCERTAIN, 10),
    ("after pwrite 2", 10, Entered.WHOLE, 10),
    ("never", 10, Entered.WHOLE, 10),
    ("never", MIB - 6, Entered.WHOLE, MIB - 6),
    ("after write 1", 2 * MIB, Entered.UNCERTAIN, None),
    ("never", 2 * MIB, Entered.UNCERTAIN, None),
]


@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: f"{kill[0]}, {kill[1]}")
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_after_a_kill(directory: Path, reader: int, kill: tuple[str, int, Entered, int | None], loop: str) -> None:
    point, size, told, really = kill
    _run_killed(directory, point, size, loop)
    there = len(_read(reader)) - len(b"first\n")
    if really is None:
        assert 0 < there < size
    else:
        assert there == really
    assert entered(directory, 2) is told


def test_after_a_kill_while_the_fifo_was_full(directory: Path, reader: int) -> None:
    filling = os.open(directory / "stdin", os.O_WRONLY | os.O_NONBLOCK)
    fcntl.fcntl(filling, fcntl.F_SETPIPE_SZ, MIB)
    os.write(filling, b"x" * MIB)
    _run_killed(directory, "never", 10, "uvloop", first=None)
    os.close(filling)
    assert progress(directory) == Progress(2, 0, 10)
    assert entered(directory, 2) is Entered.NEVER
    assert len(_read(reader)) == MIB


def _run_killed(directory: Path, point: str, size: int, loop: str, first: str | None = "first\n") -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(directory), point, str(size), loop, first or ""],
        cwd=REPOSITORY,
        env=untraced(),
        timeout=20,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


def test_a_command_reads_a_long_line_whole(directory: Path) -> None:
    script = "import sys; line = sys.stdin.readline(); print(len(line), line[:3], line[-4:-1])"
    keeper = os.open(directory / "stdin", os.O_RDWR)
    child_end = os.open(directory / "stdin", os.O_RDONLY)
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", script], stdin=child_end, stdout=subprocess.PIPE) as child:
        os.close(child_end)
        try:
            asyncio.run(_one_line(directory, b"abc" + b"-" * (3 * MIB - 7) + b"xyz\n"))
            out, _ = child.communicate(timeout=10)
        finally:
            child.kill()
            os.close(keeper)
    assert out.split() == [str(3 * MIB).encode(), b"abc", b"xyz"]


async def _one_line(directory: Path, line: bytes) -> None:
    with contextlib.closing(Stdin(directory)) as stdin:
        await asyncio.wait_for(stdin.write(1, line), 10)

"""The watcher tells of every change, once for many, on both event loops, with inotify and without."""

import asyncio
import errno
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.supervision import watch
from daemon.supervision.watch import Watcher
from tests.support.daemon_process import wait_for

pytestmark = pytest.mark.anyio

LINUX = sys.platform == "linux"
ONLY_INOTIFY = pytest.mark.skipif(not LINUX, reason="inotify is Linux's")
FLOOD = """
import os, sys, time
end = time.monotonic() + 1
while time.monotonic() < end:
    for _ in range(100):
        os.write(1, b"x" * 80 + b"\\n")
"""


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both event loops that the daemon may run on."""
    return "asyncio", {"use_uvloop": request.param}


ON_UVLOOP = pytest.mark.parametrize("anyio_backend", [True], indirect=True, ids=["uvloop"])


def refused(*_: Any) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.fixture(params=["inotify", "polled"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How changes are found."""
    if request.param == "polled":
        monkeypatch.setattr(watch, "_Inotify", refused)
    elif not LINUX:
        pytest.skip("inotify is Linux's")
    return str(request.param)


@pytest.fixture
async def started(anyio_backend: Any) -> AsyncIterator[Watcher]:
    watcher = Watcher()
    await watcher.start()
    yield watcher
    await watcher.close()


@pytest.fixture
async def watcher(mode: str, anyio_backend: Any) -> AsyncIterator[Watcher]:
    made = Watcher()
    await made.start()
    yield made
    await made.close()


class Told:
    """How often each name was told."""

    def __init__(self) -> None:
        self.names = Counter[str]()

    def __call__(self, name: str) -> None:
        self.names[name] += 1

    def __getitem__(self, name: str) -> int:
        return self.names[name]

    def __len__(self) -> int:
        return len(self.names)


async def until(fact: Callable[[], Any], seconds: float = 10) -> None:
    """Wait for a fact while the event loop runs."""
    await asyncio.to_thread(wait_for, fact, seconds)


async def passing(seconds: float) -> None:
    """Let the event loop run."""
    end = time.monotonic() + seconds
    await until(lambda: time.monotonic() > end)


def appended(path: Path, data: bytes = b"line\n") -> None:
    with path.open("ab", buffering=0) as file:
        file.write(data)


def make(directory: Path) -> Path:
    directory.mkdir()
    for name in ("stdout", "stderr"):
        (directory / name).touch()
    return directory


async def test_what_another_process_writes_is_told_by_name(watcher: Watcher, tmp_path: Path) -> None:
    told = Told()
    directory = make(tmp_path / "s1")
    watcher.watch(directory, told)
    with (directory / "stderr").open("ab") as stderr:
        child = subprocess.Popen(["/bin/sh", "-c", "echo one; read -r _; echo two"], stdin=-1, stdout=stderr)
        await until(lambda: told["stderr"] == 1)
        child.communicate(b"\n")
        await until(lambda: told["stderr"] == 2)
    assert set(told.names) == {"stderr"}


async def test_a_file_that_appears_is_told(watcher: Watcher, tmp_path: Path) -> None:
    told = Told()
    watcher.watch(tmp_path, told)
    (tmp_path.parent / "elsewhere").write_bytes(b"1")
    (tmp_path.parent / "elsewhere").rename(tmp_path / "status")
    (tmp_path / "empty").touch()
    await until(lambda: told["status"] and told["empty"])


async def test_many_writes_between_two_turns_are_one_call(watcher: Watcher, tmp_path: Path) -> None:
    told = Told()
    directory = make(tmp_path / "s1")
    watcher.watch(directory, told)
    for _ in range(200):
        appended(directory / "stdout")
        appended(directory / "stderr")
    await until(lambda: len(told) == 2)
    await passing(0.1)
    assert told.names == {"stdout": 1, "stderr": 1}


async def test_every_callback_of_a_directory_is_called_and_one_that_fails_harms_none(
    watcher: Watcher, tmp_path: Path
) -> None:
    def fail(name: str) -> None:
        raise KeyError(name)

    failures = list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
    one, other = Told(), Told()
    watcher.watch(tmp_path, one)
    watcher.watch(tmp_path, fail)
    watcher.watch(tmp_path, other)
    appended(tmp_path / "stdout")
    await until(lambda: one and other)
    assert [type(failure) for failure in failures] == [KeyError] * one["stdout"]


async def test_after_unwatch_nothing_is_told(watcher: Watcher, tmp_path: Path) -> None:
    directories = [make(tmp_path / f"s{number}") for number in range(3)]
    kept, dropped = Told(), Told()
    watcher.watch(directories[0], kept)
    for directory in directories:
        watcher.watch(directory, dropped)
    for directory in directories:
        appended(directory / "stdout")  # the kernel has news of what is not watched any more when it is read
        watcher.unwatch(directory, dropped)
        watcher.unwatch(directory, dropped)
    watcher.unwatch(tmp_path, dropped)
    await until(lambda: kept["stdout"])
    assert not dropped
    watcher.watch(directories[1], dropped)
    appended(directories[1] / "stderr")
    await until(lambda: dropped["stderr"])


async def test_a_callback_may_unwatch(watcher: Watcher, tmp_path: Path) -> None:
    told, other = Told(), Told()

    def once(name: str) -> None:
        told(name)
        watcher.unwatch(tmp_path, once)
        watcher.unwatch(tmp_path, other)

    watcher.watch(tmp_path, once)
    watcher.watch(tmp_path, other)
    appended(tmp_path / "stdout")
    await until(lambda: told)
    appended(tmp_path / "stdout")
    await passing(0.1)
    assert (told.names.total(), len(other)) == (1, 0)


async def test_after_close_nothing_is_told_and_the_watcher_can_start_again(watcher: Watcher, tmp_path: Path) -> None:
    told = Told()
    watcher.watch(tmp_path, told)
    appended(tmp_path / "stdout")
    await watcher.close()
    appended(tmp_path / "stdout")
    await passing(0.1)
    assert not told
    await watcher.start()
    watcher.watch(tmp_path, told)
    appended(tmp_path / "stdout")
    await until(lambda: told)


async def test_a_removed_directory_is_no_trouble(watcher: Watcher, tmp_path: Path) -> None:
    told = Told()
    directory = make(tmp_path / "s1")
    watcher.watch(directory, told)
    watcher.watch(tmp_path, other := Told())
    for name in ("stdout", "stderr"):
        (directory / name).unlink()
    directory.rmdir()
    appended(tmp_path / "beside")
    await until(lambda: other["beside"])
    watcher.unwatch(directory, told)


async def test_a_directory_that_is_missing_or_watched_by_another_path_is_polled(
    started: Watcher, tmp_path: Path
) -> None:
    told = [Told() for _ in range(3)]
    directory = make(tmp_path / "s1")
    started.watch(directory, told[0])
    started.watch(tmp_path / "." / ".." / tmp_path.name / "s1", told[1])
    started.watch(tmp_path / "s2", told[2])
    make(tmp_path / "s2")
    assert started.polled == (2 if LINUX else 3)
    appended(directory / "stdout")
    appended(tmp_path / "s2" / "stdout")
    await until(lambda: all(one["stdout"] for one in told))


@ONLY_INOTIFY
@ON_UVLOOP
async def test_where_the_kernel_takes_no_more_watches_the_rest_is_polled(
    started: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directories = [make(tmp_path / f"s{number}") for number in range(3)]
    told = [Told() for _ in directories]
    started.watch(directories[0], told[0])
    with monkeypatch.context() as patch:
        patch.setattr(watch, "_result", refused)
        started.watch(directories[1], told[1])
    started.watch(directories[2], told[2])
    assert started.polled == 1
    for directory in directories:
        appended(directory / "stdout")
    await until(lambda: all(one["stdout"] for one in told))
    started.unwatch(directories[1], told[1])
    assert started.polled == 0


@ONLY_INOTIFY
async def test_when_the_kernel_has_dropped_events_everybody_is_told(started: Watcher, tmp_path: Path) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 100_000:
        pytest.skip("the queue is too long to be filled")
    loud, quiet = make(tmp_path / "loud"), make(tmp_path / "quiet")
    told, late = Told(), Told()
    started.watch(loud, told)
    started.watch(quiet, late)
    with (loud / "stdout").open("ab", buffering=0) as out, (loud / "stderr").open("ab", buffering=0) as err:
        for _ in range(most // 2 + 10):
            out.write(b"\n")
            err.write(b"\n")
    appended(quiet / "stdout")
    await until(lambda: late["stdout"])
    assert told["stdout"] < most / 100


@ON_UVLOOP
async def test_polling_slows_down_in_silence_and_not_while_files_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Counter[Path]()
    files = watch._files

    def counted(directory: Path) -> dict[str, Any]:
        looks[directory] += 1
        return files(directory)

    monkeypatch.setattr(watch, "_Inotify", refused)
    monkeypatch.setattr(watch, "_files", counted)
    monkeypatch.setattr(watch, "_BUSY_SECONDS", 0.2)
    watcher = Watcher()
    await watcher.start()
    told, (busy, idle) = Told(), (make(tmp_path / "busy"), make(tmp_path / "idle"))
    watcher.watch(busy, told)
    watcher.watch(idle, Told())
    while looks[busy] < 30:
        before = looks[busy]
        appended(busy / "stdout")
        await until(lambda before=before: looks[busy] > before)  # type: ignore[misc]
    assert told["stdout"] >= 25
    assert looks[idle] <= 12  # in 1.5 s: 4 looks until it is slower, then at 75, 112, 168, 253, 380, 500, 500 ms
    await watcher.close()


@ONLY_INOTIFY
@ON_UVLOOP
async def test_a_hundred_silent_directories_wake_nobody(started: Watcher, tmp_path: Path) -> None:
    told = Told()
    for number in range(100):
        started.watch(make(tmp_path / f"s{number}"), told)
    assert started.polled == 0
    waited = asyncio.Event()
    asyncio.get_running_loop().call_later(0.5, waited.set)
    slept = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    await waited.wait()
    # Not processor time: what a virtual machine charges for one wake-up varies a hundredfold.
    assert resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - slept <= 3
    assert not told


@ONLY_INOTIFY
@ON_UVLOOP
async def test_two_processes_that_print_without_a_pause_leave_the_loop_alone(started: Watcher, tmp_path: Path) -> None:
    told, children = Told(), list[subprocess.Popen[bytes]]()
    for number in range(2):
        directory = make(tmp_path / f"s{number}")
        started.watch(directory, told)
        with (directory / "stdout").open("ab") as out:
            children.append(subprocess.Popen([sys.executable, "-ISc", FLOOD], stdout=out))
    await until(lambda: told)
    began, cpu = time.monotonic(), time.thread_time()
    await asyncio.to_thread(lambda: [child.wait(20) for child in children])
    seconds, spent = time.monotonic() - began, time.thread_time() - cpu
    writes = sum((tmp_path / f"s{number}" / "stdout").stat().st_size for number in range(2)) // 81
    print(f"\n{writes / seconds:.0f} writes/s: {spent / seconds:.1%} of the loop's time, {told.names.total()} calls")
    assert told.names.total() <= 2 * 2 * (seconds / watch.GATHER_SECONDS + 10)
    assert spent / seconds < 0.5

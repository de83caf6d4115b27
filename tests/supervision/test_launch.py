"""A command under its wrapper: what it gets, what it outlives, and how its end is known; every process is real."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil  # type: ignore[import-untyped]
import pytest

from daemon.supervision import launch
from daemon.supervision.launch import Launch, LaunchError, Started, prepare, spawn, wait_exit
from daemon.supervision.stdin import Stdin
from daemon.supervision.wrapper import ExitStatus, exit_status, forget_run, found, release
from tests.support.daemon_process import REPOSITORY, untraced, wait_for

PYTHON = (sys.executable, "-I", "-S", "-c")
ECHO = (
    "import sys\nfor line in sys.stdin: print('heard', line, end='', flush=True)\nprint('eof', flush=True)\nsys.exit(7)"
)
MARK = "DAEMON_PROCESS_MARK"


class World:
    """A session's directory; every process that is started for it can be found by its mark."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.directory = root / "processes" / "session"
        self.mark = uuid.uuid4().hex
        self.wrappers: list[int] = []

    def launch(self, *argv: str, run: int = 1, env: dict[str, str] | None = None, **more: Any) -> Launch:
        environment = {MARK: self.mark, "PATH": "/usr/bin:/bin", **(env or {})}
        given: dict[str, Any] = {"working_dir": str(self.root), "umask": 0o027, **more}
        return Launch(self.directory, run, list(argv), environment, **given)

    async def start(self, *argv: str, **more: Any) -> Started:
        started = await spawn(self.launch(*argv, **more))
        self.wrappers.append(started.wrapper)
        return started

    async def end(self, started: Started, run: int = 1) -> ExitStatus | None:
        await asyncio.wait_for(wait_exit(started.wrapper), 10)
        assert not self.alive()
        return exit_status(self.directory, run)

    async def said(self, *argv: str, **more: Any) -> str:
        """What a command prints that ends by itself."""
        assert await self.end(await self.start(*argv, **more)) == (0, None)
        return self.out

    @property
    def out(self) -> str:
        return (self.directory / "stdout").read_text()

    def alive(self) -> set[int]:
        return {process.pid for process in psutil.process_iter() if self._marked(process)}

    def _marked(self, process: psutil.Process) -> bool:
        try:
            return bool(process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == self.mark)
        except psutil.Error:
            return False

    def close(self) -> None:
        while alive := self.alive():
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for pid in self.wrappers:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


@pytest.fixture(params=["dash-uvloop", "bash-asyncio"])
def kind(request: pytest.FixtureRequest) -> str:
    """A shell, and one of the loops that the daemon may run on; neither has to do with the other."""
    return str(request.param)


@pytest.fixture
def anyio_backend(kind: str) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": kind.endswith("uvloop")}


@pytest.fixture(autouse=True)
def shell(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is called sh."""
    real = Path("/bin") / kind.partition("-")[0]
    if not real.exists():
        pytest.skip(f"there is no {real}")
    link = tmp_path / "sh"
    link.symlink_to(real)
    monkeypatch.setattr(launch, "SHELL", str(link))
    return link


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def without_setsid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_SETSID_PATH", "/nonexistent")


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", (0, None)),
        ("exit 3", (3, None)),
        ("exit 128", (128, None)),
        ("kill -9 $$", (None, 9)),
        ("kill -15 $$", (None, 15)),
        ("kill -2 $$", (None, 2)),
        ("kill -64 $$", (None, 64)),
        ("exit 255", (255, None)),
    ],
)
async def test_exit_status(world: World, script: str, status: tuple[Any, Any]) -> None:
    started = await world.start("sh", "-c", script)
    assert await world.end(started) == status
    assert found(world.directory, 1) == tuple(started)
    assert found(world.directory, 2) is None
    assert exit_status(world.directory, 2) is None
    forget_run(world.directory)
    assert found(world.directory, 1) is None


async def test_a_command_that_cannot_become_one_is_127(world: World) -> None:
    bad = world.root / "bad"
    bad.write_text("#!/no/such/interpreter\n")
    bad.chmod(0o700)
    assert await world.end(await world.start("./bad")) == (127, None)
    assert "bad" in (world.directory / "stderr").read_text()


async def test_no_signal_is_ignored_or_blocked(world: World) -> None:
    ignored = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGINT)}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
    try:
        started = await world.start(
            *PYTHON, "import signal; print(signal.getsignal(2)); print(*open('/proc/self/status'))"
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, handler in ignored.items():
            signal.signal(number, handler)
    assert await world.end(started) == (0, None)
    assert "default_int_handler" in world.out
    words = world.out.split()
    of_python = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    of_glibc = 1 << (32 - 1) | 1 << (
        33 - 1
    )  # its posix_spawn has its own two ignored, and it sets them when it needs them
    assert int(words[words.index("SigIgn:") + 1], 16) & ~of_glibc == of_python
    assert int(words[words.index("SigBlk:") + 1], 16) == 0


async def test_no_descriptor_is_inherited(world: World) -> None:
    left = [os.open("/dev/zero", os.O_RDONLY) for _ in range(12)]
    for fd in left:
        os.set_inheritable(fd, True)
    try:
        started = await world.start("sh", "-c", "ls -l /proc/self/fd; read x")
    finally:
        for fd in left:
            os.close(fd)
    text = wait_for(lambda: world.out.count("->") == 4 and world.out)
    assert [line.split()[-3] for line in text.splitlines() if "->" in line] == ["0", "1", "2", "3"]
    for name in ("stdin", "stdout", "stderr"):
        assert str(world.directory / name) in text
    fifos = {str(world.directory / name) for name in ("release", "stdin")}
    wait_for(lambda: _descriptors(started.keeper) == {"/dev/null", *fifos})
    assert _descriptors(started.wrapper) == {"/dev/null", str(world.directory / "release")}
    release(world.directory)
    assert await world.end(started) == (1, None)


def _descriptors(pid: int | None) -> set[str]:
    return {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}


@pytest.mark.parametrize(
    "more",
    [
        {"A": "a b\n'\"$x", "HOME": "/h", "TOKEN": "é"},
        {"PWD": "/p", "OLDPWD": "/o", "SHLVL": "7", "_": "u"},
        {"IFS": "x", "PS1": "y", "OPTIND": "4", "PPID": "5", "SHELLOPTS": "noexec", "ENV": "/e", "UID": "1"},
    ],
)
async def test_the_environment_is_what_was_given(world: World, more: dict[str, str]) -> None:
    text = await world.said("/usr/bin/env", "-0", env={**more, "A.B": "no name", "BASH_FUNC_echo%%": "() { exit 9; }"})
    entries = dict(entry.split("=", 1) for entry in text.split("\0") if entry)
    assert entries == {MARK: world.mark, "PATH": "/usr/bin:/bin", **more}


async def test_place_umask_and_session(world: World) -> None:
    place = world.root / "a b=c"
    place.mkdir()
    script = "import os, json; print(json.dumps([os.getcwd(), os.umask(0), os.getpid(), os.getsid(0), os.getpgrp()]))"
    started = await world.start(*PYTHON, script, working_dir=str(place), umask=0o137)
    assert await world.end(started) == (0, None)
    assert json.loads(world.out) == [str(place), 0o137, started.child, started.child, started.child]


async def test_arguments_arrive_as_they_are(world: World) -> None:
    words = ["", "a b", "*", "$HOME", "`id`", "'\"", "new\nline", "-n", "é", "x" * 100_000]
    text = await world.said(*PYTHON, "import sys, json; print(json.dumps(sys.argv[1:]))", *words)
    assert json.loads(text) == words


async def test_a_command_with_an_equals_sign_in_its_path(world: World) -> None:
    command = world.root / "a=b"
    command.write_text("#!/bin/sh\necho here\n")
    command.chmod(0o700)
    assert await world.said("./a=b") == "here\n"


async def test_everything_is_private(world: World) -> None:
    await world.said("true")
    assert world.directory.stat().st_mode & 0o777 == 0o700
    files = {path.name: path.lstat().st_mode & 0o777 for path in world.directory.iterdir()}
    names = ("stdin", "release", "started", "stdout", "stderr", "wrapper", "keeper", "child", "exit")
    assert files == dict.fromkeys(names, 0o600)


async def test_output_is_kept_over_runs(world: World) -> None:
    for run in (1, 2, 3):
        assert await world.end(await world.start("echo", str(run), run=run), run) == (0, None)
    assert world.out == "1\n2\n3\n"


@pytest.mark.parametrize("number", [2, 15])
async def test_kill_0_by_the_command_leaves_the_wrapper(world: World, number: int) -> None:
    assert await world.end(await world.start("sh", "-c", f"kill -{number} 0; read x")) == (None, number)


@pytest.mark.parametrize("number", [1, 2, 3, 10, 13, 15])
@pytest.mark.usefixtures("without_setsid")
async def test_kill_0_without_setsid(world: World, number: int) -> None:
    started = await world.start("sh", "-c", f"kill -{number} 0; read x")
    assert await world.end(started) == (None, number)


async def test_signals_to_wrapper_and_keeper_change_nothing(world: World) -> None:
    started = await world.start(*PYTHON, ECHO)
    assert started.keeper is not None
    for number in (1, 2, 3, 10, 12, 13, 14, 15, 20, 21, 22, 24, 25, 26, 27):
        for pid in (started.wrapper, started.keeper):
            os.kill(pid, number)
    _say(world, b"still there\n")
    wait_for(lambda: "still there" in world.out)
    release(world.directory)
    assert await world.end(started) == (7, None)
    assert world.out.endswith("eof\n")


def _say(world: World, line: bytes) -> None:
    fd = os.open(world.directory / "stdin", os.O_WRONLY | os.O_NONBLOCK)
    os.write(fd, line)
    os.close(fd)


async def test_stopped_is_not_ended(world: World) -> None:
    started = await world.start(*PYTHON, ECHO)
    os.kill(started.child, signal.SIGSTOP)
    wait_for(lambda: psutil.Process(started.child).status() == psutil.STATUS_STOPPED)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wait_exit(started.wrapper), 0.1)
    assert exit_status(world.directory, 1) is None
    os.kill(started.child, signal.SIGCONT)
    assert release(world.directory)
    assert await world.end(started) == (7, None)


async def test_release_lets_the_command_see_the_end(world: World) -> None:
    started = await world.start(*PYTHON, ECHO)
    assert world.alive() == set(started)
    with contextlib.closing(Stdin(world.directory)) as stdin:
        await stdin.write(1, b"one\n")
        assert release(world.directory)
        wait_for(lambda: started.keeper not in world.alive())
        await stdin.write(2, b"two\n")
        wait_for(lambda: world.out == "heard one\nheard two\n")
    assert await world.end(started) == (7, None)
    assert world.out.endswith("eof\n")
    assert not release(world.directory)


async def test_wait_exit_of_a_process_that_is_no_child(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for run in (1, 2):
        started = await world.start(*PYTHON, ECHO, run=run)
        waiting = asyncio.create_task(wait_exit(started.child))
        await asyncio.wait({waiting}, timeout=0.05)
        assert not waiting.done()
        await asyncio.wait_for(wait_exit(started.child, lambda: False), 5)
        os.kill(started.child, signal.SIGKILL)
        await asyncio.wait_for(waiting, 5)
        assert await world.end(started, run) == (None, 9)
        await asyncio.wait_for(wait_exit(started.wrapper), 5)
        monkeypatch.setattr(launch, "_pidfd", lambda _pid: None)


async def test_the_command_outlives_a_killed_wrapper(world: World) -> None:
    started = await world.start(*PYTHON, ECHO)
    os.kill(started.wrapper, signal.SIGKILL)
    await wait_exit(started.wrapper)
    _say(world, b"orphan\n")
    wait_for(lambda: "orphan" in world.out)
    assert release(world.directory)
    await asyncio.wait_for(wait_exit(started.child), 10)
    wait_for(lambda: not world.alive())
    assert world.out.endswith("eof\n")
    assert exit_status(world.directory, 1) is None


SPAWNER = """
import asyncio, sys, time
import msgspec
from daemon.supervision import launch
async def main():
    launch.SHELL = sys.argv[1]
    given = msgspec.json.decode(sys.argv[2], type=launch.Launch, dec_hook=lambda kind, text: kind(text))
    print(*await launch.spawn(given), flush=True)
asyncio.run(main())
time.sleep(60)
"""


async def test_the_command_outlives_its_killed_spawner(world: World, shell: Path) -> None:
    given = msgspec.json.encode(world.launch(*PYTHON, ECHO), enc_hook=str).decode()
    spawner = subprocess.Popen(
        [sys.executable, "-c", SPAWNER, str(shell), given],
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
        env={**untraced(), MARK: world.mark},
        start_new_session=True,
    )
    assert spawner.stdout is not None
    pids = [int(word) for word in spawner.stdout.readline().split()]
    spawner.kill()
    spawner.communicate(timeout=10)
    assert found(world.directory, 1) == tuple(pids)
    with contextlib.closing(Stdin(world.directory)) as stdin:
        await stdin.write(1, b"hello\n")
        wait_for(lambda: world.out == "heard hello\n")
    _say(world, b"again\n")  # the last writer left: that is no end, as the keeper is there
    wait_for(lambda: "again" in world.out)
    assert "eof" not in world.out
    release(world.directory)
    for pid in pids:
        await asyncio.wait_for(wait_exit(pid), 10)
    wait_for(lambda: not world.alive())
    assert exit_status(world.directory, 1) == (7, None)


async def test_a_new_run_knows_nothing_of_the_last(world: World) -> None:
    held = "import os, sys; os.fork() or os.read(3, 1)\n"  # a grandchild that keeps stdin open
    first = await world.start("sh", "-c", f"exec 3<&0; {sys.executable} -I -S -c '{held}' & exit 0")
    _say(world, b"left over\n")
    await asyncio.wait_for(wait_exit(first.wrapper), 10)
    second = await world.start(*PYTHON, ECHO, run=2)
    release(world.directory)
    await asyncio.wait_for(wait_exit(second.wrapper), 10)
    assert exit_status(world.directory, 2) == (7, None)
    assert world.out == "eof\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"argv": ["no-such-command"]}, "no-such-command cannot be found"),
        ({"argv": ["./nothing"]}, "nothing cannot be found"),
        ({"argv": ["/etc/passwd"]}, "passwd cannot be found"),
        ({"argv": ["sleep", "9"], "environment": {"PATH": "/nonexistent"}}, "sleep cannot be found"),
        ({"working_dir": "/nonexistent"}, "/nonexistent cannot be entered"),
        ({"working_dir": "."}, "cannot be entered"),
        ({"argv": ["true", "\0"]}, "cannot be begun"),
        ({"argv": ["true", "x" * 200_000]}, "cannot be begun"),
    ],
)
async def test_what_cannot_be_started(world: World, change: dict[str, Any], message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        await spawn(msgspec.structs.replace(world.launch("true"), **change))
    assert not world.alive()


@pytest.mark.parametrize("name", ["", "stdin", "release", "stdout", "stderr"])
async def test_links_are_refused(world: World, name: str) -> None:
    (world.root / "elsewhere").mkdir()
    world.directory.parent.mkdir()
    if name:
        world.directory.mkdir()
    (world.directory / name).symlink_to(world.root / "elsewhere")
    with pytest.raises(LaunchError, match="something else has its name"):
        prepare(world.directory)


async def test_what_was_too_open_is_private_again(world: World) -> None:
    prepare(world.directory)
    for path in (world.directory, *world.directory.iterdir()):
        path.chmod(0o777)
    prepare(world.directory)
    assert {path.stat().st_mode & 0o777 for path in world.directory.iterdir()} == {0o600}


async def test_a_wrapper_that_fails_is_told_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "SHELL", "/bin/false")
    with pytest.raises(LaunchError, match="ended before it began"):
        await asyncio.wait_for(spawn(world.launch("true")), 5)


@pytest.mark.parametrize("name", ["wrapper", "child"])
async def test_what_could_not_be_found_again_is_not_started(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    prepare(world.directory)
    monkeypatch.setattr(launch, "forget_run", lambda _directory: None)
    (world.directory / name).symlink_to("/dev/full")
    with pytest.raises(LaunchError, match="ended before it began"):
        await asyncio.wait_for(spawn(world.launch("touch", "ran")), 5)
    wait_for(lambda: not world.alive())
    assert not (world.root / "ran").exists()


@pytest.mark.parametrize("within", [0.05, 0.3])
@pytest.mark.parametrize("cancelled", [False, True])
async def test_what_is_too_slow_never_runs(
    world: World, shell: Path, monkeypatch: pytest.MonkeyPatch, within: float, cancelled: bool
) -> None:
    slow = world.root / "slow"  # with 0.3 s the inner shell is overtaken: it has a session of its own by then
    slow.write_text(f'#!/bin/sh\nsleep 0.2\nexec {shell} "$@"\n')
    slow.chmod(0o700)
    monkeypatch.setattr(launch, "SHELL", str(slow))
    monkeypatch.setattr(launch, "STARTED_WITHIN", 10 if cancelled else within)
    spawning = asyncio.create_task(spawn(world.launch("touch", "ran")))
    await asyncio.wait({spawning}, timeout=within if cancelled else 5)
    spawning.cancel()
    with pytest.raises(asyncio.CancelledError if cancelled else LaunchError):
        await spawning
    while launch._reaping:
        await asyncio.gather(*launch._reaping)
    wait_for(lambda: not world.alive())
    assert not (world.root / "ran").exists()


async def test_the_command_is_in_its_cgroup(world: World) -> None:
    group = world.root / "group"
    group.mkdir()
    assert await world.said("echo", "in", cgroup=group) == "in\n"
    assert (group / "cgroup.procs").read_text() == "0\n"
    assert await world.said("echo", "out", cgroup=world.root / "nowhere") == "in\nout\n"


async def test_the_wrapper_is_in_the_scope_before_it_begins_anything(world: World) -> None:
    scope = world.root / "scope"
    scope.mkdir()
    shown = 'test -e "$0" && echo entered'  # a file stands for the group's: it shows what was written to it
    assert await world.said("sh", "-c", shown, str(scope / "cgroup.procs"), scope=scope) == "entered\n"
    assert (scope / "cgroup.procs").read_text() == "0\n"
    assert await world.said("echo", "out", scope=world.root / "nowhere") == "entered\nout\n"

"""Starts an agent's command so that it outlives the daemon, and finds again what an earlier daemon has started."""

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from daemon.supervision.wrapper import arguments, begin, exit_status, forget_run, read_number, release, shielded

SHELL = "/bin/sh"
STARTED_WITHIN = 10.0
"""How long a command may take to be executed, in seconds."""

_FIFOS = ("stdin", "release", "started")
_OUTPUTS = ("stdout", "stderr")
_POLL_EVERY = 0.05
_SETSID_PATH = "/usr/bin:/bin:/usr/local/bin:/opt/homebrew/bin:/opt/homebrew/opt/util-linux/bin"

_reaping: set[asyncio.Task[None]] = set()


class LaunchError(Exception):
    """A command could not be started, and nothing of it runs; the text is one sentence for the owner."""


class Launch(msgspec.Struct, frozen=True):
    """What to start.

    Args:
        directory: the session's own directory for what its command says and is told; absolute.
        run: which run of the session it is; names the run's small files.
        argv: the command; its first word is looked up in the PATH of `environment`.
        environment: all of the command's environment, with the mark by which its processes are recognised.
        working_dir: where it begins; absolute.
        umask: its umask.
        cgroup: directory of the cgroup that it enters if it can.
        scope: likewise, of its wrapper.
    """

    directory: Path
    run: int
    argv: list[str]
    environment: dict[str, str]
    working_dir: str
    umask: int
    cgroup: Path | None = None
    scope: Path | None = None


class Started(NamedTuple):
    """The pids of a run whose command has been executed."""

    wrapper: int
    keeper: int | None
    child: int


def prepare(directory: Path) -> None:
    """Make a session's directory and what belongs in it, private; what is there and right stays as it is.

    Raises:
        LaunchError: it cannot be made, or something else has one of its names.
    """
    try:
        for path in (directory.parent, directory):
            path.mkdir(mode=0o700, exist_ok=True)
        _own(directory, stat.S_ISDIR, 0o700)
        for name in _FIFOS:
            _fifo(directory / name)
        for name in _OUTPUTS:
            _output(directory / name)
    except OSError as error:
        raise LaunchError(f"{error.filename or directory} cannot be used: {error.strerror}") from None


async def spawn(launch: Launch) -> Started:
    """Start a command under its wrapper and return once it is executed, with `stdin` ready to be written.

    The directory is prepared, with FIFOs that no earlier run knows, and what such a run wrote down is forgotten: the
    caller has seen that none is alive. If this is cancelled, what it began is ended.

    Raises:
        LaunchError: the command cannot be found or begun, or does not begin in time.
    """
    command = await asyncio.to_thread(_made_ready, launch)
    with contextlib.closing(_Ear(launch.directory / "started")) as ear:
        wrapper = _begin(launch, command)
        try:
            child = await _told(ear, wrapper)
        except BaseException:
            _abandon(launch.directory, launch.run, wrapper)
            raise
    return Started(wrapper, read_number(launch.directory, "keeper", launch.run), child)


async def wait_exit(pid: int, same: Callable[[], bool] = lambda: True) -> None:
    """Return when a process has ended, whoever's child it is; reap it if it is ours.

    Args:
        pid: its pid.
        same: tells whether the pid still is that process, asked once the kernel holds on to it.
    """
    fd = _pidfd(pid)
    if fd is None:
        await _polled(pid, same)
        return
    try:
        if same():
            await _readable(fd)
        _reaped(pid)  # also one that ended before it could be told from others
    finally:
        os.close(fd)


def _pidfd(pid: int) -> int | None:
    """Return a descriptor that is readable when the process has ended; None where the kernel gives none."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return os.pidfd_open(pid)
    return None


async def _polled(pid: int, same: Callable[[], bool]) -> None:
    with contextlib.suppress(ProcessLookupError):
        while not _reaped(pid) and same():
            with contextlib.suppress(PermissionError):
                os.kill(pid, 0)
            await asyncio.sleep(_POLL_EVERY)


def _reaped(pid: int) -> bool:
    """Return whether this was a child of ours that had ended; now it is gone."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False


async def _readable(*fds: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    for fd in fds:
        loop.add_reader(fd, _settle, ready)
    try:
        await ready
    finally:
        for fd in fds:
            loop.remove_reader(fd)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _made_ready(launch: Launch) -> list[str]:
    command = [_executable(launch), *launch.argv[1:]]
    prepare(launch.directory)
    try:
        forget_run(launch.directory)
        for name in _FIFOS:
            # What a process of an earlier run still holds open is not to be read by this one, nor the other way round.
            (launch.directory / name).unlink()
            _fifo(launch.directory / name)
    except OSError as error:
        raise LaunchError(f"{error.filename or launch.directory} cannot be used: {error.strerror}") from None
    return command


def _executable(launch: Launch) -> str:
    place = Path(launch.working_dir)
    if not (place.is_absolute() and place.is_dir() and os.access(place, os.X_OK)):
        raise LaunchError(f"The working directory {place} cannot be entered")
    name = launch.argv[0]
    entries = launch.environment.get("PATH", os.defpath).split(os.pathsep)
    searched = os.pathsep.join(str(place / entry) for entry in entries)
    path = shutil.which(str(place / name) if "/" in name else name, path=searched)
    if path is None:
        raise LaunchError(f"The command {name} cannot be found, or cannot be executed")
    return path


def _own(path: Path, kind: Callable[[int], bool], mode: int) -> None:
    status = path.lstat()
    if not kind(status.st_mode) or status.st_uid != os.geteuid():
        raise FileExistsError(errno.EEXIST, "something else has its name", str(path))
    if stat.S_IMODE(status.st_mode) != mode:
        path.chmod(mode)


def _fifo(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    _own(path, stat.S_ISFIFO, 0o600)


def _output(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    _own(path, stat.S_ISREG, 0o600)


def _begin(launch: Launch, command: list[str]) -> int:
    environment, behind = shielded(launch.environment, command)
    inner = (f"{launch.umask:04o}", str(launch.cgroup or ""), launch.working_dir)
    setsid = shutil.which("setsid", path=_SETSID_PATH)
    argv = arguments(
        SHELL, str(launch.directory), launch.run, [*inner, *behind], leader=setsid, scope=str(launch.scope or "")
    )
    try:
        return begin(argv, environment)
    except OSError as error:
        reason = error.strerror
    except ValueError as error:
        reason = str(error)
    raise LaunchError(f"The command {launch.argv[0]} cannot be begun: {reason}")


class _Ear:
    """Our end of the FIFO `started`, by which the inner shell tells that it is about to become the command."""

    def __init__(self, path: Path) -> None:
        self._said = b""
        self._held: int | None = None
        self.fd = _opened(path, os.O_RDONLY)
        try:
            # Held until something is told: before there is a writer, some systems see an end that is none.
            self._held = _opened(path, os.O_WRONLY)
        except LaunchError:
            self.close()
            raise

    def hear(self) -> int | None:
        """Return the command's pid if it has been executed by now."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.fd, 64):
                self._said += data
                if self._said.endswith(b"\n"):
                    self._let_go()
            return int(self._said)
        return None

    def _let_go(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def close(self) -> None:
        self._let_go()
        os.close(self.fd)


def _opened(path: Path, mode: int) -> int:
    try:
        return os.open(path, mode | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise LaunchError(f"{path} cannot be opened: {error.strerror}") from None


async def _told(ear: _Ear, wrapper: int) -> int:
    fd = _pidfd(wrapper)
    try:
        async with asyncio.timeout(STARTED_WITHIN):
            while (child := ear.hear()) is None and not _reaped(wrapper):
                await _readable(ear.fd, *(() if fd is None else (fd,)))
    except TimeoutError:
        raise LaunchError(f"The command did not begin within {STARTED_WITHIN:g} seconds") from None
    finally:
        if fd is not None:
            os.close(fd)
    child = child or ear.hear()
    if child is None:
        raise LaunchError("The command ended before it began")
    return child


def _abandon(directory: Path, run: int, wrapper: int) -> None:
    """End what was begun but did not tell, so that nothing of it goes on unseen."""
    with contextlib.suppress(OSError):
        (directory / "started").unlink()  # an inner shell that has not come so far gives up by itself
    release(directory)
    child = read_number(directory, "child", run)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if child is not None and exit_status(directory, run) is None and os.getsid(child) in {child, wrapper}:
            os.kill(child, signal.SIGKILL)
    # A later daemon must not take it for a run that ended: it is begun anew.
    with contextlib.suppress(OSError):
        forget_run(directory)
    if _reaped(wrapper):
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(wrapper, signal.SIGKILL)
    task = asyncio.get_running_loop().create_task(wait_exit(wrapper))
    _reaping.add(task)
    task.add_done_callback(_reaping.discard)

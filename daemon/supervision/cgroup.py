"""A control group (cgroup v2) for each session, where the system lets us make one; everything works without."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc/self")
_CPU_PERIOD_US = 100_000  # the kernel's own default
_ESCAPE = re.compile(r"\\([0-7]{3})")


class Cgroup:
    """A session's group; every process in it, and in groups below it, is the session's.

    Args:
        path: its directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def procs(self) -> Path:
        """The file that a process writes `0` to in order to enter."""
        return self.path / "cgroup.procs"

    def pids(self) -> set[int]:
        """Return the pids of the processes in it, dead ones mostly excepted."""
        return {pid for group in self._groups() for pid in _numbers(group / "cgroup.procs")}

    def freeze(self) -> bool:
        """Let none of its processes run, and none that is forked; return whether it was asked for."""
        return _write(self.path / "cgroup.freeze", "1")

    def thaw(self) -> bool:
        """Let its processes run; return whether it was asked for."""
        return _write(self.path / "cgroup.freeze", "0")

    def is_frozen(self) -> bool:
        """Return whether `freeze` was asked for and not yet `thaw`."""
        return _read(self.path / "cgroup.freeze").strip() == "1"

    def kill(self) -> bool:
        """Send SIGKILL to all of its processes at once; return whether it was done (Linux 5.14)."""
        return _write(self.path / "cgroup.kill", "1")

    def cpu_seconds(self) -> float:
        """Return the processor time of all processes that were ever in it; 0 where it is not counted."""
        found = re.search(r"^usage_usec (\d+)$", _read(self.path / "cpu.stat"), re.MULTILINE)
        return int(found[1]) / 1e6 if found else 0.0

    def limit(
        self, *, processes: int | None = None, memory_bytes: int | None = None, cpus: float | None = None
    ) -> set[str]:
        """Set limits; None leaves one as it is.

        Args:
            processes: at most, threads counted too.
            memory_bytes: at most.
            cpus: processors' worth of time.

        Returns:
            Names of the limits that hold, of these three; others lack their controller here.
        """
        wanted = {
            "processes": ("pids.max", processes),
            "memory_bytes": ("memory.max", memory_bytes),
            "cpus": ("cpu.max", None if cpus is None else f"{round(cpus * _CPU_PERIOD_US)} {_CPU_PERIOD_US}"),
        }
        return {
            name
            for name, (file, value) in wanted.items()
            if value is not None and (self.path / file).exists() and _write(self.path / file, str(value))
        }

    def remove(self) -> bool:
        """Remove it, and groups below it; return whether it is gone, as it cannot be while a process is in it."""
        for group in reversed(list(self._groups())):
            with contextlib.suppress(OSError):
                group.rmdir()
        return not self.path.exists()

    def _groups(self) -> Iterator[Path]:
        """Yield its directory, then those below it."""
        yield self.path
        if not re.search(r"^nr_descendants 0$", _read(self.path / "cgroup.stat"), re.MULTILINE):
            yield from (Path(at) / name for at, names, _ in os.walk(self.path) for name in names)


def make(session_id: str, below: Path | None = None) -> Cgroup | None:
    """Make a session's group, or return the one that is there.

    Args:
        session_id: whose it is.
        below: the directory of the group that it is made in; None: our own.

    Returns:
        The group; None where there can be none: no cgroup v2, none that we may write, or one that takes no processes.
    """
    for own in [below] if below is not None else [own for _, own in _places()]:
        path = own / _name(session_id)
        try:
            path.mkdir(exist_ok=True)
        except OSError:
            continue
        # To enter, a process must be allowed to write both here and in the group it comes from.
        if _read(path / "cgroup.type").strip() == "domain" and os.access(own / "cgroup.procs", os.W_OK):
            return Cgroup(path)
        with contextlib.suppress(OSError):
            path.rmdir()
    return None


def directory(path: str) -> Path | None:
    """Return the directory of the group that /proc/PID/cgroup calls `path`; None where it is not to be seen."""
    return next((found for _, found in _mounts(path)), None)


def find(session_id: str) -> Cgroup | None:
    """Return a session's group, which an earlier daemon may have made, in another group than ours; None without one."""
    name = _name(session_id)
    places = list(_places())
    for _, own in places:
        if (own / name).is_dir():
            return Cgroup(own / name)
    for mount, _ in places:
        for at, names, _ in os.walk(mount):
            if name in names:
                return Cgroup(Path(at) / name)
    return None


def leave(session_id: str) -> bool:
    """Leave a session's group: a daemon that was started inside one must not share what befalls it.

    Returns:
        Whether we were in it and are not any more. What other groups we make is from then on not below it.
    """
    for _, own in _places():
        for path in (own, *own.parents):
            if path.name == _name(session_id):
                return _write(path.parent / "cgroup.procs", str(os.getpid()))
    return False


def _name(session_id: str) -> str:
    if not session_id or "/" in session_id:
        raise ValueError(f"not the id of a session: {session_id!r}")
    return f"daemon-{session_id}"


def _places() -> Iterator[tuple[Path, Path]]:
    """Yield where cgroup v2 is mounted, with our own group there."""
    own = next((line[3:] for line in _read(_PROC / "cgroup").splitlines() if line.startswith("0::")), None)
    if own is not None:
        yield from _mounts(own)


def _mounts(group: str) -> Iterator[tuple[Path, Path]]:
    """Yield where cgroup v2 is mounted, with a group's directory there."""
    for line in _read(_PROC / "mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            root, mount = (_ESCAPE.sub(_unescaped, field) for field in before.split(" ")[3:5])
            # A container may have mounted a part of the hierarchy alone.
            with contextlib.suppress(ValueError):
                path = Path(mount) / Path(group).relative_to(root)
                if path.is_dir():
                    yield Path(mount), path


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[1], 8))


def _numbers(path: Path) -> Iterator[int]:
    # Zeros stand for processes that another pid namespace hides from us.
    return (pid for pid in map(int, _read(path).split()) if pid > 0)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _write(path: Path, text: str) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.write(descriptor, text.encode()) > 0
    except OSError:
        return False
    finally:
        os.close(descriptor)

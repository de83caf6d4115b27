"""A session with real processes: a wrapper with its keeper, and a program of `family.py`."""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from daemon.supervision import cgroup
from daemon.supervision.identity import Identity, identify
from daemon.supervision.tree import Tree
from tests.support.daemon_process import REPOSITORY, untraced, wait_for

FAMILY = Path(__file__).with_name("family.py")
WITH_DAEMON = {"authority", "unprivileged"}
WRAPPER = """
file=$1 group=$2 stay=$3
shift 3
(exec sleep 60) &
keeper=$!
echo "keeper $keeper" >>"$file"
echo "wrapper $$" >>"$file"
sh -c 'if [ -n "$1" ]; then echo 0 >"$1/cgroup.procs"; fi; shift; exec "$@"' sh "$group" "$@" &
wait $!
[ -z "$stay" ] || wait "$keeper"
kill "$keeper"
"""


def state(pid: int) -> str:
    """Return the letter of the process's state; nothing where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def runs(pid: int) -> bool:
    """Return whether the process is there, and no zombie."""
    return state(pid) not in {"", "Z", "X"}


class Session:
    """A session's processes; `close` ends them.

    Args:
        directory: for its file.
        grouped: whether it has a control group.
    """

    def __init__(self, directory: Path, *, grouped: bool = False) -> None:
        self.id = str(uuid.uuid4())
        self._token = uuid.uuid4().hex
        self._file = directory / self._token
        self._group = cgroup.make(self.id) if grouped else None
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, program: str, *arguments: str, stay: bool = False) -> Tree:
        """Start a program under a wrapper, which stays after its end if it is to, and return the tree."""
        group = str(self._group.path) if self._group else ""
        wrapper = ["sh", "-c", WRAPPER, "sh", str(self._file), group, "stay" if stay else ""]
        self._run([*wrapper, *self._command(program, *arguments)])
        return self.tree(self.identity("wrapper"), self.identity("keeper"))

    def run_outside(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a program that has the session's mark, but no wrapper."""
        return self._run(self._command(program, *arguments))

    def tree(self, wrapper: Identity, *spared: Identity) -> Tree:
        """Return a new tree of the session, as of a daemon that was started again."""
        return Tree(self.id, wrapper, set(spared), cgroup.find(self.id) if self._group else None)

    def pids(self, what: str) -> list[int]:
        """Return who said this in the file."""
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        return [int(pid) for said, pid in map(str.split, lines) if said == what]

    def wait(self, what: str, count: int = 1) -> list[int]:
        """Wait until so many said it."""
        wait_for(lambda: len(self.pids(what)) >= count, 10)
        return self.pids(what)

    def identity(self, what: str) -> Identity:
        """Return the process that said it."""
        found = identify(self.wait(what)[0])
        assert found is not None
        return found

    def running(self) -> list[int]:
        """Return all processes of the session, by what /proc shows of each alone."""
        found = list(_living(self.names()))
        for _, descriptor in found:
            os.close(descriptor)
        return [pid for pid, _ in found]

    def names(self) -> set[bytes]:
        """Return what each of its processes has among its arguments, or in its environment."""
        return {self._token.encode(), f"DAEMON_PROCESS_MARK={self.id}".encode()}

    def stop(self) -> None:
        """Tell the program that no signal reaches to end."""
        Path(f"{self._file}.stop").touch()

    def clean(self) -> None:
        """Reap the wrapper, and remove the control group."""
        for process in self._started:
            process.communicate(timeout=10)
        if self._group is not None:
            wait_for(self._group.remove, 10)

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        env = {**untraced(), "DAEMON_PROCESS_MARK": self.id, "PYTHONPATH": str(REPOSITORY)}
        null, pipe = subprocess.DEVNULL, subprocess.PIPE
        process = subprocess.Popen(command, env=env, stdin=null, stdout=pipe, stderr=null, start_new_session=True)
        self._started.append(process)
        return process

    def _command(self, program: str, *arguments: str) -> list[str]:
        isolated = [] if program in WITH_DAEMON else ["-IS"]
        return [sys.executable, *isolated, str(FAMILY), self._token, str(self._file), program, *arguments]


def close(sessions: list[Session]) -> None:
    """End all processes of these sessions, whatever became of them."""
    for session in sessions:
        session.stop()
    names = {name for session in sessions for name in session.names()}
    wait_for(lambda: not _killed(names), 10)
    for session in sessions:
        session.clean()


def _killed(names: set[bytes]) -> bool:
    """Kill whoever has one of the names, and return whether there was anybody."""
    found = list(_living(names))
    for _, descriptor in found:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)
    return bool(found)


def _living(names: set[bytes]) -> Iterator[tuple[int, int]]:
    """Yield pid and descriptor of each process that runs and has one of the names."""
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)
            if runs(pid) and not names.isdisjoint(_said_of(pid)):
                yield pid, descriptor
            else:
                os.close(descriptor)


def _said_of(pid: int) -> list[bytes]:
    """Return the arguments and the environment of a process; nothing where it is gone."""
    try:
        return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ")).split(b"\0")
    except OSError:
        return []

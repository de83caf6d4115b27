"""The process table: who was there at one moment, whose child it was, and the session its environment names."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cached_property
from typing import Any

import msgspec

from daemon.supervision import identity
from daemon.supervision.identity import Identity, boot_id, is_dead, portable, portable_stamp, stat_fields

MARK = "DAEMON_PROCESS_MARK"
"""The variable that names a process's session to us; its children inherit it."""

_PASSES = 3
_ENVIRONMENT_LIMIT = 8 << 20  # Linux takes 6 MiB of arguments and environment together, unless the stack is unlimited
_CHUNK = 128 << 10
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
# proc_pid_stat(5), counted from the third field on
_STATE, _PARENT, _SESSION, _STARTED, _RSS, _REST = 0, 1, 3, 19, 21, 22
_CPU = slice(11, 15)  # utime, stime, and both of reaped children
_ENVIRONMENT_BOUNDS = slice(-3, -1)

_marks: dict[int, tuple[tuple[object, ...], str | None]] = {}
"""What was read from environments: by pid, of which program of which process, and its mark."""


class Entry(msgspec.Struct):
    """A process at the moment of the snapshot; `session` is the pid of its session's leader."""

    pid: int
    ppid: int
    session: int
    started: str
    state: str
    is_alive: bool

    @property
    def identity(self) -> Identity:
        """Which process it is."""
        return Identity(self.pid, self.started, boot_id())

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped, by a signal or a debugger."""
        return self.state in {"T", "t"}

    @property
    def rss_bytes(self) -> int:
        """Its resident memory."""
        raise NotImplementedError

    @property
    def cpu_seconds(self) -> float:
        """Its processor time, with that of its children which ended and which it reaped."""
        raise NotImplementedError

    def program(self) -> tuple[object, ...]:
        """Return what changes when another process has the pid, or when the process runs another program."""
        raise NotImplementedError

    def environment(self) -> bytes:
        """Return its environment, entries ended by zero bytes; nothing where we may not read it."""
        raise NotImplementedError


class Table:
    """A snapshot.

    Args:
        entries: by pid.
    """

    def __init__(self, entries: dict[int, Entry]) -> None:
        self.entries = entries

    def holds(self, one: Identity) -> bool:
        """Return whether that very process was there, alive or dead."""
        entry = self.entries.get(one.pid)
        return entry is not None and entry.started == one.started and one.boot == boot_id()

    def add(self, pid: int) -> None:
        """Read a process that came after the snapshot."""
        entry = _entry(pid)
        if entry is not None:
            self.entries[pid] = entry

    def below(self, roots: Iterable[int], stop: set[int]) -> set[int]:
        """Return all descendants of `roots`, without those in `stop` and those below them."""
        found: set[int] = set()
        waiting = list(roots)
        while waiting:
            for pid in self._next.get(waiting.pop(), ()):
                if pid not in found and pid not in stop:
                    found.add(pid)
                    waiting.append(pid)
        return found

    def mark(self, pid: int) -> str | None:
        """Return the session that a process's environment names; None where it names none, or cannot be read."""
        entry = self.entries.get(pid)
        if entry is None or not entry.is_alive:
            return None
        program = entry.program()
        known = _marks.get(pid)
        if known is None or known[0] != program:
            known = _marks[pid] = (program, _mark_in(entry.environment()))
        return known[1]

    def marked(self, sessions: Collection[str], known: set[int]) -> dict[str, set[int]]:
        """Return whose environment names one of these sessions, by session, without asking those in `known`."""
        found: dict[str, set[int]] = {}
        for pid in self.entries.keys() - known:
            if (mark := self.mark(pid)) is not None and mark in sessions:
                found.setdefault(mark, set()).add(pid)
        return found

    @cached_property
    def _next(self) -> dict[int, list[int]]:
        """Children of each process, and whoever is in the session that it leads.

        A session has no members but descendants of its leader, and its number is given to no process for as long as it
        has one. So it tells a descendant whose parents are gone.
        """
        following: dict[int, list[int]] = {}
        for pid, entry in self.entries.items():
            following.setdefault(entry.ppid, []).append(pid)
            if entry.session not in {pid, entry.ppid}:
                following.setdefault(entry.session, []).append(pid)
        return following


def snapshot() -> Table:
    """Read the process table.

    Raises:
        OSError: it cannot be read, as when file descriptors have run out.
    """
    entries: dict[int, Entry] = {}
    for _ in range(_PASSES):
        if _read_new(entries):
            break
    if len(_marks) > 2 * len(entries):
        for pid in _marks.keys() - entries.keys():
            _marks.pop(pid, None)
    return Table(entries)


def _read_new(entries: dict[int, Entry]) -> bool:
    """Read whoever is not yet in `entries`; return False if one of them was gone by then and may have left a child."""
    complete = True
    for pid in _pids():
        if pid in entries:
            continue
        entry = _entry(pid)
        if entry is None:
            complete = False
        else:
            entries[pid] = entry
    return complete


def _pids() -> Iterator[int]:
    if identity.PROCFS:
        return (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 (names, and fast)
    return iter(portable().pids())


def _entry(pid: int) -> Entry | None:
    if not identity.PROCFS:
        return _portable(pid)
    fields = stat_fields(pid)
    if fields is None:
        return None
    parent, session, state = int(fields[_PARENT]), int(fields[_SESSION]), fields[_STATE].decode()
    return _Read(pid, parent, session, fields[_STARTED].decode(), state, not is_dead(fields), fields)


def _mark_in(environment: bytes) -> str | None:
    _, found, rest = (b"\0" + environment).partition(f"\0{MARK}=".encode())
    return rest.partition(b"\0")[0].decode(errors="replace") if found else None


class _Read(Entry):
    """What /proc says of a process."""

    fields: list[bytes]

    @property
    def rss_bytes(self) -> int:
        return int(self.fields[_RSS]) * _PAGE

    @property
    def cpu_seconds(self) -> float:
        return sum(map(int, self.fields[_CPU])) / _TICKS

    def program(self) -> tuple[object, ...]:
        # Where the environment is in memory is drawn anew for every program; zeros say that we may not read it.
        return (self.started, *self.fields[_REST].rsplit(b" ", 3)[_ENVIRONMENT_BOUNDS])

    def environment(self) -> bytes:
        read = b""
        try:
            with open(f"/proc/{self.pid}/environ", "rb", buffering=0) as file:  # noqa: PTH123 (fast)
                while len(read) < _ENVIRONMENT_LIMIT and (chunk := file.read(_CHUNK)):
                    read += chunk
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return b""
        return read


class _Portable(Entry):
    """What psutil says of a process."""

    process: Any

    @property
    def rss_bytes(self) -> int:
        memory = _asked(self.process.memory_info)
        return memory.rss if memory else 0

    @property
    def cpu_seconds(self) -> float:
        times = _asked(self.process.cpu_times)
        return times.user + times.system + times.children_user + times.children_system if times else 0.0

    def program(self) -> tuple[object, ...]:
        return (self.started, _asked(self.process.name))

    def environment(self) -> bytes:
        variables = _asked(self.process.environ) or {}
        return "\0".join(f"{name}={value}" for name, value in variables.items()).encode(errors="surrogateescape")


def _portable(pid: int) -> Entry | None:
    psutil = portable()
    process = _asked(lambda: psutil.Process(pid))
    status = process and _asked(process.status)
    if not status:
        return None
    state = {psutil.STATUS_ZOMBIE: "Z", psutil.STATUS_STOPPED: "T", psutil.STATUS_TRACING_STOP: "t"}.get(status, "S")
    parent, session = _asked(process.ppid) or 0, _asked(lambda: os.getsid(pid)) or 0
    return _Portable(pid, parent, session, portable_stamp(process), state, state != "Z", process)


def _asked(question: Callable[[], Any]) -> Any:
    """Return the answer; None where the process is gone, or not for us to ask about."""
    psutil = portable()
    try:
        return question()
    except (psutil.Error, ProcessLookupError, PermissionError):
        return None

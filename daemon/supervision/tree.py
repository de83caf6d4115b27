"""All processes of a session as one tree: what belongs to it, and to stop, continue, count and end that."""

import os
import signal
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import msgspec

from daemon.supervision.cgroup import Cgroup
from daemon.supervision.identity import Identity, is_alive, send
from daemon.supervision.table import Entry, Table, snapshot

Left = dict[str, list[int]]
"""By session, the pids of which what was asked for is not true; an empty list where it is true of all."""

_PAUSE = 0.003  # seconds, for a signal to act
_SETTLE = 1.0  # seconds, for all members to stop
_QUIET = 2  # scans that find nobody: one alone may miss a process that forks, and ends, while it is made
_NO_GROUP = Cgroup(Path("/dev/null"))  # nobody is in it, and whatever is asked of it fails

_scanning = threading.Lock()
"""One scan at a time: else an older one could make a tree forget what a newer one saw."""


class Usage(msgspec.Struct, frozen=True):
    """What a session's processes use together; memory that they share counts for each of them."""

    processes: int
    rss_bytes: int
    cpu_seconds: float


class Tree:
    """What belongs to a session.

    That is: every descendant of the wrapper, what is in the session's control group, what names the session in its
    environment, what was found to belong to it before, and every descendant of those. This process and pid 1 never do,
    nor do the wrapper and its helper, which nothing here signals unless it is asked to.

    Args:
        session_id: what its processes have in `DAEMON_PROCESS_MARK`.
        wrapper: the process that started the session's program.
        spared: what else is the wrapper's own.
        cgroup: the session's, if it has one.
        seen: members known from an earlier tree of this session.
    """

    def __init__(
        self,
        session_id: str,
        wrapper: Identity,
        spared: Iterable[Identity] = (),
        cgroup: Cgroup | None = None,
        seen: Iterable[Identity] = (),
    ) -> None:
        self.session_id = session_id
        self.wrapper = wrapper
        self.spared = {wrapper, *spared}
        self.cgroup = cgroup or _NO_GROUP
        self.seen = set(seen)
        self.held = False

    def hold(self, others: set[int]) -> None:
        """Freeze the control group, unless one of `others` is in it."""
        self.held = True
        if self.cgroup.pids().isdisjoint(others):
            self.cgroup.freeze()

    def release(self) -> None:
        """Let the control group run."""
        self.held = False
        self.cgroup.thaw()

    def remember(self, table: Table, pids: set[int]) -> list[Entry]:
        """Return the living of these, and know them as members from now on."""
        entries = [entry for pid in sorted(pids) if (entry := table.entries[pid]).is_alive]
        self.seen = {entry.identity for entry in entries}
        return entries

    def rooted(self, table: Table, others: set[int]) -> set[int]:
        """Return the pids that belong to it by descent, by control group, or because they did before."""
        roots = {one.pid for one in self.spared if table.holds(one)}
        inside = {one.pid for one in self.seen if table.holds(one)} | self._in_group(table)
        inside -= others
        return inside | table.below(roots | inside, others)

    def _in_group(self, table: Table) -> set[int]:
        """Return who is in the control group, and in the table."""
        # Asked after the table was read. Whoever had such a pid in the table and is not who is in the group is dead by
        # now, and never signalled. For the same reason it is asked again about those that the table did not have.
        pids = self.cgroup.pids()
        late = pids - table.entries.keys()
        for pid in late:
            table.add(pid)
        return (self.cgroup.pids() & pids if late else pids) & table.entries.keys()


def members(trees: Sequence[Tree]) -> dict[str, list[Identity]]:
    """Return the living members of each session, and remember them.

    Args:
        trees: of different sessions.

    Raises:
        OSError: the process table cannot be read, as when file descriptors have run out. So do all functions here.
    """
    return {session_id: [entry.identity for entry in found] for session_id, found in _scan(trees).items()}


def usage(trees: Sequence[Tree]) -> dict[str, Usage]:
    """Return what each session uses.

    Args:
        trees: of different sessions.
    """
    found = _scan(trees)
    return {tree.session_id: _used(tree, found[tree.session_id]) for tree in trees}


def freeze(trees: Sequence[Tree], seconds: float = _SETTLE) -> Left:
    """Stop every member, until a scan finds none that runs.

    Args:
        trees: of different sessions.
        seconds: to go on for at most.

    Returns:
        Members that may still run.
    """
    hunt = _Hunt(trees)
    found = hunt.stop(time.monotonic() + seconds)
    left = {session_id: [entry.pid for entry in some if hunt.may_run(entry)] for session_id, some in found.items()}
    for tree in trees:
        if not left[tree.session_id]:
            tree.cgroup.thaw()  # each has its signal, and obeys it before it runs: everybody sees that it is stopped
    return left


def thaw(trees: Sequence[Tree]) -> Left:
    """Let every member run again.

    Args:
        trees: of different sessions.

    Returns:
        Members that could not be told.
    """
    found = _scan(trees)
    left = {session_id: _signal(some, signal.SIGCONT) for session_id, some in found.items()}
    for tree in trees:  # last: what was to stop, and could not while frozen, has been told not to by now
        tree.release()
    return left


def terminate(trees: Sequence[Tree]) -> Left:
    """Ask every member to end, and let those that are stopped run in order to.

    Args:
        trees: of different sessions.

    Returns:
        Members that could not be told.
    """
    found = _scan(trees)
    left = {session_id: _signal(some, signal.SIGTERM) for session_id, some in found.items()}
    for tree in trees:
        held = tree.held or tree.cgroup.is_frozen()  # some may have been stopped, and not show it yet
        _signal([entry for entry in found[tree.session_id] if held or entry.is_stopped], signal.SIGCONT)
        tree.release()
    return left


def kill(trees: Sequence[Tree], seconds: float, *, wrapper: bool = False) -> Left:
    """End every member, and look again until none is left.

    Args:
        trees: of different sessions.
        seconds: to go on for at most; every member is killed once even if that is not enough.
        wrapper: also end the wrapper, and what else was spared, of each session that has no member left.

    Returns:
        Who is still alive: members, such as one that we may not signal or that hangs in the kernel, and with `wrapper`
        what that was to end.
    """
    deadline = time.monotonic() + seconds
    found = _Hunt(trees).kill(deadline)
    left = {session_id: [entry.identity for entry in some] for session_id, some in found.items()}
    for tree in trees:
        if not left[tree.session_id]:
            tree.release()
    if wrapper:
        _end_spared(trees, left, deadline)
    return {session_id: [one.pid for one in some if is_alive(one)] for session_id, some in left.items()}


class _Hunt:
    """One attempt to stop, or to end, whatever belongs to some trees while it may go on forking.

    Args:
        trees: of different sessions.
    """

    def __init__(self, trees: Sequence[Tree]) -> None:
        self._trees = trees
        # By number alone: if one was recycled, we only do without the control group.
        self._others = {1, os.getpid()} | {one.pid for tree in trees for one in tree.spared}
        self._stopping: set[Identity] = set()
        self._refusing: set[Identity] = set()
        self._dying: set[Identity] = set()
        self._frozen: set[int] = set()
        for tree in trees:
            tree.hold(self._others)

    def stop(self, deadline: float) -> dict[str, list[Entry]]:
        """Stop every member until none runs, and return them."""
        while True:
            found = _scan(self._trees)
            self._frozen = {pid for tree in self._trees if tree.cgroup.is_frozen() for pid in tree.cgroup.pids()}
            running = {entry.identity for some in found.values() for entry in some if not self._is_settled(entry)}
            if not running or time.monotonic() >= deadline:
                return found
            known = running <= self._stopping
            for one in running:
                (self._stopping if send(one, signal.SIGSTOP) else self._refusing).add(one)
            if known:
                time.sleep(_PAUSE)

    def kill(self, deadline: float) -> dict[str, list[Entry]]:
        """Kill every member until none is left, and return who is."""
        quiet = 0
        while True:
            found = self.stop(min(deadline, time.monotonic() + _SETTLE))
            quiet = 0 if any(found.values()) else quiet + 1
            if quiet == _QUIET:
                return found
            self._kill(found)
            if not quiet and time.monotonic() >= deadline:
                return found
            time.sleep(_PAUSE)

    def may_run(self, entry: Entry) -> bool:
        """Return whether nothing keeps the process from running."""
        if entry.is_stopped or entry.pid in self._frozen:
            return False
        # The signal waits until a process comes back from the kernel; a first thread that has ended never shows it.
        return not (entry.identity in self._stopping and entry.state in {"D", "Z"})

    def _is_settled(self, entry: Entry) -> bool:
        one = entry.identity
        if one in self._dying or one in self._refusing:
            return True
        # In a frozen group the signal waits as well, for the thaw.
        return not self.may_run(entry) and (entry.pid not in self._frozen or one in self._stopping)

    def _kill(self, found: dict[str, list[Entry]]) -> None:
        for tree in self._trees:
            if tree.cgroup.pids().isdisjoint(self._others):
                tree.cgroup.kill()
        for entry in (entry for some in found.values() for entry in some if entry.identity not in self._dying):
            if send(entry.identity, signal.SIGKILL):
                self._dying.add(entry.identity)


def _scan(trees: Sequence[Tree]) -> dict[str, list[Entry]]:
    """Return the living members of each session."""
    with _scanning:
        table = snapshot()
        spared = {one.pid for tree in trees for one in tree.spared if table.holds(one)}
        others = {1, os.getpid()} | spared
        found = {tree.session_id: tree.rooted(table, others) for tree in trees}
        for session_id, pids in table.marked(found, others.union(*found.values())).items():
            found[session_id] |= pids | table.below(pids, others)
        own = table.mark(os.getpid())
        if own in found:  # we were started from inside a session, and what we started has its mark from us
            found[own] -= table.below({os.getpid()}, spared)
        return {tree.session_id: tree.remember(table, found[tree.session_id]) for tree in trees}


def _signal(entries: Iterable[Entry], number: int) -> list[int]:
    """Signal each, and return the pids of those that could not be."""
    refusing = [entry.identity for entry in entries if not send(entry.identity, number)]
    return [one.pid for one in refusing if is_alive(one)]


def _used(tree: Tree, entries: Collection[Entry]) -> Usage:
    # Only the control group counts those, too, that ended without being waited for by a member.
    seconds = max(tree.cgroup.cpu_seconds(), sum(entry.cpu_seconds for entry in entries))
    return Usage(len(entries), sum(entry.rss_bytes for entry in entries), seconds)


def _end_spared(trees: Sequence[Tree], left: dict[str, list[Identity]], deadline: float) -> None:
    """Kill what was spared, the wrapper last, where no member is left; add all of it to `left`."""
    for tree in trees:
        last = [*(tree.spared - {tree.wrapper}), tree.wrapper]
        if not left[tree.session_id]:
            for one in last:
                send(one, signal.SIGKILL)
        left[tree.session_id] += last
    while time.monotonic() < deadline and any(is_alive(one) for some in left.values() for one in some):
        time.sleep(_PAUSE)

"""What the supervisor reports of processes, and what it asks of their rows: the one more door into the daemon."""

from functools import partial
from typing import TypeVar

from daemon.domain import lifecycle, process_ends, processes, turns
from daemon.domain.changes import Decide, Outcome, Rows, Scope
from daemon.domain.events import SYSTEM
from daemon.domain.process_config import ProcessConfig, join
from daemon.domain.process_ends import End
from daemon.domain.process_rows import Process, Rest, Supervised, Suspender
from daemon.domain.processes import Started
from daemon.domain.rows import Session
from daemon.domain.turns import TurnEnd
from daemon.services.process_seals import ProcessSeals
from daemon.services.supervision import new_external_id
from daemon.stores.protocol import Store

T = TypeVar("T")


class ProcessReports:
    """The supervisor's way to the rows; every report is decided on them as they stand.

    All of it raises DaemonError STORAGE_UNAVAILABLE when rows cannot be read or written.

    Args:
        store: the engine.
        seals: opens the secrets of processes.
        home: id of this daemon's home.
    """

    def __init__(self, store: Store, seals: ProcessSeals, home: str) -> None:
        self._store = store
        self._seals = seals
        self.clock = store.clock
        self.home = home

    async def under_way(self) -> list[tuple[Session, Process]]:
        """Return every session with a process of this home whose end is not known yet."""
        return await self._store.under_way(self.home)

    async def look(self, session_id: str) -> Supervised | None:
        """Return a session with everything that decides what its process is to do; None: it is none of ours."""
        found = await self._store.supervised(session_id)
        return found if found is not None and found.process.home == self.home else None

    async def is_known(self, session_id: str) -> bool:
        """Return whether there is such a session."""
        return await self._store.session(session_id) is not None

    def config(self, process: Process) -> ProcessConfig | None:
        """Return a process's whole configuration; None where the key that sealed its secrets is missing."""
        secrets = self._seals.read(process)
        return None if secrets is None else join(process.config, secrets)

    async def begin(self, session_id: str) -> Supervised | None:
        """Note that the process is about to be started; return what it is started for, None: it is not."""
        return await self._report(session_id, partial(processes.begin, external_id=new_external_id()))

    async def started(self, session_id: str, running: Started) -> None:
        """Note that the process runs."""
        await self._report(session_id, partial(processes.started, running=running))

    async def turn_over(self, session_id: str, end: TurnEnd) -> None:
        """Note that the running turn is over."""

        def decide(rows: Rows, now: int) -> Outcome[None]:
            session, process = processes.require(rows)
            return turns.over(rows, session, process, now, end=end)

        await self._report(session_id, decide)

    async def read_to(self, session_id: str, offset: int) -> None:
        """Note that output up to this offset is read, and has no more consequences."""
        await self._report(session_id, partial(processes.read_to, offset=offset))

    async def rest(self, session_id: str, why: Rest) -> bool:
        """Let a process that has nothing to do be ended while its session lives on; return whether it may be."""
        return await self._report(session_id, partial(processes.rest, why=why))

    async def suspend(self, session_id: str, by: Suspender) -> bool:
        """Suspend a session whose process must not go on; return whether it was changed."""
        return await self._report(session_id, partial(processes.suspend, by=by))

    async def resume(self, session_id: str) -> None:
        """Let a session go on that was suspended because its agent was."""
        await self._report(session_id, partial(processes.resume, reason="agent activated"))

    async def close(self, session_id: str, reason: str) -> bool:
        """End a session for a limit of its process; return whether it was changed."""
        return await self._report(session_id, partial(processes.close, reason=reason), ends=True)

    async def expire(self, session_id: str) -> None:
        """End a session whose time is up."""
        await self._report(session_id, lifecycle.expire_one, ends=True)

    async def finished(self, session_id: str, end: End) -> None:
        """Note that nothing of the process is left."""
        await self._report(session_id, partial(process_ends.finished, end=end), ends=True)

    async def _report(self, session_id: str, decide: Decide[T], *, ends: bool = False) -> T:
        scope = Scope(session=session_id, process=True, ends=ends, while_locked=True)
        return await self._store.change(scope, decide, SYSTEM)

"""One session's process, minded by one task: again and again it makes the system what the rows say."""

import asyncio
import contextlib

from daemon.domain import pool, processes
from daemon.domain.errors import DaemonError
from daemon.domain.process_config import ProcessConfig, read
from daemon.domain.process_ends import End
from daemon.domain.process_rows import Supervised
from daemon.domain.processes import Started
from daemon.supervision import attaching
from daemon.supervision.adapters import adapter_for
from daemon.supervision.dialogue import Dialogue
from daemon.supervision.ending import Ending
from daemon.supervision.house import House
from daemon.supervision.reaper import Killed
from daemon.supervision.reporting import RETRY_SECONDS, reports_for
from daemon.supervision.running_process import RunningProcess
from daemon.supervision.starting import StartError, start_unless_ended
from daemon.supervision.tree import Tree

_LONG = 3_600.0
_FOR_A_PLACE = 0.1


class SessionProcess:
    """Minds the process of one session until the session is CLOSED and nothing of the process is left.

    Args:
        session_id: the session.
        house: what all of them share.
    """

    def __init__(self, session_id: str, house: House) -> None:
        self.session_id = session_id
        self.row: Supervised | None = None
        """The rows as they were last seen."""
        self.live: RunningProcess | None = None
        self.killed = 0
        """Processes of the system that were killed for it."""
        self.left = 0
        """Those that could not be."""
        self._house = house
        self._directory = house.files.directory(session_id)
        self._woken = asyncio.Event()
        self._due: float | None = None
        self._attached = False
        self._ending = Ending(house.grace)
        self._hurried = False
        self._told: str | None = None

    def wake(self) -> None:
        """Look at the rows, and at the system, again."""
        self._woken.set()

    def hurry(self) -> None:
        """Give it no grace any more if it is to end."""
        self._hurried = True
        self.wake()

    async def run(self) -> None:
        """Mind it until it is over; a failure is told, and tried again."""
        while True:
            self._woken.clear()
            self._due = None
            try:
                if await self.look():
                    return
                self._told = None
            except Exception as error:  # noqa: BLE001 - whatever happened, the process must be minded
                self.failed(error)
                self._due = RETRY_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LONG if self._due is None else self._due):
                    await self._woken.wait()

    def failed(self, error: Exception) -> None:
        """Tell what went wrong, once for as long as it stays the same."""
        text = f"{type(error).__name__}: {error}"
        if text != self._told:
            self._house.fail("process.failed", error, session_id=self.session_id)
        self._told = text

    async def attach(self) -> None:
        """Find what an earlier daemon has started, or find out what became of it; once is enough.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        row = await self._look_at_rows()
        if row is None or self._attached:
            return
        await asyncio.to_thread(attaching.step_out, self.session_id)
        if await asyncio.to_thread(attaching.was_begun, self._directory, row):
            found = await asyncio.to_thread(attaching.find, self._directory, row)
            if found is not None:
                await self._adopt(row, *found)
            elif not await self._record_end(row):
                return
            await self._look_at_rows()
        self._attached = True

    async def _look_at_rows(self) -> Supervised | None:
        self.row = await self._house.reports.look(self.session_id)
        return self.row

    async def _adopt(self, row: Supervised, tree: Tree, pid: int) -> None:
        config = self._house.reports.config(row.process) or read(row.process.config)
        if self.live is None:  # else it was found before, and what follows has failed
            self._house.places.take()
            self._watch(row, tree, pid, config)
        with contextlib.suppress(DaemonError):  # a session that is over by now does without a token
            await self._house.settle(self.session_id)
        if row.process.pid is None:
            await self._tell_started(row)

    async def _record_end(self, row: Supervised) -> bool:
        """Record how a process ended that no daemon was there for; return whether nothing of it is left."""
        if not await self._nothing_is_left():
            return False
        end = await asyncio.to_thread(attaching.end_of, self._directory, row)
        await self._house.reports.finished(self.session_id, end)
        return True

    async def _nothing_is_left(self) -> bool:
        """Kill whatever has the mark of a session that nothing is known to run for; return whether that is done."""
        return self._count(await self._house.reaper.kill(attaching.leftovers(self.session_id)))

    async def look(self) -> bool:
        """Make the system what the rows say, one step further; return whether the session is over.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        if not self._attached:
            await self.attach()
        row = await self._look_at_rows()
        if row is None or row.session.state == "CLOSED":
            await self._let_go()
            return True
        if self._attached:
            await self._step(row)
        return False

    async def _step(self, row: Supervised) -> None:
        session, live = row.session, self.live
        if live is not None and live.exited.done():
            await self._over(live, row)
        elif session.state == "CLOSING":
            await self._end(row, at_once=self._hurried or processes.skips_grace(session))
        elif live is not None and (row.process.rest is not None or self._ending.begun):
            await self._end(row, at_once=self._stands_still(row))
        elif row.agent.status != "ACTIVE":
            await self._stop_with_agent()
        elif session.state == "SUSPENDED":
            await self._stay_suspended(row)
        elif live is None:
            await self._begin(row)
        else:
            await self._go_on(live, row)

    # --- running

    def _watch(self, row: Supervised, tree: Tree, pid: int, config: ProcessConfig) -> RunningProcess:
        live = RunningProcess(self._directory, row.process.run, tree, pid)
        live.exited.add_done_callback(lambda _: self.wake())
        live.dialogue = Dialogue(
            self._directory,
            adapter_for(config),
            row.process.output_offset,
            reports_for(self.session_id, self._house.reports, self.wake),
        )
        self.live = live
        return live

    async def _begin(self, row: Supervised) -> None:
        if not processes.is_wanted(row.session, row.process, self._house.clock.now()):
            return
        if self._house.places.full:  # what makes room for it has not ended yet
            self._due = _FOR_A_PLACE
            return
        self._house.places.take()
        try:
            begun = await self._house.reports.begin(self.session_id)
            if begun is not None:
                self.row = begun
                await self._start(begun)
        finally:
            if self.live is None:
                self._house.places.give_back()

    async def _start(self, row: Supervised) -> None:
        try:
            begun = await start_unless_ended(row, self._house, self._woken)
        except StartError as error:
            if error.reason is not None:
                self._house.report("process.not_started", session_id=self.session_id, reason=str(error))
            if not await self._nothing_is_left():
                return
            await self._house.reports.finished(self.session_id, End(reason=error.reason, entered=False))
        else:
            self._watch(row, begun.tree, begun.pid, begun.config).frozen = False
            await self._tell_started(row)
        self.wake()

    async def _tell_started(self, row: Supervised) -> None:
        live = self.live
        assert live is not None  # noqa: S101 - the caller has just set it
        wrapper, process = live.wrapper, row.process
        started = Started(live.pid, wrapper.pid, wrapper.started, wrapper.boot, process.config, process.secrets)
        await self._house.reports.started(self.session_id, started)

    async def _go_on(self, live: RunningProcess, row: Supervised) -> None:
        if row.process.pid is None:  # it could not be stored when it was started
            await self._tell_started(row)
            self.wake()
            return
        if (broken := live.dialogue.broken) is not None:
            self.failed(broken)
            await self.kill_for("lost")
            return
        if live.frozen is not False:
            await live.thaw()
        if row.process.rest is None:
            live.dialogue.adapter = adapter_for(read(row.process.config))
        live.dialogue.pump(row.turns)

    # --- suspended

    async def _stay_suspended(self, row: Supervised) -> None:
        if row.process.suspended_by == "agent":
            await self._house.reports.resume(self.session_id)
            self.wake()
        else:
            await self._stand_still()

    async def _stand_still(self) -> None:
        if self.live is not None and not self.live.frozen and not await self.live.freeze():
            self._due = RETRY_SECONDS

    async def _stop_with_agent(self) -> None:
        """Stop the tree of a session whose agent is suspended, then say so."""
        await self._stand_still()
        if await self._house.reports.suspend(self.session_id, "agent"):
            self.wake()

    # --- the end

    async def _end(self, row: Supervised, *, at_once: bool) -> None:
        """End the process, with grace or without."""
        if self.live is None:
            if not await self._nothing_is_left():
                return
            process = row.process
            await self._house.reports.finished(self.session_id, End(process.exit_code, process.signal))
            self.wake()
            return
        wait = None if at_once else await self._ending.further(self.live)
        if wait is None:
            await self._kill(self.live)
        else:
            self._due = wait

    def _stands_still(self, row: Supervised) -> bool:
        """Return whether a process must not run again in order to end; one without a turn has only to be told so."""
        quiet = pool.can_rest(row.process.config) and all(turn.state != "RUNNING" for turn in row.turns)
        return row.session.state == "SUSPENDED" and self.live is not None and bool(self.live.frozen) and not quiet

    async def _kill(self, live: RunningProcess) -> None:
        if self._count(await live.kill(self._house.reaper, self._house.grace.wrapper)):
            self.wake()

    async def kill_for(self, limit: str) -> None:
        """End the process because it is over a limit.

        Args:
            limit: the reason that is told.
        """
        if self.live is not None and self.live.limit is None:
            self.live.limit = limit
            await self._kill(self.live)

    def _count(self, killed: Killed) -> bool:
        """Take note of what was killed, and return whether nothing is left."""
        if killed.left and not self.left:
            self._house.report("process.left", session_id=self.session_id, pids=list(killed.left))
        self.killed += killed.seen - len(killed.left)
        self.left = len(killed.left)
        if self.left:
            self._due = RETRY_SECONDS
        return not self.left

    async def _over(self, live: RunningProcess, row: Supervised) -> None:
        """Record the end of the process, once everything it said is read and nothing of it is left."""
        at_once = row.session.state == "CLOSING" and (self._hurried or processes.skips_grace(row.session))
        await (live.dialogue.close() if at_once else live.dialogue.finish())
        # The keeper ends before the wrapper; one that did not has lost it.
        live.tree.spared.clear()
        if not self._count(await self._house.reaper.kill(live.tree)):
            return
        on_purpose = self._ending.begun and row.session.state != "CLOSING"
        end = await asyncio.to_thread(live.end, on_purpose=on_purpose)
        await self._house.reports.finished(self.session_id, end)
        self._drop(live)
        self.wake()

    def _drop(self, live: RunningProcess) -> None:
        live.discard()
        self._house.places.give_back()
        self.live, self._ending = None, Ending(self._house.grace)

    async def _let_go(self) -> None:
        """Clean up after a session that is over, or gone."""
        if self.live is not None:
            await self._kill(self.live)
            await self.live.dialogue.close()
            self._drop(self.live)
        try:
            await asyncio.to_thread(attaching.clean_up, self.session_id)
            await asyncio.to_thread(self._house.files.forget_token, self.session_id)
        except OSError as error:
            self.failed(error)
        self._house.over(self.session_id)

    async def detach(self) -> None:
        """Mind it no more; it goes on without us, and what was read of its output is not read again."""
        if self.live is not None:
            await self.live.dialogue.close()
            self.live.detach()
            with contextlib.suppress(DaemonError, OSError):
                await self._house.reports.read_to(self.session_id, self.live.dialogue.position)

"""The limits of running processes: time, idleness, memory, processor, output, number of processes."""

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from pathlib import Path

import msgspec

from daemon.domain import pool, processes
from daemon.domain.errors import DaemonError
from daemon.domain.process_config import ProcessConfig, read
from daemon.domain.process_rows import Supervised
from daemon.domain.status import renewable_at
from daemon.services.ports import TreeUsage
from daemon.supervision import tree
from daemon.supervision.house import House
from daemon.supervision.output import OutputFile
from daemon.supervision.session_process import SessionProcess
from daemon.supervision.starting import MOST_PROCESSES

MEASURE_SECONDS = 1.0
"""Between two measurements of what is bounded."""
ALL_SECONDS = 10.0
"""Between two measurements of everything that runs."""
_MANY = 256
"""More processes on the machine than before by so many make a look at every tree worth its while."""
_FREE_FROM = 0.75
"""Part of the bound of output that is left when its head is freed."""


class _Measured(msgspec.Struct):
    """What a tree took.

    Args:
        at: when the average of its processor time began.
        cpu_seconds: that it had taken then.
        usage: now.
        cpu: the average before that, in cores.
    """

    at: float
    cpu_seconds: float
    usage: tree.Usage
    cpu: float = 0.0


class Limits:
    """Holds every running process against its limits.

    Args:
        house: the surroundings of the processes.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._measured: dict[str, _Measured] = {}
        self._machine = 0
        self._all_at = 0.0

    async def mind(self, minded: Sequence[SessionProcess]) -> None:
        """Look once at every process; to be called every second."""
        for one in minded:
            if one.row is not None:
                await self._apart(one, self._mind_times(one, one.row))
        running = [one for one in minded if one.live is not None and one.row is not None]
        await self._mind_trees(running)
        for one in running:
            await self._apart(one, self._mind_output(one))

    async def _apart(self, one: SessionProcess, work: Awaitable[None]) -> None:
        """Do something about one process; what fails is tried again at the next look, and must not keep the others."""
        try:
            await work
        except DaemonError:  # refused, or not to be stored, which is told elsewhere
            return
        except Exception as error:  # noqa: BLE001 - see above
            one.failed(error)

    # --- times

    async def _mind_times(self, one: SessionProcess, row: Supervised) -> None:
        session, process, now = row.session, row.process, self._house.clock.now()
        if session.revoked_at is not None or session.expired_at is not None:
            return
        config, reports = read(process.config), self._house.reports
        if now >= session.expires_at:
            await reports.expire(session.id)
        elif session.state == "ERROR" and process.restart_at is not None and now >= process.restart_at:
            one.wake()
        elif one.live is not None and self._is_over_time(config, process.started_at, now):
            await reports.close(session.id, "duration")
        elif session.state in {"READY", "IDLE"} and process.rest is None and self._is_idle(row, config, now):
            await self._suspend_idle(session.id, process.config)
        elif self._is_renewable(row, now):
            await self._house.renew(session)
        if one.live is not None and one.live.frozen is False:
            await one.live.dialogue.mind_tools()

    def _is_over_time(self, config: ProcessConfig, started_at: int | None, now: int) -> bool:
        most = self._house.settings.default_max_duration if config.max_duration is None else config.max_duration
        return bool(most) and started_at is not None and now - started_at >= most

    def _is_idle(self, row: Supervised, config: ProcessConfig, now: int) -> bool:
        most = self._house.settings.default_idle_timeout if config.idle_timeout is None else config.idle_timeout
        since = row.session.state_changed_at or row.session.created_at
        return bool(most) and now - since >= most

    async def _suspend_idle(self, session_id: str, config: str) -> None:
        """Suspend what has no turn for too long: ended if it can go on later, else stopped."""
        if pool.can_rest(config):
            await self._house.reports.rest(session_id, "idle")
        else:
            await self._house.reports.suspend(session_id, "idle")

    def _is_renewable(self, row: Supervised, now: int) -> bool:
        """Return whether a session's token should be renewed now: a little after the guards allow it."""
        session = row.session
        if session.renewal_count >= session.max_renewals or session.expires_at >= session.absolute_expires_at:
            return False
        if session.state == "SUSPENDED" or row.agent.status != "ACTIVE":
            return False
        return renewable_at(session) + session.ttl_seconds // 10 <= now < session.expires_at

    # --- trees

    async def _mind_trees(self, running: Sequence[SessionProcess]) -> None:
        bounded = [one for one in running if one.row is not None and self._is_bounded(read(one.row.process.config))]
        now = asyncio.get_running_loop().time()
        if self._many_more() or now - self._all_at >= ALL_SECONDS:
            bounded, self._all_at = list(running), now
        await self.measure(bounded)
        for one in bounded:
            if (limit := self._broken(one)) is not None:
                self._house.report("process.limit", session_id=one.session_id, limit=limit)
                await self._apart(one, one.kill_for(limit))

    def _is_bounded(self, config: ProcessConfig) -> bool:
        return bool(config.max_memory or config.max_cpu)

    def _many_more(self) -> bool:
        """Return whether the machine has many more processes than at the last look; that costs next to nothing."""
        try:
            count = Path("/proc").stat().st_nlink  # Linux counts processes there, proc_root_getattr() in fs/proc/root.c
        except OSError:  # there is no such directory here: every look is worth its while
            return True
        more = count - self._machine >= _MANY
        self._machine = count if more else min(count, self._machine)
        return more

    async def measure(self, running: Sequence[SessionProcess]) -> dict[str, TreeUsage]:
        """Return what each tree takes now, and how much processor it took since it was measured before."""
        live = [one.live.tree for one in running if one.live is not None]
        if not live:
            return {}
        found, now = await asyncio.to_thread(tree.usage, live), asyncio.get_running_loop().time()
        return {session_id: self._took(session_id, usage, now) for session_id, usage in found.items()}

    def _took(self, session_id: str, usage: tree.Usage, now: float) -> TreeUsage:
        before = self._measured.get(session_id)
        if before is None or usage.cpu_seconds < before.cpu_seconds:
            before = self._measured[session_id] = _Measured(now, usage.cpu_seconds, usage)
        before.usage = usage
        elapsed = now - before.at
        cpu = (usage.cpu_seconds - before.cpu_seconds) / elapsed if elapsed >= MEASURE_SECONDS else before.cpu
        if elapsed >= self._house.grace.processor:
            self._measured[session_id] = _Measured(now, usage.cpu_seconds, usage, cpu)
        return TreeUsage(usage.processes, usage.rss_bytes, cpu)

    def taken(self, session_ids: Collection[str]) -> tree.Usage:
        """Return what the trees of sessions together took when they were measured last, within `ALL_SECONDS`."""
        found = [self._measured[key].usage for key in session_ids if key in self._measured]
        return tree.Usage(
            processes=sum(usage.processes for usage in found),
            rss_bytes=sum(usage.rss_bytes for usage in found),
            cpu_seconds=sum(usage.cpu_seconds for usage in found),
        )

    def _broken(self, one: SessionProcess) -> str | None:
        """Return the limit that a tree is over."""
        measured = self._measured.get(one.session_id)
        if measured is None or one.row is None:
            return None
        config = read(one.row.process.config)
        if config.max_memory and measured.usage.rss_bytes > config.max_memory:
            return "memory"
        if config.max_cpu and measured.cpu > config.max_cpu * 1.05:
            return "cpu"
        return "processes" if measured.usage.processes > MOST_PROCESSES else None

    def forget(self, session_id: str) -> None:
        """Forget what a session's process took."""
        self._measured.pop(session_id, None)

    # --- output

    async def _mind_output(self, one: SessionProcess) -> None:
        if one.live is None or one.row is None:
            return
        for name in ("stdout", "stderr"):
            file = OutputFile(one.live.directory / name)
            if self._is_short(file):
                continue
            read_to = one.live.dialogue.position if name == "stdout" else None
            if await asyncio.to_thread(self._bound, file, read_to):
                continue
            if one.row.session.state in processes.ALIVE:
                await self._house.reports.suspend(one.session_id, "output")

    def _is_short(self, file: OutputFile) -> bool:
        """Return whether a file was never long enough to be cut: that is known at once."""
        try:
            return file.path.stat().st_size <= self._house.settings.output_max_mb << 20
        except OSError:
            return True

    def _bound(self, file: OutputFile, read_to: int | None) -> bool:
        """Free the head of a file that is too long, as far as it was read; return whether that can be done."""
        most = self._house.settings.output_max_mb << 20
        if file.kept_bytes() <= most:
            return True
        until = file.size() - int(most * _FREE_FROM)
        return file.free(until if read_to is None else min(until, read_to))

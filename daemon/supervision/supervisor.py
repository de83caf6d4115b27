"""The supervisor: one `SessionProcess` for each session whose process may run, and what others ask of them."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

from daemon.domain.events import Event
from daemon.domain.facts.agents import AgentActivated, AgentSuspended, AgentTerminated
from daemon.domain.facts.daemon import KillSwitchActivated
from daemon.domain.facts.sessions import SessionCreated
from daemon.domain.process_config import ProcessConfig
from daemon.services.ports import ProcessCounts, Proof, StreamName, TreeUsage
from daemon.supervision import workspace
from daemon.supervision.house import House
from daemon.supervision.limits import Limits
from daemon.supervision.output import Gone, OutputFile
from daemon.supervision.reading import Reader, check_offset, gone, readable
from daemon.supervision.session_process import SessionProcess
from daemon.supervision.watch import Watcher

_OF_AGENTS = frozenset({AgentSuspended.type, AgentActivated.type, AgentTerminated.type})
_BY_PROCESS = b'"createdBy":"process"'


class Supervisor:
    """Runs the processes of this home's sessions.

    Args:
        house: what they share.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        house.over = self._over
        self._limits = Limits(house)
        self._watcher = Watcher()
        self._minded: dict[str, SessionProcess] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._readers: dict[str, set[Reader]] = {}
        self._callbacks: dict[str, Callable[[str], None]] = {}
        self._begun = False

    # --- the daemon's own start and stop

    async def attach(self) -> None:
        """Find what runs already, and record what does not any more; nothing is started yet.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        await self._watcher.start()
        for session, _ in await self._house.reports.under_way():
            self._minded[session.id] = SessionProcess(session.id, self._house)
        await asyncio.gather(*(self._attach(one) for one in self._minded.values()))

    async def _attach(self, one: SessionProcess) -> None:
        """Attach one; what keeps it must not keep the daemon from starting, and is tried again."""
        try:
            await one.attach()
        except Exception as error:  # noqa: BLE001 - see above
            one.failed(error)

    def begin(self, url: str) -> None:
        """Start what is to run.

        Args:
            url: where processes find the daemon.
        """
        self._house.url = url
        self._begun = True
        for one in self._minded.values():
            self._mind(one)

    def _mind(self, one: SessionProcess) -> None:
        directory = self._house.files.directory(one.session_id)
        self._callbacks[one.session_id] = lambda name: self._written(one, name)
        self._watcher.watch(directory, self._callbacks[one.session_id])
        self._tasks[one.session_id] = asyncio.create_task(one.run(), name=f"process-{one.session_id}")

    async def stop(self) -> None:
        """Mind nothing any more; what runs goes on."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await asyncio.gather(*(one.detach() for one in self._minded.values()), return_exceptions=True)
        for readers in self._readers.values():
            for reader in readers:
                reader.end()
        await self._watcher.close()

    async def end_everything(self, seconds: float) -> Proof:
        """Kill every process, and their sessions with them, because the daemon stops.

        Args:
            seconds: to wait at most for the proof.
        """
        for session_id, one in list(self._minded.items()):
            await self._house.reports.close(session_id, "shutdown")
            one.hurry()
        return await self.ended(None, seconds)

    def notice(self, event: Event) -> None:
        """Look again at whom an event is about."""
        if event.type == KillSwitchActivated.type:
            for one in self._minded.values():
                one.hurry()
        elif event.type in _OF_AGENTS:
            for one in self._minded.values():
                if one.row is not None and one.row.session.agent_id == event.agent_id:
                    one.wake()
        elif event.session_id is not None:
            known = self._minded.get(event.session_id)
            if known is not None:
                known.wake()
            elif event.type == SessionCreated.type and _BY_PROCESS in bytes(event.details):
                self._take_on(event.session_id)

    def _take_on(self, session_id: str) -> None:
        """Mind a new session; what another daemon on the same database was asked for has no directory here."""
        if not self._house.files.directory(session_id).is_dir():
            return
        self._minded[session_id] = SessionProcess(session_id, self._house)
        if self._begun:
            self._mind(self._minded[session_id])

    def _over(self, session_id: str) -> None:
        """Forget a session that is CLOSED; its output can still be read."""
        one = self._minded.pop(session_id, None)
        self._tasks.pop(session_id, None)
        if one is not None:
            self._watcher.unwatch(self._house.files.directory(session_id), self._callbacks.pop(session_id))
        self._limits.forget(session_id)
        for reader in self._readers.get(session_id, ()):
            reader.end()

    def _written(self, one: SessionProcess, name: str) -> None:
        if name == "stdout" and one.live is not None:
            one.live.dialogue.wake()
        for reader in self._readers.get(one.session_id, ()):
            reader.wake()

    # --- again and again

    async def tick(self) -> None:
        """Hold every process against its limits; to be called every second."""
        await self._limits.mind(list(self._minded.values()))

    async def tidy(self) -> None:
        """Remove the directories of sessions that are not known any more."""
        for session_id in await asyncio.to_thread(self._house.files.sessions):
            if session_id not in self._minded and not await self._house.reports.is_known(session_id):
                await asyncio.to_thread(self._house.files.remove, session_id)

    # --- what services ask

    def problems(self, config: ProcessConfig) -> list[tuple[str, str]]:
        """Return what keeps a configuration from being run on this machine."""
        return workspace.problems(config, self._house.settings.workspace_roots)

    def is_running(self, session_id: str) -> bool:
        """Return whether the session's process is seen to run, now."""
        one = self._minded.get(session_id)
        return one is not None and one.live is not None and one.live.is_alive()

    async def ended(self, session_ids: Collection[str] | None, seconds: float) -> Proof:
        """Wait until nothing is left of the processes of closing sessions."""
        waiting = [one for key, one in self._minded.items() if session_ids is None or key in session_ids]
        tasks = [self._tasks[one.session_id] for one in waiting if one.session_id in self._tasks]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        # Of what is not proven to be gone at least one process is taken to be there.
        left = sum(max(1, one.left) for one in waiting if one.session_id in self._minded)
        return Proof(sum(one.killed for one in waiting), left if tasks else 0)

    async def usage(self) -> dict[str, TreeUsage]:
        """Return what each session's tree takes."""
        return await self._limits.measure(list(self._minded.values()))

    def counts(self) -> ProcessCounts:
        """Return what is known of all processes; never waits."""
        states = Counter(one.row.session.state for one in self._minded.values() if one.row is not None)
        running = [key for key, one in self._minded.items() if one.live is not None and not one.live.exited.done()]
        taken = self._limits.taken(running)
        return ProcessCounts(states, len(running), taken.processes, taken.rss_bytes)

    async def raw_output(self, session_id: str, stream: StreamName, offset: int, limit: int) -> bytes:
        """Return output as it was written."""
        with readable():
            return await asyncio.to_thread(_read, self._output(session_id, stream), offset, limit)

    def read_output(self, session_id: str, stream: StreamName, offset: int) -> Reader:
        """Return a reader that begins at an offset."""
        file = self._output(session_id, stream)
        with readable():
            check_offset(file, offset)
        readers = self._readers.setdefault(session_id, set())

        def closed(reader: Reader) -> None:
            readers.discard(reader)
            if not readers and self._readers.get(session_id) is readers:
                del self._readers[session_id]

        reader = Reader(file, offset, ended=session_id not in self._minded, closed=closed)
        readers.add(reader)
        return reader

    def _output(self, session_id: str, stream: StreamName) -> OutputFile:
        path: Path = self._house.files.output_file(session_id, stream)
        return OutputFile(path)


def _read(file: OutputFile, offset: int, limit: int) -> bytes:
    check_offset(file, offset)
    try:
        return file.read(offset, limit)
    except Gone as error:
        raise gone(error.first_kept) from None

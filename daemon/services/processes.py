"""Supervised processes: what their owner, and their sessions' own tokens, may ask of them."""

from functools import partial

from daemon.domain import sessions, usage
from daemon.domain.changes import Scope
from daemon.domain.errors import NOT_SUPERVISED, SESSION_NOT_FOUND, DaemonError
from daemon.domain.events import Origin
from daemon.domain.process_config import read
from daemon.domain.process_rows import Process
from daemon.domain.process_views import KilledSession, RunningProcess, SentMessage
from daemon.domain.requests import CreateSession, Message
from daemon.domain.rows import Session
from daemon.services.ports import KILL_SECONDS, OutputReader, ProcessCounts, Running, StreamName, TreeUsage
from daemon.services.supervision import Supervision
from daemon.stores.protocol import Store

_NOTHING = TreeUsage()


class Processes:
    """The operations on processes.

    Args:
        store: the engine.
        running: runs them.
        supervision: knows their limits.
    """

    def __init__(self, store: Store, running: Running, supervision: Supervision) -> None:
        self._store = store
        self._running = running
        self._supervision = supervision

    def problems(self, body: CreateSession) -> list[tuple[str, str]]:
        """Return what keeps the process of a new session from being run here, as (dotted path, message)."""
        return [] if body.process is None else self._supervision.problems(body.process)

    async def send(self, session_id: str, body: Message, origin: Origin, *, by_agent: bool) -> SentMessage:
        """Send a message, which begins a turn or waits for one.

        Args:
            session_id: whose process gets it.
            body: the message.
            origin: the owner, or the agent.
            by_agent: whether the session's own token asks.

        Raises:
            DaemonError: SESSION_NOT_FOUND, SESSION_BUSY, INVALID_STATE_TRANSITION, AGENT_SUSPENDED,
                PROCESS_LIMIT_EXCEEDED, VALIDATION_ERROR, and what the session check raises.
        """
        decide = partial(
            sessions.message,
            content=body.content,
            queue=body.queue,
            places=self._supervision.places,
            by_agent=by_agent,
        )
        home = await self._supervision.home_of(session_id)
        scope = Scope(session=session_id, process=True, pool_of=home)
        return await self._store.change(scope, decide, origin)

    async def kill(self, session_id: str, reason: str | None, origin: Origin) -> KilledSession:
        """End a session without grace, and wait for the proof that nothing of its process is left.

        Raises:
            DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION.
        """
        scope = Scope(session=session_id, process=True, ends=True)
        await self._store.change(scope, partial(sessions.kill, reason=reason), origin)
        proof = await self._running.ended([session_id], KILL_SECONDS)
        session, process = await self._both(session_id)
        return KilledSession(
            id=session_id,
            state=session.state,
            exit_code=process.exit_code,
            signal=process.signal,
            processes_left=proof.left,
        )

    async def find(self) -> list[RunningProcess]:
        """Return the processes that run on this machine, the newest first."""
        taken = await self._running.usage()
        found = await self._store.under_way(self._supervision.home)
        return [
            _shown(session, process, taken.get(session.id, _NOTHING))
            for session, process in reversed(found)
            if process.pid is not None and self._running.is_running(session.id)
        ]

    def counts(self) -> ProcessCounts:
        """Return how many processes there are on this machine, and what they took when they were measured last."""
        return self._running.counts()

    async def read(self, session_id: str, stream: StreamName, offset: int, limit: int) -> bytes:
        """Return output as it was written.

        Raises:
            DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION, OUTPUT_GONE, VALIDATION_ERROR.
        """
        await self._check_output(session_id)
        return await self._running.raw_output(session_id, stream, offset, limit)

    async def follow(self, session_id: str, stream: StreamName, offset: int) -> OutputReader:
        """Return a reader of output from an offset on, for as long as there will be any.

        Raises:
            DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION, OUTPUT_GONE, VALIDATION_ERROR.
        """
        await self._check_output(session_id)
        return self._running.read_output(session_id, stream, offset)

    async def _both(self, session_id: str) -> tuple[Session, Process]:
        session, process = await self._store.session(session_id), await self._store.process(session_id)
        if session is None:
            raise DaemonError(SESSION_NOT_FOUND)
        if process is None:
            raise DaemonError(NOT_SUPERVISED, details={"from": session.state, "to": None, "allowed": []})
        return session, process

    async def _check_output(self, session_id: str) -> None:
        """Refuse to read what was written elsewhere: of daemons on one database each has its own files."""
        _, process = await self._both(session_id)
        if process.home != self._supervision.home:
            detail = "The session's process runs under another daemon on this database."
            raise DaemonError(NOT_SUPERVISED, detail, hint="Ask the daemon that made the session.")


def _shown(session: Session, process: Process, taken: TreeUsage) -> RunningProcess:
    return RunningProcess(
        session_id=session.id,
        agent_id=session.agent_id,
        command=read(process.config).command,
        pid=process.pid or 0,
        processes=taken.processes,
        rss=taken.rss,
        cpu=taken.cpu,
        state=session.state,
        since=process.started_at or 0,
        turns=process.turns,
        cost_usd=usage.read(session.usage_stats).cost_usd,
    )

"""What a service may ask of an engine; every engine answers the same."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from daemon.domain.census import Census
from daemon.domain.changes import Decide, Scope
from daemon.domain.clock import Clock
from daemon.domain.events import Event, Origin
from daemon.domain.facts.daemon import AuditArchived
from daemon.domain.filters import AttemptFilter, ConversationFilter, EventFilter, SessionFilter
from daemon.domain.pages import Page
from daemon.domain.process_rows import Process, Supervised
from daemon.domain.rows import (
    Agent,
    AgentStatus,
    Answer,
    Attempt,
    Channel,
    Conversation,
    ConversationKey,
    Delivery,
    Session,
    TouchedConversation,
    Verifier,
)
from daemon.domain.views import Backlog, ChainHead, EngineStatus, ProviderCount
from daemon.stores.commits import Commits
from daemon.stores.live import CacheUse, LiveSession, SealedAnswer
from daemon.stores.terms import BackupFile, Chore, Elsewhere, Telling

T = TypeVar("T")


class Store(Protocol):
    """An engine: rows, the one way to change them, and the hot path's memory in front of them.

    Every method that touches storage raises DaemonError STORAGE_UNAVAILABLE when it cannot.
    """

    clock: Clock
    commits: Commits
    """What its writer has done since the start."""

    @property
    def locked(self) -> bool:
        """Whether the kill switch is on, as last committed: set before anybody is answered."""
        ...

    @property
    def is_current(self) -> bool:
        """Whether what is in memory is known to be at most a second older than the rows."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether other daemons may write the same rows: what they count in memory is told to nobody."""
        ...

    async def change(self, scope: Scope, decide: Decide[T], origin: Origin) -> T:
        """Run one change: load what `scope` names, decide, write, commit; the answer is returned after the commit.

        Args:
            scope: what `decide` needs to see.
            decide: pure and rerunnable; raises one coded error to refuse, and nothing is written.
            origin: who causes the change, for its events.
        """
        ...

    def cached(self, token_hash: str) -> LiveSession | None:
        """Return the session whose current token has this hash if it is in memory; never waits."""
        ...

    async def live_by_token(self, token_hash: str) -> LiveSession | None:
        """Return the session whose current or previous token has this hash."""
        ...

    async def live_by_id(self, session_id: str) -> LiveSession | None:
        """Return the session with this id."""
        ...

    async def reread(self, live: LiveSession) -> LiveSession | None:
        """Return a session as it stands, read again where other daemons may have used it; None if it is gone."""
        ...

    def touch(self, live: LiveSession, now: int, generation: int) -> None:
        """Count one request of a session and of those above it (write-behind, at least every second).

        Args:
            live: the session.
            now: Unix seconds.
            generation: the one that was presented.
        """
        ...

    async def flush(self) -> None:
        """Store all activity that is only in memory."""
        ...

    async def sealed_answer(self, session_id: str) -> SealedAnswer | None:
        """Return the session's sealed answer."""
        ...

    async def session(self, session_id: str) -> Session | None:
        """Return a session, its activity included."""
        ...

    async def sessions(self, which: SessionFilter, page: Page) -> list[Session]:
        """Return sessions, newest first, their activity included."""
        ...

    async def living_below(self, top_ids: Sequence[str]) -> list[Session]:
        """Return what lives in the trees below sessions that owners made, their activity included."""
        ...

    async def agent(self, agent_id: str) -> Agent | None:
        """Return an agent."""
        ...

    async def agents(self, status: AgentStatus | None, page: Page) -> list[Agent]:
        """Return agents, newest first."""
        ...

    async def events(self, which: EventFilter, limit: int) -> list[Event]:
        """Return events, oldest first unless the filter asks for the newest."""
        ...

    async def event_rows(self, after: int, limit: int) -> list[Sequence[Any]]:
        """Return raw audit rows for verification: the ten hashed columns, then prev_hash and hash."""
        ...

    async def count_events(self, after: int, through: int, since: int) -> dict[str, int]:
        """Return how many events there are of each type and of each severity.

        Args:
            after, through: sequence numbers; the first is not counted, the last is.
            since: Unix seconds; older ones are not counted.
        """
        ...

    async def head(self) -> ChainHead:
        """Return the newest event's sequence number and hash."""
        ...

    async def value(self, key: str) -> str | None:
        """Return a value of the key-value store."""
        ...

    async def purge_sessions(self, ended_before: int, limit: int) -> int:
        """Delete at most `limit` sessions that were revoked or expired before (Unix seconds); return how many."""
        ...

    async def purge_idempotency_keys(self, before: int) -> int:
        """Delete idempotency keys older than (Unix seconds); return how many."""
        ...

    async def channels(self) -> list[Channel]:
        """Return every channel, disabled ones too, the highest priority first."""
        ...

    async def verifiers(self, page: Page | None) -> list[Verifier]:
        """Return verifiers, newest first, revoked ones too; without a page all of them."""
        ...

    async def touch_verifiers(self, uses: Mapping[str, int]) -> None:
        """Store last uses (Unix seconds) by verifier; an earlier one than is stored changes nothing."""
        ...

    async def due_deliveries(self, limit: int, without: Sequence[str]) -> list[Delivery]:
        """Return messages to be sent now, at most `limit` of each level, the most urgent and then the oldest first.

        Args:
            limit: of each level.
            without: ids of channels whose own messages are left out.
        """
        ...

    async def attempts(self, which: AttemptFilter, page: Page) -> list[Attempt]:
        """Return rows of the delivery log, newest first."""
        ...

    async def backlog(self) -> Backlog:
        """Return how many messages wait."""
        ...

    async def purge_notifications(self, done_before: int, logged_before: int) -> None:
        """Delete what was sent, what was logged, and answers that ended, before (Unix seconds)."""
        ...

    async def answer(self, token_hash: str) -> Answer | None:
        """Return what may be answered with a token."""
        ...

    async def conversation(self, key: ConversationKey) -> Conversation | None:
        """Return a conversation as stored, an expired one too."""
        ...

    async def conversations(self, which: ConversationFilter, page: Page) -> list[Conversation]:
        """Return conversations that have not expired, newest first.

        Args:
            which: the filters.
            page: its `before` is (created_at, "<agent id>:<conversation id>").
        """
        ...

    async def conversation_counts(self, which: ConversationFilter) -> list[ProviderCount]:
        """Return how many conversations have not expired, by provider and model."""
        ...

    async def touch_conversations(self, rows: Sequence[TouchedConversation]) -> list[Conversation]:
        """Store uses that were counted in memory; a conversation that is gone stays gone.

        Returns:
            The rows as they are now where other daemons count too.
        """
        ...

    async def purge_conversations(self, before: int, limit: int) -> int:
        """Delete at most `limit` conversations that expired before (Unix seconds); return how many."""
        ...

    async def process(self, session_id: str) -> Process | None:
        """Return a session's process, None where it has none."""
        ...

    async def supervised(self, session_id: str) -> Supervised | None:
        """Return a session with its agent, its process and its turns that are not over; None where it has none."""
        ...

    async def under_way(self, home: str) -> list[tuple[Session, Process]]:
        """Return every session with a process of this home whose end is not known yet."""
        ...

    async def active_session_count(self) -> int:
        """Return the number of sessions of status ACTIVE."""
        ...

    async def agent_count(self) -> int:
        """Return the number of agents that are not terminated."""
        ...

    async def census(self) -> Census:
        """Return how many rows there are of what is counted; a look at every session that is kept."""
        ...

    def cache_use(self) -> CacheUse:
        """Return what the memory in front of the session table did; never waits."""
        ...

    async def status(self) -> EngineStatus:
        """Return where rows live."""
        ...

    async def backup(self, directory: Path, stem: str) -> BackupFile:
        """Write a checked copy of everything that is committed, without keeping anybody from writing.

        Args:
            directory: receives the file.
            stem: its name begins with.
        """
        ...

    async def probe(self) -> None:
        """Prove that rows can be read, and written if the last write failed."""
        ...

    async def pulse(self) -> None:
        """Return once what writes rows has taken its turn, however it went: it is not hung."""
        ...


class Engine(Store, Protocol):
    """A store as its wiring sees it."""

    telling: Telling
    on_message: Callable[[], None]
    """Called when a message was put into the outbox."""
    on_elsewhere: Callable[[Elsewhere], None]
    """Called, on the event loop, when other daemons changed something."""

    def chores(self) -> list[Chore]:
        """Return what is to be done again and again while the daemon runs."""
        ...

    def follow(self, after: int) -> None:
        """Announce from now on also what other daemons commit: every event after this one."""
        ...

    async def leads(self, worker: str) -> bool:
        """Return whether it is for this daemon, of all that share the engine, to run a task now; never raises."""
        ...

    async def archive(self, fact: AuditArchived, origin: Origin) -> None:
        """Remove the events that `fact` says are in a file and record it, in one transaction.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        ...

    async def close(self) -> None:
        """Wait for what is queued, then let go of everything."""
        ...

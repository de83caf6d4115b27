"""What an engine reads that decides nothing: through the readers, past the writer and the cache."""

from collections.abc import Sequence
from typing import Any

from daemon.domain.census import Census
from daemon.domain.clock import Clock
from daemon.domain.events import Event
from daemon.domain.filters import AttemptFilter, ConversationFilter, EventFilter
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
    Verifier,
)
from daemon.domain.views import Backlog, ProviderCount
from daemon.stores.live import SealedAnswer
from daemon.stores.sqlite import (
    agents,
    answers,
    census,
    conversations,
    events,
    notifications,
    processes,
    sessions,
    values,
    verifiers,
)
from daemon.stores.sqlite.connection import Readers


class Reads:
    """Rows as they are committed; what is in memory only is not among them.

    Args:
        readers: connections that only read.
        clock: the domain clock.
    """

    def __init__(self, readers: Readers, clock: Clock) -> None:
        self._readers = readers
        self.clock = clock

    async def sealed_answer(self, session_id: str) -> SealedAnswer | None:
        """Return the session's sealed answer."""
        return await self._readers.run(lambda raw: sessions.sealed_answer(raw, session_id))

    async def agent(self, agent_id: str) -> Agent | None:
        """Return an agent."""
        return await self._readers.run(lambda raw: agents.get(raw, agent_id))

    async def agents(self, status: AgentStatus | None, page: Page) -> list[Agent]:
        """Return agents, newest first."""
        return await self._readers.run(lambda raw: agents.find(raw, status, page))

    async def events(self, which: EventFilter, limit: int) -> list[Event]:
        """Return events, oldest first unless the filter asks for the newest."""
        return await self._readers.run(lambda raw: events.find(raw, which, limit))

    async def event_rows(self, after: int, limit: int) -> list[Sequence[Any]]:
        """Return raw audit rows for verification."""
        return await self._readers.run(lambda raw: events.rows_after(raw, after, limit))

    async def count_events(self, after: int, through: int, since: int) -> dict[str, int]:
        """Return how many events there are of each type and of each severity."""
        return await self._readers.run(lambda raw: events.count(raw, after, through, since))

    async def value(self, key: str) -> str | None:
        """Return a value of the key-value store."""
        return await self._readers.run(lambda raw: values.get(raw, key))

    async def channels(self) -> list[Channel]:
        """Return every channel, disabled ones too, the highest priority first."""
        return await self._readers.run(notifications.channels)

    async def verifiers(self, page: Page | None) -> list[Verifier]:
        """Return verifiers, newest first, revoked ones too; without a page all of them."""
        return await self._readers.run(lambda raw: verifiers.find(raw, page))

    async def due_deliveries(self, limit: int, without: Sequence[str]) -> list[Delivery]:
        """Return messages to be sent now, the most urgent and then the oldest first."""
        now = self.clock.now()
        return await self._readers.run(lambda raw: notifications.due(raw, now, limit, without))

    async def attempts(self, which: AttemptFilter, page: Page) -> list[Attempt]:
        """Return rows of the delivery log, newest first."""
        return await self._readers.run(lambda raw: notifications.find_attempts(raw, which, page))

    async def backlog(self) -> Backlog:
        """Return how many messages wait."""
        return await self._readers.run(notifications.backlog)

    async def answer(self, token_hash: str) -> Answer | None:
        """Return what may be answered with a token."""
        return await self._readers.run(lambda raw: answers.get(raw, token_hash))

    async def conversation(self, key: ConversationKey) -> Conversation | None:
        """Return a conversation, an expired one too."""
        return await self._readers.run(lambda raw: conversations.get(raw, key))

    async def conversations(self, which: ConversationFilter, page: Page) -> list[Conversation]:
        """Return conversations that have not expired, newest first."""
        now = self.clock.now()
        return await self._readers.run(lambda raw: conversations.find(raw, which, page, now))

    async def conversation_counts(self, which: ConversationFilter) -> list[ProviderCount]:
        """Return how many conversations have not expired, by provider and model."""
        now = self.clock.now()
        return await self._readers.run(lambda raw: conversations.counts(raw, which, now))

    async def process(self, session_id: str) -> Process | None:
        """Return a session's process."""
        return await self._readers.run(lambda raw: processes.get(raw, session_id))

    async def supervised(self, session_id: str) -> Supervised | None:
        """Return a session with its agent, its process and its turns that are not over."""
        return await self._readers.run(lambda raw: processes.supervised(raw, session_id))

    async def under_way(self, home: str) -> list[tuple[Session, Process]]:
        """Return every session with a process of this home whose end is not known yet."""
        return await self._readers.run(lambda raw: processes.under_way(raw, home))

    async def active_session_count(self) -> int:
        """Return the number of sessions of status ACTIVE."""
        now = self.clock.now()
        return await self._readers.run(lambda raw: sessions.count_active(raw, now))

    async def agent_count(self) -> int:
        """Return the number of agents that are not terminated."""
        return await self._readers.run(agents.count)

    async def census(self) -> Census:
        """Return how many rows there are of what is counted."""
        now = self.clock.now()
        return await self._readers.run(lambda raw: census.take(raw, now))

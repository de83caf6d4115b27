"""Bringing into Redis what the engine holds and Redis missed."""

from collections.abc import Sequence

import msgspec

from daemon.domain.facts.conversations import ConversationDeleted, ConversationRebound
from daemon.domain.filters import ConversationFilter, EventFilter
from daemon.domain.pages import Page
from daemon.domain.rows import Conversation, ConversationKey
from daemon.stores.conversations import EngineConversations
from daemon.stores.protocol import Store
from daemon.stores.redis.bindings import Bindings
from daemon.stores.redis.mirror import Mirror

CHUNK = 500
"""Conversations in one round trip."""
LONGEST_TTL = 604_800
"""Seconds: what was deleted longer ago has expired in Redis by itself."""


class _Deleted(msgspec.Struct, rename="camel"):
    conversation_id: str


class Copying:
    """Copies rows and deletions; what is newer in Redis stays there, and the engine is told of it.

    Args:
        store: the engine.
        engine: the conversations in it, uses that are not stored yet included.
        bindings: those in Redis.
        mirror: tells the engine.
    """

    def __init__(self, store: Store, engine: EngineConversations, bindings: Bindings, mirror: Mirror) -> None:
        self._store = store
        self._engine = engine
        self._bindings = bindings
        self._mirror = mirror
        self._changed: set[ConversationKey] = set()
        self._deleted: dict[ConversationKey, int] = {}
        self._watching = False

    @property
    def left(self) -> int:
        """How many conversations were changed since they were copied."""
        return len(self._changed) + len(self._deleted)

    def note(self, key: ConversationKey) -> None:
        """Remember that the engine changed a conversation while others are being copied."""
        if self._watching:
            self._changed.add(key)

    def note_deleted(self, key: ConversationKey) -> None:
        """Remember that the engine deleted a conversation while others are being copied."""
        if self._watching:
            self._deleted[key] = self._store.clock.now()

    async def everything(self, since: int) -> int:
        """Copy what was used, rebound or deleted since then (Unix seconds), and return how much changed in Redis.

        Raises:
            AwayError: Redis cannot be asked.
            DaemonError: STORAGE_UNAVAILABLE.
        """
        self._watching = True
        self._changed, self._deleted = set(), {}
        copied = await self._forget(await self._deletions(since))
        await self._engine.flush()
        rebound = {key for key, _ in await self._events(ConversationRebound.type, since)}
        before: tuple[int, str] | None = None
        while page := await self._store.conversations(ConversationFilter(), Page(CHUNK, before)):
            copied += await self._merge([row for row in page if row.last_activity >= since or row.key in rebound])
            before = page[-1].created_at, ":".join(page[-1].key)
        return copied

    async def rest(self) -> int:
        """Copy what was changed since the last copy of it, and return how much changed in Redis.

        Raises:
            AwayError: Redis cannot be asked.
            DaemonError: STORAGE_UNAVAILABLE.
        """
        changed, self._changed = self._changed, set()
        deleted, self._deleted = self._deleted, {}
        copied = await self._forget(list(deleted.items()))
        await self._engine.flush()
        rows = [row for key in changed if (row := await self._engine.get(key)) is not None]
        for start in range(0, len(rows), CHUNK):
            copied += await self._merge(rows[start : start + CHUNK])
        return copied

    def end(self) -> None:
        """Stop noting changes."""
        self._watching = False
        self._changed, self._deleted = set(), {}

    async def _deletions(self, since: int) -> list[tuple[ConversationKey, int]]:
        oldest = max(since, self._store.clock.now() - LONGEST_TTL)
        return await self._events(ConversationDeleted.type, oldest)

    async def _events(self, kind: str, since: int) -> list[tuple[ConversationKey, int]]:
        """Return the conversations that events of a type are about, and their times, the oldest first."""
        limit = 1000
        while True:
            events = await self._store.events(EventFilter(type=kind, newest_first=True), limit)
            if len(events) < limit or events[-1].timestamp < since:
                break
            limit *= 4
        return [
            ((event.agent_id or "", msgspec.json.decode(event.details, type=_Deleted).conversation_id), event.timestamp)
            for event in reversed(events)
            if event.timestamp >= since
        ]

    async def _forget(self, deleted: Sequence[tuple[ConversationKey, int]]) -> int:
        copied = 0
        for start in range(0, len(deleted), CHUNK):
            copied += await self._bindings.forget(deleted[start : start + CHUNK])
        return copied

    async def _merge(self, rows: list[Conversation]) -> int:
        if not rows:
            return 0
        merged = await self._bindings.merge(rows)
        for row, one in zip(rows, merged, strict=True):
            held = one.conversation
            if (held.provider, held.model, held.created_at) != (row.provider, row.model, row.created_at):
                self._mirror.owe(held)
        return sum(one.changed for one in merged)

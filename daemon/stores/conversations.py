"""Conversations in the engine's own table, with a bounded memory in front of it."""

import asyncio
from functools import partial
from typing import TypeVar
from weakref import WeakValueDictionary

import msgspec

from daemon.domain import conversations
from daemon.domain.changes import Decide, Scope
from daemon.domain.conversations import Bound, Rebinding
from daemon.domain.errors import DaemonError
from daemon.domain.events import Origin
from daemon.domain.rows import Conversation, ConversationKey, TouchedConversation
from daemon.domain.views import Check
from daemon.stores.protocol import Store
from daemon.stores.terms import Chore, Elsewhere

T = TypeVar("T")

SIZE = 50_000
"""Conversations held in memory, about 600 bytes each with an id of 36 characters."""
FLUSH_CHUNK = 1000
"""Conversations whose uses are stored in one unit, so that others need not wait long."""


class _Use(msgspec.Struct, gc=False):
    """Uses of a conversation that are not stored yet."""

    requests: int
    last_activity: int
    expires_at: int


class _Turn(asyncio.Lock):
    """Held by whoever loads or changes one conversation; `overtaken`: another daemon changed it meanwhile."""

    overtaken = False


class EngineConversations:
    """Bindings of conversations: written through, their uses written behind.

    A use of a conversation that is in memory neither waits nor writes. Only the event loop's thread is in here.

    Args:
        store: the engine.
        ttl: seconds without use after which a conversation is over.
        size: conversations kept in memory at most, the least recently used leaving first.
    """

    def __init__(self, store: Store, ttl: int, size: int = SIZE) -> None:
        self._store = store
        self._ttl = ttl
        self._size = size
        self._rows: dict[ConversationKey, Conversation] = {}
        self._uses: dict[ConversationKey, _Use] = {}
        self._flushing: dict[ConversationKey, _Use] = {}
        self._flushing_alone = asyncio.Lock()
        self._turns: WeakValueDictionary[ConversationKey, _Turn] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._rows)

    async def bind(self, wanted: Conversation, origin: Origin) -> Bound:
        """Return the conversation with this key, and begin it where there is none or only an expired one."""
        key = wanted.key
        known = self._use(key)
        if known is not None:
            return Bound(known, created=False)
        turn = self._turn(key)
        async with turn:
            known = self._use(key)
            if known is None and self._store.is_current and await self._load(key, turn):
                known = self._use(key)
            if known is not None:
                return Bound(known, created=False)
            bound = await self._change(
                turn, wanted.session_id, key, partial(conversations.bind, wanted=wanted, ttl=self._ttl), origin
            )
            self._remember(bound.conversation, turn)
            return bound

    async def get(self, key: ConversationKey) -> Conversation | None:
        """Return a conversation that has not expired; this is no use of it, but those of other daemons are in it."""
        known = self._seen(key)
        if known is not None:
            return known
        turn = self._turn(key)
        async with turn:
            return self._seen(key) or await self._load(key, turn)

    async def touch(self, key: ConversationKey) -> int | None:
        """Count one use; return when the conversation expires now, None if there is none."""
        used = self._use(key)
        if used is None:
            turn = self._turn(key)
            async with turn:
                used = self._use(key)
                if used is None and (loaded := await self._load(key, turn)):
                    used = self._count(loaded)
        return used.expires_at if used else None

    async def rebind(self, key: ConversationKey, change: Rebinding, session_id: str, origin: Origin) -> Conversation:
        """Bind a conversation to another provider or model where it is bound as `change` expects."""
        turn = self._turn(key)
        async with turn:
            decide = partial(conversations.rebind, change=change)
            rebound = await self._change(turn, session_id, key, decide, origin)
            self._remember(rebound, turn)
            return rebound

    async def delete(self, key: ConversationKey, session_id: str, origin: Origin) -> None:
        """Delete a conversation."""
        turn = self._turn(key)
        async with turn:
            await self._change(turn, session_id, key, conversations.delete, origin)

    async def flush(self) -> None:
        """Store all uses that are only in memory, in chunks."""
        async with self._flushing_alone:
            keys = list(self._uses)
            for start in range(0, len(keys), FLUSH_CHUNK):
                await self._flush(keys[start : start + FLUSH_CHUNK])

    def forget(self, elsewhere: Elsewhere) -> None:
        """Drop from memory what other daemons changed; uses that are not stored yet are kept for the next flush."""
        keys = list(self._turns) if elsewhere.everything else elsewhere.conversations
        for key in keys:
            if (turn := self._turns.get(key)) is not None:
                turn.overtaken = True
            self._rows.pop(key, None)
        if elsewhere.everything:
            self._rows.clear()

    def chores(self) -> list[Chore]:
        """Return what is to be done again and again: nothing but `flush`."""
        return []

    def check(self) -> Check | None:
        """Return how what stands in front of the engine does: nothing does."""
        return None

    async def close(self) -> None:
        """Let go of what stands in front of the engine: nothing does."""

    def _turn(self, key: ConversationKey) -> _Turn:
        turn = self._turns.get(key)
        if turn is None:
            self._turns[key] = turn = _Turn()
        return turn

    def _known(self, key: ConversationKey) -> Conversation | None:
        """Return a conversation that is in memory and may be trusted."""
        row = self._rows.get(key)
        if row is None or row.expires_at <= self._store.clock.now() or not self._store.is_current:
            return None
        return row

    def _seen(self, key: ConversationKey) -> Conversation | None:
        """Return a conversation that is in memory and has every use in it."""
        return None if self._store.is_shared else self._known(key)

    def _use(self, key: ConversationKey) -> Conversation | None:
        known = self._known(key)
        return self._count(known) if known is not None else None

    def _count(self, row: Conversation) -> Conversation:
        """Count one use, to be stored later, and return the conversation as it is now."""
        now = self._store.clock.now()
        expires_at = now + self._ttl
        used = Conversation(
            row.agent_id,
            row.conversation_id,
            row.provider,
            row.model,
            row.external_id,
            row.session_id,
            row.created_at,
            now,
            expires_at,
            row.request_count + 1,
            row.rebind_count,
        )
        key = row.key
        use = self._uses.get(key)
        if use is None:
            self._uses[key] = _Use(1, now, expires_at)
        else:
            use.requests, use.last_activity, use.expires_at = use.requests + 1, now, expires_at
        if self._rows.pop(key, None) is not None:
            self._rows[key] = used
        return used

    def _remember(self, row: Conversation, turn: _Turn) -> None:
        """Keep a row that was read or written in this turn, unless another daemon has changed it since."""
        if turn.overtaken or not self._store.is_current:
            return
        self._rows[row.key] = row
        while len(self._rows) > self._size:
            del self._rows[next(iter(self._rows))]

    async def _load(self, key: ConversationKey, turn: _Turn) -> Conversation | None:
        """Read a conversation into memory, its uses included; None if there is none or it has expired."""
        await self._settle(key, turn)
        row = await self._store.conversation(key)
        if row is None or row.expires_at <= self._store.clock.now():
            return None
        self._remember(row, turn)
        return row

    async def _change(
        self, turn: _Turn, session_id: str | None, key: ConversationKey, decide: Decide[T], origin: Origin
    ) -> T:
        """Change a conversation; nobody is answered from memory meanwhile."""
        await self._settle(key, turn)
        return await self._store.change(Scope(session=session_id, conversation=key), decide, origin)

    async def _settle(self, key: ConversationKey, turn: _Turn) -> None:
        """Take a conversation out of memory, so that the stored row is all there is of it."""
        turn.overtaken = False
        self._rows.pop(key, None)
        if key in self._flushing:
            async with self._flushing_alone:
                pass
        if key in self._uses:
            async with self._flushing_alone:
                await self._flush([key])

    async def _flush(self, keys: list[ConversationKey]) -> None:
        """Store the uses of some conversations; what could not be stored is kept."""
        self._flushing = taken = {key: use for key in keys if (use := self._uses.pop(key, None)) is not None}
        rows = [
            TouchedConversation(*key, use.requests, use.last_activity, use.expires_at) for key, use in taken.items()
        ]
        try:
            stored = await self._store.touch_conversations(rows)
        except DaemonError:
            for key, use in taken.items():
                later = self._uses.setdefault(key, use)
                if later is not use:
                    later.requests += use.requests
            raise
        finally:
            self._flushing = {}
        for row in stored:
            self._catch_up(row)

    def _catch_up(self, stored: Conversation) -> None:
        """Take what other daemons counted into memory."""
        known, use = self._rows.get(stored.key), self._uses.get(stored.key)
        if known is None or known.created_at != stored.created_at:
            return
        self._rows[stored.key] = msgspec.structs.replace(
            known,
            request_count=stored.request_count + (use.requests if use is not None else 0),
            last_activity=max(known.last_activity, stored.last_activity),
            expires_at=max(known.expires_at, stored.expires_at),
        )

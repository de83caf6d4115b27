"""What Redis holds, written to the engine: what an agent is told of at once, uses behind, what others left in time."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import islice

import msgspec

from daemon.domain import conversations, mirroring
from daemon.domain.changes import Decide, Scope
from daemon.domain.conversations import Rebinding
from daemon.domain.errors import STORAGE_UNAVAILABLE, SYSTEM_LOCKED, DaemonError
from daemon.domain.events import SYSTEM, Origin
from daemon.domain.rows import Conversation, ConversationKey, TouchedConversation
from daemon.stores.protocol import Store
from daemon.stores.redis.failures import AwayError

PATIENCE = 2.0
"""Seconds that whoever made a change has to tell the engine, before somebody who only saw it does."""
FAMILIAR = 50_000
"""Conversations of which is remembered that the engine knows them."""
FULL = 10_000
"""Conversations with uses that are not stored at which no more are taken before they are."""
CHUNK = 1000

Version = tuple[int, int]
"""`created_at` and `rebind_count`: the rest of a binding follows from them."""


class _Owed(msgspec.Struct):
    """What the engine is to be told, unless it knows by then.

    Args:
        held: as seen in Redis.
        due: monotonic seconds.
        origin: who made it, if that is known.
    """

    held: Conversation
    due: float
    origin: Origin = SYSTEM


class Mirror:
    """Keeps the engine's rows at what Redis holds. Only the event loop's thread is in here.

    Args:
        store: the engine.
        look: returns what Redis holds now; raises AwayError while it cannot be asked.
    """

    def __init__(self, store: Store, look: Callable[[ConversationKey], Awaitable[Conversation | None]]) -> None:
        self._store = store
        self._look = look
        self._uses: dict[ConversationKey, TouchedConversation] = {}
        self._owed: dict[ConversationKey, _Owed] = {}
        self._familiar: dict[ConversationKey, Version] = {}
        self._flushing = asyncio.Lock()

    async def used(self, held: Conversation) -> None:
        """Count a use, to be stored within a second; waits only where too much is not stored yet."""
        key = held.key
        if self._familiar.get(key) != _version(held):
            self.owe(held)
        before = self._uses.get(key)
        requests = 1 + (before.requests if before is not None else 0)
        self._uses[key] = TouchedConversation(*key, requests, held.last_activity, held.expires_at)
        if len(self._uses) >= FULL:
            with contextlib.suppress(DaemonError):
                await self.flush()
            while len(self._uses) > FULL:
                # The engine is away for long: a count is lost rather than memory without end.
                del self._uses[next(iter(self._uses))]

    def owe(self, held: Conversation) -> None:
        """Compare the engine's row with what was seen in Redis, once whoever made it has had the time to write it."""
        if len(self._owed) < FAMILIAR:
            self._owed.setdefault(held.key, _Owed(held, self._store.clock.monotonic() + PATIENCE))

    def has_uses(self, key: ConversationKey) -> bool:
        """Return whether uses of a conversation are not stored yet."""
        return key in self._uses

    async def began(self, begun: Conversation, origin: Origin) -> None:
        """Tell the engine of a conversation that began, and wait for it.

        Raises:
            DaemonError: as the session check does; an engine that is away is told later.
        """
        await self._write(begun, begun.session_id, partial(mirroring.began, begun=begun), origin)

    async def rebound(self, held: Conversation, change: Rebinding, session_id: str, origin: Origin) -> None:
        """Tell the engine of a rebind, and wait for it.

        Raises:
            DaemonError: as the session check does; an engine that is away is told later.
        """
        await self._write(held, session_id, partial(mirroring.rebound, held=held, change=change), origin)

    async def deleted(self, key: ConversationKey, session_id: str, origin: Origin) -> None:
        """Delete the engine's row.

        Raises:
            DaemonError: CONVERSATION_NOT_FOUND, STORAGE_UNAVAILABLE, and as the session check does.
        """
        for pending in (self._uses, self._owed, self._familiar):
            pending.pop(key, None)
        await self._store.change(Scope(session=session_id, conversation=key), conversations.delete, origin)

    async def removed(self, held: Conversation, session_id: str, origin: Origin) -> None:
        """Record the deletion of a conversation that the engine did not know.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE, and as the session check does.
        """
        scope = Scope(session=session_id, conversation=held.key)
        await self._store.change(scope, partial(mirroring.removed, held=held), origin)

    async def flush(self) -> None:
        """Store uses, and what is owed and due.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE; what could not be stored is kept.
        """
        now = self._store.clock.monotonic()
        async with self._flushing:
            await self._flush_uses()
            for owed in [one for one in self._owed.values() if one.due <= now]:
                with contextlib.suppress(AwayError):
                    await self._settle(owed, await self._look(owed.held.key))

    async def flush_without_redis(self) -> None:
        """Store everything, at once and as last seen: Redis cannot be asked, and the engine answers from now on.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE; what could not be stored is kept.
        """
        async with self._flushing:
            await self._flush_uses()
            for owed in list(self._owed.values()):
                await self._settle(owed, owed.held)

    async def _write(self, held: Conversation, session_id: str | None, decide: Decide[None], origin: Origin) -> None:
        writing = asyncio.ensure_future(
            self._store.change(Scope(session=session_id, conversation=held.key), decide, origin)
        )
        try:
            # Redis has it: an agent that goes away must not keep the engine from being told.
            await asyncio.shield(writing)
        except DaemonError as error:
            if error.kind is not STORAGE_UNAVAILABLE:
                raise
            self._owed[held.key] = _Owed(held, 0.0, origin)
        else:
            self._know(held)

    def _know(self, held: Conversation) -> None:
        self._familiar.pop(held.key, None)
        self._familiar[held.key] = _version(held)
        if len(self._familiar) > FAMILIAR:
            del self._familiar[next(iter(self._familiar))]

    async def _flush_uses(self) -> None:
        for _ in range(len(self._uses) // CHUNK + 1):
            rows = [self._uses.pop(key) for key in list(islice(self._uses, CHUNK))]
            try:
                await self._store.touch_conversations(rows)
            except DaemonError:
                for row in rows:
                    self._keep(row)
                raise

    def _keep(self, row: TouchedConversation) -> None:
        key = (row.agent_id, row.conversation_id)
        later = self._uses.get(key)
        if later is None:
            self._uses[key] = row
        else:
            self._uses[key] = msgspec.structs.replace(later, requests=later.requests + row.requests)

    async def _settle(self, owed: _Owed, held: Conversation | None) -> None:
        """Make the engine's row what is held; what is gone from Redis was deleted, or is over."""
        if held is not None:
            row = await self._store.conversation(held.key)
            if row is None or _version(row) != _version(held):
                scope = Scope(agent=held.agent_id, session=held.session_id, conversation=held.key)
                try:
                    await self._store.change(scope, partial(mirroring.follow, held=held), owed.origin)
                except DaemonError as error:
                    if error.kind is SYSTEM_LOCKED:
                        return
                    raise
            self._know(held)
        if self._owed.get(owed.held.key) is owed:
            del self._owed[owed.held.key]


def _version(conversation: Conversation) -> Version:
    return conversation.created_at, conversation.rebind_count

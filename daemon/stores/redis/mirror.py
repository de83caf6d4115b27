"""What Redis holds, written to the engine: what an agent is told of at once, uses behind, what others left in time."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial

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
        in_doubt: whether it was written is not known, nor whether Redis still holds it.
    """

    held: Conversation
    due: float
    origin: Origin = SYSTEM
    in_doubt: bool = False


class Mirror:
    """Keeps the engine's rows at what Redis holds. Only the event loop's thread is in here.

    Args:
        store: the engine.
        look: returns what Redis holds now; raises AwayError while it cannot be asked, as `restore` does.
        restore: brings a row that is newer into Redis.
    """

    def __init__(
        self,
        store: Store,
        look: Callable[[ConversationKey], Awaitable[Conversation | None]],
        restore: Callable[[Conversation], Awaitable[None]],
    ) -> None:
        self._store = store
        self._look = look
        self._restore = restore
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
        owed = self._owed.get(held.key)
        if owed is not None:
            owed.held = held
        elif len(self._owed) < FAMILIAR:
            self._owed[held.key] = _Owed(held, self._store.clock.monotonic() + PATIENCE)

    def has_uses(self, key: ConversationKey) -> bool:
        """Return whether uses of a conversation are not stored yet."""
        return key in self._uses

    async def began(self, begun: Conversation, origin: Origin) -> None:
        """Tell the engine of a conversation that began, and wait for it.

        Raises:
            DaemonError: as the session check does; STORAGE_UNAVAILABLE, and the engine is told later.
        """
        await self._write(begun, begun.session_id, partial(mirroring.began, begun=begun), origin)

    async def rebound(self, held: Conversation, change: Rebinding, session_id: str, origin: Origin) -> None:
        """Tell the engine of a rebind, and wait for it.

        Raises:
            DaemonError: as the session check does; STORAGE_UNAVAILABLE, and the engine is told later.
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
            for owed in list(self._owed.values()):
                if not await self._is_told(owed) and owed.due <= now:
                    with contextlib.suppress(AwayError):
                        await self._reconcile(owed)
            await self._flush_uses()

    async def flush_without_redis(self) -> None:
        """Store everything, at once and as last seen: Redis cannot be asked, and the engine answers from now on.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE; what could not be stored is kept.
        """
        async with self._flushing:
            for owed in list(self._owed.values()):
                if not await self._is_told(owed):
                    await self._tell(owed, owed.held)
            await self._flush_uses()

    async def _write(self, held: Conversation, session_id: str | None, decide: Decide[None], origin: Origin) -> None:
        writing = asyncio.ensure_future(
            self._store.change(Scope(session=session_id, conversation=held.key), decide, origin)
        )
        try:
            # Redis has it: an agent that goes away must not keep the engine from being told.
            await asyncio.shield(writing)
        except DaemonError as error:
            if error.kind is STORAGE_UNAVAILABLE:
                # It may be written for all we know, or others were told of it by Redis: compare once that is possible.
                self._owed[held.key] = _Owed(held, 0.0, origin, in_doubt=True)
            raise
        self._know(held)

    def _know(self, held: Conversation) -> None:
        self._owed.pop(held.key, None)
        self._familiar.pop(held.key, None)
        self._familiar[held.key] = _version(held)
        if len(self._familiar) > FAMILIAR:
            del self._familiar[next(iter(self._familiar))]

    async def _flush_uses(self) -> None:
        """Store uses of what the engine knows; where it has no row yet there is nothing to add them to."""
        keys = [key for key in self._uses if key not in self._owed]
        for start in range(0, len(keys), CHUNK):
            chunk = keys[start : start + CHUNK]
            rows = [row for key in chunk if (row := self._uses.pop(key, None)) is not None]
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

    async def _is_told(self, owed: _Owed) -> bool:
        row = await self._store.conversation(owed.held.key)
        if owed.in_doubt or row is None or _version(row) != _version(owed.held):
            return False
        self._know(owed.held)
        return True

    async def _reconcile(self, owed: _Owed) -> None:
        """Make the engine and Redis agree; what is gone from Redis was deleted, or is over."""
        key = owed.held.key
        held, row = await self._look(key), await self._store.conversation(key)
        if held is None:
            self._owed.pop(key, None)
        elif row is not None and row.created_at == held.created_at and row.rebind_count > held.rebind_count:
            await self._restore(row)
            self._know(row)
        else:
            await self._tell(owed, held)

    async def _tell(self, owed: _Owed, held: Conversation) -> None:
        key = owed.held.key
        counted = self._uses.get(key)
        scope = Scope(agent=held.agent_id, session=held.session_id, conversation=key)
        try:
            await self._store.change(scope, partial(mirroring.follow, held=held), owed.origin)
        except DaemonError as error:
            if error.kind is SYSTEM_LOCKED:
                return
            raise
        self._know(held)
        if counted is not None and self._uses.get(key) is counted:
            # They are in what is held.
            del self._uses[key]


def _version(conversation: Conversation) -> Version:
    return conversation.created_at, conversation.rebind_count

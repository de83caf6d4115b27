"""Conversations in Redis, with the engine behind it: whichever of the two can answers, and agents see no difference."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from daemon.domain import conversations
from daemon.domain.conversations import Bound, Rebinding
from daemon.domain.errors import CONVERSATION_CONFLICT, CONVERSATION_NOT_FOUND, DaemonError
from daemon.domain.events import Origin
from daemon.domain.rows import Conversation, ConversationKey
from daemon.domain.views import Check
from daemon.stores.conversations import EngineConversations
from daemon.stores.protocol import Store
from daemon.stores.redis.attachment import KEY
from daemon.stores.redis.bindings import Bindings
from daemon.stores.redis.copying import Copying
from daemon.stores.redis.failures import AwayError
from daemon.stores.redis.keys import Keys
from daemon.stores.redis.link import Link
from daemon.stores.redis.mirror import Mirror
from daemon.stores.redis.outage import Outage
from daemon.stores.terms import Chore, Elsewhere

T = TypeVar("T")
Report = Callable[..., None]

LOOK_SECONDS = 0.2


class RedisConversations:
    """Bindings of conversations, read from Redis every time: what other daemons do counts at once.

    Args:
        store: the engine.
        engine: the conversations in it, which answer while Redis cannot.
        link: the server; closed by `close`.
        keys: the form of its keys.
        ttl: seconds without use after which a conversation is over.
        report: puts one line into the structured log.
    """

    def __init__(
        self, store: Store, engine: EngineConversations, *, link: Link, keys: Keys, ttl: int, report: Report
    ) -> None:
        self._link = link
        self._engine = engine
        self._store = store
        self._ttl = ttl
        self._bindings = Bindings(link, keys, store.clock, ttl, lambda: report("conversations.replaced"))
        self._mirror = Mirror(store, self._bindings.get, self._bindings.restore)
        copying = Copying(store, engine, self._bindings, self._mirror)
        self._outage = Outage(store, engine, link=link, mirror=self._mirror, copying=copying, keys=keys, report=report)

    async def start(self) -> None:
        """Connect; a server that is away is waited for while the engine answers.

        Raises:
            UnfitError: it can never serve.
            DaemonError: STORAGE_UNAVAILABLE.
        """
        await self._outage.start()

    async def bind(self, wanted: Conversation, origin: Origin) -> Bound:
        """Return the conversation with this key, and begin it where there is none or only an expired one."""
        key = wanted.key
        return await self._serve(lambda: self._bind(wanted, origin), lambda: self._engine.bind(wanted, origin), key)

    async def get(self, key: ConversationKey) -> Conversation | None:
        """Return a conversation that has not expired; this is no use of it."""

        async def ask() -> Conversation | None:
            return await self._bindings.get(key) or await self._kept(key)

        return await self._serve(ask, lambda: self._engine.get(key), None)

    async def touch(self, key: ConversationKey) -> int | None:
        """Count one use; return when the conversation expires now, None if there is none."""

        async def ask() -> int | None:
            bound = await self._use(key)
            return bound.expires_at if bound is not None else None

        return await self._serve(ask, lambda: self._engine.touch(key), key)

    async def rebind(self, key: ConversationKey, change: Rebinding, session_id: str, origin: Origin) -> Conversation:
        """Bind a conversation to another provider or model where it is bound as `change` expects."""
        return await self._serve(
            lambda: self._rebind(key, change, session_id, origin),
            lambda: self._engine.rebind(key, change, session_id, origin),
            key,
        )

    async def delete(self, key: ConversationKey, session_id: str, origin: Origin) -> None:
        """Delete a conversation."""

        async def on_engine() -> None:
            await self._engine.delete(key, session_id, origin)
            self._outage.note_deleted(key)

        await self._serve(lambda: self._delete(key, session_id, origin), on_engine, None)

    async def flush(self) -> None:
        """Store in the engine what it was not told of yet."""
        await self._mirror.flush()
        await self._engine.flush()

    def forget(self, elsewhere: Elsewhere) -> None:
        """Drop from memory what other daemons changed."""
        self._engine.forget(elsewhere)
        if elsewhere.everything or KEY in elsewhere.values:
            self._outage.doubt()

    def chores(self) -> list[Chore]:
        """Return what is to be done again and again."""
        return [Chore("conversations-redis", LOOK_SECONDS, self._outage.look)]

    def check(self) -> Check:
        """Return how it does; without Redis agents are served all the same."""
        if self._outage.serving:
            return Check(status="ok")
        return Check(status="degraded", detail=f"Redis is not used: {self._outage.reason}")

    async def close(self) -> None:
        """Close every connection to Redis."""
        await self._link.close()

    async def _serve(
        self, on_redis: Callable[[], Awaitable[T]], on_engine: Callable[[], Awaitable[T]], key: ConversationKey | None
    ) -> T:
        """Let Redis answer, or the engine where it cannot; `key`: of the conversation that this changes."""
        while True:
            if self._outage.serving:
                await self._outage.settle()
            if self._outage.serving:
                term = self._outage.term
                try:
                    return await on_redis()
                except AwayError as away:
                    # Another request may have noticed long ago, and Redis may be back.
                    if term == self._outage.term:
                        self._outage.begin(away)
            if await self._outage.enter():
                try:
                    return await on_engine()
                finally:
                    if key is not None:
                        self._outage.note(key)
                    self._outage.exit()

    async def _kept(self, key: ConversationKey) -> Conversation | None:
        """Return the engine's row of what Redis does not have: it was restarted empty, or has evicted it."""
        if self._mirror.has_uses(key):
            await self._mirror.flush()
        row = await self._store.conversation(key)
        return row if conversations.is_live(row, self._store.clock.now()) else None

    async def _restored(self, key: ConversationKey) -> bool:
        """Bring the engine's row into Redis; return whether there is one."""
        kept = await self._kept(key)
        if kept is None:
            return False
        await self._bindings.restore(kept)
        return True

    async def _use(self, key: ConversationKey) -> Conversation | None:
        bound = await self._bindings.use(key)
        if bound is None and await self._restored(key):
            bound = await self._bindings.use(key)
        if bound is None:
            return None
        await self._mirror.used(bound.conversation)
        return bound.conversation

    async def _bind(self, wanted: Conversation, origin: Origin) -> Bound:
        known = await self._use(wanted.key)
        if known is not None:
            return Bound(known, created=False)
        begun = conversations.begin(wanted, self._store.clock.now(), self._ttl)
        bound = await self._bindings.use(wanted.key, begun)
        if bound is None:
            raise AwayError("it keeps nothing")
        if not bound.created:
            await self._mirror.used(bound.conversation)
            return bound
        try:
            await self._mirror.began(bound.conversation, origin)
        except DaemonError as error:
            if error.kind is CONVERSATION_CONFLICT:
                # A daemon that has left Redis began it first.
                await self._bindings.remove(wanted.key)
                return await self._bind(wanted, origin)
            await self._bindings.undo(bound.conversation, None)
            raise
        return bound

    async def _rebind(self, key: ConversationKey, change: Rebinding, session_id: str, origin: Origin) -> Conversation:
        done, held = await self._bindings.rebind(key, change)
        if held is None and await self._restored(key):
            done, held = await self._bindings.rebind(key, change)
        if held is None:
            raise DaemonError(CONVERSATION_NOT_FOUND)
        if not done:
            stored = {"provider": held.provider, "model": held.model, "rebindCount": held.rebind_count}
            raise DaemonError(CONVERSATION_CONFLICT, details=stored)
        try:
            await self._mirror.rebound(held, change, session_id, origin)
        except DaemonError as error:
            await self._bindings.undo(held, change.expected)
            if error.kind is CONVERSATION_CONFLICT:
                await self._restored(key)
            raise
        return held

    async def _delete(self, key: ConversationKey, session_id: str, origin: Origin) -> None:
        """Delete the row first: while Redis has the conversation nobody asks the engine for it."""
        known = True
        try:
            await self._mirror.deleted(key, session_id, origin)
        except DaemonError as error:
            if error.kind is not CONVERSATION_NOT_FOUND:
                raise
            known = False
        try:
            held = await self._bindings.remove(key)
        except AwayError as away:
            if not known:
                raise
            # It is deleted: copying what Redis missed takes it away there.
            self._outage.begin(away)
            return
        if not known:
            if held is None:
                raise DaemonError(CONVERSATION_NOT_FOUND)
            await self._mirror.removed(held, session_id, origin)

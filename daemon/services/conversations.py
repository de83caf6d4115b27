"""Conversations: what agents do with theirs, and what the owner sees of all."""

import contextlib

from daemon.domain import conversation_views
from daemon.domain.conversation_views import (
    BoundConversation,
    ConversationsOverview,
    ConversationView,
    Rebind,
    TouchedView,
)
from daemon.domain.conversations import Rebinding
from daemon.domain.errors import CONVERSATION_NOT_FOUND, DaemonError
from daemon.domain.events import Origin
from daemon.domain.facts.conversations import Binding, ConversationRebound
from daemon.domain.filters import ConversationFilter, EventFilter
from daemon.domain.pages import MAX_LIMIT, Listing, Page, encode_cursor
from daemon.domain.requests import BindConversation, RebindConversation
from daemon.domain.rows import Conversation, ConversationKey
from daemon.services.caller import Caller
from daemon.stores.conversation_store import ConversationStore
from daemon.stores.protocol import Store


class Conversations:
    """The operations on conversations.

    Args:
        store: the engine.
        bindings: holds the conversations.
    """

    def __init__(self, store: Store, bindings: ConversationStore) -> None:
        self._store = store
        self._bindings = bindings

    async def bind(
        self, caller: Caller, conversation_id: str, body: BindConversation, origin: Origin
    ) -> tuple[BoundConversation, bool]:
        """Return what a conversation is bound to, and whether it began now: what is stored wins.

        Raises:
            DaemonError: as the session check does.
        """
        session = caller.live.session
        wanted = Conversation(
            session.agent_id, conversation_id, body.provider, body.model, body.external_id, session.id
        )
        answer = await self._bindings.bind(wanted, origin)
        return conversation_views.bound(answer, body.provider, body.model), answer.created

    async def get(self, caller: Caller, conversation_id: str) -> ConversationView:
        """Return a conversation; this is no use of it.

        Raises:
            DaemonError: CONVERSATION_NOT_FOUND.
        """
        row = await self._bindings.get(_key(caller, conversation_id))
        if row is None:
            raise DaemonError(CONVERSATION_NOT_FOUND)
        return conversation_views.view(row)

    async def find(self, caller: Caller, page: Page) -> Listing[ConversationView]:
        """Return the caller's conversations, newest first."""
        rows = await self._find(ConversationFilter(agent_id=caller.live.session.agent_id), page)
        return Listing([conversation_views.view(row) for row in rows], _cursor(rows, page))

    async def touch(self, caller: Caller, conversation_id: str) -> TouchedView:
        """Count one use; a conversation that is missing is no error."""
        return TouchedView(expires_at=await self._bindings.touch(_key(caller, conversation_id)))

    async def rebind(
        self, caller: Caller, conversation_id: str, body: RebindConversation, origin: Origin
    ) -> ConversationView:
        """Bind a conversation to another provider or model where it is bound as expected.

        Raises:
            DaemonError: CONVERSATION_NOT_FOUND, CONVERSATION_CONFLICT, and as the session check does.
        """
        expected = Binding(body.expected.provider, body.expected.model)
        change = Rebinding(expected, Binding(body.provider, body.model), body.reason)
        key, session_id = _key(caller, conversation_id), caller.live.session.id
        return conversation_views.view(await self._bindings.rebind(key, change, session_id, origin))

    async def delete(self, caller: Caller, conversation_id: str, origin: Origin) -> None:
        """Delete a conversation.

        Raises:
            DaemonError: CONVERSATION_NOT_FOUND, and as the session check does.
        """
        await self._bindings.delete(_key(caller, conversation_id), caller.live.session.id, origin)

    async def overview(self, which: ConversationFilter, page: Page) -> tuple[ConversationsOverview, str | None]:
        """Return conversations across agents, newest first, with counts and rebinds, and the next page's cursor."""
        rows = await self._find(which, page)
        overview = ConversationsOverview(
            conversations=[conversation_views.for_owner(row) for row in rows],
            counts=await self._store.conversation_counts(which),
            rebinds=await self._rebinds(which),
        )
        return overview, _cursor(rows, page)

    async def _rebinds(self, which: ConversationFilter) -> list[Rebind]:
        events = EventFilter(
            type=ConversationRebound.type, agent_id=which.agent_id, session_id=which.session_id, newest_first=True
        )
        found = map(conversation_views.rebind, await self._store.events(events, MAX_LIMIT))
        return [rebind for rebind in found if _concerns(rebind, which)]

    async def _find(self, which: ConversationFilter, page: Page) -> list[Conversation]:
        with contextlib.suppress(DaemonError):  # a disk that is full must not hide the rest
            await self._bindings.flush()
        return await self._store.conversations(which, page)


def _key(caller: Caller, conversation_id: str) -> ConversationKey:
    return caller.live.session.agent_id, conversation_id


def _cursor(rows: list[Conversation], page: Page) -> str | None:
    last = rows[-1] if len(rows) == page.limit else None
    return encode_cursor(last.created_at, f"{last.agent_id}:{last.conversation_id}") if last else None


def _concerns(rebind: Rebind, which: ConversationFilter) -> bool:
    """Return whether a rebind left or chose the provider and model that the filter names."""
    return any(
        which.provider in {None, binding.provider} and which.model in {None, binding.model}
        for binding in (rebind.from_binding, rebind.to_binding)
    )

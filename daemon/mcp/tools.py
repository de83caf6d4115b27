"""The tools: what each is called, says of itself, takes and answers, and what it asks of the daemon."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

from daemon.client import AsyncSession
from daemon.domain.body import Body
from daemon.domain.conversation_views import BoundConversation, ConversationView, TouchedView
from daemon.domain.requests import Empty
from daemon.domain.view import View
from daemon.domain.views import PublishedEvent
from daemon.mcp import views
from daemon.mcp.arguments import Bind, OneConversation, Rebind, Tell


class Tool(NamedTuple):
    """A tool.

    Args:
        name: by which it is called.
        title: for people.
        description: for a model: what it does, when to call it, what its answer means.
        takes: its arguments.
        gives: its answer.
        call: asks the daemon.
        reads: whether it changes nothing.
        repeats: whether calling it again with the same arguments does no harm.
        replaces: whether it replaces what was there.
        reaches_out: whether people are told.
    """

    name: str
    title: str
    description: str
    takes: type[Body]
    gives: type[View]
    call: Callable[[AsyncSession, Any], Awaitable[View]]
    reads: bool = False
    repeats: bool = False
    replaces: bool = False
    reaches_out: bool = False


async def _status(session: AsyncSession, _: Empty) -> View:
    return views.status(await session.whoami(), int(time.time()))


async def _renew(session: AsyncSession, _: Empty) -> View:
    return views.renewed(await session.renew(), int(time.time()))


async def _bind(session: AsyncSession, asked: Bind) -> View:
    return await session.bind(
        asked.conversation_id, provider=asked.provider, model=asked.model, external_id=asked.external_id
    )


async def _get(session: AsyncSession, asked: OneConversation) -> View:
    return await session.conversation(asked.conversation_id)


async def _list(session: AsyncSession, _: Empty) -> View:
    return views.Conversations(await session.conversations())


async def _touch(session: AsyncSession, asked: OneConversation) -> View:
    return await session.touch(asked.conversation_id)


async def _rebind(session: AsyncSession, asked: Rebind) -> View:
    return await session.rebind(
        asked.conversation_id,
        expected=(asked.expected.provider, asked.expected.model),
        provider=asked.provider,
        model=asked.model,
        reason=asked.reason,
    )


async def _report(session: AsyncSession, asked: Tell) -> View:
    return await session.publish(
        "AGENT_REPORT", reference_id=asked.reference_id, title=asked.title, details=asked.details
    )


async def _ask(session: AsyncSession, asked: Tell) -> View:
    return await session.publish(
        "TX_APPROVAL_REQUEST", reference_id=asked.reference_id, title=asked.title, details=asked.details
    )


TOOLS: tuple[Tool, ...] = (
    Tool(
        "session_status",
        "Session status",
        "Tells which agent you are, and how your session with the daemon stands. `expiresIn` and `renewableIn` are in "
        "seconds; there are `remainingRenewals`, your `constraints`, and what you have used. Call it when you begin "
        "long work, or to learn whether you may still work.",
        Empty,
        views.SessionStatus,
        _status,
        reads=True,
    ),
    Tool(
        "renew_session",
        "Renew the session",
        "Exchanges the session's token for the next one, so that the session lives longer. This server renews by "
        "itself in good time: call it only before work during which it may not run. It is refused with "
        "RENEWAL_TOO_EARLY, and `retryAfter` in seconds, until half of the term is over. The owner is told of each "
        "renewal. The new token is not in the answer, and is no business of yours.",
        Empty,
        views.Renewed,
        _renew,
    ),
    Tool(
        "bind_conversation",
        "Bind a conversation",
        "Binds a conversation to a provider and model, or tells what it is bound to already. What is stored wins, and "
        "`matched` says whether that is what you asked for: go on with the provider and model of the answer. It counts "
        "as one use, so that the conversation is kept for longer.",
        Bind,
        BoundConversation,
        _bind,
        repeats=True,
    ),
    Tool(
        "get_conversation",
        "Show a conversation",
        "Tells what a conversation is bound to, when it expires, and how often it was used and rebound. Looking is no "
        "use: it does not keep the conversation.",
        OneConversation,
        ConversationView,
        _get,
        reads=True,
    ),
    Tool(
        "list_conversations",
        "List conversations",
        "Lists the conversations of your agent that have not expired, newest first, whichever of its sessions bound "
        "them.",
        Empty,
        views.Conversations,
        _list,
        reads=True,
    ),
    Tool(
        "touch_conversation",
        "Keep a conversation",
        "Counts one use of a conversation, so that it is kept for longer. `expiresAt` is null where there is none any "
        "more: bind it again then.",
        OneConversation,
        TouchedView,
        _touch,
        repeats=True,
    ),
    Tool(
        "rebind_conversation",
        "Rebind a conversation",
        "Binds a conversation to another provider or model, for when the one that it has fails. It happens only where "
        "the conversation is bound as `expected` says; else it is refused with CONVERSATION_CONFLICT, and `details` "
        "has what another worker bound it to: go on with that. The owner can read your `reason`.",
        Rebind,
        ConversationView,
        _rebind,
        replaces=True,
    ),
    Tool(
        "publish_report",
        "Tell the owner",
        "Tells the owner of your work, on the phone where that is set up. Say that something is done, or what went "
        "wrong; at most 30 times a minute, and not the same twice. The answer is the number of the record.",
        Tell,
        PublishedEvent,
        _report,
        reaches_out=True,
    ),
    Tool(
        "request_approval",
        "Ask the owner to approve",
        "Asks the owner to look at something before you do it. It grants nothing and its answer is no consent: it is "
        "the number of the record. Say in `title` what you want to do and in `details` what speaks for and against it, "
        "then wait until the owner tells you to go on, in your conversation or as you have agreed.",
        Tell,
        PublishedEvent,
        _ask,
        reaches_out=True,
    ),
)


def schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON Schema of arguments or of an answer: an object at the root, as MCP wants it."""
    _, parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    root = parts.pop(kind.__name__)
    return {**root, "$defs": parts} if parts else root

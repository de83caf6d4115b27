"""Routes of conversations: an agent's own, and the owner's look at all of them."""

import contextlib
import re
from urllib.parse import unquote_to_bytes

from litestar import delete, get, post, put
from litestar.response import Response
from litestar.types import ASGIApp

from daemon.domain.body import MAX_MODEL
from daemon.domain.conversation_views import (
    BoundConversation,
    ConversationsOverview,
    ConversationView,
    TouchedView,
)
from daemon.domain.conversations import check_id
from daemon.domain.errors import CONVERSATION_CONFLICT, CONVERSATION_NOT_FOUND, invalid
from daemon.domain.filters import ConversationFilter
from daemon.domain.ids import parse_id
from daemon.domain.requests import BindConversation, RebindConversation
from daemon.web.decode import Query, body, no_body
from daemon.web.describe import PAGE, a_label, an_id, described
from daemon.web.routes.common import AnyRequest, about, caller, encoded, linked, origin, paged

_ENCODED = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})+")
_PATH = "/v1/conversations/{conversationId:str}"


def _conversation_id(request: AnyRequest) -> str:
    """Return the id that the path names, which the envelope left percent-encoded.

    Raises:
        DaemonError: VALIDATION_ERROR.
    """
    if request.scope["query_string"]:
        raise invalid(("conversationId", "must not be followed by a query: a `?` of the id is sent as %3F"))
    text: str = request.path_params["conversationId"]
    return check_id(_decoded(text) if "%" in text else text)


def _decoded(text: str) -> str:
    if _ENCODED.fullmatch(text):
        with contextlib.suppress(UnicodeDecodeError):
            return unquote_to_bytes(text).decode()
    raise invalid(("conversationId", "must be percent-encoded UTF-8"))


@put(
    _PATH,
    opt=described(
        "Bind a conversation, or find what it is bound to",
        BoundConversation,
        body=BindConversation,
        also=(201,),
        allows="conversations.bind",
    ),
)
async def bind_conversation(request: AnyRequest) -> ASGIApp:
    """Bind a conversation to a provider and model unless it is bound already; what is stored wins."""
    conversation_id = _conversation_id(request)
    asked = await body(request, BindConversation)
    answer, created = await about(request).services.conversations.bind(
        caller(request), conversation_id, asked, origin(request)
    )
    return encoded(answer, 201 if created else 200)


@get(
    _PATH,
    opt=described(
        "Show a conversation", ConversationView, errors=(CONVERSATION_NOT_FOUND,), allows="conversations.read"
    ),
)
async def show_conversation(request: AnyRequest) -> ConversationView:
    """Show a conversation; this is no use of it, so it expires as if nobody had looked."""
    conversation_id = _conversation_id(request)
    await no_body(request)
    return await about(request).services.conversations.get(caller(request), conversation_id)


@delete(
    _PATH,
    opt=described("Delete a conversation", None, errors=(CONVERSATION_NOT_FOUND,), allows="conversations.delete"),
)
async def delete_conversation(request: AnyRequest) -> None:
    """Delete a conversation."""
    conversation_id = _conversation_id(request)
    await no_body(request)
    await about(request).services.conversations.delete(caller(request), conversation_id, origin(request))


@post(
    f"{_PATH}/touch",
    status_code=200,
    opt=described("Keep a conversation", TouchedView, allows="conversations.touch"),
)
async def touch_conversation(request: AnyRequest) -> TouchedView:
    """Count one use of a conversation, so that it goes on; one that is missing is no error."""
    conversation_id = _conversation_id(request)
    await no_body(request)
    return await about(request).services.conversations.touch(caller(request), conversation_id)


@post(
    f"{_PATH}/rebind",
    status_code=200,
    opt=described(
        "Bind a conversation to another provider or model",
        ConversationView,
        body=RebindConversation,
        errors=(CONVERSATION_NOT_FOUND, CONVERSATION_CONFLICT),
        allows="conversations.rebind",
    ),
)
async def rebind_conversation(request: AnyRequest) -> ConversationView:
    """Bind a conversation to another provider or model, if it is bound as the caller believes."""
    conversation_id = _conversation_id(request)
    asked = await body(request, RebindConversation)
    return await about(request).services.conversations.rebind(caller(request), conversation_id, asked, origin(request))


@get(
    "/v1/conversations",
    opt=described(
        "List my agent's conversations",
        list[ConversationView],
        parameters=PAGE,
        listed=True,
        allows="conversations.list",
    ),
)
async def list_own_conversations(request: AnyRequest) -> Response[list[ConversationView]]:
    """List the conversations of the caller's agent that have not expired, newest first."""
    await no_body(request)
    query = Query(request)
    page = query.page()
    query.close()
    return paged(request, await about(request).services.conversations.find(caller(request), page))


@get(
    "/v1/owner/conversations",
    opt=described(
        "Look at conversations across agents",
        ConversationsOverview,
        parameters=(
            an_id("agentId", "Only this agent's."),
            a_label("provider", "Only those bound to this provider."),
            a_label("model", "Only those bound to this model.", MAX_MODEL),
            an_id("sessionId", "Only those that this session bound."),
            *PAGE,
        ),
        listed=True,
    ),
)
async def list_conversations(request: AnyRequest) -> Response[ConversationsOverview]:
    """List conversations that have not expired, newest first, with counts and the newest rebinds.

    The counts are of all that match; the rebinds are of the last 200 events those that left or chose what matches.
    """
    await no_body(request)
    query = Query(request)
    agent_id, session_id = query.text("agentId"), query.text("sessionId")
    provider, model, page = query.text("provider"), query.text("model", MAX_MODEL), query.page()
    query.close()
    which = ConversationFilter(
        agent_id=parse_id(agent_id, "agentId") if agent_id else None,
        session_id=parse_id(session_id, "sessionId") if session_id else None,
        provider=provider,
        model=model,
    )
    overview, cursor = await about(request).services.conversations.overview(which, page)
    return linked(request, overview, "cursor", cursor)


OF_AGENT = [
    bind_conversation,
    show_conversation,
    delete_conversation,
    touch_conversation,
    rebind_conversation,
    list_own_conversations,
]
OF_OWNER = [list_conversations]

"""What the routes share."""

from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec
from litestar import Request
from litestar.response import Response
from litestar.types import ASGIApp

from daemon.domain.errors import INTERNAL_ERROR, INVALID_MASTER_PASSWORD, DaemonError, invalid
from daemon.domain.events import Origin
from daemon.domain.ids import parse_id
from daemon.domain.pages import Listing
from daemon.domain.rows import Verifier
from daemon.services.caller import Caller
from daemon.web.context import RequestContext, context
from daemon.web.describe import Parameter
from daemon.web.open_stream import Admits

T = TypeVar("T")
MAX_EVENT_ID = 2**53 - 1
AnyRequest = Request[Any, Any, Any]
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "A repeat within 24 hours makes no second session.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    place="header",
)
_encode = msgspec.json.Encoder().encode


def about(request: AnyRequest) -> RequestContext:
    """Return the request's context."""
    return context(request.scope)


def origin(request: AnyRequest) -> Origin:
    """Return who causes the changes of this request."""
    seen = context(request.scope)
    return Origin(seen.actor, seen.request_id, seen.ip)


def caller(request: AnyRequest) -> Caller:
    """Return the agent that the guard admitted."""
    admitted = context(request.scope).caller
    if admitted is None:
        raise DaemonError(INTERNAL_ERROR, "An agent route has no guard.")
    return admitted


def verifier(request: AnyRequest) -> Verifier:
    """Return the service that the guard admitted."""
    admitted = context(request.scope).verifier
    if admitted is None:
        raise DaemonError(INTERNAL_ERROR, "A verifier's route has no guard.")
    return admitted


def path_id(request: AnyRequest, name: str) -> str:
    """Return an id of the path in canonical form.

    Raises:
        DaemonError: VALIDATION_ERROR.
    """
    return parse_id(request.path_params[name], "id")


def encoded(content: Any, status: int) -> ASGIApp:
    """Answer `content` as JSON, for routes that are called all the time: `Response` costs more than what they do."""
    return answered(_encode(content), status, b"application/json")


def answered(body: bytes, status: int, media_type: bytes, *more: tuple[bytes, bytes]) -> ASGIApp:
    """Answer bytes as they are.

    Args:
        body: the whole of it.
        status: of the answer.
        media_type: of the body.
        more: further headers, names in lower case.
    """
    headers = [(b"content-type", media_type), (b"content-length", b"%d" % len(body)), *more]

    async def answer(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return answer


def idempotency_key(request: AnyRequest) -> str | None:
    """Return what tells a repeat of this request from another one, if the client sent it.

    Raises:
        DaemonError: VALIDATION_ERROR.
    """
    key: str | None = request.headers.get("idempotency-key")
    if key is not None and not (1 <= len(key) <= 255 and key.isascii() and key.isprintable() and " " not in key):
        raise invalid(("Idempotency-Key", "must have 1 to 255 visible ASCII characters"))
    return key


def paged(request: AnyRequest, listing: Listing[Any]) -> Response[list[Any]]:
    """Answer a part of a list, with a Link to the next one where there may be more (RFC 8288)."""
    return linked(request, listing.items, "cursor", listing.cursor)


def linked(request: AnyRequest, content: T, name: str, value: str | None) -> Response[T]:
    """Answer a list, or what holds one; where `value` is given, link to the same list with that parameter."""
    headers = {}
    if value is not None:
        kept = [(key, text) for key, text in sorted(request.query_params.multi_items()) if key != name]
        headers["link"] = f'<{request.scope["path"]}?{urlencode([*kept, (name, value)])}>; rel="next"'
    return Response(content, headers=headers)


def last_event_id(request: AnyRequest) -> int | None:
    """Return the position after which a client that lost its stream goes on; None: it had none.

    Raises:
        DaemonError: VALIDATION_ERROR.
    """
    sent = request.headers.getall("last-event-id", [])
    if not sent:
        return None
    text = sent[0]
    if len(sent) > 1 or not (text.isascii() and text.isdecimal()) or len(text) > 16 or int(text) > MAX_EVENT_ID:
        raise invalid(("Last-Event-ID", f"must be sent once, as a whole number from 0 to {MAX_EVENT_ID}"))
    return int(text)


def owner_admits(request: AnyRequest) -> Admits:
    """Return what says whether who opened a stream as the owner still is; one opened with a ticket ends with it."""
    services, ticket = about(request).services, about(request).ticket
    changes = services.owner.changes

    async def admits() -> bool:
        try:
            if ticket is None:
                await services.owner.refresh()
                return services.owner.changes == changes
            await services.owner.check_ticket(ticket)
        except DaemonError as error:
            # Others who guess passwords must not end the owner's view of it.
            return error.kind is not INVALID_MASTER_PASSWORD
        return True

    return admits

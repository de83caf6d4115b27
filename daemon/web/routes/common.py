"""What the routes share."""

from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec
from litestar import Request
from litestar.response import Response
from litestar.types import ASGIApp

from daemon.domain.errors import INTERNAL_ERROR, DaemonError
from daemon.domain.events import Origin
from daemon.domain.ids import parse_id
from daemon.domain.pages import Listing
from daemon.services.caller import Caller
from daemon.web.context import RequestContext, context

T = TypeVar("T")
AnyRequest = Request[Any, Any, Any]
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


def path_id(request: AnyRequest, name: str) -> str:
    """Return an id of the path in canonical form.

    Raises:
        DaemonError: VALIDATION_ERROR.
    """
    return parse_id(request.path_params[name], "id")


def encoded(content: Any, status: int) -> ASGIApp:
    """Answer `content` as JSON, for routes that are called all the time: `Response` costs more than what they do."""
    body = _encode(content)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]

    async def answer(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return answer


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

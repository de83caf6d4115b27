"""Agent routes: what an agent does with its own session."""

from litestar import delete, get, post, put

from daemon.domain import errors
from daemon.domain.requests import PublishEvent
from daemon.domain.views import OwnSession, PublishedEvent, RenewedSession, RevokedSession
from daemon.web.decode import body, no_body
from daemon.web.describe import described
from daemon.web.routes.common import AnyRequest, about, caller, origin, path_id

PUBLISHED_PER_MINUTE = 30
"""Events that a session may publish in a minute."""

_RENEWAL = (
    errors.SESSION_RENEWAL_MISMATCH,
    errors.RENEWAL_LIMIT_REACHED,
    errors.SESSION_ABSOLUTE_LIFETIME_EXCEEDED,
    errors.RENEWAL_TOO_EARLY,
    errors.RENEWAL_CONFLICT,
)


@put(
    "/v1/sessions/{session_id:str}/renew",
    opt=described("Exchange the token for the next one", RenewedSession, errors=_RENEWAL, allows="sessions.renew"),
)
async def renew_session(request: AnyRequest) -> RenewedSession:
    """Exchange the token for the next generation."""
    session_id = path_id(request, "session_id")
    await no_body(request)
    return await about(request).services.tokens.renew(caller(request), session_id, origin(request))


@get("/v1/session", opt=described("Who am I?", OwnSession, allows="session.read"))
async def show_own_session(request: AnyRequest) -> OwnSession:
    """Show the session whose token was sent."""
    await no_body(request)
    return await about(request).services.sessions.own(caller(request))


@delete(
    "/v1/session",
    status_code=200,
    opt=described("End my session", RevokedSession, allows="session.end"),
)
async def end_own_session(request: AnyRequest) -> RevokedSession:
    """End the session whose token was sent."""
    await no_body(request)
    return await about(request).services.sessions.end_own(caller(request), origin(request))


@post(
    "/v1/session/events",
    status_code=202,
    opt=described(
        "Tell the owner something",
        PublishedEvent,
        body=PublishEvent,
        allows="session.publish",
        per_minute=PUBLISHED_PER_MINUTE,
    ),
)
async def publish_event(request: AnyRequest) -> PublishedEvent:
    """Record what the agent tells of its own work, and tell the owner."""
    asked = await body(request, PublishEvent)
    return await about(request).services.sessions.publish(caller(request), asked, origin(request))


HANDLERS = [publish_event, renew_session, show_own_session, end_own_session]

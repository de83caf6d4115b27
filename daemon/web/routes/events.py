"""Live events: all of them for the owner, its own session's for an agent."""

from litestar import get

from daemon.domain.events import Event
from daemon.web.decode import Query, no_body
from daemon.web.describe import Parameter, described
from daemon.web.routes.common import MAX_EVENT_ID, AnyRequest, about, caller, last_event_id, owner_admits
from daemon.web.streams import Stream

_LAST = Parameter(
    "Last-Event-ID",
    "Go on after the event with this sequence number; without it, with what happens from now on.",
    {"type": "integer", "minimum": 0, "maximum": MAX_EVENT_ID},
    place="header",
)


async def _last_seen(request: AnyRequest) -> int | None:
    """Return the position that the client resumes from, None for now; such a request has no body and no parameters.

    Raises:
        DaemonError: VALIDATION_ERROR.
    """
    await no_body(request)
    Query(request).close()
    return last_event_id(request)


@get(
    "/v1/owner/events",
    opt=described("Follow all events live (Server-Sent Events)", Event, parameters=(_LAST,), streams=True),
)
async def stream_events(request: AnyRequest) -> Stream:
    """Stream every event; a stream that was opened with a ticket ends with the ticket."""
    position = await _last_seen(request)
    streams = about(request).services.streams
    return Stream(streams, position, session_id=None, admits=owner_admits(request))


@get(
    "/v1/session/events",
    opt=described(
        "Follow my session's events live (Server-Sent Events)",
        Event,
        parameters=(_LAST,),
        streams=True,
        allows="session.stream",
    ),
)
async def stream_own_events(request: AnyRequest) -> Stream:
    """Stream the events of the session whose token was sent, for as long as the session may be used."""
    session = caller(request).live.session
    position = await _last_seen(request)
    services = about(request).services
    return Stream(
        services.streams,
        position,
        session_id=session.id,
        admits=lambda: services.auth.admits(session.id, session.generation, "session.stream"),
    )


OF_OWNER = [stream_events]
OF_AGENT = [stream_own_events]

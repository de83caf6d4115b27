"""Supervised processes: messages, output, the list of what runs, and the end without grace."""

from typing import Any, get_args

from litestar import get, post
from litestar.types import ASGIApp

from daemon.domain import errors
from daemon.domain.errors import SESSION_NOT_FOUND
from daemon.domain.process_views import KilledSession, RunningProcess, SentMessage
from daemon.domain.requests import Message, WithReason
from daemon.services.ports import StreamName
from daemon.web.decode import Query, body, no_body
from daemon.web.describe import Parameter, described, one_of
from daemon.web.limits import PLAIN_TEXT
from daemon.web.open_stream import Admits
from daemon.web.output import OutputStream
from daemon.web.routes.common import (
    MAX_EVENT_ID,
    AnyRequest,
    about,
    answered,
    last_event_id,
    origin,
    owner_admits,
    path_id,
)

RAW_BYTES = 4 << 20
"""Bytes of output in one answer."""

_OFFSET = {"type": "integer", "minimum": 0, "maximum": MAX_EVENT_ID, "default": 0}
_SUPERVISED = (SESSION_NOT_FOUND, errors.NOT_SUPERVISED)


@post(
    "/v1/sessions/{session_id:str}/messages",
    status_code=202,
    opt=described(
        "Send a message to a session's process",
        SentMessage,
        body=Message,
        errors=(*_SUPERVISED, errors.SESSION_BUSY, errors.AGENT_NOT_ACTIVE, errors.PROCESS_LIMIT_EXCEEDED),
        allows="messages.send",
    ),
)
async def send_message(request: AnyRequest) -> SentMessage:
    """Begin a turn with a message, or queue it."""
    session_id = path_id(request, "session_id")
    asked = await body(request, Message)
    seen = about(request)
    return await seen.services.processes.send(session_id, asked, origin(request), by_agent=seen.caller is not None)


@get(
    "/v1/sessions/{session_id:str}/output",
    opt=described(
        "Read a session's output",
        str,
        parameters=(
            one_of("stream", "Which; without it stdout.", get_args(StreamName)),
            Parameter("offset", "Bytes to leave out.", _OFFSET),
            one_of("follow", "false: the raw bytes that there are, as plain text.", ("true", "false")),
            Parameter("Last-Event-ID", "Go on after this offset, whatever `offset` is.", _OFFSET, place="header"),
        ),
        errors=(*_SUPERVISED, errors.OUTPUT_GONE),
        lines=True,
        allows="output.read",
    ),
)
async def read_output(request: AnyRequest) -> ASGIApp:
    """Stream lines as they are written, or answer the bytes that there are."""
    session_id = path_id(request, "session_id")
    await no_body(request)
    query = Query(request)
    stream: StreamName = query.choice("stream", StreamName) or "stdout"
    offset = query.number("offset", 0, 0, MAX_EVENT_ID)
    follow = query.word("follow", ("true", "false")) != "false"
    query.close()
    if (last := last_event_id(request)) is not None:
        offset = last
    processes = about(request).services.processes
    if follow:
        reader = await processes.follow(session_id, stream, offset)
        group, admits = _reader(request)
        return OutputStream(about(request).services.streams, reader, offset, group=group, admits=admits)
    found = await processes.read(session_id, stream, offset, RAW_BYTES)
    return answered(found, 200, PLAIN_TEXT + b"; charset=utf-8", (b"x-next-offset", b"%d" % (offset + len(found))))


def _reader(request: AnyRequest) -> tuple[str | None, Admits]:
    """Return among whose streams this one counts, and what says whether its reader may still read."""
    seen = about(request)
    if seen.caller is None:
        return None, owner_admits(request)
    session = seen.caller.live.session
    auth = seen.services.auth
    return session.id, lambda: auth.admits(session.id, session.generation, "output.read")


@post(
    "/v1/sessions/{session_id:str}/kill",
    status_code=200,
    opt=described(
        "End a session's process without grace",
        KilledSession,
        body=WithReason,
        errors=(*_SUPERVISED, errors.INVALID_STATE_TRANSITION),
    ),
)
async def kill_session(request: AnyRequest) -> KilledSession:
    """Kill the whole tree, and answer when nothing is left of it."""
    session_id = path_id(request, "session_id")
    reason = (await body(request, WithReason)).reason
    return await about(request).services.processes.kill(session_id, reason, origin(request))


@get("/v1/owner/processes", opt=described("List what runs on this machine", list[RunningProcess]))
async def list_processes(request: AnyRequest) -> list[RunningProcess]:
    """List every process that runs, with what its whole tree takes."""
    await no_body(request)
    Query(request).close()
    return await about(request).services.processes.find()


OF_OWNER: list[Any] = [kill_session, list_processes]
OF_EITHER: list[Any] = [send_message, read_output]

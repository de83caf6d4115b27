"""Owner routes of sessions."""

from typing import Literal, get_args

import msgspec
from litestar import delete, get, patch, post
from litestar.response import Response

from daemon.domain import errors
from daemon.domain.errors import INVALID_STATE_TRANSITION, SESSION_NOT_FOUND, invalid
from daemon.domain.filters import SessionFilter
from daemon.domain.ids import parse_id
from daemon.domain.requests import CreateSession, Extend, PatchSession, WithReason
from daemon.domain.states import STATES, State
from daemon.domain.views import (
    CreatedSession,
    ExtendedSession,
    RevokedSession,
    RotatedSession,
    SessionDetail,
    SessionSummary,
    Status,
)
from daemon.web.decode import Query, body, no_body
from daemon.web.describe import PAGE, a_label, an_id, described, one_of
from daemon.web.routes.common import IDEMPOTENCY_KEY, AnyRequest, about, idempotency_key, origin, paged, path_id

StatusFilter = Literal[Status, "all"]

_STATUS = one_of("status", "Only sessions of this status; without it all but revoked ones.", get_args(StatusFilter))
_ACTIVE = (SESSION_NOT_FOUND, INVALID_STATE_TRANSITION)
_CREATE = (
    errors.AGENT_NOT_FOUND,
    errors.AGENT_NOT_ACTIVE,
    errors.AGENT_TERMINATED,
    errors.IDEMPOTENCY_CONFLICT,
    errors.SESSION_LIMIT_EXCEEDED,
    errors.PROCESS_LIMIT_EXCEEDED,
)


@post(
    "/v1/sessions",
    opt=described(
        "Make a session for an agent", CreatedSession, body=CreateSession, parameters=(IDEMPOTENCY_KEY,), errors=_CREATE
    ),
)
async def create_session(request: AnyRequest) -> CreatedSession:
    """Make a session; its token is shown this once."""
    seen = about(request)
    asked = await body(request, CreateSession, seen.services.processes.problems)
    asked = msgspec.structs.replace(asked, agent_id=parse_id(asked.agent_id, "agentId"))
    key = idempotency_key(request)
    return await seen.services.sessions.create(
        asked, origin(request), created_by=seen.client or "api", idempotency_key=key
    )


@get(
    "/v1/sessions",
    opt=described(
        "List an agent's sessions",
        list[SessionSummary],
        parameters=(an_id("agentId", "Whose sessions.", required=True), _STATUS, *PAGE),
        listed=True,
    ),
)
async def list_sessions(request: AnyRequest) -> Response[list[SessionSummary]]:
    """List the sessions of one agent, newest first."""
    await no_body(request)
    query = Query(request)
    agent_id, status, page = query.text("agentId"), query.choice("status", StatusFilter), query.page()
    query.close()
    if agent_id is None:
        raise invalid(("agentId", "agentId query parameter required"), detail="agentId query parameter required")
    which = SessionFilter(agent_id=parse_id(agent_id, "agentId"), status=status)
    return paged(request, await about(request).services.sessions.find(which, page))


@get(
    "/v1/owner/sessions",
    opt=described(
        "List sessions across agents",
        list[SessionSummary],
        parameters=(
            an_id("agentId", "Only this agent's."),
            _STATUS,
            one_of("state", "Only sessions in this state.", STATES),
            a_label("userId", "Only this user's."),
            a_label("workspaceId", "Only this workspace's."),
            *PAGE,
        ),
        listed=True,
    ),
)
async def list_all_sessions(request: AnyRequest) -> Response[list[SessionSummary]]:
    """List sessions across agents, newest first."""
    await no_body(request)
    query = Query(request)
    agent_id = query.text("agentId")
    which = SessionFilter(
        agent_id=parse_id(agent_id, "agentId") if agent_id else None,
        status=query.choice("status", StatusFilter),
        state=query.choice("state", State),
        user_id=query.text("userId"),
        workspace_id=query.text("workspaceId"),
    )
    page = query.page()
    query.close()
    return paged(request, await about(request).services.sessions.find(which, page))


@get("/v1/sessions/{session_id:str}", opt=described("Show a session", SessionDetail, errors=(SESSION_NOT_FOUND,)))
async def show_session(request: AnyRequest) -> SessionDetail:
    """Show a whole session."""
    await no_body(request)
    return await about(request).services.sessions.get(path_id(request, "session_id"))


@patch(
    "/v1/sessions/{session_id:str}",
    opt=described("Change a session", SessionDetail, body=PatchSession, errors=(*_ACTIVE, errors.SESSION_BUSY)),
)
async def patch_session(request: AnyRequest) -> SessionDetail:
    """Change the attributes that the body names."""
    session_id = path_id(request, "session_id")
    asked = await body(request, PatchSession)
    return await about(request).services.sessions.patch(session_id, asked, origin(request))


@delete(
    "/v1/sessions/{session_id:str}",
    status_code=200,
    opt=described("Revoke a session", RevokedSession, errors=(SESSION_NOT_FOUND,)),
)
async def revoke_session(request: AnyRequest) -> RevokedSession:
    """End a session; `daemon run` tidying up after its command rejects nothing."""
    session_id = path_id(request, "session_id")
    await no_body(request)
    seen = about(request)
    return await seen.services.sessions.revoke(session_id, origin(request), rejects=seen.client != "run")


@post(
    "/v1/sessions/{session_id:str}/rotate",
    status_code=200,
    opt=described("Replace a session's token", RotatedSession, errors=_ACTIVE),
)
async def rotate_session(request: AnyRequest) -> RotatedSession:
    """Replace the token; the new one is shown this once."""
    session_id = path_id(request, "session_id")
    await no_body(request)
    return await about(request).services.tokens.rotate(session_id, origin(request))


@post(
    "/v1/sessions/{session_id:str}/extend",
    status_code=200,
    opt=described(
        "Give a session more time",
        ExtendedSession,
        body=Extend,
        errors=(*_ACTIVE, errors.SESSION_ABSOLUTE_LIFETIME_EXCEEDED),
    ),
)
async def extend_session(request: AnyRequest) -> ExtendedSession:
    """Give the session more time, up to its absolute end."""
    session_id = path_id(request, "session_id")
    seconds = (await body(request, Extend)).seconds
    return await about(request).services.sessions.extend(session_id, seconds, origin(request))


@post(
    "/v1/sessions/{session_id:str}/suspend",
    status_code=200,
    opt=described("Refuse a session's token for now", SessionDetail, body=WithReason, errors=_ACTIVE),
)
async def suspend_session(request: AnyRequest) -> SessionDetail:
    """Refuse the token until the session is resumed."""
    session_id = path_id(request, "session_id")
    reason = (await body(request, WithReason)).reason
    return await about(request).services.sessions.suspend(session_id, reason, origin(request))


@post(
    "/v1/sessions/{session_id:str}/resume",
    status_code=200,
    opt=described(
        "Accept a suspended session's token again, or let a process that failed begin again",
        SessionDetail,
        body=WithReason,
        errors=(*_ACTIVE, errors.AGENT_NOT_ACTIVE, errors.PROCESS_LIMIT_EXCEEDED),
    ),
)
async def resume_session(request: AnyRequest) -> SessionDetail:
    """Accept the token again."""
    session_id = path_id(request, "session_id")
    reason = (await body(request, WithReason)).reason
    return await about(request).services.sessions.resume(session_id, reason, origin(request))


HANDLERS = [
    create_session,
    list_sessions,
    list_all_sessions,
    show_session,
    patch_session,
    revoke_session,
    rotate_session,
    extend_session,
    suspend_session,
    resume_session,
]

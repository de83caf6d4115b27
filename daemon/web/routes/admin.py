"""Owner routes of the daemon itself: tickets, status, audit log, secret, password, backup, stop."""

from typing import get_args

from litestar import get, post
from litestar.response import Response

from daemon.domain import errors
from daemon.domain.errors import INVALID_MASTER_PASSWORD, DaemonError
from daemon.domain.events import Event, Severity
from daemon.domain.filters import EventFilter
from daemon.domain.ids import parse_id
from daemon.domain.requests import ChangePassword, Login, RotateSecret
from daemon.domain.views import (
    AdminStatus,
    Backup,
    LoggedOut,
    PasswordSet,
    RotatedSecret,
    Stopping,
    Swept,
    Ticket,
    Verification,
)
from daemon.web.decode import Query, body, no_body
from daemon.web.describe import PAGE, Parameter, a_label, an_id, described, one_of
from daemon.web.routes.common import AnyRequest, about, linked, origin

MAX_SEQ = 2**53 - 1

_AFTER = Parameter(
    "after", "Only events after this sequence number.", {"type": "integer", "minimum": 0, "maximum": MAX_SEQ}
)


@post("/v1/owner/login", status_code=200, opt=described("Get an owner ticket", Ticket, body=Login))
async def login(request: AnyRequest) -> Ticket:
    """Issue an owner ticket; only the master password gets one, so that tickets cannot prolong themselves."""
    seen = about(request)
    asked = await body(request, Login)
    if seen.ticket is not None:
        raise DaemonError(INVALID_MASTER_PASSWORD, "A new ticket needs the master password.")
    return await seen.services.owner.login(asked.ttl, origin(request))


@post("/v1/owner/logout", status_code=200, opt=described("End owner tickets", LoggedOut))
async def logout(request: AnyRequest) -> LoggedOut:
    """End the ticket that was sent, or every ticket when the password was."""
    await no_body(request)
    seen = about(request)
    return seen.services.owner.logout(seen.ticket)


@get("/v1/admin/status", opt=described("Show the daemon at a glance", AdminStatus))
async def show_status(request: AnyRequest) -> AdminStatus:
    """Show the daemon at a glance."""
    await no_body(request)
    return await about(request).services.admin.status()


@get(
    "/v1/admin/audit",
    opt=described(
        "List events",
        list[Event],
        parameters=(
            _AFTER,
            a_label("type", "Only events of this type."),
            an_id("agentId", "Only this agent's."),
            an_id("sessionId", "Only this session's."),
            one_of("severity", "Only events of this severity.", get_args(Severity)),
            PAGE[0],
        ),
        listed=True,
    ),
)
async def list_events(request: AnyRequest) -> Response[list[Event]]:
    """List events, oldest first."""
    await no_body(request)
    query = Query(request)
    agent_id, session_id = query.text("agentId"), query.text("sessionId")
    which = EventFilter(
        after=query.number("after", 0, 0, MAX_SEQ),
        type=query.text("type"),
        agent_id=parse_id(agent_id, "agentId") if agent_id else None,
        session_id=parse_id(session_id, "sessionId") if session_id else None,
        severity=query.choice("severity", Severity),
    )
    limit = query.number("limit", 50, 1, 200)
    query.close()
    found = await about(request).services.audit.find(which, limit)
    return linked(request, found, "after", str(found[-1].seq) if len(found) == limit else None)


@get("/v1/admin/audit/verify", opt=described("Prove that the audit log is whole", Verification))
async def verify_events(request: AnyRequest) -> Verification:
    """Recompute the hash chain."""
    await no_body(request)
    return await about(request).services.audit.verify()


@post(
    "/v1/admin/rotate-secret",
    status_code=200,
    opt=described("Replace the signing secret", RotatedSecret, body=RotateSecret, errors=(errors.ROTATION_TOO_RECENT,)),
)
async def rotate_secret(request: AnyRequest) -> RotatedSecret:
    """Replace the signing secret; sessions go on unless the body says otherwise."""
    asked = await body(request, RotateSecret)
    admin = about(request).services.admin
    return await admin.rotate_secret(origin(request), revoke_sessions=asked.revoke_sessions)


@post(
    "/v1/admin/password",
    status_code=200,
    opt=described("Change the master password", PasswordSet, body=ChangePassword),
)
async def change_password(request: AnyRequest) -> PasswordSet:
    """Change the master password; tickets end."""
    asked = await body(request, ChangePassword)
    return await about(request).services.owner.change_password(asked.new_password, origin(request))


@post("/v1/admin/cleanup", status_code=200, opt=described("Run the sweeper now", Swept))
async def clean_up(request: AnyRequest) -> Swept:
    """Run the sweeper now."""
    await no_body(request)
    return await about(request).services.admin.sweep(origin(request))


@post("/v1/admin/backup", status_code=200, opt=described("Make a checked copy of the database", Backup))
async def back_up(request: AnyRequest) -> Backup:
    """Make a checked copy of the live database in the home's `backups`."""
    await no_body(request)
    return await about(request).services.backups.create(origin(request))


@post("/v1/admin/shutdown", status_code=202, opt=described("Stop the daemon", Stopping))
async def shut_down(request: AnyRequest) -> Stopping:
    """Begin the ordinary stop."""
    await no_body(request)
    about(request).services.stop("requested by the owner")
    return Stopping(status="stopping")


HANDLERS = [
    login,
    logout,
    show_status,
    list_events,
    verify_events,
    rotate_secret,
    change_password,
    clean_up,
    back_up,
    shut_down,
]

"""The guards of the route groups: Litestar middleware on the groups' routers."""

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Any

from daemon.domain.errors import (
    INVALID_MASTER_PASSWORD,
    INVALID_TOKEN,
    INVALID_VERIFIER,
    SESSION_NOT_FOUND,
    DaemonError,
    invalid,
)
from daemon.domain.events import Origin
from daemon.domain.ids import parse_id
from daemon.domain.tokens import PREFIX, TICKET_PREFIX, VERIFIER_PREFIX, bearer
from daemon.web.context import RequestContext, context
from daemon.web.middleware.rate import SessionRates

App = Callable[[Any, Any, Any], Awaitable[None]]


def _credential(scope: Any, name: bytes) -> bytes | None:
    """Return a header that may be sent once; a second one makes the request ambiguous.

    Raises:
        DaemonError: VALIDATION_ERROR.
    """
    found: bytes | None = None
    for key, value in scope["headers"]:
        if key == name:
            if found is not None:
                raise invalid((name.decode(), "must be sent once"))
            found = value
    return found


def request_origin(about: RequestContext, actor: str) -> Origin:
    """Return who causes the changes of this request."""
    return Origin(actor, about.request_id, about.ip)


class OwnerGuard:
    """Admits who sends the master password or an owner ticket.

    Args:
        app: the rest of the group.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Check, then go on.

        Raises:
            DaemonError: INVALID_MASTER_PASSWORD, MASTER_AUTH_LOCKED, RATE_LIMIT_EXCEEDED.
        """
        about = context(scope)
        owner = about.services.owner
        urgent = scope["route_handler"].opt["describes"].urgent
        password = _password(scope)
        if password is not None:
            await owner.check_password(password, request_origin(about, "owner"), urgent=urgent)
        else:
            header = _credential(scope, b"authorization")
            ticket = bearer(header, TICKET_PREFIX) if header else None
            if ticket is None:
                raise DaemonError(INVALID_MASTER_PASSWORD, "The master password is missing.")
            await owner.check_ticket(ticket, urgent=urgent)
            about.ticket = ticket
        about.actor = "owner"
        await self._app(scope, receive, send)


def _password(scope: Any) -> str | None:
    raw = _credential(scope, b"x-master-password")
    coded = _credential(scope, b"x-master-password-b64")
    if coded is not None:
        try:
            raw = base64.b64decode(coded, validate=True)
        except binascii.Error:
            raise DaemonError(INVALID_MASTER_PASSWORD, "X-Master-Password-B64 is not Base64.") from None
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise DaemonError(INVALID_MASTER_PASSWORD, "The master password is not UTF-8.") from None


class SessionGuard:
    """Admits an agent whose session token may be used for the route's operation now.

    Args:
        app: the rest of the group.
        rates: counts each session's requests.
    """

    def __init__(self, app: App, rates: SessionRates) -> None:
        self._app = app
        self._rates = rates

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Check, count, then go on.

        Raises:
            DaemonError: as the session check does; RATE_LIMIT_EXCEEDED.
        """
        about = context(scope)
        header = _credential(scope, b"authorization")
        token = bearer(header, PREFIX) if header else None
        if token is None:
            raise DaemonError(INVALID_TOKEN, "A session token is missing.")
        operation = scope["route_handler"].opt["operation"]
        caller = await about.services.auth.check(
            token, operation, request_origin(about, "agent"), renewing=operation == "sessions.renew"
        )
        session = caller.live.session
        about.actor = f"agent:{session.agent_id}"
        about.session_id, about.agent_id, about.caller = session.id, session.agent_id, caller
        described = scope["route_handler"].opt["describes"]
        self._rates.take(session.id, about, operation, described.per_minute)
        await self._app(scope, receive, send)


class VerifierGuard:
    """Admits a service whose verifier credential the owner has not revoked.

    Args:
        app: the rest of the group.
        rates: counts each verifier's requests, and the credentials that are refused.
    """

    def __init__(self, app: App, rates: SessionRates) -> None:
        self._app = app
        self._rates = rates

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Check, count, then go on.

        Raises:
            DaemonError: INVALID_VERIFIER, RATE_LIMIT_EXCEEDED, STORAGE_UNAVAILABLE.
        """
        about = context(scope)
        header = _credential(scope, b"authorization")
        credential = bearer(header, VERIFIER_PREFIX) if header else None
        if credential is None:
            raise DaemonError(INVALID_VERIFIER, "A verifier's credential is missing.")
        try:
            verifier = await about.services.verifiers.check(credential)
        except DaemonError as refused:
            if refused.kind is INVALID_VERIFIER:
                self._rates.fail()
            raise
        about.verifier, about.actor = verifier, f"verifier:{verifier.id}"
        self._rates.take(about.actor, about)
        await self._app(scope, receive, send)


class EitherGuard:
    """Admits the owner, and the agent whose own session the path names; who sends a session token is the agent.

    Args:
        app: the rest of the group.
        rates: counts each session's requests.
    """

    def __init__(self, app: App, rates: SessionRates) -> None:
        self._owner = OwnerGuard(app)
        self._agent = SessionGuard(_OwnSession(app), rates)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Check, then go on.

        Raises:
            DaemonError: as the two guards do; SESSION_NOT_FOUND where the path names another session.
        """
        header = _credential(scope, b"authorization")
        by_agent = header is not None and bearer(header, PREFIX) is not None and _password(scope) is None
        await (self._agent if by_agent else self._owner)(scope, receive, send)


class _OwnSession:
    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        # An agent learns nothing of other sessions, not even that they exist.
        if parse_id(scope["path_params"]["session_id"]) != context(scope).session_id:
            raise DaemonError(SESSION_NOT_FOUND)
        await self._app(scope, receive, send)

"""From errors to HTTP: the only place that knows a status for a code (RFC 9457)."""

from typing import Any

import msgspec
from litestar import Request
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.response import Response

from daemon.domain import errors
from daemon.domain.errors import DaemonError, ErrorKind, invalid
from daemon.web.context import context

MEDIA_TYPE = "application/problem+json"

_CODES: dict[int, tuple[ErrorKind, ...]] = {
    400: (
        errors.VALIDATION_ERROR,
        errors.BAD_REQUEST,
        errors.INVALID_CHANNEL_CONFIG,
        errors.MIN_CHANNELS_REQUIRED,
    ),
    401: (
        errors.INVALID_TOKEN,
        errors.TOKEN_EXPIRED,
        errors.TOKEN_ROTATED,
        errors.TOKEN_REUSED,
        errors.SESSION_REVOKED,
        errors.INVALID_MASTER_PASSWORD,
        errors.INVALID_VERIFIER,
    ),
    403: (
        errors.SESSION_LIMIT_EXCEEDED,
        errors.SESSION_SUSPENDED,
        errors.AGENT_SUSPENDED,
        errors.CONSTRAINT_VIOLATED,
        errors.RENEWAL_LIMIT_REACHED,
        errors.SESSION_ABSOLUTE_LIFETIME_EXCEEDED,
        errors.RENEWAL_TOO_EARLY,
        errors.SESSION_RENEWAL_MISMATCH,
        errors.REVOCATION_NOT_ALLOWED,
        errors.HOST_NOT_ALLOWED,
        errors.ORIGIN_NOT_ALLOWED,
    ),
    404: (
        errors.SESSION_NOT_FOUND,
        errors.AGENT_NOT_FOUND,
        errors.CHANNEL_NOT_FOUND,
        errors.CONVERSATION_NOT_FOUND,
        errors.VERIFIER_NOT_FOUND,
        errors.ROUTE_NOT_FOUND,
    ),
    405: (errors.METHOD_NOT_ALLOWED,),
    406: (errors.NOT_ACCEPTABLE,),
    408: (errors.REQUEST_TIMEOUT,),
    409: (
        errors.AGENT_NOT_ACTIVE,
        errors.AGENT_EXISTS,
        errors.RENEWAL_CONFLICT,
        errors.INVALID_STATE_TRANSITION,
        errors.NOT_SUPERVISED,
        errors.SESSION_BUSY,
        errors.IDEMPOTENCY_CONFLICT,
        errors.CONVERSATION_CONFLICT,
        errors.KILL_SWITCH_ALREADY_ACTIVE,
        errors.KILL_SWITCH_NOT_ACTIVE,
        errors.RECOVERY_WAIT_REQUIRED,
    ),
    410: (errors.AGENT_TERMINATED, errors.OUTPUT_GONE),
    413: (errors.BODY_TOO_LARGE,),
    414: (errors.URI_TOO_LONG,),
    415: (errors.UNSUPPORTED_MEDIA_TYPE, errors.FORM_EXPECTED),
    429: (
        errors.MASTER_AUTH_LOCKED,
        errors.ROTATION_TOO_RECENT,
        errors.RATE_LIMIT_EXCEEDED,
        errors.PROCESS_LIMIT_EXCEEDED,
    ),
    431: (errors.HEADERS_TOO_LARGE,),
    500: (errors.INTERNAL_ERROR,),
    503: (errors.SYSTEM_LOCKED, errors.SHUTTING_DOWN, errors.STORAGE_UNAVAILABLE),
}
STATUS: dict[ErrorKind, int] = {kind: status for status, kinds in _CODES.items() for kind in kinds}
"""The HTTP status of every kind of the catalogue."""


class ProblemDocument(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """The one shape of every error answer (RFC 9457, section 3)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    retryable: bool
    hint: str | None = None
    details: dict[str, Any] | None = None
    errors: list[dict[str, str]] | None = None


class Problem(msgspec.Struct, frozen=True):
    """An error answer ready to be sent; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


_encode = msgspec.json.Encoder().encode


def problem_type(code: str) -> str:
    """Return the `type` of a problem document: `urn:daemon:error:` and the code in kebab case."""
    return "urn:daemon:error:" + code.lower().replace("_", "-")


def render(error: DaemonError, *, instance: str, request_id: str, credential: bool = True) -> Problem:
    """Make the answer of an error.

    Args:
        error: what is refused, and why.
        instance: the path of the request.
        request_id: of the request.
        credential: whether the request carried one; a challenge tells nothing to those who sent none.
    """
    status = STATUS[error.kind]
    document = ProblemDocument(
        type=problem_type(error.code),
        title=error.kind.title,
        status=status,
        detail=error.detail,
        instance=instance,
        code=error.code,
        request_id=request_id,
        retryable=error.kind.retryable,
        hint=error.hint,
        details=error.details,
        errors=error.errors,
    )
    return Problem(status, _headers(error, status, credential=credential), _encode(document))


def _headers(error: DaemonError, status: int, *, credential: bool) -> dict[str, str]:
    headers = {"content-type": MEDIA_TYPE}
    if status == 401:
        headers["www-authenticate"] = _challenge(error, credential=credential)
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if error.kind is errors.METHOD_NOT_ALLOWED and error.details:
        headers["allow"] = ", ".join(error.details["allow"])
    return headers


def _challenge(error: DaemonError, *, credential: bool) -> str:
    if error.kind is errors.INVALID_MASTER_PASSWORD:
        # Not Basic: a browser must not ask people for the master password.
        return 'MasterPassword realm="daemon"'
    if not credential:
        # RFC 6750, section 3.1: no error code when the request lacks any authentication information.
        return 'Bearer realm="daemon"'
    described = "".join(char for char in error.detail if " " <= char <= "~" and char not in '"\\')
    return f'Bearer realm="daemon", error="invalid_token", error_description="{described}"'


def from_exception(exc: Exception) -> DaemonError:
    """Return what the caller is told about an exception: the framework's own in our codes, others as INTERNAL_ERROR."""
    if isinstance(exc, DaemonError):
        return exc
    if isinstance(exc, NotFoundException):
        return DaemonError(errors.ROUTE_NOT_FOUND)
    if isinstance(exc, MethodNotAllowedException):
        allowed = (exc.headers or {}).get("allow", "")
        methods = sorted(method for method in allowed.split(", ") if method)
        return DaemonError(errors.METHOD_NOT_ALLOWED, details={"allow": methods})
    if isinstance(exc, RequestEntityTooLarge):
        return DaemonError(errors.BODY_TOO_LARGE)
    if isinstance(exc, HTTPException) and exc.status_code == 400:
        return invalid(*_problems(exc))
    return DaemonError(errors.INTERNAL_ERROR)


def _problems(exc: HTTPException) -> list[tuple[str, str]]:
    if isinstance(exc.extra, list) and exc.extra:
        return [(str(entry.get("key", "")), str(entry.get("message", ""))) for entry in exc.extra]
    return [("", exc.detail)]


def handle_exception(request: Request[Any, Any, Any], exc: Exception) -> Response[bytes]:
    """Answer an exception inside the app; to be the app's only exception handler."""
    about = context(request.scope)
    error = from_exception(exc)
    if error.kind is errors.INTERNAL_ERROR:
        about.cause = exc
    problem = problem_for(error, request.scope, about.request_id)
    return Response(problem.body, status_code=problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def problem_for(error: DaemonError, scope: Any, request_id: str) -> Problem:
    """Make the answer of an error to the request with this ASGI scope."""
    credential = any(name == b"authorization" for name, _ in scope["headers"])
    path = scope["raw_path"].decode("ascii", "backslashreplace")
    return render(error, instance=path, request_id=request_id, credential=credential)

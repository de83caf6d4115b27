"""What goes wrong for an agent: one class a remedy, and for each code of the catalogue the class it belongs to."""

from typing import Any

import msgspec

from daemon.domain import errors
from daemon.domain.errors import ErrorKind


class ClientError(Exception):
    """A call did not do what it was to do; no text of it holds a token."""


class NoSession(ClientError):
    """There is no token to begin with, or what was given is none."""


class NotRenewable(NoSession):
    """The token lies in no file, so that others who hold it could not learn of the next one: it is left as it is."""


class TokenFileError(ClientError):
    """The file with the token cannot be used as it is: the text says what is wrong with it, and what mends it."""


class Unreachable(ClientError):
    """No daemon answered in time; the same call may be made again."""


class OutcomeUnknown(Unreachable):
    """No daemon answered in time, but what was asked may have been done: look before you ask again."""


class StrangeAnswer(ClientError):
    """What answers is not this daemon, or not a version that this client understands."""


class Problem(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What is read of a problem document (RFC 9457); fields of a newer daemon are ignored."""

    code: str
    status: int
    detail: str
    hint: str | None = None
    retryable: bool = False
    request_id: str | None = None
    details: dict[str, Any] | None = None
    errors: list[dict[str, str]] | None = None
    retry_after: float | None = None


class ApiError(ClientError):
    """The daemon refused; the subclasses say what the caller can do about it.

    Args:
        problem: what it answered.

    Attributes:
        code: the stable code, e.g. `TOKEN_EXPIRED`.
        status: the HTTP status.
        detail: one sentence about this refusal.
        hint: what to do about it.
        retryable: whether the same request may succeed later.
        retry_after: seconds after which, where the daemon knows.
        details: facts of this refusal.
        errors: every invalid field as `{"path", "message"}`.
        request_id: to be found in the daemon's log.
    """

    def __init__(self, problem: Problem) -> None:
        hint = f" — {problem.hint}" if problem.hint else ""
        super().__init__(f"{problem.detail} ({problem.code}){hint}")
        self.problem = problem
        self.code = problem.code
        self.status = problem.status
        self.detail = problem.detail
        self.hint = problem.hint
        self.retryable = problem.retryable
        self.retry_after = problem.retry_after
        self.details = problem.details or {}
        self.errors = problem.errors or []
        self.request_id = problem.request_id

    def __reduce__(self) -> tuple[type["ApiError"], tuple[Problem]]:
        """Let a pool of processes hand it to the caller."""
        return type(self), (self.problem,)


class SessionEnded(ApiError):
    """The session is over for good: stop, and ask the owner for a new one."""


class Suspended(ApiError):
    """The owner has suspended the session or its agent: wait, the same token works again once that is undone."""


class TokenReplaced(ApiError):
    """The owner has replaced the token, and the new one is not in the token file yet: ask the owner for it."""


class TooEarly(ApiError):
    """Half of the session's time has not passed yet: renew again after `retry_after` seconds."""


class RenewalsExhausted(ApiError):
    """Renewals give the session no more time: finish before it expires."""


class Limited(ApiError):
    """As many requests, or processes, as there may be: wait for `retry_after` seconds, then go on slower."""


class Unavailable(ApiError):
    """The daemon cannot do its work for the moment: try again later."""


class Forbidden(ApiError):
    """This caller may not do this; repeating it does not help."""


class NotFound(ApiError):
    """What was named does not exist, or not any more."""


class Conflict(ApiError):
    """What was named is not as the request supposes: look at it, then decide anew."""


class Invalid(ApiError):
    """The request itself is wrong: correct it (`errors` lists every invalid field)."""


class DaemonFault(ApiError):
    """The daemon made an error: its log has it under `request_id`."""


REMEDIES: dict[type[ApiError], tuple[ErrorKind, ...]] = {
    SessionEnded: (
        errors.INVALID_TOKEN,
        errors.TOKEN_EXPIRED,
        errors.TOKEN_REUSED,
        errors.SESSION_REVOKED,
        errors.AGENT_TERMINATED,
        errors.SYSTEM_LOCKED,  # the kill switch revokes every session, for good
    ),
    Suspended: (errors.SESSION_SUSPENDED, errors.AGENT_SUSPENDED),
    TokenReplaced: (errors.TOKEN_ROTATED,),
    TooEarly: (errors.RENEWAL_TOO_EARLY,),
    RenewalsExhausted: (errors.RENEWAL_LIMIT_REACHED, errors.SESSION_ABSOLUTE_LIFETIME_EXCEEDED),
    Limited: (
        errors.RATE_LIMIT_EXCEEDED,
        errors.PROCESS_LIMIT_EXCEEDED,
        errors.MASTER_AUTH_LOCKED,
        errors.ROTATION_TOO_RECENT,
    ),
    Unavailable: (errors.SHUTTING_DOWN, errors.STORAGE_UNAVAILABLE, errors.REQUEST_TIMEOUT),
    Forbidden: (
        errors.CONSTRAINT_VIOLATED,
        errors.SESSION_RENEWAL_MISMATCH,
        errors.SESSION_LIMIT_EXCEEDED,
        errors.INVALID_MASTER_PASSWORD,
        errors.INVALID_VERIFIER,
        errors.REVOCATION_NOT_ALLOWED,
        errors.HOST_NOT_ALLOWED,
        errors.ORIGIN_NOT_ALLOWED,
    ),
    NotFound: (
        errors.SESSION_NOT_FOUND,
        errors.AGENT_NOT_FOUND,
        errors.CHANNEL_NOT_FOUND,
        errors.CONVERSATION_NOT_FOUND,
        errors.VERIFIER_NOT_FOUND,
        errors.ROUTE_NOT_FOUND,
        errors.OUTPUT_GONE,
    ),
    Conflict: (
        errors.RENEWAL_CONFLICT,
        errors.INVALID_STATE_TRANSITION,
        errors.NOT_SUPERVISED,
        errors.SESSION_BUSY,
        errors.AGENT_EXISTS,
        errors.AGENT_NOT_ACTIVE,
        errors.IDEMPOTENCY_CONFLICT,
        errors.CONVERSATION_CONFLICT,
        errors.KILL_SWITCH_ALREADY_ACTIVE,
        errors.KILL_SWITCH_NOT_ACTIVE,
        errors.RECOVERY_WAIT_REQUIRED,
        errors.MIN_CHANNELS_REQUIRED,
    ),
    Invalid: (
        errors.VALIDATION_ERROR,
        errors.BAD_REQUEST,
        errors.INVALID_CHANNEL_CONFIG,
        errors.METHOD_NOT_ALLOWED,
        errors.NOT_ACCEPTABLE,
        errors.BODY_TOO_LARGE,
        errors.URI_TOO_LONG,
        errors.UNSUPPORTED_MEDIA_TYPE,
        errors.FORM_EXPECTED,
        errors.HEADERS_TOO_LARGE,
    ),
    DaemonFault: (errors.INTERNAL_ERROR,),
}
"""What the caller can do about each kind of the catalogue: a test finds every kind here exactly once."""

_BY_CODE = {kind.code: remedy for remedy, kinds in reversed(REMEDIES.items()) for kind in kinds}
"""AGENT_SUSPENDED has two kinds: to an agent it means what stands first."""


def refusal(problem: Problem) -> ApiError:
    """Return the error that a problem document is; one with a code of a newer daemon is a plain ApiError."""
    return _BY_CODE.get(problem.code, ApiError)(problem)

"""Every error the daemon answers with: one class, one catalogue.

The HTTP status of each code is the web layer's business (`web/problems.py`).
"""

from typing import Any

import msgspec


class ErrorKind(msgspec.Struct, frozen=True):
    """One entry of the catalogue: a stable code, what it means, and what the caller can do about it."""

    code: str
    title: str
    hint: str
    retryable: bool = False


class DaemonError(Exception):
    """A refusal that the caller is told about.

    Args:
        kind: the catalogue entry.
        detail: one sentence about this occurrence; the entry's title when omitted. Never a secret.
        details: machine-readable facts of this occurrence.
        errors: every invalid field as `{"path", "message"}`.
        retry_after: seconds after which a retry may succeed.
        hint: replaces the catalogue's hint where the occurrence knows better.
    """

    def __init__(
        self,
        kind: ErrorKind,
        detail: str | None = None,
        *,
        details: dict[str, Any] | None = None,
        errors: list[dict[str, str]] | None = None,
        retry_after: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(detail or kind.title)
        self.kind = kind
        self.detail = detail or kind.title
        self.details = details
        self.errors = errors
        self.retry_after = retry_after
        self.hint = hint or kind.hint

    @property
    def code(self) -> str:
        """The stable code, e.g. `TOKEN_EXPIRED`."""
        return self.kind.code


def invalid(*problems: tuple[str, str], detail: str | None = None) -> DaemonError:
    """Build a VALIDATION_ERROR that lists every problem as (dotted path, message)."""
    errors = [{"path": path, "message": message} for path, message in problems]
    summary = detail or "; ".join(f"{path}: {message}" if path else message for path, message in problems)
    return DaemonError(VALIDATION_ERROR, summary, errors=errors)


VALIDATION_ERROR = ErrorKind(
    "VALIDATION_ERROR",
    "The request is not valid",
    "Correct every field listed in `errors` and send the request again.",
)
INVALID_TOKEN = ErrorKind(
    "INVALID_TOKEN",
    "The session token is not valid",
    "Send `Authorization: Bearer wai_sess_…` with the token the owner handed out; ask for a new session if it is lost.",
)
TOKEN_EXPIRED = ErrorKind(
    "TOKEN_EXPIRED",
    "The session has expired",
    "Ask the owner for a new session; renew before `expiresAt` next time.",
)
TOKEN_ROTATED = ErrorKind(
    "TOKEN_ROTATED",
    "The session has a newer token",
    "Re-read your token file: another worker, or the owner, has replaced this token.",
)
TOKEN_REUSED = ErrorKind(
    "TOKEN_REUSED",
    "A superseded token was used again",
    "Stop using this token; the owner has been told. Ask the owner for a new session.",
)
SESSION_REVOKED = ErrorKind(
    "SESSION_REVOKED",
    "The session was revoked",
    "Stop working; the owner ended this session. Ask the owner before you go on.",
)
INVALID_MASTER_PASSWORD = ErrorKind(
    "INVALID_MASTER_PASSWORD",
    "The owner is not authenticated",
    'Send the master password in `X-Master-Password`, or an owner ticket (`eval "$(daemon login)"`).',
)
INVALID_VERIFIER = ErrorKind(
    "INVALID_VERIFIER",
    "The verifier's credential is not valid",
    "Send `Authorization: Bearer wai_verf_…`; the owner makes a new one with `daemon verifier add`.",
)
SESSION_LIMIT_EXCEEDED = ErrorKind(
    "SESSION_LIMIT_EXCEEDED",
    "The agent has as many active sessions as it may have",
    "Revoke a session the agent no longer needs, or raise `security.max_sessions_per_agent`.",
)
SESSION_SUSPENDED = ErrorKind(
    "SESSION_SUSPENDED",
    "The session is suspended",
    "Wait: the owner can resume the session, and the same token works again then.",
    retryable=True,
)
AGENT_SUSPENDED = ErrorKind(
    "AGENT_SUSPENDED",
    "The agent is suspended",
    "Wait until the owner activates the agent; the same token works again then.",
)
AGENT_NOT_ACTIVE = ErrorKind(
    "AGENT_SUSPENDED",
    "The agent is suspended and gets no new session",
    "Activate the agent first: `POST /v1/agents/{id}/activate`.",
)
CONSTRAINT_VIOLATED = ErrorKind(
    "CONSTRAINT_VIOLATED",
    "A constraint of the session forbids this",
    "See `details.constraint`; only the owner can change the session's constraints.",
)
RENEWAL_LIMIT_REACHED = ErrorKind(
    "RENEWAL_LIMIT_REACHED",
    "The session may not be renewed any more",
    "Finish before `expiresAt`, or ask the owner for a new session.",
)
SESSION_ABSOLUTE_LIFETIME_EXCEEDED = ErrorKind(
    "SESSION_ABSOLUTE_LIFETIME_EXCEEDED",
    "The session has reached the end of its absolute lifetime",
    "Ask the owner for a new session; this one cannot be extended any further.",
)
RENEWAL_TOO_EARLY = ErrorKind(
    "RENEWAL_TOO_EARLY",
    "Half of the session's time has not passed yet",
    "Renew again after `details.retryAfter` seconds.",
    retryable=True,
)
SESSION_RENEWAL_MISMATCH = ErrorKind(
    "SESSION_RENEWAL_MISMATCH",
    "The token belongs to another session",
    "Renew the session that the token was issued for; `GET /v1/session` tells its id.",
)
REVOCATION_NOT_ALLOWED = ErrorKind(
    "REVOCATION_NOT_ALLOWED",
    "This verifier may not revoke tokens",
    "Ask the owner to add one that may: `daemon verifier add NAME --may-revoke`.",
)
HOST_NOT_ALLOWED = ErrorKind(
    "HOST_NOT_ALLOWED",
    "The Host header does not name this daemon",
    "Call the daemon as 127.0.0.1 or localhost with its port, or add the name to `server.allowed_hosts`.",
)
ORIGIN_NOT_ALLOWED = ErrorKind(
    "ORIGIN_NOT_ALLOWED",
    "Requests from web pages of other origins are refused",
    "Call the daemon from a program, not from a web page.",
)
SESSION_NOT_FOUND = ErrorKind(
    "SESSION_NOT_FOUND", "There is no such session", "List the sessions: `GET /v1/owner/sessions`."
)
AGENT_NOT_FOUND = ErrorKind("AGENT_NOT_FOUND", "There is no such agent", "List the agents: `GET /v1/agents`.")
ROUTE_NOT_FOUND = ErrorKind(
    "ROUTE_NOT_FOUND", "There is no such route", "The routes are listed in `GET /openapi.json`."
)
CONVERSATION_NOT_FOUND = ErrorKind(
    "CONVERSATION_NOT_FOUND",
    "The agent has no such conversation",
    "It was deleted, or not used for too long: bind it again with `PUT /v1/conversations/{conversationId}`.",
)
METHOD_NOT_ALLOWED = ErrorKind(
    "METHOD_NOT_ALLOWED", "The route does not answer this method", "See the `Allow` header for the methods it answers."
)
NOT_ACCEPTABLE = ErrorKind(
    "NOT_ACCEPTABLE", "The answer is only available as JSON", "Send `Accept: application/json`, or no Accept header."
)
BODY_TOO_LARGE = ErrorKind("BODY_TOO_LARGE", "The body is larger than 1 MiB", "Send at most 1048576 bytes.")
URI_TOO_LONG = ErrorKind("URI_TOO_LONG", "The request target is too long", "Shorten the path and the query.")
UNSUPPORTED_MEDIA_TYPE = ErrorKind(
    "UNSUPPORTED_MEDIA_TYPE", "The body must be JSON", "Send `Content-Type: application/json`."
)
FORM_EXPECTED = ErrorKind(
    "UNSUPPORTED_MEDIA_TYPE", "The body must be a form", "Send `Content-Type: application/x-www-form-urlencoded`."
)
HEADERS_TOO_LARGE = ErrorKind(
    "HEADERS_TOO_LARGE", "The headers are larger than 16 KiB", "Send at most 16384 bytes of headers."
)
REQUEST_TIMEOUT = ErrorKind(
    "REQUEST_TIMEOUT",
    "The request did not arrive in time",
    "Send the whole request without pausing, then try again.",
    retryable=True,
)
BAD_REQUEST = ErrorKind("VALIDATION_ERROR", "The request is not valid HTTP", "Send a well-formed HTTP/1.1 request.")
AGENT_EXISTS = ErrorKind(
    "AGENT_EXISTS",
    "Another agent has this public key",
    "Use the agent named in `details.agentId`, or register another key.",
)
RENEWAL_CONFLICT = ErrorKind(
    "RENEWAL_CONFLICT",
    "The session changed while it was being renewed",
    "Re-read your token file, then renew with the current token if that is still necessary.",
    retryable=True,
)
INVALID_STATE_TRANSITION = ErrorKind(
    "INVALID_STATE_TRANSITION",
    "The session's state does not allow this",
    "See `details.from` and `details.allowed`; show the session first.",
)
SESSION_BUSY = ErrorKind(
    "SESSION_BUSY",
    "The session cannot take a message now",
    "Wait until it is READY or IDLE (see `details.state`), or send `queue: true`.",
    retryable=True,
)
NOT_SUPERVISED = ErrorKind(
    "INVALID_STATE_TRANSITION",
    "The session has no process",
    "Only a session that was created with `process` takes messages, has output and can be killed.",
)
PROCESS_LIMIT_EXCEEDED = ErrorKind(
    "PROCESS_LIMIT_EXCEEDED",
    "As many processes run as may run, and none of them can make room",
    "Wait until one is over, end one (`daemon ps`), or raise `processes.max_processes` or `processes.max_per_agent`.",
    retryable=True,
)
OUTPUT_GONE = ErrorKind(
    "OUTPUT_GONE",
    "This part of the output is not kept any more",
    "Go on from `details.firstOffset`; `processes.output_max_mb` says how much is kept.",
)
IDEMPOTENCY_CONFLICT = ErrorKind(
    "IDEMPOTENCY_CONFLICT",
    "This Idempotency-Key has already created a session",
    "The session is named in `details.sessionId`; rotate it if its token was lost, or send a new key.",
)
CONVERSATION_CONFLICT = ErrorKind(
    "CONVERSATION_CONFLICT",
    "The conversation is bound to another provider or model than expected",
    "Another worker rebound it first: go on with `details.provider` and `details.model`.",
)
AGENT_TERMINATED = ErrorKind(
    "AGENT_TERMINATED", "The agent was terminated", "Termination is final: register a new agent."
)
INVALID_CHANNEL_CONFIG = ErrorKind(
    "INVALID_CHANNEL_CONFIG",
    "The channel does not work with this configuration",
    "Correct what `detail` names and try again, or try again once the service can be reached.",
)
MIN_CHANNELS_REQUIRED = ErrorKind(
    "MIN_CHANNELS_REQUIRED",
    "Too few notification channels would remain",
    "Add another channel first, or send `?force=true`.",
)
CHANNEL_NOT_FOUND = ErrorKind(
    "CHANNEL_NOT_FOUND", "There is no such channel", "List the channels: `GET /v1/owner/notification-channels`."
)
VERIFIER_NOT_FOUND = ErrorKind(
    "VERIFIER_NOT_FOUND", "There is no such verifier", "List the verifiers: `GET /v1/owner/verifiers`."
)
KILL_SWITCH_ALREADY_ACTIVE = ErrorKind(
    "KILL_SWITCH_ALREADY_ACTIVE",
    "The kill switch is on already",
    "Everything is stopped; recover with `POST /v1/admin/recover` (`daemon kill-switch off`).",
)
KILL_SWITCH_NOT_ACTIVE = ErrorKind(
    "KILL_SWITCH_NOT_ACTIVE", "The kill switch is off", "There is nothing to recover from."
)
RECOVERY_WAIT_REQUIRED = ErrorKind(
    "RECOVERY_WAIT_REQUIRED",
    "The time before recovery is not over",
    "Ask again at `details.recoveryEligibleAt`.",
    retryable=True,
)
SYSTEM_LOCKED = ErrorKind(
    "SYSTEM_LOCKED",
    "The kill switch is on: everything is stopped",
    "Stop working. Only the owner can recover the system (`daemon kill-switch off`).",
)
MASTER_AUTH_LOCKED = ErrorKind(
    "MASTER_AUTH_LOCKED",
    "Too many wrong passwords: owner routes are locked",
    "Wait for `Retry-After` seconds, or restart the daemon from a terminal (`daemon restart`).",
    retryable=True,
)
ROTATION_TOO_RECENT = ErrorKind(
    "ROTATION_TOO_RECENT",
    "The signing secret was rotated a moment ago",
    "Wait for `Retry-After` seconds; the previous secret is still in its grace period.",
    retryable=True,
)
RATE_LIMIT_EXCEEDED = ErrorKind(
    "RATE_LIMIT_EXCEEDED", "Too many requests", "Wait for `Retry-After` seconds, then go on slower.", retryable=True
)
INTERNAL_ERROR = ErrorKind(
    "INTERNAL_ERROR",
    "The daemon made an error",
    "Look for the request id in the daemon's log (`daemon logs`) and report it.",
)
SHUTTING_DOWN = ErrorKind(
    "SHUTTING_DOWN", "The daemon is stopping", "Try again when it has been started again.", retryable=True
)
STORAGE_UNAVAILABLE = ErrorKind(
    "STORAGE_UNAVAILABLE",
    "The database cannot be read or written",
    "Nothing was changed. Free disk space or mend the database (see `GET /health`), then try again.",
    retryable=True,
)

CATALOGUE: tuple[ErrorKind, ...] = tuple(kind for kind in list(globals().values()) if isinstance(kind, ErrorKind))
"""Every error kind, in the order of this file; the README table and the OpenAPI document are made from it."""

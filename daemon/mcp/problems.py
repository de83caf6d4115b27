"""What a model is told when a tool fails: the API's code, and what to do about it."""

import math
from typing import Any

import msgspec

from daemon.client.errors import (
    ApiError,
    ClientError,
    NoSession,
    NotRenewable,
    OutcomeUnknown,
    StrangeAnswer,
    TokenFileError,
    Unreachable,
)
from daemon.domain.errors import CONVERSATION_NOT_FOUND, INTERNAL_ERROR, INVALID_TOKEN, DaemonError, ErrorKind


class ToolProblem(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Why a tool did not do what it was to do; what does not apply is left out.

    Args:
        code: stable; of the API's catalogue, or one of `LOCAL`.
        detail: one sentence about this occurrence.
        hint: what to do about it.
        retryable: whether the same call may succeed later.
        retry_after: seconds after which, where that is known.
        details: facts of this occurrence.
        errors: every invalid argument as `{"path", "message"}`.
        request_id: to be found in the daemon's log.
    """

    code: str
    detail: str
    hint: str | None
    retryable: bool
    retry_after: int | None = None
    details: dict[str, Any] = {}
    errors: list[dict[str, str]] = []
    request_id: str | None = None


LOCAL: dict[type[ClientError], ErrorKind] = {
    NotRenewable: ErrorKind(
        "TOKEN_NOT_RENEWABLE",
        "The token lies in no file, so that this server does not renew it",
        "Finish before `expiresAt`, or ask the owner for a token file: `daemon mcp install --token-file FILE`.",
    ),
    NoSession: ErrorKind(
        "NO_SESSION",
        "This server has no session",
        "Ask the owner to start you with `daemon run`, or for `daemon mcp install --token-file FILE`.",
    ),
    TokenFileError: ErrorKind(
        "TOKEN_FILE_UNUSABLE",
        "The file with the token cannot be used",
        "Tell the owner what `detail` says; call the tool again once that is mended.",
    ),
    OutcomeUnknown: ErrorKind(
        "OUTCOME_UNKNOWN",
        "The connection ended after the request was sent",
        "It may have been carried out: look before you repeat it.",
    ),
    Unreachable: ErrorKind(
        "DAEMON_UNREACHABLE",
        "The daemon does not answer",
        "Call the tool again in a moment; if it stays so, ask the owner for `daemon start --detach`.",
        retryable=True,
    ),
    StrangeAnswer: ErrorKind(
        "STRANGE_ANSWER",
        "What answers is not this daemon, or another version",
        "Tell the owner: DAEMON_URL or `--url` may name another program.",
    ),
    ClientError: ErrorKind(
        "NOT_CONFIGURED", "This server cannot find its daemon or its session", "Tell the owner what `detail` says."
    ),
}
"""What goes wrong before the daemon is asked, the special before the general."""

_HINTS = {
    CONVERSATION_NOT_FOUND.code: "It was deleted, or not used for too long: bind it again with `bind_conversation`.",
    INVALID_TOKEN.code: "Ask the owner for a new session; the tools work again once the token file holds its token.",
}
"""What stands in the place of a hint that names a header or a route."""


def of(error: Exception) -> ToolProblem:
    """Return what a model is told of an error; nothing of one that nobody foresaw but that there was one."""
    if isinstance(error, ApiError):
        return _refusal(error)
    if isinstance(error, DaemonError):
        errors = error.errors or []
        return ToolProblem(code=error.code, detail=error.detail, hint=error.hint, retryable=False, errors=errors)
    for kind, local in LOCAL.items():
        if isinstance(error, kind):
            return ToolProblem(code=local.code, detail=str(error), hint=local.hint, retryable=local.retryable)
    return ToolProblem(
        code=INTERNAL_ERROR.code,
        detail="The MCP server made an error",
        hint="Tell the owner: its standard error says what happened.",
        retryable=False,
    )


def _refusal(error: ApiError) -> ToolProblem:
    return ToolProblem(
        code=error.code,
        detail=error.detail,
        hint=_HINTS.get(error.code, error.hint),
        retryable=error.retryable,
        retry_after=None if error.retry_after is None else math.ceil(error.retry_after),
        details=error.details,
        errors=error.errors,
        request_id=error.request_id,
    )

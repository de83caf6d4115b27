"""One request, sent once, and the patience before it is sent again."""

import random
from typing import Any

from daemon.client import calls
from daemon.client.calls import Call
from daemon.client.effects import Lost, NotSent, Pause, Reply, Send, Steps
from daemon.client.errors import ApiError, ClientError, OutcomeUnknown, SessionEnded, Unreachable, refusal
from daemon.client.standing import Plan, Standing
from daemon.domain.errors import (
    RATE_LIMIT_EXCEEDED,
    RENEWAL_CONFLICT,
    REQUEST_TIMEOUT,
    SHUTTING_DOWN,
    STORAGE_UNAVAILABLE,
)

IN_CALL, IN_BACKGROUND = 1.0, 10.0
"""Seconds that are waited before another attempt at most, where the daemon does not ask for more."""

_ATTEMPT = 10.0
"""Seconds that the daemon may stay silent before an attempt is over."""
_FIRST = 0.05
"""Seconds before the second attempt at most; each further one waits twice as long."""
_REFUSED = frozenset({RATE_LIMIT_EXCEEDED.code, SHUTTING_DOWN.code, REQUEST_TIMEOUT.code})
"""Refused before anything was done: any request may be sent again."""
_UNCERTAIN = frozenset({STORAGE_UNAVAILABLE.code, RENEWAL_CONFLICT.code})
"""A commit may have happened all the same: only what may be repeated is sent again."""


class AgainError(Exception):
    """The same request may be sent again.

    Args:
        failure: what to raise where there is no time for that.
    """

    def __init__(self, failure: ClientError) -> None:
        super().__init__()
        self.failure = failure


def ask(standing: Standing, call: Call[Any], plan: Plan, deadline: float) -> Steps[Reply]:
    """Send a request once.

    Args:
        standing: of the session.
        call: what is asked for.
        plan: with the token that is sent.
        deadline: of the clock that only goes on.

    Raises:
        AgainError: it may be sent again.
        ApiError: it was refused.
        OutcomeUnknown: it may have been carried out, and must not be repeated.
    """
    left = max(0.1, deadline - standing.clock.monotonic())
    try:
        reply: Reply = yield Send(call.method, call.target, call.body, plan.token, min(left, _ATTEMPT))
    except NotSent as error:
        raise AgainError(Unreachable(str(error))) from None
    except Lost as error:
        if call.repeatable:
            raise AgainError(Unreachable(str(error))) from None
        raise OutcomeUnknown(f"{error}; what was asked may have been done") from None
    if reply.status < 300:
        return reply
    refused = refusal(calls.problem(reply))
    if isinstance(refused, SessionEnded):
        standing.end(plan.token, refused.problem)
    if refused.retryable and (refused.code in _REFUSED or (call.repeatable and refused.code in _UNCERTAIN)):
        raise AgainError(refused)
    raise refused


def rest(standing: Standing, attempt: int, failure: ClientError, deadline: float) -> Steps[None]:
    """Wait before the next attempt.

    Args:
        standing: of the session; that it is over ends the wait.
        attempt: how many there were.
        failure: of the last one, which is raised where there is no time for another.
        deadline: of the clock that only goes on.
    """
    until = standing.clock.monotonic() + patience(attempt, failure, IN_CALL)
    if until >= deadline:
        raise failure
    while (left := until - standing.clock.monotonic()) > 0:
        version = standing.version
        standing.usable()
        yield Pause(left, version)


def patience(attempt: int, failure: ClientError, longest: float) -> float:
    """Return for how many seconds to wait: what the daemon has asked for, else longer each time."""
    asked = failure.retry_after if isinstance(failure, ApiError) else None
    return backoff(attempt, longest) if asked is None else asked


def backoff(attempt: int, longest: float) -> float:
    """Return for how many seconds to wait after so many attempts: twice as long each time, up to `longest`."""
    return min(longest, _FIRST * 2.0 ** min(attempt - 1, 20)) * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)

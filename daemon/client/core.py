"""The one core of both clients: what is sent when, what is tried again, and when the token is renewed.

It is made of generators that yield effects (`effects.py`), so that threads and asyncio share every decision.
"""

import logging
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from daemon.client import calls
from daemon.client.calls import Call
from daemon.client.claims import Claims, claims
from daemon.client.effects import Lost, NotSent, Pause, Reply, Send, Steps, Work
from daemon.client.errors import (
    ApiError,
    ClientError,
    Conflict,
    Limited,
    OutcomeUnknown,
    Problem,
    RenewalsExhausted,
    SessionEnded,
    TokenReplaced,
    TooEarly,
    Unavailable,
    Unreachable,
    refusal,
)
from daemon.client.finding import Credential
from daemon.domain.errors import STORAGE_UNAVAILABLE
from daemon.domain.views import OwnSession, RenewedSession

T = TypeVar("T")

DUE = 0.6
"""Part of the remaining time after which a session is renewed; the daemon admits it from a half on."""
JITTER = 0.05
"""How far from that, so that many who read one file do not all come at once."""
TIMEOUT = 30.0
"""Seconds that a call may take, everything that is tried again included."""
LONGEST_PAUSE = 60.0
"""Seconds: a machine that slept has another time of day, and another process may have renewed."""
_ATTEMPT = 10.0
"""Seconds that the daemon may stay silent before an attempt is over."""
_BACKOFF, _LONGEST_BACKOFF = 0.1, 30.0
_CONTENDED = 0.02
_log = logging.getLogger("daemon.client")


class Time(msgspec.Struct, frozen=True):
    """Clocks: the time of day in Unix seconds, and one that only ever goes on."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


class _Plan(msgspec.Struct):
    """What is known of the token that is in use."""

    token: str
    claims: Claims
    due: float
    ended: Problem | None = None
    failures: int = 0

    def __repr__(self) -> str:
        return f"_Plan(generation={self.claims.gen}, due={self.due})"


class Core:
    """One session as one process sees it.

    Args:
        credential: where its token is.
        clock: what time it is.
        timeout: seconds that a call may take.
        changed: called when something has happened that others may be waiting for.
    """

    def __init__(self, credential: Credential, clock: Time, timeout: float, changed: Callable[[], None]) -> None:
        self._credential = credential
        self._clock = clock
        self._timeout = timeout
        self._changed = changed
        self._plan: _Plan | None = None
        self._answer: RenewedSession | None = None
        self.closed = False

    def token(self) -> str:
        """Return the current token.

        Raises:
            TokenFileError, NoSession: there is none.
        """
        return self._look().token

    def session_id(self) -> str:
        """Return the session's id; raises as `token`."""
        return self._look().claims.sub

    def agent_id(self) -> str:
        """Return the id of the session's agent; raises as `token`."""
        return self._look().claims.agt

    def ended(self) -> bool:
        """Return whether the session is over for good; raises as `token`."""
        return self._look().ended is not None

    def _look(self) -> _Plan:
        """Return the plan for the token as it is now: another process may have replaced it."""
        token = self._credential.read()
        plan = self._plan
        if plan is None or plan.token != token:
            said = claims(token, self._credential.origin)
            self._plan = plan = _Plan(token, said, self._due(said.exp))
        return plan

    def _due(self, expires_at: int) -> float:
        now = self._clock.now()
        return now + max(0.0, expires_at - now) * random.uniform(DUE - JITTER, DUE + JITTER)  # noqa: S311 (no secret)

    def call(self, call: Call[T]) -> Steps[T]:
        """Make a call; the token is renewed before where that is due.

        Raises:
            ApiError: the daemon refused.
            Unreachable: it did not answer in time; OutcomeUnknown where it may have done what was asked all the same.
            TokenFileError, NoSession: there is no token.
        """
        reply = yield from self._reply(call)
        return call.read(reply)

    def pages(self, call: Call[list[T]], limit: int | None) -> Steps[list[T]]:
        """Make the call of a list and of all that follow, up to `limit` items; raises as `call`."""
        found: list[T] = []
        following: Call[list[T]] | None = call
        while following is not None and (limit is None or len(found) < limit):
            reply = yield from self._reply(following)
            found += following.read(reply)
            following = calls.following(following, reply)
        return found[:limit]

    def _reply(self, call: Call[Any]) -> Steps[Reply]:
        deadline = self._clock.monotonic() + self._timeout
        yield from self._renew_if_due(deadline)
        attempt = 0
        while True:
            plan = self._usable()
            try:
                reply: Reply = yield self._send(call, plan.token, deadline)
                if reply.status < 300:
                    return reply
                refused = self._refused(reply, plan)
                if isinstance(refused, TokenReplaced):
                    yield from self._catch_up(plan.token, deadline)
                    continue
                if not _may_repeat(call, refused):
                    raise refused
                failure: ClientError = refused
            except NotSent as error:
                failure = Unreachable(str(error))
            except Lost as error:
                if not call.repeatable:
                    raise OutcomeUnknown(f"{error}; it may have been carried out") from None
                failure = Unreachable(str(error))
            attempt += 1
            yield from self._rest(attempt, failure, deadline)

    def _usable(self) -> _Plan:
        if self.closed:
            raise ClientError("The session is closed in this program")
        plan = self._look()
        if plan.ended is not None:
            raise refusal(plan.ended)
        return plan

    def _send(self, call: Call[Any], token: str, deadline: float) -> Send:
        left = max(0.1, deadline - self._clock.monotonic())
        return Send(call.method, call.target, call.body, token, min(left, _ATTEMPT))

    def _refused(self, reply: Reply, plan: _Plan) -> ApiError:
        error = refusal(calls.problem(reply))
        if isinstance(error, SessionEnded):
            plan.ended = error.problem
            self._changed()
        return error

    def _rest(self, attempt: int, failure: ClientError, deadline: float) -> Steps[None]:
        """Wait before the next attempt; raise what went wrong where there is no time for one."""
        asked = failure.retry_after if isinstance(failure, ApiError) else None
        wait = _backoff(attempt) if asked is None else asked
        if self._clock.monotonic() + wait >= deadline:
            raise failure
        yield Pause(wait)

    def _catch_up(self, stale: str, deadline: float) -> Steps[None]:
        """Find the successor of a token that was replaced: another process has it, or its answer was lost."""
        attempt = 0
        while self._usable().token == stale:
            try:
                yield from self._exchange(stale, deadline)
            except TokenReplaced as error:
                # By the owner: whoever is to hand out the new token may be about to write it.
                attempt += 1
                yield from self._rest(attempt, error, min(deadline, self._clock.monotonic() + 1.0 - 0.1 * attempt))

    def renew(self) -> Steps[RenewedSession]:
        """Renew now; who comes second gets what the first one was answered.

        Raises:
            ApiError: the daemon refused: TooEarly, RenewalsExhausted, SessionEnded, Suspended and others.
            Unreachable: it did not answer in time; nothing is lost, since the same renewal can be asked for again.
            TokenFileError: the new token cannot be stored; the old one is kept.
        """
        before = self._usable().token
        answer = yield from self._exchange(before, self._clock.monotonic() + self._timeout)
        if answer is not None:
            return answer
        if self._answer is not None and self._answer.token == self._look().token:
            return self._answer
        own = yield from self.call(calls.whoami())
        return _as_renewed(own, self._look().token)

    def _renew_if_due(self, deadline: float) -> Steps[None]:
        plan = self._usable()
        if self._clock.now() >= plan.due:
            yield from self._attempt(plan, deadline, wait=False)

    def _attempt(self, plan: _Plan, deadline: float, *, wait: bool) -> Steps[None]:
        """Renew; where that fails keep the token that there is, and plan the next attempt."""
        try:
            yield from self._exchange(plan.token, deadline, wait=wait)
        except SessionEnded:
            raise
        except RenewalsExhausted as error:
            # The owner may allow more.
            plan.due = max(self._due(plan.claims.exp), self._clock.now() + LONGEST_PAUSE)
            _log.warning("session %s: no renewal any more: %s", plan.claims.sub, error.code)
        except TooEarly as error:
            plan.due = self._clock.now() + (error.retry_after or 1.0)
        except ClientError as error:
            plan.failures += 1
            asked = error.retry_after if isinstance(error, ApiError) else None
            plan.due = self._clock.now() + (_backoff(plan.failures) if asked is None else asked)
            _log.warning("session %s: not renewed, the token is kept: %s", plan.claims.sub, error)

    def keep(self) -> Steps[None]:
        """Renew whenever it is due, until the session is over or closed."""
        while not self.closed:
            try:
                plan = self._look()
                if plan.ended is not None:
                    return
                wait = plan.due - self._clock.now()
                if wait > 0:
                    yield Pause(min(wait, LONGEST_PAUSE))
                    continue
                yield from self._attempt(plan, self._clock.monotonic() + self._timeout, wait=True)
            except SessionEnded as error:
                _log.warning("the session is over: %s", error)
                return
            except ClientError as error:  # the token file cannot be used for the moment
                _log.warning("the token cannot be read: %s", error)
                yield Pause(1.0)

    def _exchange(self, stale: str, deadline: float, *, wait: bool = True) -> Steps[RenewedSession | None]:
        """Renew the token in the place of `stale`; None if somebody else has done it, or is about to.

        The new token is stored before anybody uses it. So whatever ends this process between the two, the old one is
        still in its place and its successor unused, and the daemon answers the same renewal again.
        """
        if not self._credential.may_renew:
            raise ClientError("A forked process cannot renew a token that is in no file; use a token file")
        attempt = 0
        while (claim := self._credential.claim()) is None:
            if not wait:
                return None
            attempt += 1
            yield from self._rest(0, Unreachable("Another process renews, and takes too long"), deadline)
            if self._usable().token != stale:
                return None
        try:
            plan = self._usable()
            if plan.token != stale:
                return None
            yield Work(claim.stage)
            answer = yield from self._answered(plan, deadline)
            yield Work(lambda: claim.store(answer.token))
            self._answer = answer
            _log.info("session %s: renewed, %d of %d", answer.id, answer.renewal_count, answer.max_renewals)
        finally:
            claim.release()
            self._changed()
        return answer

    def _answered(self, plan: _Plan, deadline: float) -> Steps[RenewedSession]:
        call, attempt = calls.renew(plan.claims.sub), 0
        while True:
            try:
                reply: Reply = yield self._send(call, plan.token, deadline)
                if reply.status < 300:
                    return call.read(reply)
                refused = self._refused(reply, plan)
                if not _may_repeat(call, refused):
                    raise refused
                failure: ClientError = refused
            except (NotSent, Lost) as error:
                failure = Unreachable(str(error))
            attempt += 1
            yield from self._rest(attempt, failure, deadline)


def _may_repeat(call: Call[Any], refused: ApiError) -> bool:
    """Return whether the same request may be sent again: it was refused for the moment, and nothing was written."""
    if not refused.retryable or not isinstance(refused, Limited | Unavailable | Conflict):
        return False
    # The outcome of a commit may be unknown to the daemon itself.
    return call.repeatable or refused.code != STORAGE_UNAVAILABLE.code


def _backoff(attempt: int) -> float:
    if attempt == 0:
        return _CONTENDED
    return min(_LONGEST_BACKOFF, _BACKOFF * 2.0 ** min(attempt - 1, 20)) * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)


def _as_renewed(own: OwnSession, token: str) -> RenewedSession:
    return RenewedSession(
        id=own.id,
        token=token,
        expires_at=own.expires_at,
        renewal_count=own.renewal_count,
        max_renewals=own.max_renewals,
        absolute_expires_at=own.absolute_expires_at,
        last_renewed_at=own.last_renewed_at or own.created_at,
    )

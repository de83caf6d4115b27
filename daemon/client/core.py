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
from daemon.client.effects import Claim, Credential, Lost, NotSent, Pause, Reply, Send, Steps, Work
from daemon.client.errors import (
    ApiError,
    ClientError,
    NotRenewable,
    OutcomeUnknown,
    Problem,
    RenewalsExhausted,
    SessionEnded,
    TokenReplaced,
    TooEarly,
    Unreachable,
    refusal,
)
from daemon.domain.errors import RATE_LIMIT_EXCEEDED, RENEWAL_CONFLICT, SHUTTING_DOWN, STORAGE_UNAVAILABLE
from daemon.domain.views import RenewedSession, RevokedSession

T = TypeVar("T")

DUE = 0.6
"""Part of the time that a token was made for after which it is renewed; the daemon admits it from a half on."""
JITTER = 0.05
"""How far from that, so that many who read one file do not all come at once."""
LONGEST_PAUSE = 60.0
"""Seconds: a machine that slept has another time of day, and another process may have renewed."""

_ATTEMPT = 10.0
"""Seconds that the daemon may stay silent before an attempt is over."""
_BACKOFF = 0.05
"""Seconds before the second attempt at most; each further one waits twice as long, at a call up to a second."""
_LONGEST_IN_CALL, _LONGEST_IN_BACKGROUND = 1.0, 10.0
_CONTENDED = 0.02
"""Seconds between looks at a token that another process renews."""
_HANDED_OUT = 1.0
"""Seconds in which a token that the owner has replaced may still come into its file."""

_PASSING = frozenset({RATE_LIMIT_EXCEEDED.code, SHUTTING_DOWN.code})
"""Refused before anything was looked at: any request may be sent again."""
_UNCERTAIN = frozenset({STORAGE_UNAVAILABLE.code, RENEWAL_CONFLICT.code})
"""A commit may have happened all the same: only what may be repeated is sent again."""

_BY_AGENT = "ended_by_agent"
"""Why a session was revoked that its agent has ended."""

_log = logging.getLogger("daemon.client")
_log.addHandler(logging.NullHandler())


class Time(msgspec.Struct, frozen=True):
    """Clocks: the time of day in Unix seconds, and one in seconds that only ever goes on."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


class _Plan(msgspec.Struct):
    """What is intended with the token that is in use.

    `due` is a time of day in Unix seconds, `rests_until` is of the clock that only goes on.
    """

    token: str
    claims: Claims
    due: float
    rests_until: float = 0.0
    failures: int = 0
    unanswered: bool = False
    ended: Problem | None = None

    def __repr__(self) -> str:
        return f"_Plan(generation={self.claims.gen}, due={self.due})"


class _AgainError(Exception):
    """The same request may be sent again.

    Args:
        failure: what to raise where there is no time for that.
    """

    def __init__(self, failure: ClientError) -> None:
        super().__init__()
        self.failure = failure


class Core:
    """One session as one process sees it.

    Args:
        credential: where its token is.
        clock: what time it is.
        timeout: seconds that a call may take, everything that is tried again included.
        changed: called when something has happened that others may be waiting for.

    Attributes:
        version: another one after each such change.
    """

    def __init__(self, credential: Credential, clock: Time, timeout: float, changed: Callable[[], None]) -> None:
        self._credential = credential
        self._clock = clock
        self._timeout = timeout
        self._changed = changed
        self._plan: _Plan | None = None
        self._answer: RenewedSession | None = None
        self._closed = False
        self.version = 0

    def close(self) -> None:
        """Make no more calls, and renew no more."""
        self._closed = True
        self._tell()

    def _tell(self) -> None:
        self.version += 1
        self._changed()

    def token(self) -> str:
        """Return the current token.

        Raises:
            TokenFileError, NoSession: there is none.
        """
        return self._look().token

    def claims(self) -> Claims:
        """Return what the current token says; raises as `token`."""
        return self._look().claims

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
        """Make the call of a list and of what follows, up to `limit` items; raises as `call`."""
        found: list[T] = []
        following: Call[list[T]] | None = call
        while following is not None and (limit is None or len(found) < limit):
            reply = yield from self._reply(following)
            found += following.read(reply)
            following = calls.following(following, reply)
        return found[:limit]

    def renew(self) -> Steps[RenewedSession]:
        """Renew now; who comes second gets what the first one was answered.

        Raises:
            ApiError: the daemon refused: TooEarly, RenewalsExhausted, SessionEnded, Suspended and others.
            Unreachable: it did not answer in time; nothing is lost, since the same renewal can be asked for again.
            TokenFileError: the new token cannot be stored; the old one is kept.
        """
        self._must_renew()
        before = self._usable().token
        answer = yield from self._renewed(before, self._deadline())
        if answer is not None:
            return answer
        known, token = self._answer, self._look().token
        if known is not None and known.token == token:
            return known
        own = yield from self.call(calls.whoami())
        return calls.as_renewed(own, token)

    def end(self) -> Steps[RevokedSession]:
        """End the session; it is no error where it was ended so before. Raises as `call`."""
        try:
            return (yield from self.call(calls.end()))
        except SessionEnded as error:
            if error.details.get("reason") != _BY_AGENT:
                raise
            return RevokedSession(self._look().claims.sub, "REVOKED", int(self._clock.now()), error.detail)

    def keep(self) -> Steps[None]:
        """Renew whenever it is due, until the session is over or closed."""
        unreadable = 0
        while self._credential.may_renew and not self._closed:
            version = self.version
            try:
                plan = self._usable()
                unreadable = 0
                if (wait := self._wait(plan)) > 0:
                    yield Pause(min(wait, LONGEST_PAUSE), version)
                else:
                    yield from self._renew_if_due()
            except SessionEnded as error:
                _log.warning("the session is over: %s", error)
                return
            except ClientError as error:  # the token file cannot be used for the moment
                if not unreadable:
                    _log.warning("the token cannot be used: %s", error)
                unreadable += 1
                yield Pause(_backoff(unreadable, _LONGEST_IN_BACKGROUND), version)

    @property
    def renews(self) -> bool:
        """Whether there is something for `keep` to do."""
        over = self._plan is not None and self._plan.ended is not None
        return self._credential.may_renew and not self._closed and not over

    def _must_renew(self) -> None:
        if not self._credential.may_renew:
            raise NotRenewable("This process may not renew a token that lies in no file; use a token file")

    def _deadline(self) -> float:
        return self._clock.monotonic() + self._timeout

    def _look(self) -> _Plan:
        """Return the plan for the token as it is now: another process may have replaced it."""
        token, plan = self._credential.read(), self._plan
        if plan is None or plan.token != token:
            said = claims(token, self._credential.origin)
            self._plan = plan = _Plan(token, said, _due(said.iat, said.exp))
        return plan

    def _wait(self, plan: _Plan) -> float:
        """Return for how many seconds nothing is to be tried."""
        return max(plan.due - self._clock.now(), plan.rests_until - self._clock.monotonic())

    def _usable(self) -> _Plan:
        """Return the plan for a token that may be used for all that is known; raises what it may not be used for."""
        if self._closed:
            raise ClientError("This program has closed the session; open it again")
        plan = self._look()
        if plan.ended is not None:
            raise refusal(plan.ended)
        return plan

    def _reply(self, call: Call[Any]) -> Steps[Reply]:
        deadline, attempt = self._deadline(), 0
        yield from self._renew_if_due()
        while True:
            plan = self._usable()
            try:
                reply = yield from self._asked(call, plan, deadline)
            except TokenReplaced as error:
                yield from self._catch_up(plan.token, deadline, error)
            except _AgainError as again:
                attempt += 1
                yield from self._rest(attempt, again.failure, deadline)
            else:
                self._answers_again(plan)
                return reply

    def _asked(self, call: Call[Any], plan: _Plan, deadline: float) -> Steps[Reply]:
        """Send a request once.

        Raises:
            _AgainError: it may be sent again.
            ApiError: it was refused.
            OutcomeUnknown: it may have been carried out, and must not be repeated.
        """
        left = min(_ATTEMPT, max(0.1, deadline - self._clock.monotonic()))
        try:
            reply: Reply = yield Send(call.method, call.target, call.body, plan.token, left)
        except NotSent as error:
            raise _AgainError(Unreachable(str(error))) from None
        except Lost as error:
            if call.repeatable:
                raise _AgainError(Unreachable(str(error))) from None
            raise OutcomeUnknown(f"{error}; what was asked may have been done") from None
        if reply.status < 300:
            return reply
        refused = refusal(calls.problem(reply))
        if isinstance(refused, SessionEnded):
            plan.ended = refused.problem
            self._tell()
        if refused.code in _PASSING or (call.repeatable and refused.code in _UNCERTAIN):
            raise _AgainError(refused)
        raise refused

    def _rest(self, attempt: int, failure: ClientError, deadline: float) -> Steps[None]:
        """Wait before the next attempt; raise what went wrong where there is no time for one."""
        wait = _patience(attempt, failure, _LONGEST_IN_CALL)
        until = self._clock.monotonic() + wait
        if until >= deadline:
            raise failure
        while (left := until - self._clock.monotonic()) > 0:
            version = self.version
            self._usable()  # who waits is told at once that the session is over
            yield Pause(left, version)

    def _catch_up(self, stale: str, deadline: float, error: TokenReplaced) -> Steps[None]:
        """Find the successor of a token that was replaced: another process has it, or its answer was lost."""
        self._must_renew()
        attempt, handed_out = 0, min(deadline, self._clock.monotonic() + _HANDED_OUT)
        while self._usable().token == stale:
            try:
                yield from self._renewed(stale, deadline)
            except (TokenReplaced, TooEarly) as refused:
                # By the owner: what is to hand out the new token may be about to write it.
                attempt += 1
                yield from self._rest(attempt, refused, handed_out)
        if self._clock.monotonic() >= deadline:
            raise error

    def _renew_if_due(self) -> Steps[None]:
        """Try to renew once, if that is due; where it fails keep the token that there is, and plan the next attempt.

        Raises:
            SessionEnded: that was found.
        """
        plan = self._usable()
        if self._wait(plan) > 0 or not self._credential.may_renew:
            return
        try:
            claim = self._credential.claim()
            if claim is None:
                plan.rests_until = self._clock.monotonic() + _CONTENDED
            else:
                yield from self._exchange(claim, plan.token, self._deadline())
        except SessionEnded:
            raise
        except _AgainError as again:
            self._put_off(plan, again.failure)
        except ClientError as error:
            self._put_off(plan, error)

    def _put_off(self, plan: _Plan, failure: ClientError) -> None:
        now = self._clock.now()
        if isinstance(failure, TooEarly):
            plan.due = now + (failure.retry_after or 1.0)
            return
        if isinstance(failure, RenewalsExhausted):  # until the owner allows more
            plan.due = max(_due(now, plan.claims.exp), now + LONGEST_PAUSE)
        else:
            plan.failures += 1
            plan.unanswered = isinstance(failure, Unreachable)
            plan.rests_until = self._clock.monotonic() + _patience(plan.failures, failure, _LONGEST_IN_BACKGROUND)
        _log.warning("session %s: not renewed, the token is kept: %s", plan.claims.sub, failure)

    def _answers_again(self, plan: _Plan) -> None:
        """Put nothing off any longer because the daemon was away."""
        if plan.unanswered:
            plan.unanswered, plan.failures, plan.rests_until = False, 0, 0.0
            self._tell()

    def _renewed(self, stale: str, deadline: float) -> Steps[RenewedSession | None]:
        """Renew, and try again until the deadline; None where somebody else has done it.

        No lock is held while nothing is sent: a process that is stopped then must not keep others from renewing.
        """
        attempt = 0
        while True:
            version = self.version
            if self._usable().token != stale:
                return None
            try:
                claim = self._credential.claim()
                if claim is not None:
                    return (yield from self._exchange(claim, stale, deadline))
                if self._clock.monotonic() >= deadline:
                    raise Unreachable("Another process renews the session, and takes too long")
                yield Pause(_CONTENDED, version)
            except _AgainError as again:
                attempt += 1
                yield from self._rest(attempt, again.failure, deadline)

    def _exchange(self, claim: Claim, stale: str, deadline: float) -> Steps[RenewedSession | None]:
        """Renew once, unless somebody else was faster; the claim is released.

        The new token is stored before anybody uses it. So whatever ends this process between the two, the old one is
        still in its place and its successor unused, and the daemon answers the same renewal again.
        """
        try:
            plan = self._usable()
            if plan.token != stale:
                return None
            yield Work(claim.stage)
            call = calls.renew(plan.claims.sub)
            answer = call.read((yield from self._asked(call, plan, deadline)))
            yield Work(lambda: claim.store(answer.token))
            self._answer = answer
            _log.info("session %s: renewed, %d of %d", answer.id, answer.renewal_count, answer.max_renewals)
            return answer
        finally:
            claim.release()
            self._tell()


def _due(since: float, until: float) -> float:
    return since + max(0.0, until - since) * random.uniform(DUE - JITTER, DUE + JITTER)  # noqa: S311 (no secret)


def _patience(attempt: int, failure: ClientError, longest: float) -> float:
    """Return for how many seconds to wait: what the daemon has asked for, else longer each time."""
    asked = failure.retry_after if isinstance(failure, ApiError) else None
    return _backoff(attempt, longest) if asked is None else asked


def _backoff(attempt: int, longest: float) -> float:
    return min(longest, _BACKOFF * 2.0 ** min(attempt - 1, 20)) * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)

"""Renewal: when it is tried, by whom, and what is stored before it is used."""

import logging

from daemon.client import calls
from daemon.client.asking import IN_BACKGROUND, AgainError, ask, backoff, patience, rest
from daemon.client.effects import Claim, Pause, Steps, Work
from daemon.client.errors import (
    ClientError,
    RenewalsExhausted,
    SessionEnded,
    Suspended,
    TokenReplaced,
    TooEarly,
    Unreachable,
)
from daemon.client.standing import Plan, Standing, due
from daemon.domain.views import RenewedSession

LONGEST_PAUSE = 60.0
"""Seconds: a machine that slept has another time of day, and another process may have renewed."""

_CONTENDED = 0.02
"""Seconds between looks at a token that another process renews."""
_HANDED_OUT = 1.0
"""Seconds in which a token that the owner has replaced may still come into its file."""

_log = logging.getLogger("daemon.client")
_log.addHandler(logging.NullHandler())


class Renewal:
    """What renews one session in one process.

    Args:
        standing: of the session.
        timeout: seconds that a renewal in the background may take.

    Attributes:
        answer: of the last renewal of this process.
    """

    def __init__(self, standing: Standing, timeout: float) -> None:
        self._standing = standing
        self._timeout = timeout
        self.answer: RenewedSession | None = None

    def keep(self) -> Steps[None]:
        """Renew whenever it is due, until the session is over or closed."""
        unreadable = 0
        while self._standing.renews:
            version = self._standing.version
            try:
                plan = self._standing.usable()
                unreadable = 0
                if (wait := self._standing.wait(plan)) > 0:
                    yield Pause(min(wait, LONGEST_PAUSE), version)
                else:
                    yield from self.if_due()
            except SessionEnded as error:
                _log.warning("the session is over: %s", error)
            except ClientError as error:  # the token file cannot be used for the moment
                if not unreadable:
                    _log.warning("the token cannot be used: %s", error)
                unreadable += 1
                yield Pause(backoff(unreadable, IN_BACKGROUND), version)

    def if_due(self) -> Steps[None]:
        """Try once to renew, if that is due; where it fails keep the token that there is, and plan the next attempt.

        Raises:
            SessionEnded: that was found.
        """
        standing, plan = self._standing, self._standing.usable()
        if standing.wait(plan) > 0 or not standing.credential.may_renew:
            return
        try:
            claim = standing.credential.claim()
            if claim is None:
                plan.rests_until = standing.clock.monotonic() + _CONTENDED
            else:
                yield from self._exchange(claim, plan.token, standing.clock.monotonic() + self._timeout)
        except SessionEnded:
            raise
        except AgainError as again:
            self._put_off(plan, again.failure)
        except ClientError as error:
            self._put_off(plan, error)

    def answers_again(self, plan: Plan) -> None:
        """Put nothing off any longer where a request shows that the reason for it is over."""
        if plan.passing:
            plan.passing, plan.failures, plan.rests_until = False, 0, 0.0
            self._standing.tell()

    def renew(self, stale: str, deadline: float) -> Steps[RenewedSession | None]:
        """Renew the token `stale`, and try again until the deadline; None where somebody else has done it.

        No lock is held while nothing is sent: a process that is stopped then must not keep others from renewing.

        Raises:
            ApiError, Unreachable, TokenFileError, NoSession: it cannot be done.
        """
        self._standing.must_renew()
        attempt = 0
        while True:
            version = self._standing.version
            if self._standing.usable().token != stale:
                return None
            try:
                claim = self._standing.credential.claim()
                if claim is not None:
                    return (yield from self._exchange(claim, stale, deadline))
                if self._standing.clock.monotonic() >= deadline:
                    raise Unreachable("Another process renews the session, and takes too long")
                yield Pause(_CONTENDED, version)
            except AgainError as again:
                attempt += 1
                yield from rest(self._standing, attempt, again.failure, deadline)

    def catch_up(self, stale: str, deadline: float, error: TokenReplaced) -> Steps[None]:
        """Find the successor of a token that was replaced: another process has it, or its answer was lost.

        Args:
            stale: the token.
            deadline: of the clock that only goes on.
            error: how its refusal was told, which is raised where there is no time left.

        Raises:
            TokenReplaced: only the owner has it.
            ApiError, Unreachable, TokenFileError, NoSession: as `renew`.
        """
        standing, attempt = self._standing, 0
        handed_out = min(deadline, standing.clock.monotonic() + _HANDED_OUT)
        while standing.usable().token == stale:
            try:
                yield from self.renew(stale, deadline)
            except (TokenReplaced, TooEarly) as refused:
                # By the owner: what is to hand out the new token may be about to write it.
                attempt += 1
                yield from rest(standing, attempt, refused, handed_out)
        if standing.clock.monotonic() >= deadline:
            raise error

    def _exchange(self, claim: Claim, stale: str, deadline: float) -> Steps[RenewedSession | None]:
        """Renew once, unless somebody else was faster; the claim is released.

        The new token is stored before anybody uses it. So whatever ends this process between the two, the old one is
        still in its place and its successor unused, and the daemon answers the same renewal again.
        """
        try:
            plan = self._standing.usable()
            if plan.token != stale:
                return None
            yield Work(claim.stage)
            call = calls.renew(plan.claims.sub)
            answer = call.read((yield from ask(self._standing, call, plan, deadline)))
            yield Work(lambda: claim.store(answer.token))
            self.answer = answer
            _log.info("session %s: renewed, %d of %d", answer.id, answer.renewal_count, answer.max_renewals)
            return answer
        finally:
            claim.release()
            self._standing.tell()

    def _put_off(self, plan: Plan, failure: ClientError) -> None:
        clock = self._standing.clock
        if isinstance(failure, TooEarly):
            plan.due = clock.now() + (failure.retry_after or 1.0)
            return
        plan.failures += 1
        plan.passing = isinstance(failure, Unreachable | Suspended)
        if isinstance(failure, RenewalsExhausted):  # until the owner allows more
            plan.due = max(due(clock.now(), plan.claims.exp), clock.now() + LONGEST_PAUSE)
        elif isinstance(failure, Suspended):
            plan.rests_until = clock.monotonic() + LONGEST_PAUSE
        else:
            plan.rests_until = clock.monotonic() + patience(plan.failures, failure, IN_BACKGROUND)
        _log.warning("session %s: not renewed, the token is kept: %s", plan.claims.sub, failure)

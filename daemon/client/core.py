"""The one core of both clients: what a call is, from the token that it is sent with to what is tried again.

It is made of generators that yield effects (`effects.py`), so that threads and asyncio share every decision.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from daemon.client import calls
from daemon.client.asking import AgainError, ask, rest
from daemon.client.calls import Call
from daemon.client.claims import Claims
from daemon.client.effects import Credential, Reply, Steps
from daemon.client.errors import SessionEnded, TokenReplaced
from daemon.client.renewal import Renewal
from daemon.client.standing import Standing, Time
from daemon.domain.views import RenewedSession, RevokedSession

T = TypeVar("T")

_BY_AGENT = "ended_by_agent"
"""Why a session was revoked that its agent has ended."""


class Core:
    """The calls of one session in one process.

    Args:
        credential: where its token is.
        clock: what time it is.
        timeout: seconds that a call may take, everything that is tried again included.
        changed: called when something has happened that others may be waiting for.
    """

    def __init__(self, credential: Credential, clock: Time, timeout: float, changed: Callable[[], None]) -> None:
        self._standing = Standing(credential, clock, changed)
        self._renewal = Renewal(self._standing, timeout)
        self._timeout = timeout

    @property
    def version(self) -> int:
        """Another one after each change that others may be waiting for."""
        return self._standing.version

    @property
    def renews(self) -> bool:
        """Whether there is something for `keep` to do."""
        return self._standing.renews

    def close(self) -> None:
        """Make no more calls, and renew no more."""
        self._standing.closed = True
        self._standing.tell()

    def token(self) -> str:
        """Return the current token.

        Raises:
            TokenFileError, NoSession: there is none.
        """
        return self._standing.look().token

    def claims(self) -> Claims:
        """Return what the current token says; raises as `token`."""
        return self._standing.look().claims

    def keep(self) -> Steps[None]:
        """Renew whenever it is due, until the session is over or closed."""
        return self._renewal.keep()

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
        before = self._standing.usable().token
        answer = yield from self._renewal.renew(before, self._deadline())
        if answer is not None:
            return answer
        known, token = self._renewal.answer, self.token()
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
            now = int(self._standing.clock.now())
            return RevokedSession(id=self.claims().sub, status="REVOKED", revoked_at=now, message=error.detail)

    def _deadline(self) -> float:
        return self._standing.clock.monotonic() + self._timeout

    def _reply(self, call: Call[Any]) -> Steps[Reply]:
        deadline, attempt = self._deadline(), 0
        yield from self._renewal.if_due()
        while True:
            plan = self._standing.usable()
            try:
                reply = yield from ask(self._standing, call, plan, deadline)
            except TokenReplaced as error:
                yield from self._renewal.catch_up(plan.token, deadline, error)
            except AgainError as again:
                attempt += 1
                yield from rest(self._standing, attempt, again.failure, deadline)
            else:
                self._renewal.answers_again(plan)
                return reply

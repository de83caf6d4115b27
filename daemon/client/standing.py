"""What this process knows of a session: its token, what is intended with it, and whether it is over."""

import random
import time
from collections.abc import Callable

import msgspec

from daemon.client.claims import Claims, claims
from daemon.client.effects import Credential
from daemon.client.errors import ClientError, NotRenewable, Problem, refusal

DUE = 0.6
"""Part of the time that a token was made for after which it is renewed; the daemon admits it from a half on."""
JITTER = 0.05
"""How far from that, so that many who read one file do not all come at once."""


class Time(msgspec.Struct, frozen=True):
    """Clocks: the time of day in Unix seconds, and one in seconds that only ever goes on."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


class Plan(msgspec.Struct):
    """What is intended with a token.

    Args:
        token: the one in use.
        claims: what it says.
        due: when to renew it, in Unix seconds.
        rests_until: before which nothing is tried, of the clock that only goes on.
        failures: renewals that have failed one after the other.
        passing: whether a request that succeeds shows that what has failed is over.
        ended: why it cannot be used any more.
    """

    token: str
    claims: Claims
    due: float
    rests_until: float = 0.0
    failures: int = 0
    passing: bool = False
    ended: Problem | None = None

    def __repr__(self) -> str:
        """Return it without the token."""
        return f"Plan(generation={self.claims.gen}, due={self.due})"


class Standing:
    """One session as one process sees it.

    Args:
        credential: where its token is.
        clock: what time it is.
        changed: called when something has happened that others may be waiting for.

    Attributes:
        version: another one after each such change.
        closed: whether this program is done with it.
    """

    def __init__(self, credential: Credential, clock: Time, changed: Callable[[], None]) -> None:
        self.credential = credential
        self.clock = clock
        self.version = 0
        self.closed = False
        self._changed = changed
        self._plan: Plan | None = None

    def tell(self) -> None:
        """Wake whoever waits."""
        self.version += 1
        self._changed()

    def look(self) -> Plan:
        """Return the plan for the token as it is now: another process may have replaced it.

        Raises:
            TokenFileError, NoSession: there is none.
        """
        token, plan = self.credential.read(), self._plan
        if plan is None or plan.token != token:
            said = claims(token, self.credential.origin)
            self._plan = plan = Plan(token, said, due(said.iat, said.exp))
        return plan

    def usable(self) -> Plan:
        """Return the plan for a token that can be used for all that is known.

        Raises:
            SessionEnded: it cannot.
            ClientError: this program has closed the session.
            TokenFileError, NoSession: there is none.
        """
        if self.closed:
            raise ClientError("This program has closed the session; open it again")
        plan = self.look()
        if plan.ended is not None:
            raise refusal(plan.ended)
        return plan

    def end(self, token: str, problem: Problem) -> None:
        """Remember that a token cannot be used any more."""
        plan = self.look()
        if plan.token == token:
            plan.ended = problem
        self.tell()

    @property
    def renews(self) -> bool:
        """Whether there is something to renew."""
        over = self._plan is not None and self._plan.ended is not None
        return self.credential.may_renew and not self.closed and not over

    def must_renew(self) -> None:
        """Refuse where the next token could not be shared; raises NotRenewable."""
        if not self.credential.may_renew:
            raise NotRenewable("This process may not renew a token that lies in no file; use a token file")

    def wait(self, plan: Plan) -> float:
        """Return for how many seconds no renewal is to be tried."""
        return max(plan.due - self.clock.now(), plan.rests_until - self.clock.monotonic())


def due(since: float, until: float) -> float:
    """Return when to renew what was made to last from one moment to another, in Unix seconds."""
    return since + max(0.0, until - since) * random.uniform(DUE - JITTER, DUE + JITTER)  # noqa: S311 (no secret)

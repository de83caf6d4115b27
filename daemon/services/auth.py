"""The session check: who is this agent, and may it do this now?"""

from functools import partial
from hmac import compare_digest

from daemon.domain import auto_stop, lifecycle, renewal
from daemon.domain.changes import Outcome, Rows, Scope
from daemon.domain.constraints import allows, limits
from daemon.domain.errors import (
    AGENT_SUSPENDED,
    CONSTRAINT_VIOLATED,
    INVALID_TOKEN,
    RATE_LIMIT_EXCEEDED,
    SESSION_REVOKED,
    SESSION_SUSPENDED,
    STORAGE_UNAVAILABLE,
    TOKEN_EXPIRED,
    TOKEN_REUSED,
    TOKEN_ROTATED,
    DaemonError,
)
from daemon.domain.events import Origin
from daemon.domain.facts.sessions import ConstraintViolated
from daemon.domain.status import check_alive, check_standing, check_usable, status
from daemon.domain.tokens import token_hash
from daemon.services.caller import Caller
from daemon.services.results import Results
from daemon.services.signing import Signing
from daemon.settings import Security
from daemon.stores.live import LiveSession
from daemon.stores.protocol import Store

_REFUSALS = (
    INVALID_TOKEN,
    SESSION_REVOKED,
    TOKEN_EXPIRED,
    TOKEN_ROTATED,
    TOKEN_REUSED,
    AGENT_SUSPENDED,
    SESSION_SUSPENDED,
    CONSTRAINT_VIOLATED,
    RATE_LIMIT_EXCEEDED,
    STORAGE_UNAVAILABLE,
)
_MINUTE = 60.0
_REMEMBERED_BREACHES = 10_000


class SessionAuth:
    """Checks session tokens; the hot path neither waits nor writes.

    Args:
        store: the engine.
        signing: classifies tokens that match no row.
        settings: the security section.
    """

    def __init__(self, store: Store, signing: Signing, settings: Security) -> None:
        self._store = store
        self._signing = signing
        self._settings = settings
        self._breaches: dict[tuple[str, str], tuple[float, int]] = {}
        self.results = Results(*_REFUSALS)

    async def check(self, token: str, operation: str, request: Origin, *, renewing: bool = False) -> Caller:
        """Return the caller if the token may be used for this operation now; counts one request.

        Args:
            token: with its prefix.
            operation: e.g. `session.read`.
            request: id and address of the request; the actor is filled in here.
            renewing: admits the previous generation for as long as its lost answer may be fetched.

        Raises:
            DaemonError: INVALID_TOKEN, SESSION_REVOKED, TOKEN_EXPIRED, TOKEN_ROTATED, TOKEN_REUSED, AGENT_SUSPENDED,
                SESSION_SUSPENDED, CONSTRAINT_VIOLATED, RATE_LIMIT_EXCEEDED.
        """
        try:
            caller = await self._check(token, operation, request, renewing=renewing)
        except DaemonError as refusal:
            self.results.refused(refusal)
            raise
        self.results.granted()
        return caller

    async def _check(self, token: str, operation: str, request: Origin, *, renewing: bool) -> Caller:
        digest = token_hash(token)
        generation: int | None = None
        live = self._store.cached(digest) or await self._store.live_by_token(digest)
        if live is None:
            live, generation = await self._classify(token)
        now = self._store.clock.now()
        if live.seems_idle(now) or not compare_digest(live.session.token_hash, digest):
            live = await self._reread(live)
        session = live.session
        check_alive(session, now)
        previous = not compare_digest(session.token_hash, digest)
        if previous:
            await self._admit_previous(live, digest, generation, request, renewing=renewing)
        check_usable(session, live.agent.row, now, live.last_activity)
        if session.parent_id is not None:
            await self._check_above(live, now)
        if session.constraints is not None or live.parent is not None:
            await self._check_constraints(live, operation, request)
        self._store.touch(live, now, session.generation - previous)
        if session.state in {"READY", "IDLE"} and not session.supervised:
            await self._activate(live, request)
        return Caller(live, token, digest, previous)

    async def admits(self, session_id: str, generation: int, operation: str) -> bool:
        """Return whether a session that was checked before may still be used for this operation; counts nothing.

        Args:
            session_id: whose token was checked.
            generation: of that token: a renewal changes nothing, but what the owner replaced may be in wrong hands.
            operation: e.g. `session.stream`.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        live = await self._store.live_by_id(session_id)
        if live is None or generation <= live.session.owner_rotated_generation:
            return False
        now = self._store.clock.now()
        try:
            if live.seems_idle(now):
                live = await self._reread(live)
            check_standing(live.session, live.agent.row, now, live.last_activity)
            if live.session.parent_id is not None:
                await self._check_above(live, now)
        except DaemonError as refusal:
            if refusal.kind is STORAGE_UNAVAILABLE:
                raise
            return False
        return all(allows(limits(one.session.constraints).allowed_operations, operation) for one in live.lineage)

    async def _check_above(self, live: LiveSession, now: int) -> None:
        """Refuse a child while any session above it may not be used, or is gone, whatever its own row says."""
        for one in live.lineage:
            if one.orphaned:
                raise DaemonError(SESSION_REVOKED, details={"reason": lifecycle.PARENT_ENDED})
            if one is not live:
                above = await self._reread(one) if one.seems_idle(now) else one
                check_standing(above.session, above.agent.row, now, above.last_activity)

    async def _reread(self, live: LiveSession) -> LiveSession:
        """Return the session as it stands: a request to another daemon may excuse what would be refused here."""
        found = await self._store.reread(live)
        if found is None:
            raise DaemonError(INVALID_TOKEN)
        return found

    async def _classify(self, token: str) -> tuple[LiveSession, int]:
        """Find the session of a token that matches no row, if this daemon signed it."""
        signer = await self._signing.signer()
        claims = signer.classify(token, self._store.clock.now())
        live = await self._store.live_by_id(claims.sub) if claims else None
        if claims is None or live is None or claims.gen >= live.session.generation:
            raise DaemonError(INVALID_TOKEN)
        return live, claims.gen

    async def _admit_previous(
        self, live: LiveSession, digest: str, generation: int | None, request: Origin, *, renewing: bool
    ) -> None:
        """Let the previous generation through to the retry rule; refuse every other superseded token."""
        session = live.session
        if session.previous_token_hash is not None and compare_digest(session.previous_token_hash, digest):
            generation = session.generation - 1
            if not renewing:
                raise DaemonError(TOKEN_ROTATED)
            if self._retry_is_open(live):
                return
        elif generation is None:  # the row moved on while the token was looked up
            raise DaemonError(TOKEN_ROTATED)
        elif generation <= session.owner_rotated_generation:
            raise DaemonError(TOKEN_ROTATED, "The owner has replaced this token.")
        decide = partial(
            renewal.report_reuse,
            generation=generation,
            action=self._settings.token_reuse_action,
            auto_stop_threshold=self._settings.auto_stop_threshold,
        )
        if session.reuse_reported_at is None and status(session, self._store.clock.now()) == "ACTIVE":
            scope = Scope(session=session.id, incidents_of=session.agent_id, ends=True)
            await self._store.change(scope, decide, _by_agent(session.agent_id, request))
        raise DaemonError(TOKEN_REUSED)

    def _retry_is_open(self, live: LiveSession) -> bool:
        """Return whether the last renewal's answer may still be fetched with the token it replaced."""
        session = live.session
        if live.used_generation < session.generation:
            return True
        if live.rotated_monotonic is not None:
            elapsed = self._store.clock.monotonic() - live.rotated_monotonic
        else:
            elapsed = self._store.clock.now() - (session.rotated_at or 0)
        return elapsed < self._settings.renewal_retry_window

    async def _check_constraints(self, live: LiveSession, operation: str, request: Origin) -> None:
        """Hold a session to its own constraints and to those of all above it, which may be narrower by now."""
        now = self._store.clock.monotonic()
        timed = []
        for one in live.lineage:
            known = limits(one.session.constraints)
            if not allows(known.allowed_operations, operation):
                await self._breach(live, "allowedOperations", operation, request)
            if known.max_requests is not None and one.counted + one.requests >= known.max_requests:
                await self._breach(live, "maxRequests", operation, request)
            if known.requests_per_minute is not None:
                _check_minute(one, known.requests_per_minute, now)
                timed.append(one)
        for one in timed:  # what any of them refuses is counted by none
            one.window_requests += 1

    async def _breach(self, live: LiveSession, constraint: str, operation: str, request: Origin) -> None:
        """Record a breach, one event per session and constraint a minute, and refuse the request."""
        session = live.session
        count = self._count_breach(session.id, constraint)
        if count:
            fact = ConstraintViolated(
                agent_id=session.agent_id,
                session_id=session.id,
                constraint=constraint,
                operation=operation,
                count=count,
            )

            threshold = self._settings.auto_stop_threshold if constraint == "allowedOperations" else 0
            scope = Scope(session=session.id, incidents_of=session.agent_id if threshold else None)
            decide = partial(_report_breach, fact=fact, auto_stop_threshold=threshold)
            await self._store.change(scope, decide, _by_agent(session.agent_id, request))
        raise DaemonError(CONSTRAINT_VIOLATED, details={"constraint": constraint, "operation": operation})

    def _count_breach(self, session_id: str, constraint: str) -> int:
        """Return how many breaches an event must tell of now; 0 while the minute of the last event runs."""
        key, now = (session_id, constraint), self._store.clock.monotonic()
        told, count = self._breaches.get(key, (now - _MINUTE, 0))
        if now - told < _MINUTE:
            self._breaches[key] = (told, count + 1)
            return 0
        while len(self._breaches) >= _REMEMBERED_BREACHES:
            del self._breaches[next(iter(self._breaches))]
        self._breaches[key] = (now, 0)
        return count + 1

    async def _activate(self, live: LiveSession, request: Origin) -> None:
        """Make the session ACTIVE; a disk that cannot be written must not stop an agent whose token is good."""
        session = live.session
        try:
            await self._store.change(Scope(session=session.id), lifecycle.use, _by_agent(session.agent_id, request))
        except DaemonError as error:
            if error.kind is not STORAGE_UNAVAILABLE:
                raise


def _check_minute(live: LiveSession, allowed: int, now: float) -> None:
    """Refuse one request more than a minute allows; `now` is monotonic seconds."""
    if now - live.window_started >= _MINUTE:
        live.window_started, live.window_requests = now, 0
    if live.window_requests >= allowed:
        wait = max(1, round(live.window_started + _MINUTE - now))
        raise DaemonError(
            RATE_LIMIT_EXCEEDED, details={"constraint": "requestsPerMinute", "limit": allowed}, retry_after=wait
        )


def _report_breach(rows: Rows, now: int, *, fact: ConstraintViolated, auto_stop_threshold: int) -> Outcome[None]:
    if rows.session is None or status(rows.session, now) != "ACTIVE":
        return Outcome(answer=None)
    stopped, stop = auto_stop.consider(rows, now, auto_stop_threshold)
    return Outcome(answer=None, agent=stopped, facts=(fact, *stop))


def _by_agent(agent_id: str, request: Origin) -> Origin:
    return Origin(f"agent:{agent_id}", request.request_id, request.ip_address)

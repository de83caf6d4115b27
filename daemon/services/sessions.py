"""Sessions: what owners and agents do with them."""

import hashlib
import os
from functools import partial

from daemon.crypto.sealing import NONCE_BYTES, seal, unseal
from daemon.domain import renewal, session_views, sessions
from daemon.domain.changes import Outcome, Scope
from daemon.domain.constraints import limits
from daemon.domain.errors import (
    RENEWAL_CONFLICT,
    RENEWAL_LIMIT_REACHED,
    SESSION_ABSOLUTE_LIFETIME_EXCEEDED,
    SESSION_NOT_FOUND,
    SESSION_RENEWAL_MISMATCH,
    DaemonError,
)
from daemon.domain.events import Origin
from daemon.domain.filters import SessionFilter
from daemon.domain.ids import uuid7
from daemon.domain.pages import Listing, Page, encode_cursor
from daemon.domain.requests import CreateSession, PatchSession, PublishEvent, json_text
from daemon.domain.rows import CreatedBy, Session
from daemon.domain.sessions import Mint
from daemon.domain.views import (
    CreatedSession,
    ExtendedSession,
    OwnSession,
    PublishedEvent,
    RenewedSession,
    RevokedSession,
    RotatedSession,
    SessionDetail,
    SessionSummary,
)
from daemon.services.caller import Caller
from daemon.services.signing import Signing
from daemon.settings import Security
from daemon.stores.protocol import Store


class Sessions:
    """The operations on sessions.

    Args:
        store: the engine.
        signing: makes tokens.
        settings: the security section.
    """

    def __init__(self, store: Store, signing: Signing, settings: Security) -> None:
        self._store = store
        self._signing = signing
        self._settings = settings

    async def create(
        self, body: CreateSession, origin: Origin, *, created_by: CreatedBy, idempotency_key: str | None
    ) -> CreatedSession:
        """Make a session for an agent.

        Args:
            body: `agent_id` is canonical.
            origin: the owner.
            created_by: through which door it was asked for.
            idempotency_key: for 24 hours, a repeat of it makes no second session.

        Raises:
            DaemonError: AGENT_NOT_FOUND, AGENT_SUSPENDED, AGENT_TERMINATED, IDEMPOTENCY_CONFLICT,
                SESSION_LIMIT_EXCEEDED.
        """
        settings = self._settings
        key = hashlib.sha256(idempotency_key.encode()).hexdigest() if idempotency_key is not None else None
        decide = partial(
            sessions.create,
            session=self._blank(body, created_by),
            ttl=body.ttl or settings.session_ttl,
            absolute_lifetime=settings.session_absolute_lifetime,
            limit=settings.max_sessions_per_agent,
            key=key,
            mint=await self._mint(),
        )
        scope = Scope(agent=body.agent_id, active_sessions_of=body.agent_id, idempotency_key=key)
        return await self._store.change(scope, decide, origin)

    def _blank(self, body: CreateSession, created_by: CreatedBy) -> Session:
        """Return a new row without what the transaction decides: its times and its token."""
        text = json_text(body.constraints) if body.constraints is not None else None
        known = limits(text)
        clock = self._store.clock
        most = known.max_renewals
        return Session(
            id=uuid7(clock.now() * 1000 + int(clock.monotonic() * 1000) % 1000, os.urandom(10)),
            agent_id=body.agent_id,
            token_hash="",
            constraints=text,
            usage_stats=None,
            expires_at=0,
            revoked_at=None,
            created_at=0,
            renewal_count=0,
            max_renewals=self._settings.default_max_renewals if most is None else most,
            last_renewed_at=None,
            absolute_expires_at=0,
            ttl_seconds=0,
            generation=1,
            previous_token_hash=None,
            rotated_at=None,
            owner_rotated_generation=0,
            used_generation=0,
            reuse_reported_at=None,
            state="CREATED",
            state_changed_at=None,
            started_at=None,
            revoked_reason=None,
            expired_at=None,
            idle_timeout=known.idle_timeout,
            last_activity=None,
            request_count=0,
            user_id=body.user_id,
            workspace_id=body.workspace_id,
            metadata=json_text(body.metadata or {}),
            created_by=created_by,
        )

    async def _mint(self) -> Mint:
        """Return a mint whose random part is drawn here, so that a transaction can be run again."""
        signer = await self._signing.signer()
        return partial(signer.sign, jti=os.urandom(16).hex())

    async def get(self, session_id: str) -> SessionDetail:
        """Return a whole session.

        Raises:
            DaemonError: SESSION_NOT_FOUND.
        """
        session = await self._store.session(session_id)
        if session is None:
            raise DaemonError(SESSION_NOT_FOUND)
        return self._detail(session)

    def _detail(self, session: Session) -> SessionDetail:
        now, window = self._store.clock.now(), self._settings.default_renewal_reject_window
        return session_views.detail(session, now, window)

    async def find(self, which: SessionFilter, page: Page) -> Listing[SessionSummary]:
        """Return sessions, newest first."""
        found = await self._store.sessions(which, page)
        now = self._store.clock.now()
        last = found[-1] if len(found) == page.limit else None
        cursor = encode_cursor(last.created_at, last.id) if last else None
        return Listing([session_views.summary(session, now) for session in found], cursor)

    async def patch(self, session_id: str, body: PatchSession, origin: Origin) -> SessionDetail:
        """Change attributes of a session.

        Raises:
            DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION.
        """
        return await self._change_and_show(session_id, partial(sessions.patch, body=body), origin)

    async def suspend(self, session_id: str, reason: str | None, origin: Origin) -> SessionDetail:
        """Refuse the session's token until the session is resumed.

        Raises:
            DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION.
        """
        return await self._change_and_show(session_id, partial(sessions.suspend, reason=reason), origin)

    async def resume(self, session_id: str, reason: str | None, origin: Origin) -> SessionDetail:
        """Accept a suspended session's token again.

        Raises:
            DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION.
        """
        return await self._change_and_show(session_id, partial(sessions.resume, reason=reason), origin)

    async def _change_and_show(
        self, session_id: str, decide: "partial[Outcome[Session]]", origin: Origin
    ) -> SessionDetail:
        await self._store.flush()
        return self._detail(await self._store.change(Scope(session=session_id), decide, origin))

    async def revoke(self, session_id: str, origin: Origin, *, rejects: bool) -> RevokedSession:
        """End a session; repeated, the answer says so and nothing changes.

        Args:
            session_id: canonical.
            origin: the owner.
            rejects: whether inside the reject window of a renewal this means rejecting it.

        Raises:
            DaemonError: SESSION_NOT_FOUND.
        """
        window = self._settings.default_renewal_reject_window if rejects else None
        decide = partial(sessions.revoke, reason="manual_revoke", reject_window=window)
        return await self._store.change(Scope(session=session_id), decide, origin)

    async def rotate(self, session_id: str, origin: Origin) -> RotatedSession:
        """Replace the session's token on the owner's wish.

        Raises:
            DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION.
        """
        decide = partial(sessions.rotate, mint=await self._mint())
        return await self._store.change(Scope(session=session_id), decide, origin)

    async def extend(self, session_id: str, seconds: int, origin: Origin) -> ExtendedSession:
        """Give the session more time.

        Raises:
            DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION, SESSION_ABSOLUTE_LIFETIME_EXCEEDED.
        """
        decide = partial(sessions.extend, seconds=seconds)
        return await self._store.change(Scope(session=session_id), decide, origin)

    def own(self, caller: Caller) -> OwnSession:
        """Return the caller's own session, from memory."""
        live = caller.live
        now, window = self._store.clock.now(), self._settings.default_renewal_reject_window
        counts = session_views.Activity(live.counted + live.requests, live.last_activity)
        return session_views.own(live.session, counts, now, window, live.agent.row.name)

    async def end_own(self, caller: Caller, origin: Origin) -> RevokedSession:
        """End the caller's own session.

        Raises:
            DaemonError: as the session check does, when somebody else was faster.
        """
        return await self._store.change(Scope(session=caller.live.session.id), sessions.end_own, origin)

    async def publish(self, caller: Caller, body: PublishEvent, origin: Origin) -> PublishedEvent:
        """Record what the caller tells of its own work.

        Raises:
            DaemonError: as the session check does.
        """
        scope = Scope(session=caller.live.session.id)
        return await self._store.change(scope, partial(sessions.publish, body=body), origin)

    async def renew(self, caller: Caller, session_id: str, origin: Origin) -> RenewedSession:
        """Exchange the caller's token for the next generation, or hand out the answer that it lost.

        Raises:
            DaemonError: SESSION_RENEWAL_MISMATCH, RENEWAL_LIMIT_REACHED, SESSION_ABSOLUTE_LIFETIME_EXCEEDED,
                RENEWAL_TOO_EARLY, RENEWAL_CONFLICT, and what the session check raises.
        """
        if caller.live.session.id != session_id:
            raise DaemonError(SESSION_RENEWAL_MISMATCH)
        if caller.previous:
            return await self._lost_answer(caller)
        settings, nonce = self._settings, os.urandom(NONCE_BYTES)
        decide = partial(
            renewal.renew,
            presented=caller.digest,
            retry_window=settings.renewal_retry_window,
            reject_window=settings.default_renewal_reject_window,
            mint=await self._mint(),
            seal=lambda answer: seal(answer, caller.token, nonce),
        )
        try:
            answer = await self._store.change(Scope(session=session_id, sealed_for=caller.digest), decide, origin)
        except DaemonError as refusal:
            if refusal.kind in {RENEWAL_LIMIT_REACHED, SESSION_ABSOLUTE_LIFETIME_EXCEEDED}:
                await self._warn(caller, origin)
            raise
        return self._opened(answer, caller) if isinstance(answer, bytes) else answer

    async def _warn(self, caller: Caller, origin: Origin) -> None:
        """Tell the owner, once, that this session ends for good; the refusal itself wrote nothing."""
        if caller.live.session.expiry_warned_at is None:
            await self._store.change(Scope(session=caller.live.session.id), renewal.warn, origin)

    async def _lost_answer(self, caller: Caller) -> RenewedSession:
        sealed = await self._store.sealed_answer(caller.live.session.id)
        if sealed is None or sealed.box is None or sealed.previous_token_hash != caller.digest:
            raise DaemonError(RENEWAL_CONFLICT)
        return self._opened(sealed.box, caller)

    def _opened(self, box: bytes, caller: Caller) -> RenewedSession:
        answer = unseal(box, caller.token, caller.live.session.id)
        if answer is None:
            raise DaemonError(RENEWAL_CONFLICT)
        return answer

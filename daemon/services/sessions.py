"""Sessions: what owners and agents do with them."""

import hashlib
import os
from functools import partial

import msgspec
from msgspec import UnsetType

from daemon.domain import session_creation, session_views, sessions
from daemon.domain.body import json_text
from daemon.domain.changes import Outcome, Scope
from daemon.domain.constraints import limits
from daemon.domain.errors import (
    SESSION_NOT_FOUND,
    DaemonError,
)
from daemon.domain.events import Origin
from daemon.domain.filters import SessionFilter
from daemon.domain.ids import new_id
from daemon.domain.pages import Listing, Page, next_cursor
from daemon.domain.requests import CreateSession, PatchSession, PublishEvent
from daemon.domain.rows import CreatedBy, Session
from daemon.domain.session_creation import Asked
from daemon.domain.views import (
    CreatedSession,
    ExtendedSession,
    OwnSession,
    PublishedEvent,
    RevokedSession,
    SessionDetail,
    SessionSummary,
)
from daemon.services.caller import Caller
from daemon.services.signing import Signing
from daemon.services.supervision import Supervision
from daemon.settings import Security
from daemon.stores.protocol import Store


class Sessions:
    """The operations on sessions.

    Args:
        store: the engine.
        signing: makes tokens.
        settings: the security section.
        supervision: what sessions with a process need.
    """

    def __init__(self, store: Store, signing: Signing, settings: Security, supervision: Supervision) -> None:
        self._store = store
        self._signing = signing
        self._settings = settings
        self._supervision = supervision

    async def create(
        self, body: CreateSession, origin: Origin, *, created_by: CreatedBy, idempotency_key: str | None
    ) -> CreatedSession:
        """Make a session for an agent; one with a process answers before that is started.

        Args:
            body: `agent_id` is canonical.
            origin: the owner.
            created_by: through which door it was asked for.
            idempotency_key: for 24 hours, a repeat of it makes no second session.

        Raises:
            DaemonError: AGENT_NOT_FOUND, AGENT_SUSPENDED, AGENT_TERMINATED, IDEMPOTENCY_CONFLICT,
                SESSION_LIMIT_EXCEEDED, PROCESS_LIMIT_EXCEEDED.
        """
        settings, supervision = self._settings, self._supervision
        key = hashlib.sha256(idempotency_key.encode()).hexdigest() if idempotency_key is not None else None
        session = self._blank(body, created_by if body.process is None else "process")
        signer = await self._signing.signer()
        asked = Asked(
            session=session,
            process=supervision.new(session.id, body.process) if body.process is not None else None,
            ttl=body.ttl or settings.session_ttl,
            absolute_lifetime=settings.session_absolute_lifetime,
            limit=settings.max_sessions_per_agent,
            places=supervision.places,
            key=key,
            mint=partial(signer.sign, jti=os.urandom(16).hex()),
        )
        if body.process is None:
            return await self._create(asked, origin)
        return await supervision.staging.run(
            session.id,
            lambda _: self._foreseen(asked),
            lambda mint: self._create(msgspec.structs.replace(asked, mint=mint), origin),
        )

    async def _foreseen(self, asked: Asked) -> Session:
        return session_creation.foreseen(asked, self._store.clock.now())

    async def _create(self, asked: Asked, origin: Origin) -> CreatedSession:
        agent_id = asked.session.agent_id
        scope = Scope(
            agent=agent_id,
            active_sessions_of=agent_id,
            idempotency_key=asked.key,
            pool_of=self._supervision.home if asked.process is not None else None,
        )
        return await self._store.change(scope, partial(session_creation.create, asked=asked), origin)

    def _blank(self, body: CreateSession, created_by: CreatedBy) -> Session:
        """Return a new row without what the transaction decides: its times and its token."""
        text = json_text(body.constraints) if body.constraints is not None else None
        known = limits(text)
        return session_creation.blank(
            new_id(self._store.clock, os.urandom(10)),
            body.agent_id,
            created_by=created_by,
            constraints=text,
            idle_timeout=known.idle_timeout,
            max_renewals=self._settings.default_max_renewals if known.max_renewals is None else known.max_renewals,
            user_id=body.user_id,
            workspace_id=body.workspace_id,
            metadata=json_text(body.metadata or {}),
        )

    async def get(self, session_id: str) -> SessionDetail:
        """Return a whole session.

        Raises:
            DaemonError: SESSION_NOT_FOUND.
        """
        return await self._detail(await self._store.session(session_id))

    async def _detail(self, session: Session | None) -> SessionDetail:
        if session is None:
            raise DaemonError(SESSION_NOT_FOUND)
        process = await self._supervision.show(session)
        now, window = self._store.clock.now(), self._settings.default_renewal_reject_window
        return session_views.detail(session, now, window, process)

    async def find(self, which: SessionFilter, page: Page) -> Listing[SessionSummary]:
        """Return sessions, newest first."""
        found = await self._store.sessions(which, page)
        now = self._store.clock.now()
        return Listing([session_views.summary(session, now) for session in found], next_cursor(found, page))

    async def patch(self, session_id: str, body: PatchSession, origin: Origin) -> SessionDetail:
        """Change attributes of a session, and what its process is to be.

        Raises:
            DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION, SESSION_BUSY, VALIDATION_ERROR.
        """
        reconfigure = None
        if not isinstance(body.process, UnsetType):
            reconfigure = await self._supervision.reconfigure(session_id, body.process, force=body.force)
        decide = partial(sessions.patch, body=body, reconfigure=reconfigure)
        return await self._change_and_show(session_id, decide, origin)

    async def suspend(self, session_id: str, reason: str | None, origin: Origin) -> SessionDetail:
        """Refuse the session's token until the session is resumed.

        Raises:
            DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION.
        """
        return await self._change_and_show(session_id, partial(sessions.suspend, reason=reason), origin)

    async def resume(self, session_id: str, reason: str | None, origin: Origin) -> SessionDetail:
        """Accept the session's token again.

        Raises:
            DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION, AGENT_SUSPENDED, PROCESS_LIMIT_EXCEEDED.
        """
        decide = partial(sessions.resume, reason=reason, places=self._supervision.places)
        home = await self._supervision.home_of(session_id)
        return await self._change_and_show(session_id, decide, origin, pool_of=home)

    async def _change_and_show(
        self, session_id: str, decide: "partial[Outcome[Session]]", origin: Origin, pool_of: str | None = None
    ) -> SessionDetail:
        await self._store.flush()
        scope = Scope(session=session_id, process=True, pool_of=pool_of)
        changed: Session = await self._store.change(scope, decide, origin)
        return await self._detail(changed)

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
        return await self._store.change(Scope(session=session_id, ends=True), decide, origin)

    async def extend(self, session_id: str, seconds: int, origin: Origin) -> ExtendedSession:
        """Give the session more time.

        Raises:
            DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION, SESSION_ABSOLUTE_LIFETIME_EXCEEDED.
        """
        decide = partial(sessions.extend, seconds=seconds)
        return await self._store.change(Scope(session=session_id), decide, origin)

    async def own(self, caller: Caller) -> OwnSession:
        """Return the caller's own session: from memory, but for its process, if it has one."""
        live = caller.live
        process = await self._supervision.show(live.session)
        now, window = self._store.clock.now(), self._settings.default_renewal_reject_window
        counts = session_views.Activity(live.counted + live.requests, live.last_activity)
        return session_views.own(
            live.session, counts, now, reject_window=window, agent_name=live.agent.row.name, process=process
        )

    async def end_own(self, caller: Caller, origin: Origin) -> RevokedSession:
        """End the caller's own session.

        Raises:
            DaemonError: as the session check does, when somebody else was faster.
        """
        return await self._store.change(Scope(session=caller.live.session.id, ends=True), sessions.end_own, origin)

    async def publish(self, caller: Caller, body: PublishEvent, origin: Origin) -> PublishedEvent:
        """Record what the caller tells of its own work.

        Raises:
            DaemonError: as the session check does.
        """
        scope = Scope(session=caller.live.session.id)
        return await self._store.change(scope, partial(sessions.publish, body=body), origin)

"""Delegation: sessions that agents make from their own, and the trees that come of it."""

import asyncio
import hashlib
import os
from functools import partial

from daemon.domain import delegation, session_creation, session_views
from daemon.domain.body import json_text
from daemon.domain.changes import Scope
from daemon.domain.delegation import AskedChild
from daemon.domain.errors import SESSION_NOT_FOUND, DaemonError
from daemon.domain.events import Origin
from daemon.domain.filters import SessionFilter
from daemon.domain.ids import new_id
from daemon.domain.pages import Listing, Page, next_cursor
from daemon.domain.requests import CreateChild
from daemon.domain.views import CreatedChild, RevokedSession, SessionSummary, SessionTree
from daemon.services.caller import Caller
from daemon.services.signing import Signing
from daemon.settings import Security
from daemon.stores.protocol import Store


class Delegation:
    """What agents do with the sessions below their own, and what owners see of them.

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
        self, caller: Caller, body: CreateChild, origin: Origin, *, idempotency_key: str | None
    ) -> CreatedChild:
        """Make a session below the caller's, which lasts no longer and may do no more than that.

        Args:
            caller: the agent.
            body: what is asked for.
            origin: the agent.
            idempotency_key: for 24 hours, a repeat of it with the same session makes no second child.

        Raises:
            DaemonError: SESSION_LIMIT_EXCEEDED, IDEMPOTENCY_CONFLICT, VALIDATION_ERROR, and as the session check does.
        """
        parent, settings = caller.live.session, self._settings
        key = None
        if idempotency_key is not None:
            key = hashlib.sha256(f"{parent.id} {idempotency_key}".encode()).hexdigest()
        signer = await self._signing.signer()
        asked = AskedChild(
            session=session_creation.blank(
                new_id(self._store.clock, os.urandom(10)),
                parent.agent_id,
                created_by="api",  # whatever the client says it is: what others tidy up must not be chosen by agents
                max_renewals=settings.default_max_renewals,
                metadata=json_text(body.metadata or {}),
            ),
            constraints=body.constraints or {},
            ttl=body.ttl or settings.session_ttl,
            absolute_lifetime=settings.session_absolute_lifetime,
            key=key,
            mint=partial(signer.sign, jti=os.urandom(16).hex()),
        )
        scope = Scope(session=parent.id, idempotency_key=key, delegating=True)
        return await self._store.change(scope, partial(delegation.create, asked=asked), origin)

    async def children(self, caller: Caller, page: Page) -> Listing[SessionSummary]:
        """Return the sessions of status ACTIVE right below the caller's, newest first."""
        found = await self._store.sessions(SessionFilter(parent_id=caller.live.session.id, status="ACTIVE"), page)
        now = self._store.clock.now()
        return Listing([session_views.summary(session, now) for session in found], next_cursor(found, page))

    async def end(self, caller: Caller, session_id: str, origin: Origin) -> RevokedSession:
        """End a session below the caller's, with all that descends from it.

        Args:
            caller: the agent.
            session_id: canonical.
            origin: the agent.

        Raises:
            DaemonError: SESSION_NOT_FOUND, and as the session check does.
        """
        decide = partial(delegation.end_child, caller_id=caller.live.session.id)
        return await self._store.change(Scope(session=session_id, ends=True), decide, origin)

    async def trees(self, which: SessionFilter, page: Page) -> Listing[SessionTree]:
        """Return sessions that owners made, newest first, each with all that lives below it.

        Args:
            which: filters of the sessions at the top.
            page: of them.
        """
        tops = await self._store.sessions(which, page)
        below = await self._store.living_below([one.id for one in tops]) if tops else []
        # Off the loop: a page of trees may hold many thousand sessions.
        trees = await asyncio.to_thread(session_views.trees, tops, below, self._store.clock.now())
        return Listing(trees, next_cursor(tops, page))

    async def tree(self, session_id: str) -> SessionTree:
        """Return a session with all that lives below it.

        Raises:
            DaemonError: SESSION_NOT_FOUND.
        """
        top = await self._store.session(session_id)
        if top is None:
            raise DaemonError(SESSION_NOT_FOUND)
        below = await self._store.living_below([top.tree_id])
        return session_views.trees([top], below, self._store.clock.now())[0]

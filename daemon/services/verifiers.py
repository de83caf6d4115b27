"""Verifiers: services that may ask whether a token is good, by credentials that the owner issues and revokes."""

import os
import secrets
from functools import partial
from hmac import compare_digest

import msgspec

from daemon.domain import verifiers
from daemon.domain.changes import Scope
from daemon.domain.errors import INVALID_VERIFIER, VERIFIER_NOT_FOUND, DaemonError
from daemon.domain.events import Origin
from daemon.domain.ids import new_id
from daemon.domain.oauth_views import AddedVerifier, VerifierView
from daemon.domain.pages import Listing, Page, next_cursor
from daemon.domain.requests import AddVerifier
from daemon.domain.rows import Verifier
from daemon.domain.tokens import VERIFIER_PREFIX, token_hash
from daemon.stores.protocol import Store

CREDENTIAL_BYTES = 32
"""256 random bits: nobody guesses them, so that their plain hash may be stored."""
USE_SECONDS = 60
"""How exactly the last use is known."""


class Verifiers:
    """The owner's operations on verifiers, and the check of their credentials, which neither waits nor writes.

    Args:
        store: the engine.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Verifier] = {}
        self._doubts = 1
        self._settled = 0
        self._used: dict[str, int] = {}
        self._unstored: dict[str, int] = {}

    def doubt(self) -> None:
        """Note that verifiers may have been added or revoked."""
        self._doubts += 1

    async def check(self, credential: str) -> Verifier:
        """Return whose credential this is; an unknown one and a revoked one are refused alike.

        Args:
            credential: with its prefix.

        Raises:
            DaemonError: INVALID_VERIFIER, STORAGE_UNAVAILABLE.
        """
        if self._settled != self._doubts or not self._store.is_current:
            await self._read()
        digest = token_hash(credential)
        found = self._known.get(digest)
        if found is None or not compare_digest(found.credential_hash, digest):
            raise DaemonError(INVALID_VERIFIER)
        now = self._store.clock.now()
        if now >= self._used.get(found.id, 0) + USE_SECONDS:
            self._used[found.id] = self._unstored[found.id] = now
        return found

    async def _read(self) -> None:
        """Read those that are not revoked, again if word of a change comes meanwhile."""
        certain = False
        while not certain:
            doubts = self._doubts
            found = await self._store.verifiers(None)
            certain = doubts == self._doubts
            if certain:
                self._known = {one.credential_hash: one for one in found if one.revoked_at is None}
                self._settled = doubts

    async def add(self, body: AddVerifier, origin: Origin) -> AddedVerifier:
        """Add a verifier; its credential is shown this once."""
        credential = VERIFIER_PREFIX + secrets.token_urlsafe(CREDENTIAL_BYTES)
        verifier = Verifier(
            id=new_id(self._store.clock, os.urandom(10)),
            name=body.name,
            credential_hash=token_hash(credential),
            may_revoke=body.may_revoke,
        )
        made = await self._store.change(Scope(), partial(verifiers.add, verifier=verifier), origin)
        self.doubt()
        return AddedVerifier(
            id=made.id, name=made.name, may_revoke=made.may_revoke, created_at=made.created_at, credential=credential
        )

    async def revoke(self, verifier_id: str, origin: Origin) -> VerifierView:
        """Refuse a verifier's credential from now on; repeated, nothing changes.

        Raises:
            DaemonError: VERIFIER_NOT_FOUND.
        """
        decide = partial(verifiers.revoke, verifier_id=verifier_id)
        revoked = await self._store.change(Scope(verifiers=True), decide, origin)
        self.doubt()
        return self._view(revoked)

    async def find(self, page: Page) -> Listing[VerifierView]:
        """Return verifiers, newest first, revoked ones too."""
        found = await self._store.verifiers(page)
        return Listing([self._view(one) for one in found], next_cursor(found, page))

    async def get(self, verifier_id: str) -> VerifierView:
        """Return a verifier.

        Raises:
            DaemonError: VERIFIER_NOT_FOUND.
        """
        for one in await self._store.verifiers(None):
            if one.id == verifier_id:
                return self._view(one)
        raise DaemonError(VERIFIER_NOT_FOUND)

    def _view(self, verifier: Verifier) -> VerifierView:
        """Return a verifier with a use that is not stored yet."""
        used = max(verifier.last_used_at or 0, self._used.get(verifier.id, 0))
        return verifiers.view(msgspec.structs.replace(verifier, last_used_at=used or None))

    async def flush(self) -> None:
        """Store uses that are only in memory.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        if not self._unstored:
            return
        uses, self._unstored = self._unstored, {}
        try:
            await self._store.touch_verifiers(uses)
        except DaemonError:
            self._unstored = {**uses, **self._unstored}
            raise

"""What other services ask about tokens (RFC 7662) and do to them (RFC 7009)."""

from functools import partial
from hmac import compare_digest

from daemon.domain import oauth
from daemon.domain.changes import Scope
from daemon.domain.errors import REVOCATION_NOT_ALLOWED, DaemonError
from daemon.domain.events import Origin
from daemon.domain.oauth import INACTIVE
from daemon.domain.oauth_views import Introspection, RevokedToken
from daemon.domain.rows import Verifier
from daemon.domain.status import expiry
from daemon.domain.tokens import MAX_LENGTH, token_hash
from daemon.stores.live import LiveSession
from daemon.stores.protocol import Store


class OAuth:
    """Answers verifiers.

    Args:
        store: the engine.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def introspect(self, token: str) -> Introspection:
        """Return whether a token is good; that is no use of it, and a superseded one is only not good.

        Args:
            token: whatever was sent.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        digest = _digest(token)
        live = await self._find(digest)
        now = self._store.clock.now()
        lineage = await self._lineage(live, now) if live is not None else []
        if not lineage or not compare_digest(lineage[0].session.token_hash, digest):
            return INACTIVE
        # Every one is looked at, whatever came of those before it.
        good = [
            oauth.is_good(one.session, one.agent.row, now, one.last_activity, one.counted + one.requests)
            for one in lineage
        ]
        if not all(good):
            return INACTIVE
        ends = min(expiry(one.session, one.last_activity)[0] for one in lineage)
        constraints = tuple(one.session.constraints for one in lineage)
        return oauth.told(lineage[0].session, lineage[0].agent.row, ends, constraints)

    async def _lineage(self, live: LiveSession, now: int) -> list[LiveSession]:
        """Return a session and those above it as they stand; nothing where one of them is gone."""
        found = []
        for one in live.lineage:
            # A request to another daemon may excuse what seems idle here.
            stands = await self._store.reread(one) if one.seems_idle(now) else one
            if stands is None or stands.orphaned:
                return []
            found.append(stands)
        return found

    async def revoke(self, verifier: Verifier, token: str, origin: Origin) -> RevokedToken:
        """End the session of a token, with all that descends from it; what is no token is no error.

        Args:
            verifier: who asks.
            token: whatever was sent.
            origin: the verifier.

        Raises:
            DaemonError: REVOCATION_NOT_ALLOWED, STORAGE_UNAVAILABLE.
        """
        if not verifier.may_revoke:
            raise DaemonError(REVOCATION_NOT_ALLOWED)
        digest = _digest(token)
        live = await self._find(digest)
        if live is not None:
            decide = partial(oauth.revoke, token_hash=digest)
            await self._store.change(Scope(session=live.session.id, ends=True), decide, origin)
        return RevokedToken()

    async def _find(self, digest: str) -> LiveSession | None:
        return self._store.cached(digest) or await self._store.live_by_token(digest)


def _digest(token: str) -> str:
    """Return the hash of a token; of what is too long to be one, some hash that no token has."""
    return token_hash(token[: MAX_LENGTH + 1])

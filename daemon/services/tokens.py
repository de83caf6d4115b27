"""New tokens for sessions: renewed by their agents or by the daemon, replaced by the owner."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from daemon.crypto.sealing import NONCE_BYTES, seal, unseal
from daemon.domain import renewal, sessions
from daemon.domain.changes import Scope
from daemon.domain.errors import (
    RENEWAL_CONFLICT,
    RENEWAL_LIMIT_REACHED,
    RENEWAL_TOO_EARLY,
    SESSION_ABSOLUTE_LIFETIME_EXCEEDED,
    SESSION_NOT_FOUND,
    SESSION_RENEWAL_MISMATCH,
    STORAGE_UNAVAILABLE,
    DaemonError,
)
from daemon.domain.events import SYSTEM, Origin
from daemon.domain.rows import Session
from daemon.domain.sessions import Mint
from daemon.domain.tokens import token_hash
from daemon.domain.views import RenewedSession, RotatedSession
from daemon.services.caller import Caller
from daemon.services.ports import TokenFiles
from daemon.services.results import Results
from daemon.services.signing import Signing
from daemon.services.staging import Staging
from daemon.settings import Security
from daemon.stores.protocol import Store

_REFUSALS = (
    RENEWAL_TOO_EARLY,
    RENEWAL_LIMIT_REACHED,
    SESSION_ABSOLUTE_LIFETIME_EXCEEDED,
    SESSION_RENEWAL_MISMATCH,
    RENEWAL_CONFLICT,
    STORAGE_UNAVAILABLE,
)


class Tokens:
    """What makes the next generation of a session's token.

    Args:
        store: the engine.
        signing: makes tokens.
        settings: the security section.
        files: where the processes of sessions find theirs.
        staging: puts them there.
    """

    def __init__(self, store: Store, signing: Signing, settings: Security, files: TokenFiles, staging: Staging) -> None:
        self._store = store
        self._signing = signing
        self._settings = settings
        self._files = files
        self._staging = staging
        self.renewals = Results(*_REFUSALS)

    async def rotate(self, session_id: str, origin: Origin) -> RotatedSession:
        """Replace the session's token on the owner's wish.

        Raises:
            DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION.
        """
        session = await self._store.session(session_id)
        if session is None:
            raise DaemonError(SESSION_NOT_FOUND)

        async def attempt(mint: Mint) -> RotatedSession:
            return await self._store.change(Scope(session=session_id), partial(sessions.rotate, mint=mint), origin)

        if not session.supervised:
            return await attempt(await self._mint())
        return await self._staging.run(session_id, self._rotated, attempt)

    async def _rotated(self, session_id: str) -> Session | None:
        session = await self._store.session(session_id)
        return session and sessions.rotated(session, self._store.clock.now())

    async def settle(self, session_id: str) -> None:
        """See to it that the process of a session finds a valid token; a crash may have left it none.

        Raises:
            DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION.
        """
        session = await self._store.session(session_id)
        if session is None or not await asyncio.to_thread(self._files.settle, session_id, session.token_hash):
            await self.rotate(session_id, SYSTEM)

    async def _mint(self) -> Mint:
        """Return a mint whose random part is drawn here, so that a transaction can be run again."""
        signer = await self._signing.signer()
        return partial(signer.sign, jti=os.urandom(16).hex())

    async def renew(self, caller: Caller, session_id: str, origin: Origin) -> RenewedSession:
        """Exchange the caller's token for the next generation, or hand out the answer that it lost.

        Raises:
            DaemonError: SESSION_RENEWAL_MISMATCH, RENEWAL_LIMIT_REACHED, SESSION_ABSOLUTE_LIFETIME_EXCEEDED,
                RENEWAL_TOO_EARLY, RENEWAL_CONFLICT, and what the session check raises.
        """
        session = caller.live.session

        async def attempt(mint: Mint) -> RenewedSession:
            return await self._renew(caller.live.session, caller.token, mint, origin)

        with self._counted():
            if session.id != session_id:
                raise DaemonError(SESSION_RENEWAL_MISMATCH)
            if caller.previous:
                return await self._lost_answer(caller)
            if session.supervised:
                return await self._staging.run(session_id, self._renewed, attempt)
            return await attempt(await self._mint())

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count how a renewal ends."""
        try:
            yield
        except DaemonError as refusal:
            self.renewals.refused(refusal)
            raise
        self.renewals.granted()

    async def renew_supervised(self, session: Session) -> RenewedSession:
        """Renew the token of a session's process in its stead, by the same guards.

        Raises:
            DaemonError: as `renew` does.
        """
        await self.settle(session.id)
        previous = await asyncio.to_thread(self._files.current, session.id) or ""

        async def attempt(mint: Mint) -> RenewedSession:
            return await self._renew(session, previous, mint, SYSTEM)

        with self._counted():
            return await self._staging.run(session.id, self._renewed, attempt)

    async def _renewed(self, session_id: str) -> Session | None:
        """Return the session as it will be after a renewal at this moment."""
        session = await self._store.session(session_id)
        return session and renewal.next_generation(session, self._store.clock.now())

    async def _renew(self, session: Session, token: str, mint: Mint, origin: Origin) -> RenewedSession:
        """Renew a session whose current token is this one, or was a moment ago."""
        settings, nonce = self._settings, os.urandom(NONCE_BYTES)
        digest = token_hash(token)
        decide = partial(
            renewal.renew,
            presented=digest,
            retry_window=settings.renewal_retry_window,
            reject_window=settings.default_renewal_reject_window,
            mint=mint,
            seal=lambda answer: seal(answer, token, nonce),
        )
        try:
            answer = await self._store.change(Scope(session=session.id, sealed_for=digest), decide, origin)
        except DaemonError as refusal:
            if refusal.kind in {RENEWAL_LIMIT_REACHED, SESSION_ABSOLUTE_LIFETIME_EXCEEDED}:
                await self._warn(session, origin)
            raise
        return _opened(answer, token, session.id) if isinstance(answer, bytes) else answer

    async def _warn(self, session: Session, origin: Origin) -> None:
        """Tell the owner, once, that this session ends for good; the refusal itself wrote nothing."""
        if session.expiry_warned_at is None:
            await self._store.change(Scope(session=session.id), renewal.warn, origin)

    async def _lost_answer(self, caller: Caller) -> RenewedSession:
        sealed = await self._store.sealed_answer(caller.live.session.id)
        if sealed is None or sealed.box is None or sealed.previous_token_hash != caller.digest:
            raise DaemonError(RENEWAL_CONFLICT)
        return _opened(sealed.box, caller.token, caller.live.session.id)


def _opened(box: bytes, token: str, session_id: str) -> RenewedSession:
    answer = unseal(box, token, session_id)
    if answer is None:
        raise DaemonError(RENEWAL_CONFLICT)
    return answer

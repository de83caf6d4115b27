"""Tokens that lie in their session's file before anybody can need them: staged, committed, then published."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar
from weakref import WeakValueDictionary

from daemon.domain.errors import RENEWAL_CONFLICT, STORAGE_UNAVAILABLE, DaemonError
from daemon.domain.rows import Session
from daemon.domain.sessions import Mint
from daemon.domain.views import CreatedSession, RenewedSession, RotatedSession
from daemon.services.ports import TokenFiles
from daemon.services.signing import Signing

T = TypeVar("T", CreatedSession, RenewedSession, RotatedSession)

_ATTEMPTS = 5


class _StaleError(DaemonError):
    """The transaction's moment, or the session, is not what the token was made for."""

    def __init__(self) -> None:
        super().__init__(RENEWAL_CONFLICT)


class Staging:
    """Makes a token before the transaction that needs it, so that a crash between the two loses neither.

    Args:
        signing: makes tokens.
        files: where the processes of sessions find theirs.
    """

    def __init__(self, signing: Signing, files: TokenFiles) -> None:
        self._signing = signing
        self._files = files
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def run(
        self,
        session_id: str,
        foreseen: Callable[[str], Awaitable[Session | None]],
        attempt: Callable[[Mint], Awaitable[T]],
    ) -> T:
        """Stage a token, run the transaction that makes it the current one, and publish it.

        Args:
            session_id: whose token.
            foreseen: returns the session as the transaction will make it if it runs now; None: there is none.
            attempt: runs the transaction with a mint.

        Raises:
            DaemonError: what the transaction raises; RENEWAL_CONFLICT where the session changes all the time.
        """
        # What one stages the other must not write over before it is committed.
        async with self._locks.setdefault(session_id, asyncio.Lock()):
            return await self._run(session_id, foreseen, attempt)

    async def _run(
        self,
        session_id: str,
        foreseen: Callable[[str], Awaitable[Session | None]],
        attempt: Callable[[Mint], Awaitable[T]],
    ) -> T:
        for _ in range(_ATTEMPTS):
            expected = await foreseen(session_id)
            if expected is None:
                break
            signer = await self._signing.signer()
            token, digest = signer.sign(expected, os.urandom(16).hex())
            try:
                answer = await self._attempt(expected, token, digest, attempt)
            except _StaleError:
                continue
            except DaemonError as error:
                if error.kind is not STORAGE_UNAVAILABLE:  # then it may have been committed all the same
                    await asyncio.to_thread(self._files.unstage, session_id)
                raise
            # What is committed must be answered; a file that cannot be written is settled when the process needs it.
            with contextlib.suppress(OSError):
                if answer.token == token:
                    await asyncio.to_thread(self._files.settle, session_id, digest)
                else:  # somebody else's, who was faster
                    await asyncio.to_thread(self._files.unstage, session_id)
            return answer
        await asyncio.to_thread(self._files.unstage, session_id)
        raise DaemonError(RENEWAL_CONFLICT)

    async def _attempt(self, expected: Session, token: str, digest: str, attempt: Callable[[Mint], Awaitable[T]]) -> T:
        try:
            await asyncio.to_thread(self._files.stage, expected.id, token)
        except OSError as error:
            await asyncio.to_thread(self._files.unstage, expected.id)
            raise DaemonError(STORAGE_UNAVAILABLE, f"The token cannot be written: {error.strerror}.") from error

        def mint(session: Session) -> tuple[str, str]:
            if (session.generation, session.expires_at) != (expected.generation, expected.expires_at):
                raise _StaleError
            return token, digest

        return await attempt(mint)

"""The agent's own session, for as long as the server runs: found anew where it was missing, and kept alive."""

import contextlib
from pathlib import Path
from types import TracebackType

from daemon.client import AsyncSession, ClientError

TIMEOUT = 10.0
"""Seconds that a tool may take: who waits is a model, and behind it a person."""


class Sessions:
    """Opens the session when it is needed and holds it, so that it renews itself while nobody calls.

    Args:
        token_file: the session's; None: as the environment says.
        url, home: of the daemon; None: as the environment says.
        timeout: seconds that a call of the daemon may take.
    """

    def __init__(
        self,
        token_file: Path | None = None,
        url: str | None = None,
        home: Path | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self._token_file = token_file
        self._url = url
        self._home = home
        self._timeout = timeout
        self._session: AsyncSession | None = None

    async def __aenter__(self) -> "Sessions":
        """Begin to keep the session, if there is one; the server starts without, too."""
        with contextlib.suppress(ClientError):
            await self.current().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of it; it goes on."""
        if self._session is not None:
            await self._session.close()

    def current(self) -> AsyncSession:
        """Return the session.

        Raises:
            ClientError: there is none, or what says where it is makes no sense.
        """
        if self._session is None:
            self._session = AsyncSession.open(
                token_file=self._token_file, url=self._url, home=self._home, timeout=self._timeout
            )
        return self._session

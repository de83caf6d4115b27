"""What the core of the client needs: a credential, and somebody to send and wait for it, which it never does itself."""

from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeVar

import msgspec

T = TypeVar("T")


class Claim(Protocol):
    """The right to renew: one has it at a time."""

    def stage(self) -> None:
        """Prove that a new token can be stored; raises TokenFileError."""

    def store(self, token: str) -> None:
        """Put the new token in the place of the old one; raises TokenFileError."""

    def release(self) -> None:
        """Let others renew."""


class Credential(Protocol):
    """Where the token of a session is."""

    @property
    def origin(self) -> str:
        """What to call it, in an error."""

    @property
    def may_renew(self) -> bool:
        """Whether whoever else uses the token would find the next one."""

    def read(self) -> str:
        """Return the token; raises TokenFileError."""

    def claim(self) -> Claim | None:
        """Return the right to renew, or None while somebody else has it; raises TokenFileError."""


class Send(msgspec.Struct, frozen=True):
    """Send a request and return its `Reply`; raise NotSent or Lost where there is none.

    Args:
        method: the HTTP method.
        target: path and query, quoted.
        body: JSON; None is no body.
        token: of the session.
        timeout: seconds that the daemon may stay silent.
    """

    method: str
    target: str
    body: bytes | None
    token: str
    timeout: float

    def __repr__(self) -> str:
        """Return it without the token."""
        return f"Send({self.method} {self.target})"


class Pause(msgspec.Struct, frozen=True):
    """Wait for this many seconds, or until the session is not as it was.

    Args:
        seconds: at most.
        version: of the session, when it was looked at: what has changed since then must not be missed.
    """

    seconds: float
    version: int


class Work(msgspec.Struct, frozen=True):
    """Call this, which may wait for a disk."""

    do: Callable[[], object]


class Reply(msgspec.Struct, frozen=True):
    """An answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    where: str

    def __repr__(self) -> str:
        """Return it without the body, which may hold a token."""
        return f"Reply({self.status})"


class NotSent(Exception):  # noqa: N818 (what happened, to be handled in the core)
    """There was no connection: nothing has happened."""


class Lost(Exception):  # noqa: N818 (what happened, to be handled in the core)
    """The connection ended before the answer was there: something may have happened."""


Effect = Send | Pause | Work
Steps = Generator[Effect, Any, T]
"""A part of the core: it yields effects, is sent what they return, and returns T."""

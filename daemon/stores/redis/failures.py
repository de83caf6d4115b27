"""What can be wrong with a Redis, in words that hold no secret."""

import asyncio
import ssl

from redis import exceptions

from daemon.stores.terms import UnfitError


class AwayError(Exception):
    """Redis cannot be asked now.

    Args:
        reason: why, in a few words.
        silent: it took the connection, and closed it without a word.
    """

    def __init__(self, reason: str, *, silent: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.silent = silent


class Restarted(exceptions.ConnectionError):
    """The server is not the one that was asked before: what it holds may be older."""


FAILURES = (exceptions.RedisError, OSError, asyncio.TimeoutError, RuntimeError)
"""What asking a Redis may raise; uvloop has RuntimeError for a connection that was lost before it is written to."""

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (Restarted, "it was restarted, or is another server"),
    (exceptions.BusyLoadingError, "it is loading its data (LOADING)"),
    (exceptions.ReadOnlyError, "it is a read-only replica (READONLY)"),
    (exceptions.OutOfMemoryError, "its memory is full (OOM)"),
    (exceptions.AuthenticationError, "it refuses the password"),
    (exceptions.NoPermissionError, "its ACL refuses a command (NOPERM)"),
    (exceptions.TimeoutError, "it does not answer in time"),
    (TimeoutError, "it does not answer in time"),
    (exceptions.InvalidResponse, "it does not answer as a Redis does"),
)
_PASSING = frozenset({"LOADING", "READONLY", "OOM", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "BUSY", "MISCONF"})
"""Codes of errors that pass by themselves, or when somebody mends the server."""


def away(error: Exception) -> AwayError:
    """Return why Redis cannot be asked; the library's own text may hold addresses and is not repeated."""
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return AwayError(reason)
    if isinstance(error, exceptions.ResponseError):
        return AwayError(f"it answers {_code(error)}")
    # What listens for TLS resets the connection of a client that does not speak it.
    causes = (error, error.__cause__, error.__context__)
    closed = (
        any(isinstance(cause, ConnectionResetError) for cause in causes) or "closed by server" in str(error).lower()
    )
    return AwayError("it closed the connection" if closed else "it cannot be reached", silent=closed)


def _code(error: exceptions.ResponseError) -> str:
    word = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    return word if word.isascii() and word.isupper() else "an error"


def unfit(error: Exception) -> UnfitError | None:
    """Return what is wrong with the configuration if an error at the start shows that; None if it may pass."""
    if isinstance(error, exceptions.AuthenticationError | exceptions.AuthenticationWrongNumberOfArgsError):
        return UnfitError("the Redis of conversations.url refuses the password: correct user and password in the URL")
    if isinstance(error, exceptions.NoPermissionError):
        return UnfitError(
            "the Redis user of conversations.url needs EVALSHA, SCRIPT, INFO, GET, SET, DEL, EXPIRE and TYPE"
        )
    if isinstance(error, exceptions.InvalidResponse):
        return not_a_redis()
    if isinstance(error.__context__, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
        return UnfitError("the TLS certificate of conversations.url is not accepted: name its CA in SSL_CERT_FILE")
    if isinstance(error, exceptions.ResponseError) and _code(error) not in _PASSING:
        return UnfitError(
            "the Redis of conversations.url refuses what it is asked: check the database number in the URL"
        )
    return None


def not_a_redis() -> UnfitError:
    """Return that something else answers at the address."""
    return UnfitError(
        "what answers at conversations.url is no Redis: correct host and port, and use rediss:// where it wants TLS"
    )

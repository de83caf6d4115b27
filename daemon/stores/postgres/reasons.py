"""What the errors of PostgreSQL mean to the owner, and what helps."""

import socket
import ssl
from urllib.parse import unquote, urlsplit

import asyncpg

from daemon.addresses import masked

_CURES: tuple[tuple[type[BaseException], str], ...] = (
    (asyncpg.InvalidPasswordError, "correct user and password in database.url"),
    (asyncpg.InvalidAuthorizationSpecificationError, "correct the user in database.url, or pg_hba.conf of the server"),
    (asyncpg.InvalidCatalogNameError, "create it, for example with createdb, or correct database.url"),
    (asyncpg.InsufficientPrivilegeError, "GRANT CREATE, USAGE ON SCHEMA to the user, and let it own the tables"),
    (asyncpg.ReadOnlySQLTransactionError, "name the primary server in database.url, not a copy that is only read"),
    (asyncpg.TooManyConnectionsError, "raise the server's max_connections"),
    (asyncpg.LockNotAvailableError, "another daemon or program holds the tables; stop it and try again"),
    (asyncpg.CannotConnectNowError, "wait until the server has started, and try again"),
    (asyncpg.QueryCanceledError, "raise the user's statement_timeout"),
    (asyncpg.OperatorInterventionError, "try again when the server runs"),
    (asyncpg.DiskFullError, "free some space on the server and try again"),
    (asyncpg.PostgresError, ""),
    (asyncpg.ClientConfigurationError, "correct database.url"),
)
"""By class, the special before the general; what a server says of itself already stands before it."""

_SILENT = "the server does not answer in time; look at host, port and firewall, and that PostgreSQL listens there"
_STRANGER = "what answers there is not a PostgreSQL server, or it broke off; correct host and port in database.url"


def reason(error: BaseException, url: str) -> str:
    """Return in one line what went wrong and, where it is known, what helps; without the password of `url`."""
    return _without_password(" ".join(_text(error).split()), url)


def _text(error: BaseException) -> str:
    for kind, cure in _CURES:
        if isinstance(error, kind) and not isinstance(error, asyncpg.PostgresConnectionError):
            said = getattr(error, "message", None) or str(error)
            return f"{said}; {cure}" if cure else said
    if isinstance(error, TimeoutError):
        return _SILENT
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there; start the server, or correct host and port in database.url"
    if isinstance(error, FileNotFoundError | PermissionError):
        named = "the server's socket, or a file that database.url names"
        return f"{error.strerror}: {named}; start the server, or correct database.url"
    if isinstance(error, socket.gaierror):
        return f"the host's name cannot be resolved ({error.strerror}); correct host in database.url"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}; look at sslmode and the certificates in database.url"
    if isinstance(error, ConnectionError) and error.errno is None:
        return f"{error}; correct host, port or sslmode in database.url"
    if isinstance(error, asyncpg.ConnectionDoesNotExistError) and ": " in str(error):
        # With the server's last word; a stranger has none.
        return f"{error}; try again when the server runs"
    if isinstance(error, ConnectionError | asyncpg.PostgresConnectionError | asyncpg.InternalClientError):
        return _STRANGER
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}; look at host, port and network"
    return str(error)


def _without_password(text: str, url: str) -> str:
    """A message that repeats what it was given, such as the address, must not repeat the password."""
    password = urlsplit(url).password or ""
    for secret in {password, unquote(password)} - {""}:
        text = text.replace(secret, "***")
    return text


def place(url: str) -> str:
    """Return the database's name in messages: its address without what follows the name, and without the password."""
    return masked(url).partition("?")[0]

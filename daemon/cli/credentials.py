"""Where the owner's credential comes from: a ticket, the environment, a file, or a prompt; never an argument."""

import base64
import getpass
import os
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import msgspec
import rich_click as click

from daemon.cli.failure import NOT_AUTHENTICATED, USAGE, Failure
from daemon.config import SECRET_VARIABLES
from daemon.domain.errors import DaemonError
from daemon.domain.passwords import check_password
from daemon.domain.tokens import TICKET_PREFIX

PASSWORD, PASSWORD_FILE, TICKET = SECRET_VARIABLES
_FILE_LIMIT = 4096


class Credential(msgspec.Struct, frozen=True):
    """One way to prove to be the owner; its name says where it came from, its headers are the secret."""

    name: str
    headers: dict[str, str]

    def __repr__(self) -> str:
        """Return the name alone."""
        return f"Credential({self.name})"


def ticket() -> Credential | None:
    """Return the owner ticket of this shell, if it has one."""
    text = os.environ.get(TICKET, "")
    if not text:
        return None
    wellformed = text.startswith(TICKET_PREFIX) and text.isascii() and text.isprintable()
    return Credential(TICKET, {"Authorization": f"Bearer {text}"} if wellformed else {})


class Owner:
    """The owner's credentials in the order in which they are tried; each is asked for once.

    Args:
        use_ticket: whether an owner ticket will do.
    """

    def __init__(self, *, use_ticket: bool = True) -> None:
        self._ticket = ticket() if use_ticket else None
        self._password: Credential | None = None
        self.may_ask = True

    def credentials(self) -> Iterator[Credential]:
        """Yield the ticket if there is one, then the password from wherever it comes first.

        Raises:
            Failure: 4, where no password can be had.
        """
        if self._ticket is not None:
            yield self._ticket
            self._ticket = None
        if self._password is None:
            name, password = self._find()
            self._password = Credential(name, password_headers(password))
        yield self._password

    def _find(self) -> tuple[str, str]:
        if given := from_environment():
            return given
        if not self.may_ask or not has_terminal():
            raise Failure(
                "The master password is needed",
                NOT_AUTHENTICATED,
                hint=f"set {PASSWORD} or {PASSWORD_FILE}, or {LOGIN}",
            )
        return "the prompt", ask("Master password: ")


LOGIN = 'run: eval "$(daemon login)"'


def from_environment() -> tuple[str, str] | None:
    """Return where the environment has the password, and the password; None where it has none.

    Raises:
        Failure: 4, if the file that it names cannot be used.
    """
    if password := os.environ.get(PASSWORD):
        return PASSWORD, password
    if path := os.environ.get(PASSWORD_FILE):
        return PASSWORD_FILE, read_password(Path(path))
    return None


def read_password(path: Path) -> str:
    """Return a file's password: its text without the line's end.

    Raises:
        Failure: 4, if it cannot be read or is no text.
    """
    try:
        with path.open("rb") as file:
            return _line(file.read(_FILE_LIMIT), str(path))
    except OSError as error:
        raise Failure(f"The password file {path} cannot be read: {error.strerror}", NOT_AUTHENTICATED) from None


def read_stdin() -> str:
    """Return the password on standard input: its text without the line's end.

    Raises:
        Failure: 4, if it is no text.
    """
    return _line(sys.stdin.buffer.read(_FILE_LIMIT), "standard input")


def _line(data: bytes, origin: str) -> str:
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise Failure(f"The password in {origin} is not UTF-8", NOT_AUTHENTICATED) from None


def password_headers(password: str) -> dict[str, str]:
    """Return the header that carries a password: Base64 where a header's value could not hold it as it is."""
    if password.isascii() and password.isprintable() and password == password.strip():
        return {"X-Master-Password": password}
    raw = password.encode(errors="surrogateescape")
    return {"X-Master-Password-B64": base64.b64encode(raw).decode()}


def has_terminal() -> bool:
    """Return whether there is a person to ask: standard input may be a pipe, the terminal still there (as ssh)."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return sys.stdin is not None and sys.stdin.isatty()
    return True


def ask(prompt: str, what: str = "password", code: int = NOT_AUTHENTICATED) -> str:
    """Ask at the terminal, without echo.

    Args:
        prompt: what is shown.
        what: is asked for.
        code: the exit code where nothing was typed.

    Raises:
        Failure: if the terminal gives nothing.
    """
    try:
        return getpass.getpass(prompt)
    except (EOFError, OSError, UnicodeError):
        raise Failure(f"No {what} was typed", code) from None


def checked(password: str, code: int = USAGE) -> str:
    """Return a new master password in its normal form.

    Raises:
        Failure: if it may not be one.
    """
    try:
        return check_password(password)
    except DaemonError as error:
        raise Failure(f"This cannot be the master password: {error.detail}", code) from None


def ask_twice(what: str) -> str:
    """Ask for a new master password until it may be one and was typed twice alike.

    Args:
        what: what it is called, such as `New master password`.
    """
    while True:
        try:
            password = checked(ask(f"{what} (at least 12 bytes): "))
        except Failure as refused:
            if refused.code == NOT_AUTHENTICATED:
                raise
            click.echo(str(refused), err=True)
            continue
        if unicodedata.normalize("NFC", ask("Again: ")) == password:
            return password
        click.echo("The two are not the same; try again.", err=True)

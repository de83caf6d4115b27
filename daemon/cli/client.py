"""The CLI's side of the API: one request a connection, over the unix socket or TCP."""

import http.client
import socket
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeVar

import msgspec

from daemon.cli.connection import Address, locator
from daemon.cli.connection import connection as open_to
from daemon.cli.credentials import TICKET, Credential, Owner
from daemon.cli.failure import FAILED, NOT_AUTHENTICATED, USAGE, Failure, NotRunning, Passing
from daemon.cli.output import note, one_line

T = TypeVar("T")
Sender = Literal["cli", "run"]

PAGE = 200
"""Items that one page of a list has at most."""
_BODY_LIMIT = 64 * 1024 * 1024
_TIMEOUT = 30.0
"""Seconds: a password may wait for others to be verified."""


class Answer(msgspec.Struct, frozen=True):
    """An HTTP response."""

    status: int
    body: bytes
    link: str | None
    where: str

    def read(self, kind: type[T]) -> T:
        """Return the body as an object of the API.

        Raises:
            Failure: the answer is something else.
        """
        try:
            return msgspec.json.decode(self.body, type=kind)
        except (ValueError, RecursionError):
            raise _strange(self.where) from None

    def read_list(self, kind: type[T]) -> list[T]:
        """Return the body as a list of objects of the API; raises as `read`."""
        return self.read(list[kind])  # type: ignore[valid-type]


class Problem(msgspec.Struct, frozen=True):
    """What the CLI reads of a problem document (RFC 9457)."""

    code: str
    detail: str
    hint: str | None = None
    retryable: bool = False
    details: dict[str, Any] | None = None


class Client:
    """Sends requests to one daemon.

    Args:
        at: the daemon; None for the one that this call is about.
        sender: what the daemon records as the maker of a session.
        owner: the owner's credentials.
        timeout: seconds that the daemon may stay silent.
    """

    def __init__(
        self,
        at: Address | None = None,
        *,
        sender: Sender = "cli",
        owner: Owner | None = None,
        timeout: float = _TIMEOUT,
    ) -> None:
        self.at = at or locator()()
        self._sender = sender
        self._owner = owner or Owner()
        self._timeout = timeout

    def call(self, method: str, path: str, body: object = None, **query: object) -> Answer:
        """Send a request as the owner and return the answer.

        A ticket that is over falls back to the password, with a note: it was refused, so nothing has happened.

        Args:
            method: the HTTP method.
            path: the path, quoted.
            body: what is sent as JSON; None is no body.
            query: parameters; None is left out.

        Raises:
            Failure: the API refused (4 where it does not accept the credential), or no daemon answered.
        """
        target = _target(path, query)
        for credential in self._owner.credentials():
            answer = self.send(method, target, body, credential.headers)
            if answer.status == 401 and credential.name == TICKET:
                note(_TICKET_OVER)
                continue
            return accepted(answer, credential)
        raise Failure("No credential was accepted", NOT_AUTHENTICATED)

    def pages(self, path: str, **query: object) -> Iterator[Answer]:
        """Yield the pages of a list from the first to the last; raises as `call`."""
        following: str | None = _target(path, query)
        while following:
            answer = self.call("GET", following)
            yield answer
            following = next_link(answer.link)

    def send(self, method: str, target: str, body: object, headers: dict[str, str]) -> Answer:
        """Send one request and return whatever is answered; raises Failure where nothing is."""
        data = None if body is None else _encoded(body)
        sent = {"Accept": "application/json", **headers}
        if data is not None:
            sent["Content-Type"] = "application/json"
        with self._asked(method, target, data, sent) as response:
            return self._read(response)

    @contextmanager
    def stream(self, path: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
        """Yield an event stream that was opened as the owner; raises as `call`, a Passing where trying again may help.

        Args:
            path: the path, quoted.
            headers: beyond the credential.
        """
        for credential in self._owner.credentials():
            sent = {"Accept": "text/event-stream", **headers, **credential.headers}
            with self._asked("GET", path, None, sent) as response:
                if response.status == 401 and credential.name == TICKET:
                    note(_TICKET_OVER)
                    continue
                if response.status != 200:
                    accepted(self._read(response), credential)
                yield response
                return
        raise Failure("No credential was accepted", NOT_AUTHENTICATED)

    def _read(self, response: http.client.HTTPResponse) -> Answer:
        where = self.at.socket or self.at.url
        return Answer(response.status, response.read(_BODY_LIMIT), response.headers.get("Link"), where)

    @contextmanager
    def _asked(
        self, method: str, target: str, data: bytes | None, headers: dict[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        """Yield the answer to a request, to be read; raises Failure where there is none."""
        where = self.at.socket or self.at.url
        connection = None
        try:
            connection = open_to(self.at, self._timeout)
            sent = {"X-Daemon-Client": self._sender, "Connection": "close", **headers}
            # A refusal comes, and the connection ends, before the body is taken: then there is an answer to read.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, target, data, sent)
            yield connection.getresponse()
        except (ConnectionRefusedError, FileNotFoundError, socket.gaierror):
            raise NotRunning(f"No daemon answers at {where}", hint="start it: daemon start --detach") from None
        except TimeoutError:
            raise Passing(f"The daemon at {where} did not answer within {self._timeout:g} s", hint=_LOGS) from None
        except OSError as error:
            reason = one_line(error.strerror or type(error).__name__)
            raise Passing(f"The connection to {where} failed: {reason}", hint=_LOGS) from None
        except (http.client.HTTPException, ValueError):
            raise _strange(where) from None
        finally:
            if connection is not None:
                connection.close()


_LOGS = "look at: daemon logs"
_TICKET_OVER = "the owner ticket is over; using the master password"


def accepted(answer: Answer, credential: Credential | None = None) -> Answer:
    """Return an answer that is no refusal.

    Args:
        answer: what came back.
        credential: what was sent, so that a refused password is named by where it came from.

    Raises:
        Failure: with the API's words; 4 where the credential is refused or locked out.
    """
    if 200 <= answer.status < 300:
        return answer
    problem = answer.read(Problem)
    locked = problem.code == "MASTER_AUTH_LOCKED"
    hint = problem.hint or ""
    if problem.code == "INVALID_MASTER_PASSWORD" and credential:
        hint = f"correct the password; it came from {credential.name}"
    code = NOT_AUTHENTICATED if answer.status == 401 or locked else FAILED
    kind = Passing if problem.retryable and code == FAILED else Failure
    refused = kind(f"{problem.detail} ({problem.code})", code, hint=hint)
    refused.refusal, refused.details = problem.code, problem.details or {}
    raise refused


def next_link(link: str | None) -> str | None:
    """Return the target of `rel="next"` in a Link header (RFC 8288) as path and query."""
    for part in (link or "").split(","):
        address, _, parameters = part.strip().partition(">")
        if address.startswith("<") and 'rel="next"' in parameters:
            parts = urllib.parse.urlsplit(address[1:])
            return f"{parts.path}?{parts.query}"
    return None


def merged(pages: list[Answer], limit: int | None = None) -> bytes:
    """Return the one list that several pages make, at most `limit` items of it; a single page is left as it is."""
    if len(pages) == 1:
        return pages[0].body
    return msgspec.json.encode([item for page in pages for item in page.read_list(msgspec.Raw)][:limit])


def _encoded(body: object) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:  # bytes of an argument, or of a variable, that are no text
        raise Failure("What was given is not UTF-8", USAGE) from None


def _target(path: str, query: dict[str, Any]) -> str:
    present = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urllib.parse.urlencode(present)}" if present else path


def _strange(where: str) -> Failure:
    return Failure(
        f"What answers at {where} is not this daemon, or not this version", hint="check --url and DAEMON_URL"
    )

"""`daemon events`: what happens, as it happens, across restarts of the daemon."""

import http.client
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec
import rich_click as click

from daemon.cli import base
from daemon.cli.client import PAGE, Client
from daemon.cli.credentials import Owner
from daemon.cli.failure import Passing
from daemon.cli.output import note
from daemon.log_events import pairs

_SHOWN = 50
_PATH = "/v1/owner/events"
_SILENCE = 45.0
"""Seconds without a byte after which the connection is lost: the daemon is never silent for half of it."""
_WAITS = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before each attempt to come back; the last one is for all that follow."""


class _Typed(msgspec.Struct):
    type: str


class _Frame(msgspec.Struct, frozen=True):
    """One block of a stream: the position after it, and the event, if it has one."""

    seq: int
    data: bytes | None


@click.command(cls=base.Command)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on (or after --after).")
@click.option("--after", type=click.IntRange(0), metavar="SEQ", help="Every event after this sequence number.")
@click.option("--type", "kind", metavar="T", help="Only events of this type, such as SESSION_RENEWED.")
@click.option("--json", "as_json", is_flag=True, help="Print each event as the API shows it, one object a line.")
def events(*, follow: bool, after: int | None, kind: str | None, as_json: bool) -> None:
    """Show the newest events, or follow them live."""
    found = _followed(after) if follow else _listed(after, kind)
    for event in found:
        if kind is None or msgspec.json.decode(event, type=_Typed).type == kind:
            click.echo(event if as_json else _for_people(event))


def _for_people(event: bytes) -> str:
    """Return an event as a line: number, time (UTC), type, then what there is to say of it."""
    record: dict[str, Any] = msgspec.json.decode(event)
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(record["timestamp"]))
    shown = {"agent": record["agentId"], "session": record["sessionId"], "by": record["actor"], **record["details"]}
    return f"{record['seq']:>6}  {at}  {record['type']:<24}  {pairs(shown)}"


def _listed(after: int | None, kind: str | None) -> Iterator[bytes]:
    """Return every event after a position; without one, the newest ones."""
    client = Client()
    start = after or 0
    if after is None and kind is None:
        start = max(0, _head(client) - _SHOWN)
    pages = client.pages("/v1/admin/audit", after=start, type=kind, limit=PAGE)
    found = (bytes(event) for page in pages for event in page.read_list(msgspec.Raw))
    return found if after is not None else iter(deque(found, maxlen=_SHOWN))


def _head(client: Client) -> int:
    """Return the newest event's number: a stream begins with it."""
    with client.stream(_PATH, {}) as response:
        return next(_frames(response)).seq


def _followed(after: int | None) -> Iterator[bytes]:
    """Yield events as they happen; where the connection is lost, go on after the last one that was seen.

    Raises:
        Failure: the first attempt failed, or the API refuses.
    """
    owner, position, failed, connected = Owner(), after, 0, False
    while True:
        try:
            # Anew each time: the daemon may come back at another address.
            with Client(owner=owner, timeout=_SILENCE).stream(_PATH, _resuming(position)) as response:
                if failed:
                    note("connected again")
                connected, failed = True, 0
                for frame in _frames(response):
                    position = frame.seq
                    if frame.data is not None:
                        yield frame.data
            reason = "the stream has ended"
        except Passing as failure:
            if not connected:
                raise
            reason = str(failure)
        if not failed:
            note(f"{reason}; trying again until the daemon is back")
        time.sleep(_WAITS[min(failed, len(_WAITS) - 1)])
        failed += 1


def _resuming(position: int | None) -> dict[str, str]:
    return {} if position is None else {"Last-Event-ID": str(position)}


def _frames(response: http.client.HTTPResponse) -> Iterator[_Frame]:
    """Yield the blocks of a stream until it ends or breaks (WHATWG HTML, section 9.2.6)."""
    rest = b""
    while chunk := _chunk(response):
        *blocks, rest = (rest + chunk).split(b"\n\n")
        for block in blocks:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
            if b"id" in fields:
                yield _Frame(int(fields[b"id"]), fields.get(b"data"))


def _chunk(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(1 << 20)
    except (OSError, http.client.HTTPException):
        return b""

"""`daemon events`: what happens, as it happens, across restarts of the daemon."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import rich_click as click

from daemon.cli import base
from daemon.cli.candidates import event_types, one_of
from daemon.cli.client import PAGE, Client
from daemon.cli.credentials import Owner
from daemon.cli.following import EVENTS, Frame, Stream, newest_event
from daemon.log_events import pairs

_SHOWN = 50


class _Typed(msgspec.Struct):
    type: str


class _Events(Stream[bytes]):
    """Every event, as the API shows it."""

    def read(self, client: Client, frames: list[Frame]) -> Iterator[bytes]:
        """Yield the events of some frames."""
        for frame in frames:
            self.position = frame.id
            if frame.data is not None:
                yield frame.data


@click.command(cls=base.Command)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on (or after --after).")
@click.option("--after", type=click.IntRange(0), metavar="SEQ", help="Every event after this sequence number.")
@click.option(
    "--type",
    "kind",
    metavar="T",
    shell_complete=one_of(event_types),
    help="Only events of this type, such as SESSION_RENEWED.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each event as the API shows it, one object a line.")
def events(*, follow: bool, after: int | None, kind: str | None, as_json: bool) -> None:
    """Show the newest events, or follow them live."""
    found: Iterable[bytes] = _Events(EVENTS, after, Owner()) if follow else _listed(after, kind)
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
        start = max(0, newest_event(client) - _SHOWN)
    pages = client.pages("/v1/admin/audit", after=start, type=kind, limit=PAGE)
    found = (bytes(event) for page in pages for event in page.read_list(msgspec.Raw))
    return found if after is not None else iter(deque(found, maxlen=_SHOWN))

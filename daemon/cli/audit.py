"""`daemon audit list` and `verify`: what happened, and is that the whole of it?"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import msgspec
import rich_click as click

from daemon.cli import base, offline
from daemon.cli.client import Client, merged
from daemon.cli.failure import Failure
from daemon.cli.lookup import agent_id, session_id
from daemon.cli.output import json_out, relative, table
from daemon.domain.events import Event, Severity
from daemon.domain.views import Verification


@click.group(cls=base.Group)
def audit() -> None:
    """The append-only, hash-chained audit log."""


@audit.command("list")
@click.option("--after", type=click.IntRange(0), help="Only events after this sequence number.")
@click.option("--type", "kind", help="Only events of this type, such as SESSION_RENEWED.")
@click.option("--agent", help="Only this agent's (id or name).")
@click.option("--session", help="Only this session's.")
@click.option("--severity", type=click.Choice(get_args(Severity)), help="Only events of this severity.")
@click.option("-n", "--limit", type=click.IntRange(1), default=50, show_default=True, help="How many at most.")
@base.json_option
def list_events(
    *,
    after: int | None,
    kind: str | None,
    agent: str | None,
    session: str | None,
    severity: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List events, oldest first."""
    client = Client()
    query = {
        "after": after,
        "type": kind,
        "agentId": agent_id(client, agent) if agent else None,
        "sessionId": session_id(session) if session else None,
        "severity": severity,
        "limit": min(limit, 200),
    }
    pages = []
    for page in client.pages("/v1/admin/audit", **query):
        pages.append(page)
        limit -= 200
        if limit <= 0:
            break
    if as_json:
        json_out(merged(pages))
        return
    rows = [event for page in pages for event in page.read_list(Event)]
    table(
        ("SEQ", "WHEN", "TYPE", "ACTOR", "SESSION", "DETAILS"),
        (
            (
                event.seq,
                relative(event.timestamp),
                event.type,
                event.actor,
                event.session_id,
                bytes(event.details).decode(),
            )
            for event in rows
        ),
    )


@audit.command()
@click.option("--offline", "from_file", is_flag=True, help="Read the database file instead of asking the daemon.")
@click.option(
    "--against",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="LOG",
    help="Also compare the chain with the audit.checkpoint lines of this log.",
)
@base.json_option
def verify(from_file: bool, against: Path | None, as_json: bool) -> None:
    """Recompute the hash chain (exit 1: it is broken)."""
    if from_file:
        home = base.home()
        database = base.configuration(home).config.database.path or home.database
        chain = offline.verify_chain(database)
        body, found = msgspec.json.encode(chain), (chain.valid, chain.events, chain.first_bad)
        hash_of: Callable[[int], str | None] = lambda seq: offline.hash_of(database, seq)  # noqa: E731
    else:
        client = Client()
        answer = client.call("GET", "/v1/admin/audit/verify")
        online = answer.read(Verification)
        body, found = answer.body, (online.valid, online.events, online.first_bad)
        hash_of = lambda seq: _hash_online(client, seq)  # noqa: E731
    if as_json:
        json_out(body)
    valid, events, first_bad = found
    if not valid:
        raise Failure(f"The audit log is broken at event {first_bad}", hint="events before it are sound")
    compared = _compare(against, hash_of) if against else 0
    if not as_json:
        anchored = f", {compared} checkpoints of {against} agree" if against else ""
        click.echo(f"the audit log is whole: {events} events{anchored}")


def _hash_online(client: Client, seq: int) -> str | None:
    events = client.call("GET", "/v1/admin/audit", after=seq - 1, limit=1).read_list(Event)
    return events[0].hash if events and events[0].seq == seq else None


class _Checkpoint(msgspec.Struct):
    event: str = ""
    seq: int = 0
    hash: str = ""


def _checkpoints(log: Path) -> Iterator[_Checkpoint]:
    with log.open("rb") as file:
        for line in file:
            if b"audit.checkpoint" not in line:
                continue
            try:
                read = msgspec.json.decode(line, type=_Checkpoint)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
            if read.event == "audit.checkpoint" and read.seq > 0:
                yield read


def _compare(log: Path, hash_of: Callable[[int], str | None]) -> int:
    """Hold every checkpoint of a log against the chain and return how many there were.

    Raises:
        Failure: the chain has another hash there, or ends before it.
    """
    compared = 0
    for point in {point.seq: point for point in _checkpoints(log)}.values():
        if hash_of(point.seq) != point.hash:
            raise Failure(
                f"The audit log does not agree with the checkpoint at event {point.seq} of {log}",
                hint="it was rewritten or cut off",
            )
        compared += 1
    return compared

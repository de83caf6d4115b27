"""`daemon audit list`, `verify` and `archive`: what happened, and is that the whole of it?"""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import msgspec
import rich_click as click

from daemon.cli import base
from daemon.cli.candidates import agents, event_types, one_of, sessions
from daemon.cli.client import PAGE, Answer, Client, merged
from daemon.cli.exclusive import maintaining
from daemon.cli.failure import Failure
from daemon.cli.lookup import agent_id, session_id
from daemon.cli.output import fields, json_out, relative, table
from daemon.cli.parameters import MOMENT
from daemon.domain.chain import first_kept
from daemon.domain.events import Event, Severity
from daemon.domain.views import Verification
from daemon.log_checkpoints import Compared, compare


@click.group(cls=base.Group)
def audit() -> None:
    """The append-only, hash-chained audit log."""


@audit.command("list")
@click.option("--after", type=click.IntRange(0), help="Only events after this sequence number.")
@click.option(
    "--type", "kind", shell_complete=one_of(event_types), help="Only events of this type, such as SESSION_RENEWED."
)
@click.option("--agent", shell_complete=agents(), help="Only this agent's (id or name).")
@click.option("--session", shell_complete=sessions, help="Only this session's.")
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
        "limit": min(limit, PAGE),
    }
    pages: list[Answer] = []
    for page in client.pages("/v1/admin/audit", **query):
        pages.append(page)
        if len(pages) * PAGE >= limit:
            break
    if as_json:
        json_out(merged(pages, limit))
        return
    rows = [event for page in pages for event in page.read_list(Event)][:limit]
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
@click.option("--before", type=MOMENT, required=True, metavar="DATE", help="Older ones go: 2026-01-31, or RFC 3339.")
@click.option("--to", type=click.Path(path_type=Path), metavar="FILE", help="A new file (else one in `backups`).")
@base.json_option
def archive(before: int, to: Path | None, as_json: bool) -> None:
    """Move the events before DATE to a file, verified, and leave an anchor; the daemon must be stopped."""
    # Imported here: the engine takes longer than most commands run.
    from daemon.maintenance import archive as maintenance  # noqa: PLC0415

    home = base.home()
    with maintaining(home):
        done = maintenance.archive(home, base.configuration(home).config, before, to)
    if as_json:
        json_out(msgspec.json.encode(done))
    elif done.file is None:
        click.echo("there are no events before that; nothing was archived")
    else:
        moved = f"{done.events} events, up to {done.through_seq}"
        fields([("archived", moved), ("file", done.file), ("sha256", done.sha256)])


@audit.command()
@click.option("--offline", "from_file", is_flag=True, help="Read the database itself instead of asking the daemon.")
@click.option(
    "--against",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="LOG",
    help="Also compare the chain with the audit.checkpoint lines of this log.",
)
@base.json_option
def verify(from_file: bool, against: Path | None, as_json: bool) -> None:
    """Recompute the hash chain (exit 1: it is broken)."""
    body, found, compared = (_verify_file if from_file else _verify_online)(against)
    if as_json:
        json_out(body)
    if not found.valid:
        raise Failure(f"The audit log is broken at event {found.first_bad}", hint="events before it are sound")
    if compared and compared.disagrees:
        raise Failure(
            f"The audit log does not agree with the checkpoint at event {compared.disagrees.seq} of {against}",
            hint="it was rewritten or cut off",
        )
    if not as_json:
        anchored = f", {compared.count} checkpoints of {against} agree" if compared else ""
        click.echo(f"the audit log is whole: {found.events} events{anchored}")


_Found = tuple[bytes, Verification, Compared | None]


def _verify_online(against: Path | None) -> _Found:
    client = Client()
    answer = client.call("GET", "/v1/admin/audit/verify")
    found = answer.read(Verification)
    return answer.body, found, _compared(against, found, lambda seq: _hash_online(client, seq))


def _verify_file(against: Path | None) -> _Found:
    # Imported here: the engine takes longer than most commands run.
    from daemon.maintenance import looking  # noqa: PLC0415
    from daemon.stores import inspection  # noqa: PLC0415

    home = base.home()
    with maintaining(home), looking.rows(home, base.configuration(home).config) as connection:
        found = inspection.verify_chain(connection)
        compared = _compared(against, found, lambda seq: inspection.hash_of(connection, seq))
    return msgspec.json.encode(found), found, compared


def _compared(against: Path | None, found: Verification, hash_of: Callable[[int], str | None]) -> Compared | None:
    return compare([against], first_kept(found), hash_of) if against and found.valid else None


def _hash_online(client: Client, seq: int) -> str | None:
    events = client.call("GET", "/v1/admin/audit", after=seq - 1, limit=1).read_list(Event)
    return events[0].hash if events and events[0].seq == seq else None

"""Moving the oldest events of the audit log to a file, with an anchor left behind."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import chain, takewhile
from pathlib import Path

import msgspec

from daemon import engines, files
from daemon.addresses import masked
from daemon.domain.chain import ChainWalk, Row
from daemon.domain.clock import DomainClock
from daemon.domain.errors import DaemonError
from daemon.domain.events import Event, Origin
from daemon.domain.facts.daemon import AuditArchived
from daemon.domain.views import ChainHead
from daemon.home import Home
from daemon.maintenance import looking
from daemon.maintenance.exclusive import Refused, held, named
from daemon.settings import Config
from daemon.stores import inspection
from daemon.stores.chain import to_event
from daemon.stores.migrate import MigrationError, accepted_version, latest_version
from daemon.stores.sqlite.events import all_rows


class Archived(msgspec.Struct, frozen=True, rename="camel"):
    """What was archived; the rest is None where there was nothing to archive."""

    events: int
    through_seq: int | None = None
    through_hash: str | None = None
    file: str | None = None
    sha256: str | None = None


def archive(home: Home, config: Config, before: int, to: Path | None) -> Archived:
    """Move the events before a moment to a file of JSON Lines, each as the API shows it.

    The file is whole and proved before anything is removed; a crash in between leaves the events in both places.

    Args:
        home: whose daemon does not run.
        config: says where its rows are; daemons of other homes on the same server may go on.
        before: Unix seconds; events go up to the first one that is not older.
        to: a file that is not there yet; None for one in `backups`.

    Raises:
        Refused: the log is broken, or the file cannot be written.
        AlreadyRunning: a daemon has the home.
        HomeError: the home cannot be used.
    """
    with held(home):
        if config.database.kind == "sqlite":
            _check_schema(engines.database_path(home, config))
        with looking.rows(home, config) as connection:
            _check_chain(connection)
            through = _last_before(connection, before)
            if through is None:
                return Archived(events=0)
            count, target = _write(connection, through, to.expanduser().absolute() if to else None, home.backups)
        digest = files.sha256(target)
        fact = AuditArchived(
            events=count, through_seq=through.seq, through_hash=through.hash, file=target.name, sha256=digest
        )
        with _explained(home, config):
            asyncio.run(_remove(home, config, fact))
    return Archived(count, through.seq, through.hash, str(target), digest)


def _check_schema(database: Path) -> None:
    if database.exists() and accepted_version(database) != latest_version():
        raise Refused(f"{database}: its schema is not this program's", "start the daemon once, which migrates it")


def _check_chain(connection: sqlite3.Connection) -> None:
    found = inspection.verify_chain(connection)
    if not found.valid:
        raise Refused(f"The audit log is broken at event {found.first_bad}", "see: daemon doctor")


def _last_before(connection: sqlite3.Connection, before: int) -> ChainHead | None:
    """Return the last event of those that go: the one before the first that is not older than `before`."""
    newer = "SELECT coalesce(min(id), (SELECT max(id) + 1 FROM audit_log)) FROM audit_log WHERE timestamp >= ?"
    row = connection.execute(f"SELECT id, hash FROM audit_log WHERE id = ({newer}) - 1", (before,)).fetchone()  # noqa: S608 (static text)
    return ChainHead(seq=row[0], hash=row[1]) if row else None


def _write(connection: sqlite3.Connection, through: ChainHead, to: Path | None, backups: Path) -> tuple[int, Path]:
    """Write the file, read it back, and publish it; return how many events it has, and where it is."""
    with closing(all_rows(connection)) as every:
        rows = takewhile(lambda row: row[0] <= through.seq, every)
        first = next(rows)
        target = to or files.unused(backups, f"audit-{first[0]}-{through.seq}", ".jsonl")
        with named(target):
            if target.exists():
                raise Refused(f"{target} exists already", "choose another name; nothing is overwritten")
            with files.partial(target) as made:
                with made.open("wb") as file:
                    for row in chain((first,), rows):
                        file.write(msgspec.json.encode(to_event(row)) + b"\n")
                count = _prove(made, ChainHead(seq=first[0] - 1, hash=first[10]), through)
                files.publish(made, target)
    return count, target


def _prove(made: Path, before: ChainHead, through: ChainHead) -> int:
    """Read a file back and recompute its part of the chain; return how many events it has.

    Raises:
        Refused: it is not what was to be written.
    """
    walk = ChainWalk()
    if not all(walk.take(row) for row in _rows(made)) or (walk.before, walk.head) != (before, through):
        raise Refused(f"{made} does not hold what was written to it", "check the disk; nothing was removed")
    return through.seq - before.seq


def _rows(file: Path) -> Iterator[Row]:
    decode = msgspec.json.Decoder(Event).decode
    with file.open("rb") as lines:
        for line in lines:
            event = decode(line)
            yield (
                event.seq, event.timestamp, event.type, event.actor, event.agent_id, event.session_id, event.severity,
                bytes(event.details).decode(), event.request_id, event.ip_address, event.prev_hash, event.hash,
            )  # fmt: skip


@contextmanager
def _explained(home: Home, config: Config) -> Iterator[None]:
    """Turn what either engine raises into a refusal."""
    if config.database.kind == "sqlite":
        with named(engines.database_path(home, config)):
            yield
        return
    try:
        yield
    except MigrationError as error:
        raise Refused(str(error)) from error
    except DaemonError as error:
        said = engines.explain(config, error.__cause__) if error.__cause__ else error.detail
        raise Refused(f"{masked(config.database.url)}: {said}", "see: daemon audit verify --offline") from error


async def _remove(home: Home, config: Config, fact: AuditArchived) -> None:
    clock = DomainClock(time.time, time.monotonic)
    await engines.prepare(home, config, clock, lambda _: None)
    store = await engines.open_engine(home, config, clock, announce=lambda _: None, report=lambda *_, **__: None)
    try:
        await store.archive(fact, Origin("cli"))
    finally:
        await store.close()

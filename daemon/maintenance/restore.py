"""Putting a backup in the place of the database, so that at every moment one of them is there, whole."""

import asyncio
import contextlib
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec

from daemon import files
from daemon.domain import lifecycle, verifiers
from daemon.domain.changes import Outcome, Pick, Rows, Scope
from daemon.domain.clock import DomainClock, stamp
from daemon.domain.events import Event, Origin
from daemon.domain.facts.daemon import BackupRestored
from daemon.domain.kill_switch import KEY as KILL_SWITCH
from daemon.domain.kill_switch import is_on
from daemon.domain.views import ChainHead
from daemon.home import Home
from daemon.log import Log
from daemon.maintenance.exclusive import Refused, held, named
from daemon.maintenance.replacing import copy_as_it_is, fold, put_in_place, staged
from daemon.settings import LogSettings
from daemon.stores import inspection, sqlite_file
from daemon.stores.migrate import MigrationError, accepted_version, latest_version, migrate
from daemon.stores.sqlite.opening import newest_event_time, open_store

_STAGED_SESSIONS = 1
"""Held in memory while the backup is made ready: nobody asks for one."""


class Restored(msgspec.Struct, frozen=True, rename="camel"):
    """What a restore did.

    Args:
        database: what was restored.
        backup_sha256: of the file that it was restored from.
        kept: the copy of the database that was replaced; None where there was none.
        sessions_revoked: how many sessions were ended.
        verifiers_revoked: how many verifiers were revoked.
        kill_switch_kept: whether the kill switch of the replaced database holds on.
    """

    database: str
    backup_sha256: str
    kept: str | None
    sessions_revoked: int
    verifiers_revoked: int
    kill_switch_kept: bool


class _Revoked(msgspec.Struct, frozen=True):
    """How many."""

    sessions: int
    verifiers: int


class _Replaced(msgspec.Struct):
    """What is taken over from the old database, as far as it can be read."""

    kept: Path | None = None
    head: ChainHead | None = None
    newest: int = 0
    latch: str | None = None


def restore(home: Home, database: Path, source: Path, log: LogSettings, *, keep_sessions: bool) -> Restored:
    """Put a backup in the place of the database.

    It is made ready beside the database, events and revocations included, and takes its name in one step.

    Args:
        home: whose daemon does not run; made where it is missing.
        database: what is replaced, or made.
        source: the backup; left as it is.
        log: how the home's log is kept; the events go there too.
        keep_sessions: do not revoke them, nor the verifiers, unless the kill switch is on.

    Raises:
        Refused: the backup is none, or is not whole; or the disk or another program is in the way.
        AlreadyRunning: a daemon has the home.
        HomeError: the home cannot be used.
    """
    database = database.resolve()
    if source.exists() and database.exists() and source.samefile(database):
        raise Refused(f"{source} is the database itself", "name a backup")
    home.create()
    with held(home), staged(database) as staging:
        _stage(source, staging)
        with named(database):
            sha256 = files.sha256(source)
            replaced = _set_aside(database, home.backups)
        with named(staging):
            revoked, facts = asyncio.run(_record(staging, replaced, sha256, keep_sessions=keep_sessions))
            put_in_place(staging, database)
        _tell_log(home, log, facts)
    kept = str(replaced.kept) if replaced.kept else None
    return Restored(
        database=str(database),
        backup_sha256=sha256,
        kept=kept,
        sessions_revoked=revoked.sessions,
        verifiers_revoked=revoked.verifiers,
        kill_switch_kept=replaced.latch is not None,
    )


def _stage(source: Path, staging: Path) -> None:
    """Copy the backup, prove it whole, and bring it to this program's schema.

    Raises:
        Refused: naming the backup.
    """
    if not source.is_file():
        raise Refused(f"{source} is not a file", "name a backup, such as those that `daemon backup` makes")
    try:
        with inspection.look(source) as read, closing(sqlite_file.connect(staging, "rw")) as made:
            sqlite_file.fill(read, made)
        if accepted_version(staging) == 0:
            raise Refused(f"{source}: is empty, it holds no database of this program", "name another backup")
        with inspection.look(staging) as read:
            inspection.check_whole(read)
            orphan = inspection.orphan(read)
        if orphan is not None:
            raise Refused(f"{source}: {orphan}", "name another backup")
        if accepted_version(staging) < latest_version():
            migrate(staging, now=int(time.time()), backups=None)
    except MigrationError as error:
        raise Refused(str(error).replace(f"{staging}: ", f"{source}: ", 1)) from error
    except (sqlite3.Error, OSError) as error:
        reason = sqlite_file.reason(error)
        if "restore a backup" in reason:  # which is just what fails
            raise Refused(f"{source}: {reason.partition(';')[0]}", "name another backup") from error
        raise Refused(f"{source}: {reason}") from error


def _set_aside(database: Path, backups: Path) -> _Replaced:
    """Keep the old database as it is, byte by byte, then fold it and read what outlives it.

    Raises:
        Refused: another program has it open.
        OSError, sqlite3.Error: the disk is in the way.
    """
    if not database.exists():
        return _Replaced()
    kept = files.unused(backups, f"daemon-before-restore-{stamp(int(time.time()))}", ".db")
    try:
        copy_as_it_is(database, kept)
        return _taken_over(database, kept)
    except BaseException:
        files.discard(kept)
        raise


def _taken_over(database: Path, kept: Path) -> _Replaced:
    replaced = _Replaced(kept=kept)
    try:
        fold(database)
        with inspection.look(database) as read:
            latch = inspection.value(read, KILL_SWITCH)
            replaced.latch = latch if is_on(latch) else None
            replaced.head, replaced.newest = inspection.head(read), inspection.newest_time(read)
    except sqlite3.DatabaseError as error:
        if sqlite_file.result_code(error) not in _UNREADABLE:
            raise
    return replaced


_UNREADABLE = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
"""Codes of a file that is damaged, is no database, or lacks a table: nothing can be taken over from it."""


async def _record(
    staging: Path, replaced: _Replaced, sha256: str, *, keep_sessions: bool
) -> tuple[_Revoked, list[Event]]:
    """Write into the backup what the restore means, in one transaction; return what was revoked and the events."""
    clock, recorded = DomainClock(time.time, time.monotonic), list[Event]()
    clock.start_from(max(replaced.newest, newest_event_time(staging)))
    store = await open_store(
        staging,
        clock,
        synchronous="full",
        cache_sessions=_STAGED_SESSIONS,
        announce=recorded.extend,
        failed=lambda _: None,
    )
    try:
        # A switch that is on has ended every session, those that only the backup still has too.
        pick: Pick | None = None if keep_sessions and replaced.latch is None else "every"
        # Who was refused after the backup was made must not be let in by it.
        scope = Scope(pick=pick, verifiers=pick is not None, while_locked=True)
        decide = partial(_decide, replaced=replaced, sha256=sha256)
        return await store.change(scope, decide, Origin("cli")), recorded
    finally:
        await store.close()


def _decide(rows: Rows, now: int, *, replaced: _Replaced, sha256: str) -> Outcome[_Revoked]:
    revoked = lifecycle.revoke_every(rows, now, reason="restored")
    refused = verifiers.revoke_every(rows, now, reason="restored")
    # The first event after the backup: what the log says of later ones is of the replaced database.
    fact = BackupRestored(
        backup_sha256=sha256,
        replaced_seq=replaced.head.seq if replaced.head else None,
        replaced_hash=replaced.head.hash if replaced.head else None,
        sessions_revoked=revoked.answer,
        verifiers_revoked=refused.answer,
    )
    return Outcome(
        answer=_Revoked(sessions=revoked.answer, verifiers=refused.answer),
        sessions=revoked.sessions,
        verifiers=refused.verifiers,
        values={KILL_SWITCH: replaced.latch} if replaced.latch is not None else None,
        facts=(fact, *revoked.facts, *refused.facts),
    )


def _tell_log(home: Home, settings: LogSettings, recorded: list[Event]) -> None:
    """Put the events into the log: the next start sees newer ones there, of the replaced database."""
    with contextlib.suppress(OSError):
        log = Log(
            home.log_file(settings.file),
            level=settings.level,
            max_size=settings.max_size_mb << 20,
            max_files=settings.max_files,
        )
        for event in recorded:
            log.audit(event)
        log.close(5.0)

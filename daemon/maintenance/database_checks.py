"""Checks of the database: pages, schema, references, audit log, clock."""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from daemon.domain.chain import first_kept
from daemon.log_checkpoints import Compared, compare
from daemon.log_events import log_files
from daemon.maintenance.findings import RESTORE, Finding, Patient, failed, ok, warning
from daemon.stores import inspection, sqlite_file
from daemon.stores.migrate import MigrationError, accepted_version, latest_version, migrate

LARGE_WAL = 64 << 20
"""Bytes: four times what SQLite lets it grow to before it is folded."""
BUILT = 1_735_689_600
"""Unix seconds of 2025-01-01: no right clock shows an earlier time to this program."""
_DAY = 86_400

PASSWORD_KEY = "master_password"  # noqa: S105 - the name of a row
CLOCK_CURE = "set the clock: sudo timedatectl set-ntp true"


def check_database(patient: Patient) -> Iterator[Finding]:
    """Is it there, and are its pages whole?"""
    if not patient.database.exists():
        yield failed("database", f"there is none at {patient.database}", "run: daemon init")
        return
    with patient.reading() as connection:
        sqlite_file.check_pages(connection)
    yield ok("database", f"{patient.database}, {patient.database.stat().st_size >> 10} KiB")


def check_schema(patient: Patient) -> Iterator[Finding]:
    """Is its schema the one that this program's migrations make?"""
    if not patient.database.exists():
        return
    try:
        version, latest = accepted_version(patient.database), latest_version()
    except MigrationError as error:
        yield failed("schema", str(error), f"install the newest version, or {RESTORE}")
        return
    if version == 0:
        yield failed("schema", "the database is empty", "run: daemon init")
        return
    if version < latest:
        detail = f"version {version}, this program has {latest}"
        yield warning("schema", detail, "run: daemon start (it migrates, after a copy)")
        return
    with patient.reading() as connection:
        drift = _drift(_fresh_schema(), _objects(connection))
    if drift:
        yield failed("schema", f"drifted: {', '.join(drift)}", f"look at: daemon db schema; {RESTORE}")
    else:
        yield ok("schema", f"version {version}, as the migrations make it")


def _fresh_schema() -> dict[str, str]:
    with tempfile.TemporaryDirectory() as directory:
        fresh = Path(directory) / "fresh.db"
        migrate(fresh, now=0, backups=None)
        with closing(sqlite_file.connect(fresh, "ro")) as connection:
            return _objects(connection)


def _objects(connection: sqlite3.Connection) -> dict[str, str]:
    """Return every object's statement, white space made even."""
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")
    return {f"{kind} {name}": " ".join((sql or "").split()) for kind, name, sql in rows}


def _drift(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    missing = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    extra = [f"{name} is not ours" for name in sorted(found.keys() - wanted.keys())]
    both = sorted(wanted.keys() & found.keys())
    return missing + [f"{name} was changed" for name in both if wanted[name] != found[name]] + extra


def check_foreign_keys(patient: Patient) -> Iterator[Finding]:
    """Does every row refer to one that is there?"""
    if not patient.database.exists():
        return
    with patient.reading() as connection:
        orphan = inspection.orphan(connection)
    yield failed("foreign-keys", orphan, RESTORE) if orphan else ok("foreign-keys", "every reference holds")


def check_audit(patient: Patient) -> Iterator[Finding]:
    """Is the audit log whole, and the one that the log knows?"""
    if not patient.database.exists():
        return
    with patient.reading() as connection:
        chain = inspection.verify_chain(connection)
        if not chain.valid:
            cure = f"keep a copy of the home as evidence, then {RESTORE}"
            yield failed("audit", f"the audit log is broken at event {chain.first_bad}", cure)
            return
        yield ok("audit", f"{chain.events} events, chained without a gap")
        oldest_first = list(reversed(log_files(patient.log_file)))
        compared = compare(oldest_first, first_kept(chain), lambda seq: inspection.hash_of(connection, seq))
    yield checkpoints(patient, compared, RESTORE)


def checkpoints(patient: Patient, compared: Compared, cure: str) -> Finding:
    """Do the checkpoints of the log agree? `cure` says how an older database comes back."""
    if compared.disagrees:
        detail = f"event {compared.disagrees.seq} is not the one that the log has a checkpoint of"
        return failed("checkpoints", detail, f"run: daemon audit verify --against {patient.log_file}; then {cure}")
    return ok("checkpoints", f"{compared.count} in the log, all agree")


def check_password(patient: Patient) -> Iterator[Finding]:
    """Is there a master password?"""
    if not patient.database.exists():
        return
    with patient.reading() as connection:
        stored = inspection.value(connection, PASSWORD_KEY)
    if stored is None:
        yield failed("password", "there is no master password", "run: daemon init")
    else:
        yield ok("password", "a master password is set")


def check_clock(patient: Patient) -> Iterator[Finding]:
    """Is the clock right, as far as the newest event can tell?"""
    if patient.now < BUILT:
        yield failed("clock", "the clock is before the year in which this program was made", CLOCK_CURE)
        return
    newest = 0
    if patient.database.exists():
        with patient.reading() as connection:
            newest = inspection.newest_time(connection)
    ahead = newest - patient.now
    if ahead > _DAY:
        detail = f"the newest event is {ahead} s ahead; the next start will end sessions created after now"
        yield failed("clock", detail, CLOCK_CURE)
    elif ahead > 0:
        detail = f"it stepped back: the newest event is {ahead} s ahead, and time is held until then"
        yield warning("clock", detail, CLOCK_CURE)
    else:
        yield ok("clock", "not behind the newest event")


def check_wal(patient: Patient) -> Iterator[Finding]:
    """Is the write-ahead log folded now and then?"""
    wal = Path(f"{patient.database}-wal")
    size = wal.stat().st_size if wal.exists() else 0
    if size > LARGE_WAL:
        detail = f"the write-ahead log has {size >> 20} MiB: a program reads the database without an end"
        yield warning("wal", detail, "end that program, then run: daemon restart")
    else:
        yield ok("wal", f"{size >> 10} KiB")

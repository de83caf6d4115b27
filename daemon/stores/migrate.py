"""Bring a SQLite database to the schema of this program: numbered, recorded, atomic."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from daemon.domain.clock import stamp
from daemon.stores import sqlite_file
from daemon.stores.migration_files import (
    Migrated,
    Migration,
    MigrationError,
    Recorded,
    data_file,
    first_line,
    load,
    statements,
    verify,
)

__all__ = ["Migrated", "MigrationError", "accepted_version", "data_file", "latest_version", "migrate", "schema_version"]

_LEDGER = """CREATE TABLE IF NOT EXISTS schema_migrations (
  version INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  applied_at INTEGER NOT NULL
)"""

_FORBIDDEN = {
    sqlite3.SQLITE_TRANSACTION,
    sqlite3.SQLITE_SAVEPOINT,
    sqlite3.SQLITE_ATTACH,
    sqlite3.SQLITE_DETACH,
}
"""A COMMIT inside a migration would silently leave half of it behind when the rest fails."""


def latest_version() -> int:
    """Return the version of the schema that this program works with.

    Raises:
        MigrationError: the program's own files are incomplete.
    """
    return len(load(data_file("migrations")))


def schema_version(database: Path) -> int:
    """Return the version that a database is at, without changing it; 0 where there is none yet.

    Raises:
        MigrationError: the file cannot be read as a SQLite database.
    """
    with _in_one_line(database):
        recorded, _ = _look(database)
    return recorded[-1][0] if recorded else 0


def accepted_version(database: Path) -> int:
    """Return the version of a database at rest if this program may work with it; 0 where it is empty.

    Raises:
        MigrationError: as `migrate`.
    """
    with _in_one_line(database), closing(sqlite_file.connect_traceless(database)) as connection:
        return verify(str(database), load(data_file("migrations")), *_ledger(connection))


def migrate(
    database: Path,
    *,
    now: int,
    backups: Path | None,
    applied: Callable[[str], None] | None = None,
    migrations: Path | None = None,
) -> Migrated:
    """Create a database or bring it up to date; a migration that fails leaves nothing of itself behind.

    Args:
        database: the file; created with mode 0600 where it is missing.
        now: Unix seconds, recorded with each migration.
        backups: directory that receives a copy of a database with rows before the first migration; None makes none.
        applied: called with the name of each migration after its commit.
        migrations: directory of the files; the program's own when None.

    Raises:
        MigrationError: the database is newer than the program, was made from other files, is no SQLite
            database, is damaged or not writable; a statement failed; or the copy could not be made.
    """
    known = load(migrations or data_file("migrations"))
    with _in_one_line(database):
        before = verify(str(database), known, *_look(database))
        if before == len(known):
            return Migrated(from_version=before, to_version=before, applied=(), backup=None)
        sqlite_file.create(database)
        with closing(sqlite_file.connect(database, "rw")) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute("PRAGMA fullfsync = ON")  # macOS: an ordinary fsync stops at the disk's cache
            sqlite_file.use_wal(connection)
            names, backup = _Run(database, connection, now).upgrade(known, before, backups, applied)
    return Migrated(from_version=before, to_version=len(known), applied=tuple(names), backup=backup)


class _Run:
    """One upgrade on one connection."""

    def __init__(self, database: Path, connection: sqlite3.Connection, now: int) -> None:
        # A start that finds nothing to migrate does not pay the 60 ms of this import.
        from sqlite_utils import Database  # noqa: PLC0415

        self._database = database
        self._connection = connection
        self._db = Database(connection, execute_plugins=False)
        self._now = now

    def upgrade(
        self, known: list[Migration], before: int, backups: Path | None, applied: Callable[[str], None] | None
    ) -> tuple[list[str], Path | None]:
        names: list[str] = []
        backup: Path | None = None
        for migration in known[before:]:
            with self._transaction():
                current = verify(str(self._database), known, *_ledger(self._connection))
                if current >= migration.version:  # another process was faster
                    continue
                if not names and backups is not None and self._has_rows():
                    backup = self._back_up(backups, current)
                self._apply(migration)
            names.append(migration.name)
            if applied is not None:
                applied(migration.name)
        return names, backup

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _has_rows(self) -> bool:
        tables = set(self._db.table_names()) - {"schema_migrations"}
        return any(next(self._db.table(name).rows_where(limit=1), None) for name in tables)

    def _back_up(self, backups: Path, version: int) -> Path:
        try:
            return sqlite_file.copy(self._database, backups, f"{self._database.stem}-v{version:04d}-{stamp(self._now)}")
        except (OSError, sqlite3.Error) as error:
            raise MigrationError(
                f"{self._database}: the copy in {backups} that must precede a migration failed: "
                f"{sqlite_file.reason(error)}"
            ) from error

    def _apply(self, migration: Migration) -> None:
        """Run a migration inside the open transaction; its row comes first, so that it can read the time there."""
        self._db.execute(_LEDGER)
        row = {"version": migration.version, "name": migration.name, "sha256": migration.sha256}
        self._db.table("schema_migrations").insert({**row, "applied_at": self._now})
        for number, statement in enumerate(statements(migration.sql), 1):
            self._execute(migration, number, statement)
        # Foreign keys are off, so that a rebuilt table takes no rows with it; what they protect is checked here.
        orphan = self._connection.execute("PRAGMA foreign_key_check").fetchone()
        if orphan is not None:
            raise MigrationError(
                f"{self._database}: migration {migration.name} failed: "
                f"a row of {orphan[0]} refers to a row of {orphan[2]} that does not exist"
            )

    def _execute(self, migration: Migration, number: int, statement: str) -> None:
        self._connection.set_authorizer(_authorize)
        try:
            self._connection.execute(statement)
        except sqlite3.Error as error:
            raise MigrationError(
                f"{self._database}: migration {migration.name} failed at statement {number} "
                f"({first_line(statement)}): {sqlite_file.reason(error)}"
            ) from error
        finally:
            self._connection.set_authorizer(None)


def _authorize(action: int, *_: str | None) -> int:
    return sqlite3.SQLITE_DENY if action in _FORBIDDEN else sqlite3.SQLITE_OK


def _ledger(connection: sqlite3.Connection) -> tuple[Recorded, list[str]]:
    """Return the ledger and the names of all other tables."""
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    others = [name for name in names if name != "schema_migrations" and not name.startswith("sqlite_")]
    if "schema_migrations" not in names:
        return [], others
    rows = connection.execute("SELECT version, name, sha256 FROM schema_migrations ORDER BY version")
    return rows.fetchall(), others


def _look(database: Path) -> tuple[Recorded, list[str]]:
    """Read the ledger without touching the file: an ordinary connection would fold the WAL into it when closed."""
    if not database.exists():
        return [], []
    try:
        with closing(sqlite_file.connect(database, "ro")) as connection:
            return _ledger(connection)
    except sqlite3.OperationalError as error:
        if sqlite_file.result_code(error) != sqlite3.SQLITE_READONLY:
            raise
    # A crash left a rollback journal; nobody can read the file before someone who may write has undone it.
    with closing(sqlite_file.connect(database, "rw")) as connection:
        return _ledger(connection)


@contextmanager
def _in_one_line(database: Path) -> Iterator[None]:
    """Turn what SQLite and the operating system raise into one line."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise MigrationError(f"{database}: {sqlite_file.reason(error)}") from error

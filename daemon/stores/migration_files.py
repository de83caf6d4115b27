"""The numbered files of `migrations/`: read, held against a database's record of them, taken apart into statements."""

import hashlib
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


class MigrationError(Exception):
    """Why a database cannot be used by this program: one line that names the file."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


class Migration(msgspec.Struct, frozen=True):
    """One file, its line ends normalised to LF, with the SHA-256 of that text."""

    version: int
    name: str
    sql: str
    sha256: str


Recorded = Sequence[tuple[int, str, str]]
"""The ledger's rows as version, name and SHA-256, in order."""


class Migrated(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did.

    Args:
        from_version, to_version: of the schema; 0 is an empty database.
        applied: names of the files that this run applied, in order.
        backup: the copy of the database as it was; None where it had no rows or nothing was applied.
    """

    from_version: int
    to_version: int
    applied: tuple[str, ...]
    backup: Path | None


def data_file(name: str) -> Path:
    """Return where a file or directory that is delivered beside the package lies.

    A wheel carries them in `daemon/_data`, a checkout at its top.

    Args:
        name: `migrations`, `schema.sql`, `config.example.toml` or `CHANGELOG.md`.
    """
    package = Path(__file__).parents[1]
    delivered = package / "_data"
    return (delivered if delivered.is_dir() else package.parent) / name


def load(directory: Path) -> list[Migration]:
    """Return the migrations of a directory in order.

    Raises:
        MigrationError: a file is unreadable or badly named, or the numbers do not run from 1 without a gap.
    """
    try:
        found = [_read(path) for path in sorted(directory.iterdir()) if path.suffix == ".sql"]
    except (OSError, UnicodeDecodeError) as error:
        raise MigrationError(f"{directory}: the migrations cannot be read: {error}") from error
    if not found:
        raise MigrationError(f"{directory}: there are no migrations; install the program again")
    for number, migration in enumerate(found, 1):
        if migration.version != number:
            raise MigrationError(f"{directory}: {migration.name} stands where number {number:04d} is due")
    return found


def _read(path: Path) -> Migration:
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise MigrationError(f"{path}: a migration is named NNNN_name.sql")
    sql = path.read_bytes().decode().replace("\r\n", "\n")
    if "\0" in sql:
        raise MigrationError(f"{path}: is damaged (it holds NUL characters); install the program again")
    return Migration(int(match[1]), path.name, sql, hashlib.sha256(sql.encode()).hexdigest())


def verify(database: str, known: list[Migration], recorded: Recorded, tables: list[str]) -> int:
    """Return the version of a database if this program may work with it.

    Args:
        database: its name in messages.
        known: the program's migrations.
        recorded: the database's ledger.
        tables: its other tables.

    Raises:
        MigrationError: it is newer, was made from other files or by another program.
    """
    if not recorded:
        if tables:
            raise MigrationError(
                f"{database}: has tables ({', '.join(sorted(tables)[:3])}) but no record of migrations; "
                "it was not made by this program, move it away"
            )
        return 0
    newest = recorded[-1][0]
    if newest > len(known):
        raise MigrationError(
            f"{database}: its schema has version {newest}, this program knows {len(known)}; install a newer version"
        )
    for migration, (version, name, sha256) in zip(known, recorded, strict=False):
        if version != migration.version:
            raise MigrationError(
                f"{database}: its record of migrations has {version} where {migration.version} is due; restore a backup"
            )
        if (name, sha256) != (migration.name, migration.sha256):
            raise MigrationError(
                f"{database}: migration {name} was applied with a text other than that of {migration.name} "
                "in this program; install the version that made it"
            )
    return len(recorded)


def statements(sql: str) -> Iterator[str]:
    """Split at those semicolons that end a statement; only SQLite knows them in comments, strings and triggers."""
    start = 0
    for position, character in enumerate(sql):
        if character == ";" and sqlite3.complete_statement(sql[start : position + 1]):
            yield sql[start : position + 1].strip()
            start = position + 1
    if first_line(sql[start:]):
        yield sql[start:].strip()


def first_line(statement: str) -> str:
    """Return the first line that is neither blank nor a comment; empty where there is none."""
    lines = (line.strip() for line in statement.splitlines())
    return next((line for line in lines if line and not line.startswith("--")), "")

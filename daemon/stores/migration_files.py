"""Read the numbered files of `migrations/` and take them apart into statements."""

import hashlib
import re
import sqlite3
from collections.abc import Iterator
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

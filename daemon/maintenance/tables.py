"""The database's tables as an owner may see them: read only, and without what is secret."""

import base64
import csv
import io
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec
from sqlite_utils import Database

MASK = "***"
SECRET_COLUMNS = frozenset({"token_hash", "previous_token_hash", "retry_answer", "key_hash", "credential_hash"})
"""Hidden in every table."""
SECRET_IN_TABLE = frozenset({("notification_channels", "config")})
SHOWN_KEYS = frozenset({"daily_summary", "kill_switch", "write_probe"})
"""Keys of the key-value store whose value is no secret: a new one is hidden until it stands here."""

Format = Literal["csv", "json"]
Row = dict[str, Any]


def statements(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield the statements that make the schema, tables first."""
    order = "CASE type WHEN 'table' THEN 0 WHEN 'index' THEN 1 ELSE 2 END, name"
    for (sql,) in connection.execute(f"SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY {order}"):  # noqa: S608 (static text)
        yield f"{sql};"


def names(connection: sqlite3.Connection) -> list[str]:
    """Return the names of the tables."""
    return sorted(Database(connection, execute_plugins=False).table_names())


def export(connection: sqlite3.Connection, table: str, kind: Format, write: Callable[[str], object]) -> None:
    """Write the rows of a table one by one, secrets masked and bytes as Base64.

    Args:
        connection: of the database.
        table: one of `names`.
        kind: `csv` with a header, or `json`, one array.
        write: gets the text piece by piece.
    """
    found = Database(connection, execute_plugins=False).table(table)
    rows = (_masked(table, row) for row in found.rows)
    if kind == "csv":
        _write_csv([column.name for column in found.columns], rows, write)
    else:
        _write_json(rows, write)


def _masked(table: str, row: Row) -> Row:
    return {column: _shown(value) if not _is_secret(table, column, row) else MASK for column, value in row.items()}


def _is_secret(table: str, column: str, row: Row) -> bool:
    if row[column] is None:  # that there is none is no secret
        return False
    if table == "key_value_store" and column == "value":
        return row["key"] not in SHOWN_KEYS
    return column in SECRET_COLUMNS or (table, column) in SECRET_IN_TABLE


def _shown(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _write_csv(columns: list[str], rows: Iterator[Row], write: Callable[[str], object]) -> None:
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(row[column] for column in columns)
        write(line.getvalue())
        line.seek(0)
        line.truncate()
    write(line.getvalue())


def _write_json(rows: Iterator[Row], write: Callable[[str], object]) -> None:
    separator = "["
    for row in rows:
        write(f"{separator}{msgspec.json.encode(row).decode()}")
        separator = ",\n "
    write("[]\n" if separator == "[" else "]\n")

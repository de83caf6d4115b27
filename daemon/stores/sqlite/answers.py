"""SQL of answers: single-use tokens by their hashes."""

import sqlite3
from collections.abc import Iterable

import msgspec

from daemon.domain.rows import Answer

_FIELDS = Answer.__struct_fields__
_COLUMNS = ", ".join(_FIELDS)

# One answer by its token.
_GET = f"SELECT {_COLUMNS} FROM answers WHERE token_hash = ?"  # noqa: S608

# A new answer.
_INSERT = f"INSERT INTO answers ({_COLUMNS}) VALUES ({', '.join('?' * len(_FIELDS))})"  # noqa: S608


def get(raw: sqlite3.Connection, token_hash: str) -> Answer | None:
    """Return an answer."""
    row = raw.execute(_GET, (token_hash,)).fetchone()
    return Answer(*row) if row else None


def insert(raw: sqlite3.Connection, answers: Iterable[Answer]) -> None:
    """Add answers."""
    raw.executemany(_INSERT, map(msgspec.structs.astuple, answers))


def use(raw: sqlite3.Connection, answer: Answer) -> None:
    """Note that an answer was used, and for what."""
    sql = "UPDATE answers SET used_at = ?, used_action = ? WHERE token_hash = ?"
    raw.execute(sql, (answer.used_at, answer.used_action, answer.token_hash))


def end_of_session(raw: sqlite3.Connection, session_id: str, now: int) -> None:
    """End every unused answer of a session."""
    raw.execute("UPDATE answers SET used_at = ? WHERE session_id = ? AND used_at IS NULL", (now, session_id))


def purge(raw: sqlite3.Connection, before: int) -> None:
    """Delete answers that ended before (Unix seconds)."""
    raw.execute("DELETE FROM answers WHERE expires_at < ?", (before,))

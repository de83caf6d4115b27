"""SQL of supervised processes and of their turns."""

import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from daemon.domain.process_rows import Place, Process, Supervised, Turn
from daemon.domain.rows import Session
from daemon.stores.sqlite import sessions

_FIELDS = Process.__struct_fields__
_COLUMNS = ", ".join(_FIELDS)
_RESUMABLE = _FIELDS.index("resumable")
_TURN_FIELDS = Turn.__struct_fields__
_TURN_COLUMNS = ", ".join(_TURN_FIELDS)

# One process.
_GET = f"SELECT {_COLUMNS} FROM processes WHERE session_id = ?"  # noqa: S608

# A new process.
_INSERT = f"INSERT INTO processes ({_COLUMNS}) VALUES ({', '.join('?' * len(_FIELDS))})"  # noqa: S608

# The turns of a session that are not over, the oldest first.
_TURNS = f"SELECT {_TURN_COLUMNS} FROM turns WHERE session_id = ? AND state IN ('QUEUED', 'RUNNING') ORDER BY turn"  # noqa: S608

# A turn, new or as it is now.
_PUT_TURN = f"INSERT OR REPLACE INTO turns ({_TURN_COLUMNS}) VALUES ({', '.join('?' * len(_TURN_FIELDS))})"  # noqa: S608

# Processes that take a place: those that run and are to go on, and those that are about to run.
_POOL = (
    "SELECT p.session_id, s.agent_id, s.state, coalesce(s.state_changed_at, s.created_at), p.config"
    " FROM processes p JOIN sessions s ON s.id = p.session_id WHERE p.home = ? AND p.rest IS NULL"
    " AND s.created_by = 'process' AND s.state <> 'CLOSED'"  # as the index has it
    " AND (p.pid IS NOT NULL OR p.restart_at IS NOT NULL OR s.state NOT IN ('SUSPENDED', 'CLOSING', 'ERROR'))"
)

# Let a process make room for another.
_REST = "UPDATE processes SET rest = 'pool' WHERE session_id = ? AND rest IS NULL"

# Every session with a process whose end is not known yet.
_UNDER_WAY = (
    f"SELECT {', '.join(f's.{name}' for name in sessions.FIELDS)}, {', '.join(f'p.{name}' for name in _FIELDS)}"  # noqa: S608
    " FROM processes p JOIN sessions s ON s.id = p.session_id WHERE p.home = ?"
    " AND s.created_by = 'process' AND s.state <> 'CLOSED' ORDER BY s.id"
)


def to_process(row: Sequence[Any]) -> Process:
    """Map a row whose columns are those of the table."""
    values = list(row)
    values[_RESUMABLE] = bool(values[_RESUMABLE])
    return Process(*values)


def get(raw: sqlite3.Connection, session_id: str) -> Process | None:
    """Return a session's process."""
    row = raw.execute(_GET, (session_id,)).fetchone()
    return to_process(row) if row else None


def turns(raw: sqlite3.Connection, session_id: str) -> list[Turn]:
    """Return a session's turns that are not over, the oldest first."""
    return [Turn(*row) for row in raw.execute(_TURNS, (session_id,))]


def supervised(raw: sqlite3.Connection, session_id: str) -> Supervised | None:
    """Return a session with its agent, its process and its turns that are not over."""
    raw.execute("BEGIN")  # one moment: else a turn might be over of which the session does not know yet
    try:
        found, process = sessions.with_agent(raw, session_id), get(raw, session_id)
        if found is None or process is None:
            return None
        return Supervised(*found, process, turns(raw, session_id))
    finally:
        raw.rollback()


def under_way(raw: sqlite3.Connection, home: str) -> list[tuple[Session, Process]]:
    """Return every session with a process of this home whose end is not known yet."""
    count = len(sessions.FIELDS)
    return [(sessions.to_session(row[:count]), to_process(row[count:])) for row in raw.execute(_UNDER_WAY, (home,))]


def pool(raw: sqlite3.Connection, home: str) -> list[Place]:
    """Return the processes of this home that take a place."""
    return [Place(*row) for row in raw.execute(_POOL, (home,))]


def insert(raw: sqlite3.Connection, process: Process) -> None:
    """Add a process."""
    raw.execute(_INSERT, msgspec.structs.astuple(process))


def update(raw: sqlite3.Connection, before: Process, after: Process) -> None:
    """Store what changed of a process."""
    changed = tuple(name for name in _FIELDS if getattr(before, name) != getattr(after, name))
    if changed:
        raw.execute(_update_sql(changed), (*(getattr(after, name) for name in changed), after.session_id))


@lru_cache(maxsize=256)
def _update_sql(columns: tuple[str, ...]) -> str:
    """Return the statement that sets these columns of one process."""
    return f"UPDATE processes SET {', '.join(f'{name} = ?' for name in columns)} WHERE session_id = ?"  # noqa: S608


def rest(raw: sqlite3.Connection, session_id: str) -> None:
    """Let a process make room for another."""
    raw.execute(_REST, (session_id,))


def put_turns(raw: sqlite3.Connection, rows: Iterable[Turn]) -> None:
    """Store turns, new or as they are now."""
    raw.executemany(_PUT_TURN, map(msgspec.structs.astuple, rows))

"""SQL of the audit log: appended in hash-chain order, never changed."""

import sqlite3
from collections.abc import Generator, Sequence
from itertools import chain
from typing import Any

from daemon.domain.chain import GENESIS, Row
from daemon.domain.events import Event
from daemon.domain.filters import EventFilter
from daemon.domain.views import ChainHead
from daemon.stores.chain import to_event

_COLUMNS = "id, timestamp, event_type, actor, agent_id, session_id, severity, details, request_id, ip_address"

_ROWS_AT_ONCE = 64

# Append events, as many at once as there are: each statement gives up the interpreter's lock and waits for it again.
_INSERT = f"INSERT INTO audit_log ({_COLUMNS}, prev_hash, hash) VALUES "  # noqa: S608
_ONE_ROW = "(?,?,?,?,?,?,?,?,?,?,?,?)"

# The newest event.
_HEAD = "SELECT id, hash FROM audit_log ORDER BY id DESC LIMIT 1"

# Raw rows for verification.
_AFTER = f"SELECT {_COLUMNS}, prev_hash, hash FROM audit_log WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608

# All of them.
_ALL = f"SELECT {_COLUMNS}, prev_hash, hash FROM audit_log ORDER BY id"  # noqa: S608

# The guard against deleting, to be made again after an archive took what is old: the text of schema.sql.
_DELETE_TRIGGER = """CREATE TRIGGER audit_log_refuses_delete BEFORE DELETE ON audit_log
BEGIN
  SELECT RAISE(ABORT, 'audit_log is append-only: events are never deleted');
END"""


_INCIDENT_TYPES = "event_type IN ('TOKEN_REUSED', 'CONSTRAINT_VIOLATED', 'AUTO_STOP_TRIGGERED')"

# Minutes with an incident since the last auto-stop; the first condition is the partial index's own.
_INCIDENTS = (
    f"SELECT DISTINCT timestamp / 60 FROM audit_log WHERE {_INCIDENT_TYPES}"  # noqa: S608
    " AND agent_id = :agent AND timestamp > :since"
    " AND (event_type = 'TOKEN_REUSED' OR json_extract(details, '$.constraint') = 'allowedOperations')"
    " AND id > coalesce((SELECT max(id) FROM audit_log WHERE event_type = 'AUTO_STOP_TRIGGERED'"
    f" AND {_INCIDENT_TYPES} AND agent_id = :agent AND timestamp > :since), 0)"
)


def append(raw: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Insert events."""
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[start : start + _ROWS_AT_ONCE]
        raw.execute(_INSERT + ",".join([_ONE_ROW] * len(some)), tuple(chain.from_iterable(some)))


def head(raw: sqlite3.Connection) -> ChainHead:
    """Return the newest event's sequence number and hash."""
    row = raw.execute(_HEAD).fetchone()
    return ChainHead(seq=row[0], hash=row[1]) if row else ChainHead(seq=0, hash=GENESIS)


def newest_timestamp(raw: sqlite3.Connection) -> int:
    """Return the newest event's time, 0 if there is none."""
    row = raw.execute("SELECT timestamp FROM audit_log ORDER BY id DESC LIMIT 1").fetchone()
    return row[0] if row else 0


def incident_minutes(raw: sqlite3.Connection, agent_id: str, now: int) -> frozenset[int]:
    """Return the minutes of the last hour with an incident of the agent that no auto-stop has answered yet."""
    values = {"agent": agent_id, "since": now - 3600}
    return frozenset(row[0] for row in raw.execute(_INCIDENTS, values))


def count(raw: sqlite3.Connection, after: int, through: int, since: int) -> dict[str, int]:
    """Return how many events there are of each type and of each severity."""
    found: dict[str, int] = {}
    for column in ("event_type", "severity"):
        sql = (
            f"SELECT {column}, count(*) FROM audit_log WHERE id > ? AND id <= ? AND timestamp >= ?"  # noqa: S608
            f" GROUP BY {column}"
        )
        found.update(raw.execute(sql, (after, through, since)).fetchall())
    return found


def rows_after(raw: sqlite3.Connection, after: int, limit: int) -> list[Sequence[Any]]:
    """Return raw rows in order."""
    return raw.execute(_AFTER, (after, limit)).fetchall()


def all_rows(raw: sqlite3.Connection) -> Generator[Row, None, None]:
    """Yield every raw row in order; who does not read them all closes it before the connection."""
    yield from raw.execute(_ALL)


def remove_through(raw: sqlite3.Connection, seq: int) -> None:
    """Remove the events up to `seq`; the caller's transaction records where they went."""
    raw.execute("DROP TRIGGER IF EXISTS audit_log_refuses_delete")
    raw.execute("DELETE FROM audit_log WHERE id <= ?", (seq,))
    raw.execute(_DELETE_TRIGGER)


def find(raw: sqlite3.Connection, which: EventFilter, limit: int) -> list[Event]:
    """Return events that match every filter that is set, oldest or newest first."""
    filters = {
        "event_type": which.type,
        "agent_id": which.agent_id,
        "session_id": which.session_id,
        "severity": which.severity,
    }
    chosen = {column: value for column, value in filters.items() if value is not None}
    conditions = "".join(f" AND {column} = ?" for column in chosen)
    order = "id DESC" if which.newest_first else "id"
    where = f"WHERE id > ?{conditions} ORDER BY {order} LIMIT ?"
    sql = f"SELECT {_COLUMNS}, prev_hash, hash FROM audit_log {where}"  # noqa: S608
    return [to_event(row) for row in raw.execute(sql, (which.after, *chosen.values(), limit))]

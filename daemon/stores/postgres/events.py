"""SQL of the audit log: appended in hash-chain order under the lock of its head, never changed."""

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from daemon.domain.chain import Row
from daemon.domain.events import Event
from daemon.domain.filters import EventFilter
from daemon.domain.views import ChainHead
from daemon.stores.chain import to_event
from daemon.stores.postgres.connection import Connection

_NAMES = (
    "id", "timestamp", "event_type", "actor", "agent_id", "session_id", "severity", "details", "request_id",
    "ip_address", "prev_hash", "hash",
)  # fmt: skip
_COLUMNS = ", ".join(_NAMES)

BULK = 500
"""From so many events on, one stream of rows costs less than a statement each."""

# Append events.
_INSERT = f"INSERT INTO audit_log ({_COLUMNS}) VALUES ({', '.join(f'${n}' for n in range(1, len(_NAMES) + 1))})"  # noqa: S608

# The newest event; locked, so that nobody else appends until the commit.
_HEAD = "SELECT id, hash FROM audit_head"
_LOCK_HEAD = f"{_HEAD} FOR UPDATE"
_MOVE_HEAD = "UPDATE audit_head SET id = $1, hash = $2"

# Raw rows for verification.
_AFTER = f"SELECT {_COLUMNS} FROM audit_log WHERE id > $1 ORDER BY id LIMIT $2"  # noqa: S608

# All of them.
_ALL = f"SELECT {_COLUMNS} FROM audit_log ORDER BY id"  # noqa: S608

_INCIDENT_TYPES = "event_type IN ('TOKEN_REUSED', 'CONSTRAINT_VIOLATED', 'AUTO_STOP_TRIGGERED')"

# Minutes with an incident since the last auto-stop; the first condition is the partial index's own.
_INCIDENTS = (
    f"SELECT DISTINCT timestamp FROM audit_log WHERE {_INCIDENT_TYPES} AND agent_id = $1 AND timestamp > $2"  # noqa: S608
    " AND (event_type = 'TOKEN_REUSED' OR details::json ->> 'constraint' = 'allowedOperations')"
    " AND id > coalesce((SELECT max(id) FROM audit_log WHERE event_type = 'AUTO_STOP_TRIGGERED'"
    f" AND {_INCIDENT_TYPES} AND agent_id = $1 AND timestamp > $2), 0)"
)


async def head(raw: Connection) -> ChainHead:
    """Return the newest event's sequence number and hash."""
    row = await raw.fetchrow(_HEAD)
    return ChainHead(seq=row[0], hash=row[1])


async def lock_head(raw: Connection) -> ChainHead:
    """Return the newest event's sequence number and hash; nobody else appends until the commit."""
    row = await raw.fetchrow(_LOCK_HEAD)
    return ChainHead(seq=row[0], hash=row[1])


async def append(raw: Connection, rows: Collection[Row], newest: ChainHead) -> None:
    """Insert events, the newest of which is the head from now on."""
    if len(rows) < BULK:
        await raw.executemany(_INSERT, rows)
    else:
        await raw.copy_records_to_table("audit_log", records=rows, columns=_NAMES)
    await raw.execute(_MOVE_HEAD, newest.seq, newest.hash)


async def incident_minutes(raw: Connection, agent_id: str, now: int) -> frozenset[int]:
    """Return the minutes of the last hour with an incident of the agent that no auto-stop has answered yet."""
    return frozenset(row[0] // 60 for row in await raw.fetch(_INCIDENTS, agent_id, now - 3600))


async def count(raw: Connection, after: int, through: int, since: int) -> dict[str, int]:
    """Return how many events there are of each type and of each severity."""
    found: dict[str, int] = {}
    for column in ("event_type", "severity"):
        sql = (
            f"SELECT {column}, count(*) FROM audit_log WHERE id > $1 AND id <= $2 AND timestamp >= $3"  # noqa: S608
            f" GROUP BY {column}"
        )
        found.update(await raw.fetch(sql, after, through, since))
    return found


async def rows_after(raw: Connection, after: int, limit: int) -> list[Sequence[Any]]:
    """Return raw rows in order."""
    return [tuple(row) for row in await raw.fetch(_AFTER, after, limit)]


async def all_rows(raw: Connection) -> AsyncIterator[Row]:
    """Yield every raw row in order."""
    async with raw.transaction(isolation="repeatable_read", readonly=True):
        async for row in raw.cursor(_ALL, prefetch=1000):
            yield tuple(row)


async def remove_through(raw: Connection, seq: int) -> int:
    """Remove the events up to `seq` and return how many; the caller's transaction records where they went."""
    await raw.execute("ALTER TABLE audit_log DISABLE TRIGGER audit_log_refuses_delete")
    removed: str = await raw.execute("DELETE FROM audit_log WHERE id <= $1", seq)
    await raw.execute("ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_refuses_delete")
    return int(removed.rpartition(" ")[2])


async def find(raw: Connection, which: EventFilter, limit: int) -> list[Event]:
    """Return events that match every filter that is set, oldest first unless the newest are asked for."""
    filters = {
        "event_type": which.type,
        "agent_id": which.agent_id,
        "session_id": which.session_id,
        "severity": which.severity,
    }
    values: list[Any] = [which.after, limit]
    conditions = ["id > $1"]
    for column, value in filters.items():
        if value is not None:
            values.append(value)
            conditions.append(f"{column} = ${len(values)}")
    order = "id DESC" if which.newest_first else "id"
    sql = f"SELECT {_COLUMNS} FROM audit_log WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT $2"  # noqa: S608
    return [to_event(row) for row in await raw.fetch(sql, *values)]

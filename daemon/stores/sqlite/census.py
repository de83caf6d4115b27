"""SQL that counts rows of all kinds."""

import sqlite3

from daemon.domain.census import Census
from daemon.stores.sqlite.sessions import ACTIVE

# Every session that is kept: a look at each of them, some 80 ms for 100,000.
_SESSIONS = (
    f"SELECT state, CASE WHEN revoked_at IS NOT NULL THEN 'REVOKED' WHEN {ACTIVE} THEN 'ACTIVE' ELSE 'EXPIRED' END,"  # noqa: S608
    " count(*) FROM sessions GROUP BY 1, 2"
)

# Agents, from an index alone.
_AGENTS = "SELECT status, count(*) FROM agents GROUP BY status"

# Messages that wait.
_OUTBOX = (
    "SELECT count(*), coalesce(sum(attempts > 0), 0), coalesce(max(0, :now - min(created_at)), 0)"
    " FROM notification_outbox WHERE done_at IS NULL"
)


def take(raw: sqlite3.Connection, now: int) -> Census:
    """Count every row that is counted."""
    pending, failed, oldest = raw.execute(_OUTBOX, {"now": now}).fetchone()
    return Census(
        sessions={(state, status): count for state, status, count in raw.execute(_SESSIONS, {"now": now})},
        agents=dict(raw.execute(_AGENTS)),
        pending=pending,
        failed=failed,
        oldest=oldest,
    )

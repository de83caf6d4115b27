"""SQL that counts rows of all kinds."""

from daemon.domain.census import Census
from daemon.stores.postgres.connection import Connection
from daemon.stores.postgres.sessions import ACTIVE

# Every session that is kept.
_SESSIONS = (
    f"SELECT state, CASE WHEN revoked_at IS NOT NULL THEN 'REVOKED' WHEN {ACTIVE.format(now='$1')} THEN 'ACTIVE'"  # noqa: S608
    " ELSE 'EXPIRED' END, count(*) FROM sessions GROUP BY 1, 2"
)

# Agents.
_AGENTS = "SELECT status, count(*) FROM agents GROUP BY status"

# Messages that wait.
_OUTBOX = (
    "SELECT count(*), count(*) FILTER (WHERE attempts > 0), min(created_at)"
    " FROM notification_outbox WHERE done_at IS NULL"
)


async def take(raw: Connection, now: int) -> Census:
    """Count every row that is counted."""
    pending, failed, since = await raw.fetchrow(_OUTBOX)
    return Census(
        sessions={(state, status): count for state, status, count in await raw.fetch(_SESSIONS, now)},
        agents=dict(await raw.fetch(_AGENTS)),
        pending=pending,
        failed=failed,
        oldest=0 if since is None else max(0, now - since),
    )

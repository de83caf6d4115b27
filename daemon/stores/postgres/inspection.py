"""Looks at a PostgreSQL database that no store has opened."""

import asyncpg

from daemon.stores.postgres.migrate import LOOK_SECONDS, connected, in_one_line
from daemon.stores.postgres.server_clock import offset


async def times(url: str) -> tuple[float, int]:
    """Return by how many seconds the server's clock is ahead of this machine's, and the newest event's time.

    Args:
        url: of a migrated database.

    Returns:
        The time in Unix seconds; 0 if there is no event.

    Raises:
        MigrationError: it cannot be asked.
    """
    with in_one_line(url):
        async with connected(url) as connection:
            ahead = await offset(connection)
            found = await connection.fetchval(
                "SELECT timestamp FROM audit_log ORDER BY id DESC LIMIT 1", timeout=LOOK_SECONDS
            )
    return ahead, int(found or 0)


async def has_password(url: str) -> bool:
    """Return whether a database has a master password; one without tables has none.

    Raises:
        MigrationError: it cannot be asked.
    """
    with in_one_line(url):
        async with connected(url) as connection:
            try:
                found = await connection.fetchval(
                    "SELECT 1 FROM key_value_store WHERE key = 'master_password'", timeout=LOOK_SECONDS
                )
            except asyncpg.UndefinedTableError:
                return False
    return found is not None

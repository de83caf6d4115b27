"""What the doctor asks of a PostgreSQL server; every statement only reads."""

import time
from collections.abc import Collection

import msgspec

from daemon.domain.chain import ChainWalk
from daemon.domain.views import Verification
from daemon.stores.postgres import copying, events
from daemon.stores.postgres.connection import Connection
from daemon.stores.tables import TABLES

BATCH = 5_000
"""Events that are read at a time."""
_TRIES = 3

_EVERYTHING = ("SELECT", "INSERT", "UPDATE", "DELETE")
_NEEDED = {table.name: _EVERYTHING for table in TABLES} | {
    "schema_migrations": ("SELECT",),
    "audit_head": ("SELECT", "UPDATE"),
    "audit_log": ("SELECT", "INSERT"),
    "key_value_store": ("SELECT", "INSERT", "UPDATE"),
}
"""What a running daemon does with each table."""

_SERVER = (
    "SELECT current_setting('server_version'), current_setting('server_encoding'),"
    " current_setting('transaction_read_only') = 'on'"
)

# Rights that the user lacks, of those that are asked for.
_LACKING = (
    "SELECT privilege || ' on ' || name FROM unnest($1::text[], $2::text[]) AS needed (name, privilege)"
    " WHERE NOT has_table_privilege(quote_ident(current_schema()) || '.' || quote_ident(name), privilege)"
)

# Tables that the user may not alter, which migrations and the archive do.
_FOREIGN = (
    "SELECT relname::text FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(current_schema()))"
    " AND relname = ANY($1::text[]) AND NOT pg_has_role(relowner, 'USAGE') ORDER BY relname"
)

# The least that each limit leaves; those for superusers are nobody else's.
_FREE = """
SELECT least(
  current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
    - (SELECT sum(numbackends) FROM pg_stat_database),
  (SELECT CASE WHEN datconnlimit >= 0 THEN datconnlimit - numbackends END
     FROM pg_database JOIN pg_stat_database USING (datname) WHERE datname = current_database()),
  (SELECT CASE WHEN rolconnlimit >= 0 THEN rolconnlimit END FROM pg_roles WHERE rolname = current_user)
    - (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user)
)::int"""

_HASHES = "SELECT id, hash FROM audit_log WHERE id = ANY($1::bigint[])"
_NEWEST = "SELECT timestamp FROM audit_log ORDER BY id DESC LIMIT 1"
_NOW = "SELECT clock_timestamp()"


class Server(msgspec.Struct, frozen=True):
    """What a server says of itself and of the database.

    Args:
        version: its text.
        major: its first number.
        encoding: of the database.
        read_only: whether nothing can be written there.
    """

    version: str
    major: int
    encoding: str
    read_only: bool


async def server(raw: Connection) -> Server:
    """Return what the server says of itself and of the database."""
    version, encoding, read_only = await raw.fetchrow(_SERVER)
    return Server(version.partition(" ")[0], raw.get_server_version().major, encoding, read_only)


async def latency(raw: Connection) -> float:
    """Return how long a question takes, in seconds: the fastest of a few."""
    took = []
    for _ in range(_TRIES):
        asked = time.monotonic()
        await raw.execute("SELECT 1")
        took.append(time.monotonic() - asked)
    return min(took)


async def lacking(raw: Connection) -> list[str]:
    """Return the rights that a running daemon needs and the user lacks, in words."""
    asked = [(name, privilege) for name, privileges in sorted(_NEEDED.items()) for privilege in privileges]
    names, privileges = zip(*asked, strict=True)
    return [str(row[0]) for row in await raw.fetch(_LACKING, list(names), list(privileges))]


async def foreign_tables(raw: Connection) -> list[str]:
    """Return the tables of this program that the user may not alter."""
    return [str(row[0]) for row in await raw.fetch(_FOREIGN, list(_NEEDED))]


async def free_connections(raw: Connection) -> int:
    """Return how many more connections the user may open to the database, as far as the server counts."""
    return int(await raw.fetchval(_FREE))


async def verify_chain(raw: Connection) -> Verification:
    """Recompute the hash chain of the audit log at one moment, and hold it against the head that is kept beside it."""
    walk, after = ChainWalk(), -1
    async with raw.transaction(isolation="repeatable_read", readonly=True):
        head = await copying.head(raw)
        while rows := await events.rows_after(raw, after, BATCH):
            if not all(walk.take(row) for row in rows):
                break
            after = rows[-1][0]
    return walk.verdict(head)


async def hashes(raw: Connection, seqs: Collection[int]) -> dict[int, str]:
    """Return the hashes of those of the events that there are."""
    return dict(await raw.fetch(_HASHES, list(seqs)))


async def ahead(raw: Connection) -> int:
    """Return by how many seconds the newest event is ahead of the server's clock; negative or 0 where it is not."""
    newest, now = await raw.fetchval(_NEWEST), await raw.fetchval(_NOW)
    return int(newest or 0) - int(now)

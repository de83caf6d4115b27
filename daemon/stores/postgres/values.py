"""SQL of the key-value store and of idempotency keys."""

from collections.abc import Collection, Iterable

from daemon.stores.postgres.connection import Connection

# One value, and several.
_GET = "SELECT value FROM key_value_store WHERE key = $1"
_SEVERAL = "SELECT key, value FROM key_value_store WHERE key = ANY($1::text[])"

# Set a value.
_SET = (
    "INSERT INTO key_value_store (key, value, updated_at) VALUES ($1, $2, $3)"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at"
)

# The sessions that were created under idempotency keys.
_OF_KEYS = "SELECT key_hash, session_id FROM idempotency_keys WHERE key_hash = ANY($1::text[]) AND created_at > $2"

# A session was created under a key; one that is too old to count gives way.
_REMEMBER = (
    "INSERT INTO idempotency_keys (key_hash, session_id, created_at) VALUES ($1, $2, $3)"
    " ON CONFLICT (key_hash) DO UPDATE SET session_id = excluded.session_id, created_at = excluded.created_at"
)

# Idempotency keys that are too old to count.
_PURGE = "WITH gone AS (DELETE FROM idempotency_keys WHERE created_at < $1 RETURNING 1) SELECT count(*) FROM gone"


async def get(raw: Connection, key: str) -> str | None:
    """Return a value."""
    value: str | None = await raw.fetchval(_GET, key)
    return value


async def several(raw: Connection, keys: Collection[str]) -> dict[str, str]:
    """Return those of the values that there are."""
    return dict(await raw.fetch(_SEVERAL, list(keys)))


async def put(raw: Connection, values: Iterable[tuple[str, str]], now: int) -> None:
    """Set values."""
    await raw.executemany(_SET, [(key, value, now) for key, value in sorted(values)])


async def sessions_of_keys(raw: Connection, hashes: Collection[str], after: int) -> dict[str, str]:
    """Return the sessions that were created under idempotency keys after (Unix seconds), by the keys' hashes."""
    return dict(await raw.fetch(_OF_KEYS, list(hashes), after))


async def remember_keys(raw: Connection, made: Iterable[tuple[str, str]], now: int) -> None:
    """Record (key's hash, id of the session that was created under it), in place of one that is too old to count."""
    await raw.executemany(_REMEMBER, [(key, session_id, now) for key, session_id in sorted(made)])


async def purge_keys(raw: Connection, before: int) -> int:
    """Delete idempotency keys older than (Unix seconds); return how many."""
    return int(await raw.fetchval(_PURGE, before))

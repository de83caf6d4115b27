"""SQL of the key-value store and of idempotency keys."""

import sqlite3

# Set a value.
_SET = (
    "INSERT INTO key_value_store (key, value, updated_at) VALUES (?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at"
)


def get(raw: sqlite3.Connection, key: str) -> str | None:
    """Return a value."""
    row = raw.execute("SELECT value FROM key_value_store WHERE key = ?", (key,)).fetchone()
    return str(row[0]) if row else None


def put(raw: sqlite3.Connection, key: str, value: str, now: int) -> None:
    """Set a value."""
    raw.execute(_SET, (key, value, now))


def session_of_key(raw: sqlite3.Connection, key_hash: str, after: int) -> str | None:
    """Return the session that was created under an idempotency key after (Unix seconds)."""
    sql = "SELECT session_id FROM idempotency_keys WHERE key_hash = ? AND created_at > ?"
    row = raw.execute(sql, (key_hash, after)).fetchone()
    return str(row[0]) if row else None


def remember_key(raw: sqlite3.Connection, key_hash: str, session_id: str, now: int) -> None:
    """Record that a session was created under an idempotency key, in place of one that is too old to count."""
    raw.execute(
        "INSERT OR REPLACE INTO idempotency_keys (key_hash, session_id, created_at) VALUES (?, ?, ?)",
        (key_hash, session_id, now),
    )


def purge_keys(raw: sqlite3.Connection, before: int) -> int:
    """Delete idempotency keys older than (Unix seconds); return how many."""
    return raw.execute("DELETE FROM idempotency_keys WHERE created_at < ?", (before,)).rowcount

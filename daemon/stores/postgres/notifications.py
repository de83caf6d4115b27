"""SQL of channels, of the outbox and of the delivery log."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from daemon.domain.filters import AttemptFilter
from daemon.domain.pages import Page
from daemon.domain.rows import Attempt, Channel, Delivery, Settled
from daemon.domain.views import Backlog
from daemon.stores.postgres.connection import Connection

TAKEN_SECONDS = 10
"""How long a message is one daemon's to send; asking again renews it."""

_CHANNEL = Channel.__struct_fields__
_CHANNEL_COLUMNS = ", ".join(_CHANNEL)
_DELIVERY_COLUMNS = ", ".join(Delivery.__struct_fields__)
_ATTEMPT = Attempt.__struct_fields__
_ATTEMPT_COLUMNS = ", ".join(_ATTEMPT)

# Every channel, the one that is tried first at the top; locked where they are about to be changed.
_CHANNELS = f"SELECT {_CHANNEL_COLUMNS} FROM notification_channels ORDER BY priority DESC, created_at, id"  # noqa: S608
_LOCK_CHANNELS = f"{_CHANNELS} FOR NO KEY UPDATE"

# A new channel.
_INSERT_CHANNEL = (
    f"INSERT INTO notification_channels ({_CHANNEL_COLUMNS})"  # noqa: S608
    f" VALUES ({', '.join(f'${n}' for n in range(1, len(_CHANNEL) + 1))})"
)

# Everything about a channel that can change.
_UPDATE_CHANNEL = (
    "UPDATE notification_channels SET name = $1, config = $2, priority = $3, min_level = $4, events = $5,"
    " agents = $6, enabled = $7, updated_at = $8 WHERE id = $9"
)

# A message to be sent, unless its like was written a moment ago. Whoever writes messages holds the audit log's head,
# so that no daemon overlooks what another is about to commit.
_NEW = ", ".join(name for name in Delivery.__struct_fields__ if name != "id")
_ENQUEUE = (
    f"INSERT INTO notification_outbox ({_NEW}) SELECT $1, $2, $3, $4, $5, $6, $7, $8::text, $9, $10, $11"  # noqa: S608
    " WHERE NOT EXISTS (SELECT 1 FROM notification_outbox WHERE dedup_key = $8::text AND created_at > $12)"
)

# What is to be sent now, at most so many of each level, and from now on this daemon's to send: what another daemon
# took, or is settling at this moment, is left to it.
_TAKE = (
    "WITH due AS MATERIALIZED (SELECT one.id FROM unnest(ARRAY['CRITICAL', 'WARNING', 'INFO']) AS urgent (level),"  # noqa: S608
    " LATERAL (SELECT id FROM notification_outbox AS waiting"
    " WHERE done_at IS NULL AND waiting.level = urgent.level AND next_attempt_at <= $1"
    " AND (taken_by IS NULL OR taken_by = $2 OR taken_until <= $1)"
    " AND (channel_id IS NULL OR channel_id <> ALL($3::text[]))"
    " ORDER BY id LIMIT $4 FOR UPDATE SKIP LOCKED) AS one)"
    " UPDATE notification_outbox AS taken SET taken_by = $2, taken_until = $5 FROM due WHERE taken.id = due.id"
    f" RETURNING {', '.join(f'taken.{name}' for name in Delivery.__struct_fields__)}"
)

# There is nothing more to send; or another round, which any daemon may take.
_DONE = "UPDATE notification_outbox SET done_at = $1 WHERE id = $2 AND done_at IS NULL"
_AGAIN = (
    "UPDATE notification_outbox SET attempts = $1, next_attempt_at = $2, taken_by = NULL, taken_until = NULL"
    " WHERE id = $3 AND done_at IS NULL"
)

_URGENT_FIRST = ("CRITICAL", "WARNING", "INFO")

# One attempt.
_LOG = (
    f"INSERT INTO notification_log ({_ATTEMPT_COLUMNS})"  # noqa: S608
    f" VALUES ({', '.join(f'${n}' for n in range(1, len(_ATTEMPT) + 1))})"
)

# How many messages wait, and how many of them failed at least once.
_BACKLOG = "SELECT count(*), count(*) FILTER (WHERE attempts > 0) FROM notification_outbox WHERE done_at IS NULL"


def to_channel(row: Sequence[Any]) -> Channel:
    """Map a row whose columns are a channel's fields."""
    return Channel(*row)


async def channels(raw: Connection) -> list[Channel]:
    """Return every channel, disabled ones too, the highest priority first."""
    return [to_channel(row) for row in await raw.fetch(_CHANNELS)]


async def lock_channels(raw: Connection) -> list[Channel]:
    """Return every channel; nobody else changes them until the commit."""
    return [to_channel(row) for row in await raw.fetch(_LOCK_CHANNELS)]


async def insert_channels(raw: Connection, channels: Iterable[Channel]) -> None:
    """Add channels."""
    await raw.executemany(_INSERT_CHANNEL, map(msgspec.structs.astuple, channels))


async def update_channel(raw: Connection, channel: Channel) -> None:
    """Store what changed of a channel."""
    values = (channel.name, channel.config, channel.priority, channel.min_level, channel.events, channel.agents)
    await raw.execute(_UPDATE_CHANNEL, *values, channel.enabled, channel.updated_at, channel.id)


async def enqueue(raw: Connection, rows: Iterable[Delivery], dedup_ttl: int) -> None:
    """Add messages to be sent, in their order, but for repetitions within `dedup_ttl` seconds."""
    await raw.executemany(_ENQUEUE, [(*msgspec.structs.astuple(row)[1:], row.created_at - dedup_ttl) for row in rows])


async def take(raw: Connection, now: int, limit: int, without: Sequence[str], instance: str) -> list[Delivery]:
    """Return messages to be sent now, at most `limit` of each level, and take them for `TAKEN_SECONDS`.

    Args:
        raw: the connection.
        now: Unix seconds.
        limit: of each level.
        without: ids of channels whose own messages are left out.
        instance: the daemon that will send them.
    """
    rows = await raw.fetch(_TAKE, now, instance, list(without), limit, now + TAKEN_SECONDS)
    return sorted((Delivery(*row) for row in rows), key=lambda one: (_URGENT_FIRST.index(one.level), one.id))


async def settle(raw: Connection, settled: Settled, now: int) -> None:
    """Note when the next round is due, or that there is nothing more to send."""
    if settled.next_attempt_at is None:
        await raw.execute(_DONE, now, settled.delivery_id)
    else:
        await raw.execute(_AGAIN, settled.rounds, settled.next_attempt_at, settled.delivery_id)


async def log(raw: Connection, attempts: Iterable[Attempt]) -> None:
    """Record attempts."""
    await raw.executemany(_LOG, [msgspec.structs.astuple(_storable(attempt)) for attempt in attempts])


def _storable(attempt: Attempt) -> Attempt:
    """What a service says of a failure may hold anything; PostgreSQL stores no NUL."""
    if attempt.error is None or "\0" not in attempt.error:
        return attempt
    return msgspec.structs.replace(attempt, error=attempt.error.replace("\0", "\ufffd"))


async def find_attempts(raw: Connection, which: AttemptFilter, page: Page) -> list[Attempt]:
    """Return attempts, newest first."""
    conditions, values = ["true"], list[Any]([page.limit])
    for column in ("status", "event", "channel_id"):
        if (value := getattr(which, column)) is not None:
            values.append(value)
            conditions.append(f"{column} = ${len(values)}")
    if page.before is not None:
        values += page.before
        conditions.append(f"(sent_at, id) < (${len(values) - 1}, ${len(values)})")
    where = " AND ".join(conditions)
    sql = f"SELECT {_ATTEMPT_COLUMNS} FROM notification_log WHERE {where} ORDER BY sent_at DESC, id DESC LIMIT $1"  # noqa: S608
    return [Attempt(*row) for row in await raw.fetch(sql, *values)]


async def backlog(raw: Connection) -> Backlog:
    """Return how many messages wait, and how many of them failed at least once."""
    pending, failed = await raw.fetchrow(_BACKLOG)
    return Backlog(pending=pending, failed=failed)


async def purge(raw: Connection, done_before: int, logged_before: int) -> None:
    """Delete what was sent, and what was logged, before (Unix seconds)."""
    await raw.execute("DELETE FROM notification_outbox WHERE done_at < $1", done_before)
    await raw.execute("DELETE FROM notification_log WHERE sent_at < $1", logged_before)

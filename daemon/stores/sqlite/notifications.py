"""SQL of channels, of the outbox and of the delivery log."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from daemon.domain.filters import AttemptFilter
from daemon.domain.pages import Page
from daemon.domain.rows import Attempt, Channel, Delivery, Settled
from daemon.domain.views import Backlog

_CHANNEL = Channel.__struct_fields__
_ENABLED = _CHANNEL.index("enabled")
_CHANNEL_COLUMNS = ", ".join(_CHANNEL)
_DELIVERY_COLUMNS = ", ".join(Delivery.__struct_fields__)
_ATTEMPT_COLUMNS = ", ".join(Attempt.__struct_fields__)

# Every channel, the one that is tried first at the top.
_CHANNELS = f"SELECT {_CHANNEL_COLUMNS} FROM notification_channels ORDER BY priority DESC, created_at, id"  # noqa: S608

# A new channel.
_INSERT_CHANNEL = f"INSERT INTO notification_channels ({_CHANNEL_COLUMNS}) VALUES ({', '.join('?' * len(_CHANNEL))})"  # noqa: S608

# Everything about a channel that can change.
_UPDATE_CHANNEL = (
    "UPDATE notification_channels SET name = ?, config = ?, priority = ?, min_level = ?, events = ?, agents = ?,"
    " enabled = ?, updated_at = ? WHERE id = ?"
)

# A message to be sent, unless its like was written a moment ago.
_NEW = ", ".join(name for name in Delivery.__struct_fields__ if name != "id")
_ENQUEUE = (
    f"INSERT INTO notification_outbox ({_NEW}) SELECT :seq, :channel_id, :event, :level, :agent_id, :session_id,"  # noqa: S608
    " :reference_id, :dedup_key, :created_at, :attempts, :next_attempt_at WHERE NOT EXISTS"
    " (SELECT 1 FROM notification_outbox WHERE dedup_key = :dedup_key AND created_at > :since)"
)

# What is to be sent now, the most urgent first.
_DUE = (
    f"SELECT {_DELIVERY_COLUMNS} FROM notification_outbox WHERE done_at IS NULL AND level = ? AND next_attempt_at <= ?"  # noqa: S608
    " AND (channel_id IS NULL OR channel_id NOT IN (SELECT value FROM json_each(?))) ORDER BY id LIMIT ?"
)

_URGENT_FIRST = ("CRITICAL", "WARNING", "INFO")

# One attempt.
_LOG = f"INSERT INTO notification_log ({_ATTEMPT_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)"  # noqa: S608


def to_channel(row: Sequence[Any]) -> Channel:
    """Map a row whose columns are a channel's fields."""
    values = list(row)
    values[_ENABLED] = bool(values[_ENABLED])
    return Channel(*values)


def channels(raw: sqlite3.Connection) -> list[Channel]:
    """Return every channel, disabled ones too, the highest priority first."""
    return [to_channel(row) for row in raw.execute(_CHANNELS)]


def insert_channel(raw: sqlite3.Connection, channel: Channel) -> None:
    """Add a channel."""
    raw.execute(_INSERT_CHANNEL, msgspec.structs.astuple(channel))


def update_channel(raw: sqlite3.Connection, channel: Channel) -> None:
    """Store what changed of a channel."""
    values = (channel.name, channel.config, channel.priority, channel.min_level, channel.events, channel.agents)
    raw.execute(_UPDATE_CHANNEL, (*values, channel.enabled, channel.updated_at, channel.id))


def enqueue(raw: sqlite3.Connection, rows: Iterable[Delivery], dedup_ttl: int) -> None:
    """Add messages to be sent, but for repetitions within `dedup_ttl` seconds."""
    for row in rows:
        raw.execute(_ENQUEUE, {**msgspec.structs.asdict(row), "since": row.created_at - dedup_ttl})


def due(raw: sqlite3.Connection, now: int, limit: int, without: Sequence[str]) -> list[Delivery]:
    """Return messages to be sent now, at most `limit` of each level, but for those of the channels `without`."""
    left_out = msgspec.json.encode(without).decode()
    return [Delivery(*row) for level in _URGENT_FIRST for row in raw.execute(_DUE, (level, now, left_out, limit))]


def settle(raw: sqlite3.Connection, settled: Settled, now: int) -> None:
    """Note when the next round is due, or that there is nothing more to send."""
    if settled.next_attempt_at is None:
        sql = "UPDATE notification_outbox SET done_at = ? WHERE id = ? AND done_at IS NULL"
        raw.execute(sql, (now, settled.delivery_id))
        return
    sql = "UPDATE notification_outbox SET attempts = ?, next_attempt_at = ? WHERE id = ? AND done_at IS NULL"
    raw.execute(sql, (settled.rounds, settled.next_attempt_at, settled.delivery_id))


def log(raw: sqlite3.Connection, attempts: Iterable[Attempt]) -> None:
    """Record attempts."""
    raw.executemany(_LOG, map(msgspec.structs.astuple, attempts))


def find_attempts(raw: sqlite3.Connection, which: AttemptFilter, page: Page) -> list[Attempt]:
    """Return attempts, newest first."""
    conditions, values = ["1"], list[Any]()
    for column in ("status", "event", "channel_id"):
        if (value := getattr(which, column)) is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    if page.before is not None:
        conditions.append("(sent_at, id) < (?, ?)")
        values += page.before
    where = " AND ".join(conditions)
    sql = f"SELECT {_ATTEMPT_COLUMNS} FROM notification_log WHERE {where} ORDER BY sent_at DESC, id DESC LIMIT ?"  # noqa: S608
    return [Attempt(*row) for row in raw.execute(sql, (*values, page.limit))]


def backlog(raw: sqlite3.Connection) -> Backlog:
    """Return how many messages wait, and how many of them failed at least once."""
    sql = "SELECT count(*), coalesce(sum(attempts > 0), 0) FROM notification_outbox WHERE done_at IS NULL"
    pending, failed = raw.execute(sql).fetchone()
    return Backlog(pending=pending, failed=failed)


def purge(raw: sqlite3.Connection, done_before: int, logged_before: int) -> None:
    """Delete what was sent, and what was logged, before (Unix seconds)."""
    raw.execute("DELETE FROM notification_outbox WHERE done_at < ?", (done_before,))
    raw.execute("DELETE FROM notification_log WHERE sent_at < ?", (logged_before,))

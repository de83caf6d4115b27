"""The tables that make up a database, each with its columns once, and what they hold as one sum."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from daemon.domain.chain import ChainWalk
from daemon.domain.views import ChainHead, Verification

Row = Sequence[Any]
"""The values of a row in the order of `Table.columns`, as SQLite holds them: times are seconds, booleans 0 or 1."""

Advance = Callable[[int], None]
"""Is told how many more rows are done."""


class Table(msgspec.Struct, frozen=True):
    """A table that every engine has.

    Args:
        name: of the table.
        key: the columns that its rows are ordered by.
        columns: all that are kept, in the order in which migrations added them.
        booleans: those of them that PostgreSQL keeps as boolean.
    """

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    booleans: frozenset[str]


def _table(name: str, key: str, columns: str, booleans: str = "") -> Table:
    return Table(name, tuple(key.split()), tuple(columns.split()), frozenset(booleans.split()))


EVENTS = _table(
    "audit_log",
    "id",
    "id timestamp event_type actor agent_id session_id severity details request_id ip_address prev_hash hash",
)

TABLES = (
    _table(
        "agents",
        "id",
        "id name chain network public_key status metadata created_at updated_at suspended_at suspension_reason"
        " owner_address owner_verified suspended_by",
        booleans="owner_verified",
    ),
    _table(
        "sessions",
        "id",
        "id agent_id token_hash constraints usage_stats expires_at revoked_at created_at renewal_count max_renewals"
        " last_renewed_at absolute_expires_at ttl_seconds generation previous_token_hash retry_answer rotated_at"
        " owner_rotated_generation used_generation reuse_reported_at state state_changed_at started_at revoked_reason"
        " expired_at idle_timeout last_activity request_count user_id workspace_id metadata created_by"
        " expiry_warned_at parent_id root_id depth",
    ),
    _table(
        "conversations",
        "agent_id conversation_id",
        "agent_id conversation_id provider model external_id session_id created_at last_activity expires_at"
        " request_count rebind_count",
    ),
    _table(
        "processes",
        "session_id",
        "session_id home config secrets external_id resumable rest suspended_by run pid wrapper_pid wrapper_started"
        " boot_id started_at ended_at exit_code signal reason failures restarts restart_at last_turn turns"
        " output_offset run_usage warned_at",
        booleans="resumable",
    ),
    _table("turns", "session_id turn", "session_id turn state content created_at started_at ended_at"),
    _table("idempotency_keys", "key_hash", "key_hash session_id created_at"),
    _table(
        "verifiers",
        "id",
        "id name credential_hash may_revoke created_at revoked_at last_used_at",
        booleans="may_revoke",
    ),
    EVENTS,
    _table(
        "notification_channels",
        "id",
        "id type name config priority min_level events agents enabled created_at updated_at",
        booleans="enabled",
    ),
    _table(
        "notification_outbox",
        "id",
        "id seq channel_id event level agent_id session_id reference_id dedup_key created_at attempts next_attempt_at"
        " done_at",
    ),
    _table(
        "answers",
        "token_hash",
        "token_hash channel_id seq session_id agent_id actions created_at reject_until expires_at used_at used_action",
    ),
    _table(
        "notification_log",
        "id",
        "id channel_id event level reference_id status error retry_count sent_at",
    ),
    _table("key_value_store", "key", "key value updated_at"),
)
"""Every table but the record of migrations, each after those that it refers to."""


class Sum(msgspec.Struct, frozen=True):
    """What a table holds.

    Args:
        table: its name.
        rows: how many.
        sha256: over all of them in the order of the key, the same whichever engine holds them.
    """

    table: str
    rows: int
    sha256: str


class Sums(msgspec.Struct, frozen=True):
    """What a database holds: each table's sum, in the order of `TABLES`, and what its audit log was found to be."""

    tables: tuple[Sum, ...]
    chain: Verification

    @property
    def rows(self) -> int:
        """Of all tables together."""
        return sum(one.rows for one in self.tables)

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        return next(one.rows for one in self.tables if one.table == table)


class Summing:
    """Takes every row of every table, in the order of `TABLES` and of their keys."""

    def __init__(self) -> None:
        self._sums: list[Sum] = []
        self._walk = ChainWalk()
        self._begin()

    def take(self, table: Table, rows: Sequence[Row]) -> None:
        """Take the next rows of a table."""
        digest = self._digest
        for row in rows:
            digest.update(_encode(row))
        if table is EVENTS and self._walk.sound:
            all(map(self._walk.take, rows))
        self._rows += len(rows)

    def end(self, table: Table) -> None:
        """Say that a table has no more rows."""
        self._sums.append(Sum(table.name, self._rows, self._digest.hexdigest()))
        self._begin()

    def done(self, head: ChainHead | None = None) -> Sums:
        """Return what was taken.

        Args:
            head: the newest event as it is known from elsewhere; None where the rows are all that is known.
        """
        return Sums(tuple(self._sums), self._walk.verdict(head))

    def _begin(self) -> None:
        self._rows, self._digest = 0, hashlib.sha256()


_encode = msgspec.msgpack.Encoder().encode

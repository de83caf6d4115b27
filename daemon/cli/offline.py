"""What the CLI reads of the database file itself: the one module of it that may."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from daemon.cli.failure import Failure
from daemon.domain.events import GENESIS, chain_hash

_EVENTS = (
    "SELECT id, timestamp, event_type, actor, agent_id, session_id, severity, details, request_id, ip_address,"
    " prev_hash, hash FROM audit_log ORDER BY id"
)


class Chain(msgspec.Struct, rename="camel"):
    """What a recomputation of the audit log's chain found; as `GET /v1/admin/audit/verify` answers."""

    valid: bool
    events: int
    head: dict[str, int | str]
    first_bad: int | None


@contextmanager
def _opened(database: Path) -> Iterator[sqlite3.Connection]:
    if not database.exists():
        raise Failure(f"There is no database at {database}", hint="run: daemon init")
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise Failure(f"The database {database} cannot be read: {error}") from None


def is_initialised(database: Path) -> bool:
    """Return whether the database has a master password."""
    if not database.exists():
        return False
    try:
        with _opened(database) as connection:
            found = connection.execute("SELECT 1 FROM key_value_store WHERE key = 'master_password'").fetchone()
    except Failure:
        return False  # the start itself says what is wrong with the file
    return found is not None


def verify_chain(database: Path) -> Chain:
    """Recompute the chain from the file, opened read-only."""
    seq, digest = 0, GENESIS
    with _opened(database) as connection:
        for row in connection.execute(_EVENTS):
            if row[0] != seq + 1 or row[10] != digest or row[11] != chain_hash(digest, row[:10]):
                return Chain(False, seq, {"seq": seq, "hash": digest}, seq + 1)
            seq, digest = row[0], row[11]
    return Chain(True, seq, {"seq": seq, "hash": digest}, None)


def hash_of(database: Path, seq: int) -> str | None:
    """Return the hash of one event."""
    with _opened(database) as connection:
        row = connection.execute("SELECT hash FROM audit_log WHERE id = ?", (seq,)).fetchone()
    return str(row[0]) if row else None

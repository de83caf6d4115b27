"""Which engines a test runs on: SQLite alone, unless its file says `pytestmark = both_engines`."""

import asyncio
import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from daemon.stores.postgres.connection import connect
from tests.support import postgres

both_engines = pytest.mark.both_engines
"""Every test of the file that starts a daemon runs on SQLite and on PostgreSQL."""

one_engine = pytest.mark.one_engine
"""But for this one, which is about the file itself, or to which the engine makes no difference."""

one_place = pytest.mark.one_place
"""Nor does it make one where the conversations are: what is asked for never gets there."""


REFUSED = (sqlite3.IntegrityError, asyncpg.IntegrityConstraintViolationError)
"""What an engine raises when a rule of the schema is broken."""


_kept = contextlib.ExitStack()
_free: list[str] = []

_EMPTY = """
SET synchronous_commit = off;
ALTER TABLE audit_log DISABLE TRIGGER ALL;
DELETE FROM conversations; DELETE FROM sessions; DELETE FROM agents; DELETE FROM idempotency_keys;
DELETE FROM audit_log; UPDATE audit_head SET id = 0, hash = repeat('0', 64);
DELETE FROM notification_outbox; DELETE FROM notification_log; DELETE FROM answers; DELETE FROM notification_channels;
DELETE FROM key_value_store; DELETE FROM verifiers;
ALTER SEQUENCE notification_outbox_id_seq RESTART;
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_refuses_update;
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_refuses_delete;
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_refuses_truncate;
"""


def drop_kept() -> None:
    """Drop the databases that this process made for one test after the other."""
    _free.clear()
    _kept.close()


class Databases:
    """Where the daemons of one test have their rows: each home a database of its own, empty and migrated.

    Those on the server are kept for later tests: emptying one takes a tenth of the time that making one takes.

    Args:
        engine: `sqlite` or `postgresql`.
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._urls: dict[Path, str] = {}

    def settings(self, home: Path) -> dict[str, str]:
        """Return the environment of the daemon of a home."""
        # No test of these pulls the plug of the machine or of the server, so no commit waits for a disk.
        quick = {"DAEMON_DATABASE_SYNCHRONOUS": "normal"}
        if self._engine == "sqlite":
            return quick
        if home not in self._urls:
            self._urls[home] = _free.pop() if _free else _kept.enter_context(postgres.fresh_database())
        return {"DAEMON_DATABASE_URL": self._urls[home], **quick}

    def close(self) -> None:
        """Empty what was used."""
        for url in self._urls.values():
            postgres.script(url, _EMPTY)
            _free.append(url)
        self._urls.clear()


def ask(database: Path | str, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Read or change rows past the daemon and return what was selected.

    Args:
        database: the file, or the address on a server.
        sql: one statement that both engines understand, with `?` for values.
        values: times are Unix seconds.
    """
    if isinstance(database, str):
        numbers = iter(range(1, sql.count("?") + 1))
        return postgres.ask(database, re.sub(r"\?", lambda _: f"${next(numbers)}", sql), *values)
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True)) as connection, connection:
        return connection.execute(sql, values).fetchall()


def disarm(database: Path | str) -> None:
    """Take away what keeps the audit log from being changed."""
    if isinstance(database, str):
        postgres.script(database, "ALTER TABLE audit_log DISABLE TRIGGER ALL")
        return
    for (name,) in ask(database, "SELECT name FROM sqlite_master WHERE type = 'trigger'"):
        ask(database, f"DROP TRIGGER {name}")


@contextlib.contextmanager
def broken(database: Path | str, table: str, condition: str = "") -> Iterator[None]:
    """Let no row be added to a table, or none that meets a condition on `NEW`."""
    if isinstance(database, str):
        body = "CREATE OR REPLACE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'broken'; END$$"
        when = f"WHEN ({condition})" if condition else ""
        trigger = f"CREATE TRIGGER broken BEFORE INSERT ON {table} FOR EACH ROW {when} EXECUTE FUNCTION broken()"
        postgres.script(database, f"{body}; {trigger}")
    else:
        when = f"WHEN {condition}" if condition else ""
        ask(database, f"CREATE TRIGGER broken BEFORE INSERT ON {table} {when} BEGIN SELECT RAISE(ABORT, 'broken'); END")
    yield
    ask(database, f"DROP TRIGGER broken ON {table}" if isinstance(database, str) else "DROP TRIGGER broken")


@contextlib.contextmanager
def held(database: Path | str) -> Iterator[None]:
    """Let nobody else commit an event meanwhile."""
    if isinstance(database, str):
        with asyncio.Runner() as runner:
            connection = runner.run(connect(database))
            runner.run(connection.execute("BEGIN; LOCK TABLE audit_head"))
            yield
            runner.run(connection.close())
        return
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as slow:
        slow.execute("BEGIN IMMEDIATE")
        yield
        slow.execute("ROLLBACK")

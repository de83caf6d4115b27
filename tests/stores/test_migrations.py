"""The program's own migrations: names, the schema they arrive at, and the rows they carry over."""

import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from daemon.domain.process_rows import Process, Turn
from daemon.domain.rows import Agent, Session, Verifier
from daemon.domain.states import STATES
from daemon.stores.migrate import data_file, latest_version, schema_version
from tests.stores.migration_help import (
    NOW,
    OLD_SESSIONS,
    add_agent,
    first_migrations,
    insert,
    normalised,
    old_database,
    query,
    schema,
    upgrade,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A new database at the latest version."""
    path = tmp_path / "daemon.db"
    upgrade(path)
    return path


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """A database made from schema.sql."""
    path = tmp_path / "described.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(data_file("schema.sql").read_text())
    return path


def test_names_are_numbered_without_a_gap_and_the_released_ones_keep_theirs() -> None:
    names = sorted(path.name for path in data_file("migrations").glob("*.sql"))
    assert [int(name[:4]) for name in names] == list(range(1, latest_version() + 1))
    assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", name) for name in names)
    assert names[:3] == ["0001_initial.sql", "0002_owner_address.sql", "0003_session_renewal.sql"]


def test_session_renewal_is_four_columns_and_one_back_fill() -> None:
    text = (data_file("migrations") / "0003_session_renewal.sql").read_text()
    assert [normalised(part) for part in text.split(";")] == [
        "ALTER TABLE sessions ADD COLUMN renewal_count INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE sessions ADD COLUMN max_renewals INTEGER NOT NULL DEFAULT 30",
        "ALTER TABLE sessions ADD COLUMN last_renewed_at INTEGER",
        "ALTER TABLE sessions ADD COLUMN absolute_expires_at INTEGER NOT NULL DEFAULT 0",
        "UPDATE sessions SET absolute_expires_at = created_at + 2592000 WHERE absolute_expires_at = 0",
        "",
    ]


def test_schema_sql_is_what_the_migrations_arrive_at(database: Path, described: Path) -> None:
    assert schema(database) == schema(described)


def test_a_new_database_is_private_uses_wal_and_records_each_migration(tmp_path: Path) -> None:
    path = tmp_path / "a home 한글 #?%" / "daemon.db"
    path.parent.mkdir()
    done = upgrade(path)
    names = sorted(file.name for file in data_file("migrations").glob("*.sql"))
    assert (done.from_version, done.to_version, done.backup) == (0, latest_version(), None)
    assert done.applied == tuple(names)
    assert path.stat().st_mode & 0o777 == 0o600
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    ledger = query(path, "SELECT version, name, applied_at FROM schema_migrations ORDER BY version")
    assert ledger == [(number, name, NOW) for number, name in enumerate(names, 1)]
    assert schema_version(path) == latest_version()
    assert not (tmp_path / "backups").exists()


def test_every_column_has_its_field_and_every_field_its_column(database: Path) -> None:
    rows = {"agents": Agent, "sessions": Session, "processes": Process, "turns": Turn, "verifiers": Verifier}
    for table, row in rows.items():
        beside = {"retry_answer"} if table == "sessions" else set()
        columns = {column[1] for column in query(database, f"PRAGMA table_xinfo({table})")}
        assert columns == set(row.__struct_fields__) | beside


def test_rows_of_the_second_version_arrive_whole_and_back_filled(tmp_path: Path) -> None:
    path = old_database(tmp_path / "home")
    old = {table: old_rows(path, table) for table in ("agents", "sessions", "key_value_store", "audit_log")}
    done = upgrade(path)
    assert (done.from_version, done.to_version) == (2, latest_version())
    for table, rows in old.items():
        names = ", ".join(rows[0])
        after = query(path, f"SELECT {names} FROM {table} ORDER BY rowid")
        assert after == [tuple(row.values()) for row in rows]
    for row in old_rows(path, "sessions"):
        assert row["absolute_expires_at"] == row["created_at"] + 2_592_000
        assert (row["renewal_count"], row["max_renewals"], row["last_renewed_at"]) == (0, 30, None)
        assert (row["generation"], row["used_generation"], row["owner_rotated_generation"]) == (1, 0, 0)
        assert (row["metadata"], row["created_by"], row["request_count"], row["last_activity"]) == (
            "{}",
            "api",
            0,
            None,
        )
        assert row["previous_token_hash"] is row["retry_answer"] is row["started_at"] is row["state_changed_at"] is None


def old_rows(database: Path, table: str) -> list[dict[str, Any]]:
    """Return all rows of a table by column."""
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY rowid")]


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The sessions of the second version after the upgrade."""
    path = old_database(tmp_path_factory.mktemp("upgraded") / "home")
    upgrade(path)
    return {row["id"]: row for row in old_rows(path, "sessions")}


@pytest.mark.parametrize(
    ("name", "ttl"), [("alive", 172_800), ("short", 300), ("long", 604_800), ("expired", 3_600), ("ends_now", 1_000)]
)
def test_ttl_is_what_was_handed_out_within_its_range(upgraded: dict[str, Any], name: str, ttl: int) -> None:
    assert upgraded[name]["ttl_seconds"] == ttl


@pytest.mark.parametrize(
    ("name", "state", "expired_at"),
    [
        ("alive", "READY", None),
        ("short", "READY", None),
        ("ends_now", "CLOSED", NOW),
        ("expired", "CLOSED", NOW - 500),
        ("revoked", "CLOSED", None),
        ("revoked_expired", "CLOSED", None),
    ],
)
def test_what_ended_is_closed_and_marked_so_that_it_emits_no_event(
    upgraded: dict[str, Any], name: str, state: str, expired_at: int | None
) -> None:
    assert (upgraded[name]["state"], upgraded[name]["expired_at"]) == (state, expired_at)
    assert upgraded[name]["revoked_reason"] is None


def test_idle_timeout_is_taken_from_valid_constraints_alone(upgraded: dict[str, Any]) -> None:
    found = {name: row["idle_timeout"] for name, row in upgraded.items() if row["idle_timeout"] is not None}
    assert found == {"idle": 60, "idle_longest": 604_800}
    assert set(upgraded) == set(OLD_SESSIONS)


@pytest.mark.parametrize("count", range(1, latest_version()))
def test_every_earlier_version_upgrades_with_its_rows(tmp_path: Path, count: int) -> None:
    path = tmp_path / "daemon.db"
    upgrade(path, first_migrations(tmp_path / "first", count))
    add_agent(path, "a")
    insert(path, "sessions", id="s", agent_id="a", token_hash="h", expires_at=NOW + 900, created_at=NOW)
    done = upgrade(path)
    assert (done.from_version, done.to_version) == (count, latest_version())
    assert query(path, "SELECT id, token_hash, state FROM sessions") == [("s", "h", "READY")]
    fresh = tmp_path / "fresh.db"
    upgrade(fresh)
    assert schema(path) == schema(fresh)


def enums() -> list[tuple[str, str, tuple[object, ...]]]:
    """Return each column whose values are listed, with its values."""
    level = ("INFO", "WARNING", "CRITICAL")
    return [
        ("agents", "chain", (None, "solana", "ethereum")),
        ("agents", "network", (None, "mainnet", "devnet", "testnet")),
        ("agents", "status", ("CREATING", "ACTIVE", "SUSPENDED", "TERMINATING", "TERMINATED")),
        ("agents", "owner_verified", (0, 1)),
        ("sessions", "state", STATES),
        ("sessions", "created_by", ("api", "cli", "run", "process")),
        ("processes", "resumable", (0, 1)),
        ("processes", "rest", (None, "pool", "idle", "restart")),
        ("processes", "suspended_by", (None, "owner", "agent", "budget", "idle", "output")),
        ("turns", "state", ("QUEUED", "RUNNING", "DONE", "FAILED", "INTERRUPTED", "UNKNOWN")),
        ("verifiers", "may_revoke", (0, 1)),
        ("audit_log", "severity", ("info", "warning", "critical")),
        ("notification_channels", "type", ("TELEGRAM", "DISCORD", "NTFY", "WEBHOOK")),
        ("notification_channels", "min_level", level),
        ("notification_channels", "enabled", (0, 1)),
        ("notification_log", "level", level),
        ("notification_log", "status", ("DELIVERED", "FAILED", "RATE_LIMITED", "ALL_FAILED")),
    ]


ROWS: dict[str, dict[str, object]] = {
    "agents": {"name": "n", "created_at": 1, "updated_at": 1},
    "sessions": {"agent_id": "a", "token_hash": "h", "expires_at": 1, "created_at": 1},
    "processes": {"home": "h", "config": "{}", "external_id": "x"},
    "turns": {"session_id": "p1", "state": "DONE", "created_at": 1},
    "verifiers": {"name": "n", "credential_hash": "h", "created_at": 1},
    "audit_log": {"timestamp": 1, "event_type": "X", "actor": "owner", "prev_hash": "0", "hash": "1"},
    "notification_channels": {"type": "NTFY", "name": "n", "config": "{}", "created_at": 1, "updated_at": 1},
    "notification_log": {"event": "X", "level": "INFO", "status": "FAILED", "sent_at": 1},
}


def row_of(table: str, number: int) -> dict[str, object]:
    """Return the columns of a row that differs from all others in what must be unique."""
    own: dict[str, dict[str, object]] = {
        "sessions": {"id": number, "token_hash": number},
        "processes": {"session_id": f"p{number}"},
        "turns": {"turn": number},
        "verifiers": {"id": number, "credential_hash": number},
    }
    return {**ROWS[table], **own.get(table, {"id": number})}


@pytest.mark.parametrize("source", ["database", "described"])
@pytest.mark.parametrize(
    ("table", "column", "allowed"), enums(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_listed_column_takes_its_values_and_no_other(
    request: pytest.FixtureRequest, source: str, table: str, column: str, allowed: tuple[object, ...]
) -> None:
    path: Path = request.getfixturevalue(source)
    refused: tuple[object, ...] = (2, -1) if 0 in allowed else ("other", "", "ACTIVe")
    if None not in allowed:
        refused = (*refused, None)
    for number, value in enumerate(allowed):
        insert(path, table, **{**row_of(table, number), column: value})
    for value in refused:
        with pytest.raises(
            sqlite3.IntegrityError, match=f"CHECK constraint failed|NOT NULL constraint failed: {table}.{column}"
        ):
            insert(path, table, **{**row_of(table, 99), column: value})


@pytest.mark.parametrize("recursive", ["OFF", "ON"])
@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE audit_log SET details = '{}'", "never changed"),
        ("UPDATE audit_log SET id = 7 WHERE id = 1", "never changed"),
        ("DELETE FROM audit_log", "never deleted"),
        ("DELETE FROM audit_log WHERE id = 2", "never deleted"),
        ("INSERT OR REPLACE INTO audit_log SELECT * FROM audit_log WHERE id = 1", "never replaced"),
        ("UPDATE OR REPLACE audit_log SET id = 1 WHERE id = 2", "never changed"),
    ],
)
def test_events_can_only_be_appended(database: Path, recursive: str, statement: str, message: str) -> None:
    for number in (1, 2):
        insert(database, "audit_log", id=number, **ROWS["audit_log"])
    before = query(database, "SELECT * FROM audit_log")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"PRAGMA recursive_triggers = {recursive}")
        with pytest.raises(sqlite3.IntegrityError, match=f"audit_log is append-only: events are {message}"):
            connection.execute(statement)
    assert query(database, "SELECT * FROM audit_log") == before


def test_an_event_may_refer_to_what_is_gone_and_an_agent_takes_its_sessions_along(database: Path) -> None:
    add_agent(database, "a")
    insert(database, "sessions", id="s", **ROWS["sessions"])
    insert(database, "audit_log", id=1, agent_id="a", session_id="s", **ROWS["audit_log"])
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM agents")
    assert query(database, "SELECT count(*) FROM sessions") == [(0,)]
    assert query(database, "SELECT agent_id, session_id FROM audit_log") == [("a", "s")]


def test_tokens_and_public_keys_are_unique_and_absent_keys_are_not(database: Path) -> None:
    add_agent(database, "a", public_key="k")
    add_agent(database, "b")
    add_agent(database, "c")
    with pytest.raises(sqlite3.IntegrityError, match=r"agents\.public_key"):
        add_agent(database, "d", public_key="k")
    insert(database, "sessions", id="s", **ROWS["sessions"], previous_token_hash="p")
    with pytest.raises(sqlite3.IntegrityError, match=r"sessions\.token_hash"):
        insert(database, "sessions", id="t", **ROWS["sessions"])
    with pytest.raises(sqlite3.IntegrityError, match=r"sessions\.previous_token_hash"):
        insert(database, "sessions", id="t", **{**ROWS["sessions"], "token_hash": "i"}, previous_token_hash="p")


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        (
            "SELECT count(*) FROM sessions WHERE agent_id = ? AND revoked_at IS NULL AND expires_at > ?",
            "alive_by_agent",
        ),
        ("SELECT id FROM sessions WHERE revoked_at IS NULL AND expired_at IS NULL AND expires_at <= ?", "to_expire"),
        ("SELECT id FROM sessions WHERE state = 'ACTIVE' AND last_activity < ?", "active"),
        ("SELECT id FROM sessions WHERE created_by = 'process' AND state <> 'CLOSED'", "supervised"),
        ("SELECT id FROM sessions WHERE revoked_at < ?", "revoked_at"),
        ("SELECT id FROM sessions WHERE expired_at < ?", "expired_at"),
        ("SELECT id FROM sessions WHERE previous_token_hash = ?", "previous_token_hash"),
        ("SELECT id FROM sessions ORDER BY created_at DESC, id DESC LIMIT 50", "created_at"),
        (
            "SELECT id FROM sessions WHERE idle_timeout IS NOT NULL AND revoked_at IS NULL AND expired_at IS NULL"
            " AND idle_timeout < ?",
            "idle_timeout",
        ),
    ],
)
def test_the_frequent_questions_are_answered_by_an_index(database: Path, sql: str, index: str) -> None:
    plan = query(database, f"EXPLAIN QUERY PLAN {sql}", *(["x"] * sql.count("?")))
    assert any(re.search(rf"INDEX idx_sessions_{index}\b", row[3]) for row in plan), plan


def test_the_files_are_found_in_a_checkout() -> None:
    assert data_file("migrations") == ROOT / "migrations"
    assert data_file("schema.sql").is_file()


def test_the_files_are_found_in_an_installed_package(tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(ROOT / "daemon", site / "daemon", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "migrations", site / "daemon/_data/migrations")
    shutil.copytree(ROOT / "migrations", site / "migrations")
    (site / "migrations/0001_initial.sql").unlink()
    code = "from daemon.stores.migrate import *; print(data_file('schema.sql'), latest_version())"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == [str(site / "daemon/_data/schema.sql"), str(latest_version())]

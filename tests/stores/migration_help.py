"""What the tests of the migrations share."""

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from daemon.stores.migrate import MigrationError, data_file, migrate

NOW = 1_750_000_000


def query(database: Path, sql: str, *parameters: object) -> list[Any]:
    """Run one statement on a connection of its own and commit it."""
    with closing(sqlite3.connect(database)) as connection, connection:
        return connection.execute(sql, parameters).fetchall()


def upgrade(database: Path, migrations: Path | None = None, now: int = NOW) -> Any:
    """Migrate with backups beside the database."""
    return migrate(database, now=now, backups=database.parent / "backups", migrations=migrations)


def refusal(database: Path, migrations: Path | None = None) -> str:
    """Return the message with which migrating is refused: one line that names the database."""
    with pytest.raises(MigrationError) as caught:
        upgrade(database, migrations)
    message = str(caught.value)
    assert "\n" not in message
    assert str(database) in message
    return message


def first_migrations(directory: Path, count: int) -> Path:
    """Copy the program's first migrations into a directory."""
    directory.mkdir()
    for path in sorted(data_file("migrations").glob("*.sql"))[:count]:
        shutil.copy(path, directory)
    return directory


def write_migrations(directory: Path, **files: str) -> Path:
    """Write migrations; a keyword `m0001_name` becomes `0001_name.sql`."""
    directory.mkdir(exist_ok=True)
    for name, sql in files.items():
        (directory / f"{name[1:]}.sql").write_text(sql)
    return directory


def normalised(sql: str) -> str:
    """Return a statement without comments and without white space that means nothing."""
    words = re.sub(r"--[^\n]*", " ", sql)
    return re.sub(r"\s*([(),])\s*", r"\1", re.sub(r"\s+", " ", words)).strip()


def schema(database: Path) -> dict[str, Any]:
    """Return everything that SQLite knows about a schema: statements, columns in order, and indexes."""
    with closing(sqlite3.connect(database)) as connection:
        ask = connection.execute
        objects = ask("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name").fetchall()
        found: dict[str, Any] = {f"{kind} {name}": (table, normalised(sql or "")) for kind, name, table, sql in objects}
        for kind, name, _, _ in objects:
            if kind == "table":
                found[f"columns of {name}"] = ask(f"PRAGMA table_xinfo({name})").fetchall()
                found[f"keys of {name}"] = ask(f"PRAGMA foreign_key_list({name})").fetchall()
                found[f"indexes of {name}"] = sorted(row[1:] for row in ask(f"PRAGMA index_list({name})"))
            if kind == "index":
                found[f"columns of {name}"] = ask(f"PRAGMA index_xinfo({name})").fetchall()
    return found


def add_agent(database: Path, agent: str, **columns: object) -> None:
    """Insert an agent; what is not named gets its default."""
    insert(database, "agents", id=agent, name=agent, created_at=NOW, updated_at=NOW, **columns)


def insert(database: Path, table: str, **columns: object) -> None:
    """Insert one row."""
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    query(database, f"INSERT INTO {table} ({names}) VALUES ({marks})", *columns.values())


OLD_SESSIONS: dict[str, dict[str, Any]] = {
    "alive": {"expires_at": NOW + 86_400, "created_at": NOW - 86_400},
    "short": {"expires_at": NOW + 1, "created_at": NOW - 10},
    "long": {"expires_at": NOW + 5_000_000, "created_at": NOW - 1},
    "ends_now": {"expires_at": NOW, "created_at": NOW - 1_000},
    "expired": {"expires_at": NOW - 500, "created_at": NOW - 4_100},
    "revoked": {"expires_at": NOW + 500, "created_at": NOW - 500, "revoked_at": NOW - 100},
    "revoked_expired": {"expires_at": NOW - 50, "created_at": NOW - 500, "revoked_at": NOW - 100},
    "idle": {"constraints": '{"idleTimeout": 60, "own": [1]}'},
    "idle_longest": {"constraints": '{"idleTimeout":604800}'},
    "idle_too_short": {"constraints": '{"idleTimeout": 59}'},
    "idle_too_long": {"constraints": '{"idleTimeout": 604801}'},
    "idle_huge": {"constraints": '{"idleTimeout": 99999999999999999999}'},
    "idle_text": {"constraints": '{"idleTimeout": "60"}'},
    "idle_true": {"constraints": '{"idleTimeout": true}'},
    "idle_null": {"constraints": '{"idleTimeout": null}'},
    "idle_real": {"constraints": '{"idleTimeout": 100.5}'},
    "list": {"constraints": "[60]"},
    "broken": {"constraints": '{"idleTimeout": 60'},
    "empty": {"constraints": ""},
    "binary": {"constraints": b"\x00\xff"},
    "usage": {"constraints": "{}", "usage_stats": '{"n": 1}'},
}


def old_database(directory: Path) -> Path:
    """Return a database that migrations 0001 and 0002 built, with rows, in a directory of its own."""
    directory.mkdir()
    database = directory / "daemon.db"
    upgrade(database, first_migrations(directory / "first", 2), now=NOW - 1_000)
    add_agent(
        database, "a", status="ACTIVE", public_key="k", owner_address="addr", owner_verified=1, metadata='{"x":1}'
    )
    add_agent(database, "b")
    for name, columns in OLD_SESSIONS.items():
        defaults = {"expires_at": NOW + 3600, "created_at": NOW - 3600, **columns}
        insert(database, "sessions", id=name, agent_id="a", token_hash=f"hash of {name}", **defaults)
    insert(database, "key_value_store", key="k", value="v", updated_at=NOW)
    insert(database, "audit_log", id=1, timestamp=NOW, event_type="X", actor="owner", prev_hash="0", hash="1")
    return database

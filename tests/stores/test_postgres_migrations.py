"""PostgreSQL's migrations: the same tables as SQLite's, and the same care."""

import asyncio
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from daemon.stores.migrate import data_file, latest_version
from daemon.stores.migration_files import MigrationError
from daemon.stores.postgres import migrate as postgres_migrate
from daemon.stores.postgres.migrate import accepted_version, migrate, refuse_older, statements
from tests.stores import migration_help as sqlite
from tests.stores.migration_help import NOW, OLD_SESSIONS, write_migrations
from tests.stores.postgres_help import MIGRATIONS, columns, insert, refusal, schema, upgrade
from tests.stores.test_migrations import enums, row_of
from tests.support.postgres import ask, fresh_database, run_apart, script

OWN_TABLES = {"audit_head"}
OWN_COLUMNS = {"notification_outbox": ["taken_by", "taken_until"]}


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A migrated database that tests of this module leave as it is."""
    with fresh_database() as url:
        yield url


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    """SQLite's database of the same version."""
    path = tmp_path / "daemon.db"
    sqlite.upgrade(path)
    return path


def test_both_engines_have_the_same_migrations_by_number_and_name() -> None:
    names = [sorted(path.name for path in place.glob("*.sql")) for place in (data_file("migrations"), MIGRATIONS)]
    assert names[0] == names[1]
    assert len(names[0]) == latest_version()


def test_every_table_and_column_of_sqlite_is_there_in_the_same_order(database: str, twin: Path) -> None:
    found = columns(database)
    tables = {name for (name,) in sqlite.query(twin, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert set(found) == tables | OWN_TABLES
    for table in tables:
        expected = [
            (name, of_type(name, kind, table), bool(required or key))
            for _, name, kind, required, _, key in sqlite.query(twin, f"PRAGMA table_info({table})")
        ]
        own = len(OWN_COLUMNS.get(table, []))
        assert found[table][: len(expected)] == expected
        assert [name for name, _, _ in found[table][len(expected) :]] == OWN_COLUMNS.get(table, [])
        assert len(found[table]) == len(expected) + own


def of_type(column: str, kind: str, table: str) -> str:
    """Return the type that a column of SQLite's has in PostgreSQL."""
    if column in {"owner_verified", "enabled", "resumable", "may_revoke"}:
        return "boolean"
    times = {"timestamp", "last_activity", "reject_until"}
    if kind == "INTEGER" and (column.endswith("_at") or column in times):
        return "timestamp with time zone"
    return {"TEXT": "text", "INTEGER": "bigint", "BLOB": "bytea"}[kind]


def test_every_index_of_sqlite_is_there_over_the_same_columns(database: str, twin: Path) -> None:
    expected = {
        name: re.sub(r"\s+", " ", sql).replace("CREATE ", "", 1)
        for name, sql in sqlite.query(twin, "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql NOTNULL")
    }
    found = {
        name: sql.replace('"', "")
        for name, sql in ask(
            database, "SELECT indexname::text, indexdef FROM pg_indexes WHERE schemaname = current_schema()"
        )
        if name.startswith("idx_")
    }
    assert set(found) == set(expected) | {"idx_audit_head_is_one_row"}
    for name, sql in expected.items():
        words = re.search(r"\((.+?)\)(?: WHERE (.*))?$", sql)
        assert words is not None
        assert f"USING btree ({words[1]})" in found[name]
        assert ("UNIQUE" in sql, words[2] is None) == ("UNIQUE" in found[name], "WHERE" not in found[name])


def test_foreign_keys_end_as_in_sqlite(database: str, twin: Path) -> None:
    tables = [name for (name,) in sqlite.query(twin, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    expected = {
        (table, key[3], key[2], key[6])
        for table in tables
        for key in sqlite.query(twin, f"PRAGMA foreign_key_list({table})")
    }
    actions = {"a": "NO ACTION", "c": "CASCADE", "n": "SET NULL"}
    found = {
        (table, column, to, actions[action])
        for table, column, to, action in ask(
            database,
            "SELECT conrelid::regclass::text, a.attname::text, confrelid::regclass::text, confdeltype::text"
            " FROM pg_constraint JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = conkey[1]"
            " WHERE contype = 'f'",
        )
    }
    assert found == expected


def test_a_listed_column_takes_its_values_and_no_other(database_url: str) -> None:
    async def check() -> None:
        connection = await asyncpg.connect(database_url)
        try:
            await connection.execute(
                "INSERT INTO agents (id, name, created_at, updated_at) VALUES ('a', 'a', 'epoch', 'epoch');"
                "INSERT INTO sessions (id, agent_id, token_hash, expires_at, created_at)"
                " VALUES ('p1', 'a', 'p1', 'epoch', 'epoch')"
            )
            for table, column, allowed in enums():
                for value in (*allowed, "other", "", None):
                    row = {**row_of(table, 1), column: value}
                    cells = ", ".join(literal(name, cell) for name, cell in row.items())
                    insertion = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({cells})"
                    taken = await takes(connection, insertion)
                    assert taken == (value in allowed), (table, column, value)
        finally:
            await connection.close()

    run_apart(check())


def literal(column: str, value: object) -> str:
    """Return a value as SQL spells it."""
    if value is None:
        return "NULL"
    if column.endswith("_at") or column == "timestamp":
        return f"to_timestamp({value})"
    return f"'{value}'"


async def takes(connection: Any, statement: str) -> bool:
    """Return whether a statement is accepted; it is undone."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(statement)
    except (asyncpg.IntegrityConstraintViolationError, asyncpg.InvalidTextRepresentationError):
        return False
    else:
        return True
    finally:
        await transaction.rollback()


def test_rows_of_the_second_version_arrive_as_they_do_in_sqlite(empty_database_url: str, tmp_path: Path) -> None:
    twin = sqlite.old_database(tmp_path / "home")
    old = tmp_path / "old"
    first = write_first(old, 2)
    upgrade(empty_database_url, first, now=NOW - 1_000)
    names = [name for name in OLD_SESSIONS if name != "binary"]
    insert(empty_database_url, "agents", id="a", name="a", created_at=NOW, updated_at=NOW, status="SUSPENDED")
    for name in names:
        row = {"expires_at": NOW + 3600, "created_at": NOW - 3600, **OLD_SESSIONS[name]}
        insert(empty_database_url, "sessions", id=name, agent_id="a", token_hash=f"hash of {name}", **row)
    done = upgrade(empty_database_url)
    sqlite.upgrade(twin)
    assert (done.from_version, done.to_version) == (2, latest_version())
    listed = ", ".join(column for column, _, _ in columns(empty_database_url)["sessions"])
    found = ask(empty_database_url, f"SELECT {listed} FROM sessions ORDER BY id")
    assert found == sqlite.query(twin, f"SELECT {listed} FROM sessions WHERE id <> 'binary' ORDER BY id")
    assert ask(empty_database_url, "SELECT suspended_by, owner_verified FROM agents") == [("owner", False)]


def write_first(directory: Path, count: int) -> Path:
    """Copy the first migrations into a directory."""
    texts = {f"m{path.stem}": path.read_text() for path in sorted(MIGRATIONS.glob("*.sql"))[:count]}
    return write_migrations(directory, **texts)


def test_every_earlier_version_upgrades_with_its_rows_in_whatever_schema(
    empty_database_url: str, tmp_path: Path
) -> None:
    script(empty_database_url, "".join(f"CREATE SCHEMA v{count};" for count in range(latest_version())))
    schemas = [f"{empty_database_url}?search_path=v{count}" for count in range(latest_version())]
    upgrade(schemas[0])
    fresh = schema(schemas[0])
    for count, url in enumerate(schemas[1:], 1):
        upgrade(url, write_first(tmp_path / str(count), count))
        insert(url, "agents", id="a", name="a", created_at=NOW, updated_at=NOW)
        insert(url, "sessions", id="s", agent_id="a", token_hash="h", expires_at=NOW + 900, created_at=NOW)
        done = upgrade(url)
        assert (done.from_version, done.to_version) == (count, latest_version())
        assert ask(url, "SELECT id, token_hash, state FROM sessions") == [("s", "h", "READY")]
        assert schema(url) == fresh
    assert columns(empty_database_url) == {}


def test_the_ledger_names_each_migration_its_text_and_its_time(database: str) -> None:
    rows = ask(database, "SELECT version, name, applied_at FROM schema_migrations ORDER BY version")
    names = sorted(path.name for path in MIGRATIONS.glob("*.sql"))
    assert rows == [(number, name, NOW) for number, name in enumerate(names, 1)]
    done = upgrade(database, now=NOW + 1)
    assert (done.from_version, done.to_version, done.applied) == (latest_version(), latest_version(), ())
    assert run_apart(accepted_version(database)) == latest_version()


def test_a_checkout_with_other_line_ends_is_the_same(database: str, tmp_path: Path) -> None:
    for path in MIGRATIONS.glob("*.sql"):
        (tmp_path / path.name).write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert upgrade(database, tmp_path).applied == ()


def test_daemons_that_start_at_once_share_the_migrations(empty_database_url: str) -> None:
    async def start_all() -> list[Any]:
        return await asyncio.gather(*(migrate(empty_database_url, now=NOW) for _ in range(4)))

    done = run_apart(start_all())
    applied = sorted(name for one in done for name in one.applied)
    assert applied == sorted(path.name for path in MIGRATIONS.glob("*.sql"))
    assert {one.to_version for one in done} == {latest_version()}


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("SELEC 1;", r'failed at statement 3 \(SELEC 1;\): syntax error at or near "SELEC"'),
        ("-- Why.\nINSERT INTO t VALUES (1);", r"failed at statement 3 \(INSERT INTO t VALUES \(1\);\): duplicate key"),
        ("DO $$ BEGIN RAISE EXCEPTION 'no; never'; END; $$;", r"failed at statement 3 \(DO .*\): no; never"),
        ("COMMIT;", r"failed at statement 3 \(COMMIT;\): a migration may not control transactions"),
        ("/* ; */ begin;", r"failed at statement 3 .*: a migration may not control transactions"),
    ],
)
def test_a_failing_migration_leaves_nothing_and_says_where(
    empty_database_url: str, tmp_path: Path, second: str, said: str
) -> None:
    good = {"m0001_good": "CREATE TABLE t (n int PRIMARY KEY);\nINSERT INTO t VALUES (1);"}
    bad = f"CREATE TABLE u (n int);\nALTER TABLE t ADD COLUMN m int;\n{second}\nDROP TABLE t;"
    message = refusal(empty_database_url, write_migrations(tmp_path / "m", **good, m0002_bad=bad))
    assert re.search(rf"migration 0002_bad\.sql {said}", message), message
    assert ask(empty_database_url, "SELECT version FROM schema_migrations") == [(1,)]
    assert {name: [column[0] for column in found] for name, found in columns(empty_database_url).items()} == {
        "schema_migrations": ["version", "name", "sha256", "applied_at"],
        "t": ["n"],
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("INSERT INTO schema_migrations VALUES (99, '0099_later.sql', 'x', now())", "schema has version 99"),
        ("UPDATE schema_migrations SET sha256 = 'other' WHERE version = 4", "applied with a text other than that"),
        ("UPDATE schema_migrations SET name = '0002_x.sql' WHERE version = 2", "0002_x.sql was applied with a text"),
        ("DELETE FROM schema_migrations WHERE version = 3", "has 4 where 3 is due"),
        ("DROP TABLE schema_migrations", "but no record of migrations"),
    ],
)
def test_what_this_program_did_not_make_is_refused_and_left_as_it_is(database_url: str, change: str, said: str) -> None:
    script(database_url, change)
    before = (schema(database_url), ask(database_url, "SELECT count(*) FROM agents"))
    message = refusal(database_url)
    assert said in message
    assert message.startswith("postgresql://")
    with pytest.raises(MigrationError, match=re.escape(said)):
        run_apart(accepted_version(database_url))
    assert (schema(database_url), ask(database_url, "SELECT count(*) FROM agents")) == before


@pytest.mark.parametrize("version", [9, 13])
def test_an_old_server_is_refused_with_what_is_needed(version: int) -> None:
    with pytest.raises(MigrationError, match=rf"h/n: the server is PostgreSQL {version}; install version 14 or newer"):
        refuse_older("postgresql://u:secret@h/n", version)
    refuse_older("postgresql://u@h/n", 14)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE audit_log SET details = '{}'", "never changed"),
        ("UPDATE audit_log SET id = 7 WHERE id = 1", "never changed"),
        ("DELETE FROM audit_log WHERE id = 2", "never deleted"),
        ("TRUNCATE audit_log", "never deleted"),
        ("INSERT INTO audit_log SELECT * FROM audit_log WHERE id = 1 ON CONFLICT (id) DO UPDATE SET hash = 'x'", "cha"),
        ("SET session_replication_role = replica; DELETE FROM audit_log", "never deleted"),
    ],
)
def test_events_can_only_be_appended(events: str, statement: str, message: str) -> None:
    before = ask(events, "SELECT * FROM audit_log ORDER BY id")
    with pytest.raises(
        asyncpg.IntegrityConstraintViolationError, match=f"audit_log is append-only: events are .*{message}"
    ):
        script(events, statement)
    assert ask(events, "SELECT * FROM audit_log ORDER BY id") == before
    assert len(before) == 2


@pytest.fixture(scope="module")
def events() -> Iterator[str]:
    """A database with two events."""
    with fresh_database() as url:
        for number in (1, 2):
            insert(url, "audit_log", id=number, timestamp=NOW, event_type="X", actor="owner", prev_hash="0", hash="1")
        yield url


def test_the_chain_begins_at_nothing_and_has_one_head(database_url: str) -> None:
    assert ask(database_url, "SELECT id, hash FROM audit_head") == [(0, "0" * 64)]
    with pytest.raises(asyncpg.UniqueViolationError):
        insert(database_url, "audit_head", id=1, hash="x")


def test_ids_are_ordered_by_their_bytes(database_url: str) -> None:
    for name in ("b", "B", "a", "é", "-a"):
        insert(database_url, "agents", id=name, name=name, created_at=1, updated_at=1)
    found = [name for (name,) in ask(database_url, "SELECT id FROM agents ORDER BY id")]
    assert found == sorted(found, key=str.encode) == ["-a", "B", "a", "b", "é"]


def test_a_statement_ends_at_a_semicolon_that_is_no_part_of_it() -> None:
    parts = ["SELECT ';', 'it''s;' -- ;\n, \";\" /* ;\n */;", "DO $$ a; $$;", "DO $x$ $$;$$ $x$;", "SELECT 1"]
    assert list(statements("\n".join([*parts, "-- the end;"]))) == [*parts[:3], "SELECT 1\n-- the end;"]
    assert list(statements("-- nothing;\n")) == []


def test_the_limits_of_the_server_do_not_cut_a_migration_off_and_another_holder_is_named(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = write_migrations(tmp_path / "m", m0001_slow="CREATE TABLE t (n int);\nSELECT pg_sleep(0.1);")
    url = f"{empty_database_url}?statement_timeout=50"
    assert upgrade(url, slow).applied == ("0001_slow.sql",)
    monkeypatch.setattr(postgres_migrate, "LOCK_SECONDS", "0.01")
    with held(empty_database_url, "LOCK TABLE t"):
        message = refusal(empty_database_url, write_migrations(tmp_path / "m", m0002_more="ALTER TABLE t ADD m int"))
    assert "failed at statement 1 (ALTER TABLE t ADD m int): canceling statement due to lock timeout" in message
    assert "another daemon or program holds the tables" in message


@contextlib.contextmanager
def held(url: str, statement: str) -> Iterator[None]:
    """Keep a transaction open in which a statement was run."""
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(asyncpg.connect(url))
    try:
        loop.run_until_complete(connection.execute(f"BEGIN; {statement}"))
        yield
    finally:
        loop.run_until_complete(connection.close())
        loop.close()

"""The runner: atomic, recorded, refusing what it does not know, and safe to kill at any statement."""

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daemon.stores.migrate import MigrationError, data_file, latest_version, migrate, schema_version
from daemon.stores.migration_files import load, statements
from tests.stores.migration_help import (
    NOW,
    OLD_SESSIONS,
    add_agent,
    first_migrations,
    insert,
    old_database,
    query,
    refusal,
    schema,
    upgrade,
    write_migrations,
)
from tests.support.daemon_process import untraced

ROOT = Path(__file__).parents[2]
ONE = "CREATE TABLE one (x);\n"


def bytes_of(database: Path) -> dict[str, bytes]:
    """Return a database's file and its WAL, which holds data too unless it is empty."""
    paths = [database, database.with_name(f"{database.name}-wal")]
    return {path.name: path.read_bytes() for path in paths if path.exists() and path.stat().st_size}


def run_code(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=untraced(), capture_output=True, text=True, check=False)


# Statements


def test_a_semicolon_ends_a_statement_only_where_sqlite_says_so() -> None:
    trigger = "CREATE TRIGGER t BEFORE INSERT ON one BEGIN SELECT 1; SELECT CASE WHEN 1 THEN 2 END; END;"
    parts = ["-- a; b\nSELECT ';', \"a;b\" /* ; */ ;", trigger, "SELECT 'it''s;'"]
    assert list(statements("\n\n".join(parts[:2]) + "\n" + parts[2] + "\n-- the end; really\n")) == [
        *parts[:2],
        parts[2] + "\n-- the end; really",
    ]


def test_a_comment_at_the_end_is_no_statement() -> None:
    assert list(statements("SELECT 1;\n-- that was all; really\n\n")) == ["SELECT 1;"]


def test_triggers_and_comments_reach_the_database(tmp_path: Path) -> None:
    sql = ONE + "-- first; second\nCREATE TRIGGER t AFTER INSERT ON one BEGIN DELETE FROM one; DELETE FROM one; END;"
    database = tmp_path / "daemon.db"
    upgrade(database, write_migrations(tmp_path / "m", m0001_one=sql))
    insert(database, "one", x=1)
    assert query(database, "SELECT count(*) FROM one") == [(0,)]


# Names and texts


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0002_two.sql"], "0002_two.sql stands where number 0001 is due"),
        (["0001_one.sql", "0003_three.sql"], "0003_three.sql stands where number 0002 is due"),
        (["0001_one.sql", "0001_two.sql"], "0001_two.sql stands where number 0002 is due"),
        (["0001_One.sql"], "named NNNN_name.sql"),
        (["1_one.sql"], "named NNNN_name.sql"),
        ([], "there are no migrations"),
    ],
)
def test_files_that_are_not_numbered_from_one_without_a_gap_are_refused(
    tmp_path: Path, names: list[str], message: str
) -> None:
    directory = tmp_path / "m"
    directory.mkdir()
    for name in names:
        (directory / name).write_text(ONE)
    with pytest.raises(MigrationError, match=message):
        upgrade(tmp_path / "daemon.db", directory)
    assert not (tmp_path / "daemon.db").exists()


@pytest.mark.parametrize("content", [b"\0" * 100, b"SELECT '\xff';"])
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    directory = write_migrations(tmp_path / "m", m0001_one="")
    (directory / "0001_one.sql").write_bytes(content)
    with pytest.raises(MigrationError, match=str(directory)):
        load(directory)


def test_a_checkout_with_crlf_is_the_same(tmp_path: Path) -> None:
    directory = first_migrations(tmp_path / "m", latest_version())
    for path in directory.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    database, fresh = tmp_path / "daemon.db", tmp_path / "fresh.db"
    upgrade(database, directory)
    upgrade(fresh)
    assert query(database, "SELECT name, sql FROM sqlite_master") == query(fresh, "SELECT name, sql FROM sqlite_master")
    recorded = query(database, "SELECT sha256 FROM schema_migrations ORDER BY version")
    paths = sorted(data_file("migrations").glob("*.sql"))
    assert recorded == [(hashlib.sha256(path.read_bytes()).hexdigest(),) for path in paths]
    assert upgrade(database).applied == ()


def test_another_text_than_the_recorded_one_is_refused(tmp_path: Path) -> None:
    database = tmp_path / "daemon.db"
    upgrade(database, first_migrations(tmp_path / "m", 2))
    (tmp_path / "m/0002_owner_address.sql").write_text("SELECT 1;")
    before = bytes_of(database)
    assert "0002_owner_address.sql" in refusal(database, tmp_path / "m")
    assert bytes_of(database) == before


def test_another_name_than_the_recorded_one_is_refused(tmp_path: Path) -> None:
    database = tmp_path / "daemon.db"
    upgrade(database, write_migrations(tmp_path / "m", m0001_one=ONE))
    assert "0001_one.sql" in refusal(database, write_migrations(tmp_path / "other", m0001_uno=ONE))


# The ledger


def test_an_up_to_date_database_is_left_alone_and_costs_no_import(tmp_path: Path) -> None:
    database = tmp_path / "daemon.db"
    upgrade(database)
    code = (
        "import sys; from pathlib import Path; from daemon.stores.migrate import migrate\n"
        "print(migrate(Path(sys.argv[1]), now=1, backups=Path('/nowhere')).applied, 'sqlite_utils' in sys.modules)"
    )
    before = bytes_of(database)[database.name]
    assert run_code(code, database).stdout == "() False\n"
    assert bytes_of(database)[database.name] == before


def test_a_version_is_read_without_making_a_database(tmp_path: Path) -> None:
    assert schema_version(tmp_path / "daemon.db") == 0
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    (tmp_path / "daemon.db").touch()
    assert upgrade(tmp_path / "daemon.db").to_version == latest_version()


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "crashed"])
def test_a_newer_database_is_refused_and_untouched(tmp_path: Path, closed: bool) -> None:
    database = tmp_path / "daemon.db"
    upgrade(database)
    version = latest_version() + 1
    row = f"INSERT INTO schema_migrations VALUES ({version}, 'next.sql', 'x', 1)"
    end = "c.close()" if closed else "os.kill(os.getpid(), 9)"
    run_code(
        f"import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute({row!r}); c.commit(); {end}", database
    )
    before = bytes_of(database)
    assert ("daemon.db-wal" in before) is not closed
    assert f"version {version}, this program knows {latest_version()}" in refusal(database)
    assert bytes_of(database) == before
    assert schema_version(database) == version


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("DELETE FROM schema_migrations WHERE version = 2", "has 3 where 2 is due"),
        ("DELETE FROM schema_migrations WHERE version = 1", "has 2 where 1 is due"),
        ("INSERT INTO schema_migrations VALUES (0, '0000_zero.sql', 'x', 1)", "has 0 where 1 is due"),
        ("DELETE FROM schema_migrations", "no record of migrations"),
        ("DROP TABLE schema_migrations", "has tables (agents, answers, "),
        ("ALTER TABLE schema_migrations DROP COLUMN sha256", "no such column: sha256"),
    ],
)
def test_a_database_whose_ledger_does_not_explain_it_is_refused(tmp_path: Path, change: str, message: str) -> None:
    database = tmp_path / "daemon.db"
    upgrade(database)
    query(database, change)
    before = bytes_of(database)[database.name]
    assert message in refusal(database)
    assert bytes_of(database)[database.name] == before


# Failures inside a migration


def test_a_failing_migration_rolls_back_wholly_and_names_file_and_statement(tmp_path: Path) -> None:
    database = tmp_path / "daemon.db"
    good = "ALTER TABLE one ADD COLUMN y;\nCREATE TABLE two (x);\nINSERT INTO one VALUES (1, 2);\n"
    directory = write_migrations(
        tmp_path / "m", m0001_one=ONE, m0002_two=good + "-- why; not\nINSERT INTO two\nVALUES (1, 2);", m0003_three=ONE
    )
    done: list[str] = []
    with pytest.raises(MigrationError) as caught:
        migrate(database, now=NOW, backups=tmp_path, applied=done.append, migrations=directory)
    assert str(caught.value) == (
        f"{database}: migration 0002_two.sql failed at statement 4 (INSERT INTO two): "
        "table two has 1 columns but 2 values were supplied"
    )
    assert done == ["0001_one.sql"]
    assert schema_version(database) == 1
    assert query(database, "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE '%schema%'") == [("one", ONE[:-2])]
    write_migrations(directory, m0002_two=good, m0003_three="DROP TABLE two;")
    assert upgrade(database, directory).applied == ("0002_two.sql", "0003_three.sql")


def test_a_failing_first_migration_leaves_no_table_at_all(tmp_path: Path) -> None:
    database = tmp_path / "daemon.db"
    refusal(database, write_migrations(tmp_path / "m", m0001_one=ONE + "CREATE TABLE ("))
    assert query(database, "SELECT * FROM sqlite_master") == []
    assert upgrade(database).to_version == latest_version()


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT",
        "END",
        "ROLLBACK",
        "BEGIN",
        "SAVEPOINT s",
        "RELEASE s",
        "ATTACH ':memory:' AS o",
        "DETACH main",
        "VACUUM",
    ],
)
def test_a_migration_cannot_leave_its_transaction(tmp_path: Path, statement: str) -> None:
    database = tmp_path / "daemon.db"
    sql = f"{ONE}{statement};\nCREATE TABLE two (x);"
    message = refusal(database, write_migrations(tmp_path / "m", m0001_one=sql))
    assert f"statement 2 ({statement};)" in message
    assert statement == "VACUUM" or "may not control transactions or attach databases" in message
    assert query(database, "SELECT * FROM sqlite_master") == []


def test_a_rebuilt_table_takes_no_rows_with_it(tmp_path: Path) -> None:
    database = tmp_path / "daemon.db"
    one = "CREATE TABLE p (id PRIMARY KEY); CREATE TABLE c (p REFERENCES p (id) ON DELETE CASCADE);"
    rebuild = "CREATE TABLE q (id PRIMARY KEY, x); INSERT INTO q SELECT id, 1 FROM p;"
    rebuild += "DROP TABLE p; ALTER TABLE q RENAME TO p;"
    upgrade(database, write_migrations(tmp_path / "m", m0001_one=one))
    query(database, "INSERT INTO p VALUES (1)")
    query(database, "INSERT INTO c VALUES (1)")
    upgrade(database, write_migrations(tmp_path / "m", m0002_rebuild=rebuild))
    assert query(database, "SELECT p.id, p.x, c.p FROM p JOIN c ON c.p = p.id") == [(1, 1, 1)]


def test_a_migration_that_orphans_a_row_is_rolled_back(tmp_path: Path) -> None:
    database = tmp_path / "daemon.db"
    upgrade(database, first_migrations(tmp_path / "m", 1))
    add_agent(database, "a")
    insert(database, "sessions", id="s", agent_id="a", token_hash="h", expires_at=1, created_at=1)
    message = refusal(database, write_migrations(tmp_path / "m", m0002_orphan="DELETE FROM agents;"))
    assert "0002_orphan.sql failed: a row of sessions refers to a row of agents that does not exist" in message
    assert query(database, "SELECT count(*) FROM agents") == [(1,)]


# Backups


def test_a_database_with_rows_is_copied_first(tmp_path: Path) -> None:
    database = old_database(tmp_path / "home")
    before, rows = schema(database), query(database, "SELECT * FROM sessions")
    done = upgrade(database)
    assert done.backup == tmp_path / "home/backups/daemon-v0002-20250615T150640Z.db"
    assert list(done.backup.parent.iterdir()) == [done.backup]
    assert done.backup.stat().st_mode & 0o777 == 0o600
    assert done.backup.parent.stat().st_mode & 0o777 == 0o700
    assert schema(done.backup) == before
    assert query(done.backup, "SELECT * FROM sessions") == rows
    shutil.copy(done.backup, database)
    again = upgrade(database)
    assert again.backup is not None
    assert again.backup.name == "daemon-v0002-20250615T150640Z-2.db"


def test_what_is_still_in_the_wal_is_in_the_copy(tmp_path: Path) -> None:
    database = old_database(tmp_path / "home")
    with closing(sqlite3.connect(database)) as other, other:
        other.execute("PRAGMA wal_autocheckpoint = 0")
        other.execute("UPDATE key_value_store SET value = 'late'")
        other.commit()
        backup = upgrade(database).backup
    assert backup is not None
    assert query(backup, "SELECT value FROM key_value_store") == [("late",)]


def test_a_database_without_rows_is_not_copied(tmp_path: Path) -> None:
    database = tmp_path / "daemon.db"
    upgrade(database, first_migrations(tmp_path / "m", 2))
    assert upgrade(database).backup is None
    assert not (tmp_path / "backups").exists()


def test_no_copy_no_migration(tmp_path: Path) -> None:
    database = old_database(tmp_path / "home")
    (tmp_path / "home/backups").write_text("in the way")
    assert "the copy in" in refusal(database)
    assert schema_version(database) == 2
    (tmp_path / "home/backups").unlink()
    assert upgrade(database).to_version == latest_version()


# Files that are no usable database


def test_a_file_that_is_no_database_is_refused_and_untouched(tmp_path: Path) -> None:
    database = tmp_path / "daemon.db"
    database.write_text("not a database, but somebody's letter\n" * 100)
    before = database.read_bytes()
    assert "is not a SQLite database" in refusal(database)
    with pytest.raises(MigrationError, match="is not a SQLite database"):
        schema_version(database)
    assert bytes_of(database) == {"daemon.db": before}


def test_a_directory_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "daemon.db").mkdir()
    refusal(tmp_path / "daemon.db")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert "No such file or directory" in refusal(tmp_path / "none" / "daemon.db")


@pytest.mark.parametrize("page", [0, 1, 3, -1], ids=["schema", "second", "fourth", "last"])
def test_a_damaged_database_is_not_migrated(tmp_path: Path, page: int) -> None:
    database = old_database(tmp_path / "home")
    data = bytearray(database.read_bytes())
    start = 100 if page == 0 else page % (len(data) // 4096) * 4096
    data[start : start + 1000] = b"\xa5" * 1000
    database.write_bytes(data)
    assert "damaged" in refusal(database)
    assert database.read_bytes() == bytes(data)


def test_a_journal_that_a_crash_left_is_rolled_back_before_reading(tmp_path: Path) -> None:
    database = tmp_path / "daemon.db"
    upgrade(database, first_migrations(tmp_path / "m", 2))
    code = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA journal_mode = DELETE'); c.execute('PRAGMA cache_size = 2'); c.execute('BEGIN')\n"
        "c.execute('DELETE FROM schema_migrations')\n"
        "[c.execute('INSERT INTO key_value_store VALUES (?, ?, 1)', (i, 'x' * 500)) for i in range(2000)]\n"
        "os.kill(os.getpid(), 9)"
    )
    assert run_code(code, database).returncode == -signal.SIGKILL
    assert (tmp_path / "daemon.db-journal").stat().st_size > 0
    assert schema_version(database) == 2
    assert upgrade(database).to_version == latest_version()
    assert query(database, "PRAGMA journal_mode") == [("wal",)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 800 KiB; only root can make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=800k", "none", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def fill(disk: Path, leave: int) -> None:
    """Use up a disk but for some bytes."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filler").write_bytes(b"x" * (free - leave))


@pytest.mark.parametrize("leave", [0, 40_960, 81_920])
def test_a_full_disk_stops_a_new_database_and_freeing_space_mends_it(small_disk: Path, leave: int) -> None:
    database = small_disk / "daemon.db"
    fill(small_disk, leave)
    message = refusal(database)
    assert "disk is full" in message or "failed to read or write" in message
    (small_disk / "filler").unlink()
    assert upgrade(database).to_version == latest_version()


def test_a_full_disk_stops_an_upgrade_and_loses_no_row(small_disk: Path, tmp_path: Path) -> None:
    database = small_disk / "daemon.db"
    shutil.copy(old_database(tmp_path / "home"), database)
    fill(small_disk, 49_152)
    assert "the copy in" in refusal(database)
    with pytest.raises(MigrationError):
        migrate(database, now=NOW, backups=tmp_path / "elsewhere", migrations=None)
    (small_disk / "filler").unlink()
    assert query(database, "SELECT count(*) FROM sessions") == [(len(OLD_SESSIONS),)]
    assert upgrade(database).to_version == latest_version()


def test_a_read_only_disk_is_named(small_disk: Path) -> None:
    upgrade(small_disk / "daemon.db", first_migrations(small_disk / "m", 1))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert "read-only" in refusal(small_disk / "daemon.db").lower()
    assert "read-only" in refusal(small_disk / "new.db").lower()


# Concurrency


@pytest.mark.parametrize("start", ["new", "old"])
@pytest.mark.parametrize("attempt", range(3))
def test_runners_at_once_all_end_well_and_apply_each_migration_once(tmp_path: Path, start: str, attempt: int) -> None:
    database = old_database(tmp_path / "home") if start == "old" else tmp_path / "daemon.db"
    code = (
        "import sys, sqlite_utils; from pathlib import Path; from daemon.stores.migrate import migrate\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "done = migrate(Path(sys.argv[1]), now=1750000000, backups=Path(sys.argv[1]).parent / 'backups')\n"
        "print(' '.join(done.applied))"
    )
    command = [sys.executable, "-c", code, str(database)]
    pipe = subprocess.PIPE
    runs = [
        subprocess.Popen(command, cwd=ROOT, env=untraced(), stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        for _ in range(4)
    ]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("go\n")
        run.stdin.flush()
    answers = [run.communicate(timeout=60) for run in runs]
    assert [error for _, error in answers] == [""] * len(runs)
    pending = [path.name for path in sorted(data_file("migrations").glob("*.sql"))][2 if start == "old" else 0 :]
    assert sorted(" ".join(output for output, _ in answers).split()) == pending
    assert schema_version(database) == latest_version()
    if start == "old":
        assert query(database, "SELECT count(*) FROM sessions") == [(len(OLD_SESSIONS),)]


# Kill


@pytest.mark.parametrize("start", ["new", "old"])
def test_killed_at_any_statement_the_schema_is_old_or_new_and_never_between(
    tmp_path: Path, start: str, campaign: bool
) -> None:
    expected: dict[int, list[tuple[str, object]]] = {0: []}
    for count in range(1, latest_version() + 1):
        upgrade(tmp_path / f"{count}.db", first_migrations(tmp_path / f"first{count}", count))
        expected[count] = sorted(schema(tmp_path / f"{count}.db").items())
    source = old_database(tmp_path / "home") if start == "old" else ""
    (tmp_path / "runs").mkdir()
    command = [
        sys.executable,
        str(ROOT / "tests/stores/kill_migration.py"),
        str(source),
        str(tmp_path / "runs"),
        str(NOW),
        "1" if campaign else "7",
    ]
    run = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    total, tried = json.loads(run.stdout)
    first = 2 if start == "old" else 0
    pending = load(data_file("migrations"))[first:]
    assert total > sum(1 for migration in pending for _ in statements(migration.sql)) + 2 * len(pending)
    seen = [check_survivor(tmp_path / f"runs/{number}", expected, start) for number in tried]
    assert seen == sorted(seen)
    assert set(seen) == set(range(first, latest_version() + 1))


def check_survivor(home: Path, expected: dict[int, list[tuple[str, object]]], start: str) -> int:
    """Prove that a killed run left a whole database, that the next run completes it, and return its version."""
    database = home / "daemon.db"
    version = schema_version(database)
    if database.exists():
        assert sorted(schema(database).items()) == expected[version]
        assert query(database, "PRAGMA integrity_check") == [("ok",)]
    assert upgrade(database).to_version == latest_version()
    assert sorted(schema(database).items()) == expected[latest_version()]
    if start == "old":
        rows = query(database, "SELECT id FROM sessions WHERE absolute_expires_at = created_at + 2592000")
        assert {name for (name,) in rows} == set(OLD_SESSIONS)
        assert not list((home / "backups").glob(".*partial*"))
    return version

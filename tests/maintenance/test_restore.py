"""Restoring: refused unless it can be whole, whole at every moment, and nobody's old token works after it."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from daemon.domain.chain import verify
from daemon.domain.kill_switch import is_on
from daemon.files import sha256
from daemon.maintenance.exclusive import Refused
from daemon.maintenance.restore import Restored, restore
from daemon.settings import LogSettings
from tests.maintenance.conftest import Past
from tests.stores.migration_help import add_agent, first_migrations, insert, upgrade
from tests.support.daemon_process import REPOSITORY, UNTRACED, DaemonProcess, cli, environment
from tests.support.live import FakeTime, LiveDaemon
from tests.support.oauth import INTROSPECT, Service


def read(database: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


def write(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def files(home: Path) -> dict[str, bytes]:
    """Return every file, but for the scratch memory that readers of a write-ahead log share."""
    kept = (path for path in home.rglob("*") if path.is_file() and not path.name.endswith("-shm"))
    return {str(path.relative_to(home)): path.read_bytes() for path in kept}


def test_a_restore_revokes_every_session_keeps_the_old_database_and_says_what_it_replaced(past: Past) -> None:
    (head,) = read(past.root / "daemon.db", "SELECT id, hash FROM audit_log ORDER BY id DESC LIMIT 1")
    old = (past.root / "daemon.db").read_bytes()
    ended = cli(past.root, "restore", str(past.backup), "--yes", "--json", DAEMON_MASTER_PASSWORD=None)
    assert ended.code == 0, ended.err
    assert "master password is now the one of the backup" in ended.err
    assert ended.json()["sessionsRevoked"] == 1
    kept = Path(ended.json()["kept"])
    assert kept.name.startswith("daemon-before-restore-")
    assert (kept.stat().st_mode & 0o777, len(kept.read_bytes())) == (0o600, len(old))
    assert {name for (name,) in read(kept, "SELECT name FROM agents")} == {"early", "late"}
    live = LiveDaemon(past.root, FakeTime(1_750_001_000))
    try:
        assert [agent["name"] for agent in live.owner.get("/v1/agents").json()] == ["early"]
        assert live.agent(past.session["token"]).get("/v1/session").json()["code"] == "SESSION_REVOKED"
        (event,) = live.events(type="BACKUP_RESTORED")
        assert event["actor"] == "cli"
        assert event["details"] == {
            "backupSha256": sha256(past.backup), "replacedSeq": head[0], "replacedHash": head[1], "sessionsRevoked": 1,
            "verifiersRevoked": 0,
        }  # fmt: skip
        assert live.owner.get("/v1/admin/audit/verify").json()["valid"] is True
    finally:
        live.stop()
    lines = (past.root / "logs" / "daemon.log").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines].count("backup.restored") == 1
    log = past.root / "logs" / "daemon.log"
    assert cli(past.root, "audit", "verify", "--offline", "--against", str(log)).code == 0


def test_keep_sessions_keeps_them_with_a_warning(past: Past) -> None:
    ended = cli(past.root, "restore", str(past.backup), "--yes", "--keep-sessions")
    assert (ended.code, "look reused" in ended.err) == (0, True)
    live = LiveDaemon(past.root, FakeTime(1_750_001_000))
    try:
        assert live.agent(past.session["token"]).get("/v1/session").status_code == 200
    finally:
        live.stop()


@pytest.mark.parametrize("keep", [False, True])
def test_a_verifier_that_was_revoked_after_the_backup_does_not_come_back_with_it(tmp_path: Path, keep: bool) -> None:
    live = LiveDaemon(tmp_path / "home", FakeTime(1_750_000_000))
    try:
        service = Service(live)
        backup = Path(live.owner.post("/v1/admin/backup").raise_for_status().json()["path"])
        live.owner.delete(f"/v1/owner/verifiers/{service.id}").raise_for_status()
        live.stop()
        ended = cli(live.root, "restore", str(backup), "--yes", *(["--keep-sessions"] if keep else []))
        assert (ended.code, f"verifiers  {'kept' if keep else '1 revoked'}" in ended.out) == (0, True), ended
        live.start()
        assert service.at(live).post(INTROSPECT, data={"token": "x"}).status_code == (200 if keep else 401)
        revoked = [] if keep else [{"verifierId": service.id, "name": "gateway", "reason": "restored"}]
        assert [event["details"] for event in live.events(type="VERIFIER_REVOKED")] == revoked
        (event,) = live.events(type="BACKUP_RESTORED")
        assert event["details"]["verifiersRevoked"] == len(revoked)
    finally:
        live.stop()


def test_a_running_daemon_keeps_its_database_and_its_log(past: Past) -> None:
    daemon = DaemonProcess(past.root)
    try:
        ended = daemon.cli("restore", str(past.backup), "--yes")
        assert (ended.code, ended.err.count("\n")) == (5, 1)
        assert "daemon stop" in ended.err
        assert daemon.cli("audit", "archive", "--before", "2100-01-01").code == 5
        assert httpx.get(f"{daemon.url}/health", trust_env=False).status_code == 200
    finally:
        daemon.stop()


def test_without_a_terminal_a_restore_wants_yes(past: Past) -> None:
    before = files(past.root)
    ended = cli(past.root, "restore", str(past.backup))
    assert (ended.code, "--yes" in ended.err) == (2, True)
    assert files(past.root) == before


LATCHES = [
    ("""{"state":"ACTIVATED","reason":"stolen laptop"}""", True),
    ("""{"state":"RECOVERING"}""", True),
    ("not even JSON", True),
    ("""{"state":"NORMAL"}""", False),
]


def restored(past: Past) -> Restored:
    return restore(past.home, past.home.database, past.backup, LogSettings(), keep_sessions=False)


@pytest.mark.parametrize(("latch", "stays"), LATCHES)
def test_a_kill_switch_that_is_on_stays_on(past: Past, latch: str, stays: bool) -> None:
    write(past.root / "daemon.db", f"INSERT INTO key_value_store VALUES ('kill_switch', '{latch}', 1)")
    done = restore(past.home, past.home.database, past.backup, LogSettings(), keep_sessions=True)
    assert (done.kill_switch_kept, done.sessions_revoked) == (stays, int(stays))
    found = read(past.root / "daemon.db", "SELECT value FROM key_value_store WHERE key = 'kill_switch'")
    assert [is_on(value) for (value,) in found] == ([True] if stays else [])
    live = LiveDaemon(past.root, FakeTime(1_750_001_000))
    try:
        assert live.owner.post("/v1/agents", json={"name": "x"}).status_code == (503 if stays else 201)
        assert live.owner.post("/v1/admin/backup").status_code == 200
    finally:
        live.stop()


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_bytes(b"this is no database, but a text file\n" * 200)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwritten(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 : len(data) // 2] = b"\xff" * (len(data) // 2 - 4096)
    path.write_bytes(data)


def foreign(path: Path) -> None:
    path.unlink()
    write(path, "CREATE TABLE photos (id INTEGER PRIMARY KEY, name TEXT)")


def newer(path: Path) -> None:
    write(path, "INSERT INTO schema_migrations VALUES (9999, '9999_future.sql', 'x', 1)")


def tampered(path: Path) -> None:
    write(path, "DROP TRIGGER audit_log_refuses_update", "UPDATE audit_log SET actor = 'nobody' WHERE id = 3")


def orphaned(path: Path) -> None:
    write(path, "DELETE FROM agents")


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = [missing, empty, text, cut_off, overwritten, foreign, newer, tampered, orphaned, directory]


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_whole_backup_is_refused_in_one_line_and_nothing_changes(
    past: Past, damage: Callable[[Path], None]
) -> None:
    damage(past.backup)
    before = files(past.root)
    with pytest.raises(Refused) as refused:
        restored(past)
    assert str(past.backup) in refused.value.problem
    assert "\n" not in f"{refused.value.problem} {refused.value.cure}"
    assert "restoring" not in refused.value.problem
    assert files(past.root) == before


def test_the_command_tells_a_refusal_in_one_line(past: Past) -> None:
    newer(past.backup)
    ended = cli(past.root, "restore", str(past.backup), "--yes")
    assert (ended.code, ended.err.count("\n"), "install a newer version" in ended.err) == (1, 1, True)


def test_an_older_backup_is_brought_to_the_schema_of_the_program(past: Past, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    _make_old(old, tmp_path)
    assert cli(past.root, "restore", str(old), "--yes").code == 0
    assert read(past.root / "daemon.db", "SELECT max(version) FROM schema_migrations") == read(
        past.backup, "SELECT max(version) FROM schema_migrations"
    )
    assert read(past.root / "daemon.db", "SELECT revoked_reason FROM sessions") == [("restored",)]


def _make_old(path: Path, tmp_path: Path) -> None:
    upgrade(path, first_migrations(tmp_path / "first", 3))
    add_agent(path, "a")
    times = {"expires_at": 1_900_000_000, "created_at": 1_750_000_000, "absolute_expires_at": 1_900_000_000}
    insert(path, "sessions", id="s", agent_id="a", token_hash="h", **times)


def test_a_backup_goes_to_the_database_that_the_configuration_names(past: Past, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.db"
    url = f"sqlite:///{elsewhere}"
    before = (past.root / "daemon.db").read_bytes()
    assert cli(past.root, "restore", str(past.backup), "--yes", DAEMON_DATABASE_URL=url).code == 0
    assert read(elsewhere, "SELECT name FROM agents") == [("early",)]
    assert (past.root / "daemon.db").read_bytes() == before


def test_a_damaged_database_is_replaced_and_kept_as_it_was(past: Past) -> None:
    text(past.crashed / "daemon.db")
    old = (past.crashed / "daemon.db").read_bytes(), (past.crashed / "daemon.db-wal").read_bytes()
    ended = cli(past.crashed, "restore", str(past.backup), "--yes", "--json")
    assert ended.code == 0, ended.err
    kept = ended.json()["kept"]
    assert (Path(kept).read_bytes(), Path(f"{kept}-wal").read_bytes()) == old
    assert cli(past.crashed, "db", "check").code == 0
    assert read(past.crashed / "daemon.db", "SELECT name FROM agents") == [("early",)]


def test_what_was_replaced_can_be_restored_too_with_its_write_ahead_log(past: Past) -> None:
    kept = cli(past.crashed, "restore", str(past.backup), "--yes", "--json").json()["kept"]
    assert Path(f"{kept}-wal").exists()
    assert cli(past.crashed, "restore", kept, "--yes").code == 0
    assert {name for (name,) in read(past.crashed / "daemon.db", "SELECT name FROM agents")} == {"early", "late"}


def test_a_database_that_another_program_has_open_is_not_replaced(past: Past) -> None:
    with closing(sqlite3.connect(past.root / "daemon.db")) as other:
        other.execute("SELECT count(*) FROM agents").fetchall()
        ended = cli(past.root, "restore", str(past.backup), "--yes")
    assert (ended.code, "another program" in ended.err) == (1, True)
    assert len(read(past.root / "daemon.db", "SELECT 1 FROM agents")) == 2
    assert not list(past.root.glob("*.restoring*"))
    assert not list(past.home.backups.glob("*before-restore*"))


def test_killed_at_any_step_either_the_old_database_or_the_new_one_is_there_whole(
    past: Past, tmp_path: Path, campaign: bool
) -> None:
    (tmp_path / "runs").mkdir()
    driver = REPOSITORY / "tests/maintenance/kill_restore.py"
    points = "1000" if campaign else "24"
    command = [sys.executable, str(driver), str(past.crashed), str(past.backup), str(tmp_path / "runs"), points]
    env = environment(past.crashed, **UNTRACED)
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    done = json.loads(run.stdout)
    assert done["survived"] == []
    seen = [_check_survivor(tmp_path / "runs" / str(number)) for number in done["tried"]]
    assert seen == sorted(seen), "once the new database is there it stays"
    assert set(seen) == {False, True}
    for number in (done["tried"][seen.index(True) - 1], done["tried"][seen.index(True)]):
        live = LiveDaemon(tmp_path / "runs" / str(number), FakeTime(1_750_001_000))
        assert live.owner.get("/v1/admin/audit/verify").json()["valid"] is True
        live.stop()
        assert not list((tmp_path / "runs" / str(number)).rglob("*.restoring*"))


def _check_survivor(home: Path) -> bool:
    """Prove that one of the two databases is there with all that belongs to it, and return whether it is the new."""
    with closing(sqlite3.connect(home / "daemon.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        agents = {name for (name,) in connection.execute("SELECT name FROM agents")}
        columns = "id, timestamp, event_type, actor, agent_id, session_id, severity, details, request_id, ip_address"
        assert verify(connection.execute(f"SELECT {columns}, prev_hash, hash FROM audit_log ORDER BY id")).valid
        restored = connection.execute("SELECT 1 FROM audit_log WHERE event_type = 'BACKUP_RESTORED'").fetchall()
        left = connection.execute("SELECT count(*) FROM sessions WHERE revoked_at IS NULL").fetchone()
    new = restored != []
    assert (agents, left) == (({"early"}, (0,)) if new else ({"early", "late"}, (2,)))
    return new

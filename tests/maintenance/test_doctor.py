"""The doctor: finds each fault, names its cure, and leaves the home as it was."""

import asyncio
import http.server
import os
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daemon.home import Home
from daemon.maintenance.doctor import FIRST, OF_FILE, OF_HOME, examine
from daemon.maintenance.findings import Finding, Patient
from tests.maintenance.conftest import Past
from tests.maintenance.test_restore import files, newer, orphaned, overwritten, tampered, text, write
from tests.stores.migration_help import first_migrations, upgrade
from tests.stores.test_storage_faults import disk, fill, mounted  # noqa: F401 (the fixture)
from tests.support.daemon_process import DaemonProcess, cli
from tests.support.live import FakeTime, LiveDaemon

NOW = 1_750_001_000
FREE = {"DAEMON_SERVER_PORT": "0"}


def examined(root: Path, now: int = NOW, **env: str) -> list[Finding]:
    return asyncio.run(examine(Patient.of(Home.resolve(root, {}), {**FREE, **env}, now)))


@pytest.fixture
def healthy(past: Past) -> Past:
    shutil.copy(past.backup, past.home.backups / "daemon-20250615T150640Z.db")
    return past


def test_a_healthy_home_is_ok_in_every_check_and_is_left_as_it_was(healthy: Past) -> None:
    before = files(healthy.root)
    found = examined(healthy.root)
    assert [finding for finding in found if finding.status != "ok" or finding.cure] == []
    names = {check.__name__.removeprefix("check_").replace("_", "-") for check in (*FIRST, *OF_HOME, *OF_FILE)}
    assert names <= {finding.name for finding in found}
    assert files(healthy.root) == before


def test_a_healthy_daemon_is_ok_while_it_runs(healthy: Past) -> None:
    live = LiveDaemon(healthy.root, FakeTime(NOW))
    try:
        live.new_session()
        assert [finding for finding in examined(healthy.root) if finding.status != "ok"] == []
    finally:
        live.stop()


def test_the_command_exits_0_without_a_failure_and_1_with_one(healthy: Past) -> None:
    daemon = DaemonProcess(healthy.root)
    try:
        up = daemon.cli("doctor", "--json")
        assert (up.code, up.json()["healthy"], {one["status"] for one in up.json()["findings"]}) == (0, True, {"ok"})
    finally:
        daemon.stop()
    shutil.rmtree(healthy.home.backups)
    assert (cli(healthy.root, "doctor").code, "cure: run: daemon backup" in cli(healthy.root, "doctor").out) == (
        0,
        True,
    )
    tampered(healthy.root / "daemon.db")
    ended = cli(healthy.root, "doctor")
    assert (ended.code, "failed" in ended.out, "broken at event 3" in ended.out, ended.err) == (1, True, True, "")


# Faults: what prepares one, which check finds it, how it is judged, and words of the cure


def others_can_read(past: Past) -> None:
    past.root.chmod(0o755)


def others_can_write(past: Past) -> None:
    past.root.chmod(0o777)


def readable(name: str) -> Callable[[Past], None]:
    def prepare(past: Past) -> None:
        path = past.root / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        path.chmod(0o644)

    return prepare


def on_database(damage: Callable[[Path], None]) -> Callable[[Past], None]:
    return lambda past: damage(past.root / "daemon.db")


def sql(*statements: str) -> Callable[[Past], None]:
    return lambda past: write(past.root / "daemon.db", *statements)


def invalid_configuration(past: Past) -> None:
    (past.root / "config.toml").write_text("[server]\nprot = 1\n")


def foreign_owner(past: Past) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(past.root / "config.toml", 12345, 12345)


def first_password(past: Past) -> None:
    past.home.initial_password_file.write_text("secret")
    past.home.initial_password_file.chmod(0o600)


def crash(past: Past) -> None:
    past.home.pid_file.write_text("12345\n")


def no_database(past: Past) -> None:
    past.home.database.unlink()


def empty_database(past: Past) -> None:
    past.home.database.write_bytes(b"")


def older_schema(past: Past) -> None:
    past.home.database.unlink()
    upgrade(past.home.database, first_migrations(past.root.parent / "first", 3))


def newest_event_gone(past: Past) -> None:
    write(
        past.home.database,
        "DROP TRIGGER audit_log_refuses_delete",
        "DELETE FROM audit_log WHERE id = (SELECT max(id) FROM audit_log)",
    )


def large_wal(past: Past) -> None:
    with closing(sqlite3.connect(past.home.database)) as connection:
        connection.execute("INSERT INTO key_value_store VALUES ('k', 'v', 1)")
        connection.commit()
        wal = Path(f"{past.home.database}-wal").read_bytes()
    Path(f"{past.home.database}-wal").write_bytes(wal)
    Path(f"{past.home.database}-wal").chmod(0o600)
    os.truncate(f"{past.home.database}-wal", 65 << 20)


def password_of_a_server(past: Past) -> None:
    past.home.config_file.write_text('[conversations]\nurl = "redis://:secret@127.0.0.1:1"\n')
    past.home.config_file.chmod(0o644)


def log_of(content: bytes) -> Callable[[Past], None]:
    return lambda past: _write_log(past, content)


def _write_log(past: Past, content: bytes) -> None:
    with past.home.log_file("logs/daemon.log").open("ab") as log:
        log.write(content)


def log_is_a_directory(past: Past) -> None:
    past.home.log_file("logs/daemon.log").unlink()
    past.home.log_file("logs/daemon.log").mkdir(mode=0o700)


def no_log(past: Past) -> None:
    past.home.log_file("logs/daemon.log").unlink()


def no_backup(past: Past) -> None:
    for path in past.home.backups.iterdir():
        path.unlink()


def old_backup(past: Past) -> None:
    for path in past.home.backups.iterdir():
        os.utime(path, (NOW - 30 * 86_400, NOW - 30 * 86_400))


def file_in_the_way(past: Past) -> None:
    shutil.rmtree(past.home.logs)
    past.home.logs.touch(0o600)


def link_to_nowhere(past: Past) -> None:
    shutil.rmtree(past.home.backups)
    past.home.backups.symlink_to("nowhere")


FAULTS: list[tuple[Callable[[Past], None], str, str, str]] = [
    (others_can_read, "home", "warning", "chmod 700"),
    (others_can_write, "home", "failed", "chmod go-w"),
    (file_in_the_way, "home", "failed", "mv "),
    (link_to_nowhere, "home", "failed", "mv "),
    (invalid_configuration, "configuration", "failed", "daemon config check"),
    (readable("daemon.db"), "permissions", "failed", "chmod go="),
    (readable("seal.key"), "permissions", "failed", "chmod go="),
    (readable("backups/daemon-20250615T150640Z.db"), "permissions", "failed", "chmod go="),
    (readable("config.toml"), "permissions", "warning", "chmod go="),
    (password_of_a_server, "permissions", "failed", "chmod go="),
    (readable("logs/daemon.log"), "permissions", "warning", "chmod go="),
    (foreign_owner, "owner", "failed", "chown -R"),
    (first_password, "initial-password", "warning", "DAEMON_MASTER_PASSWORD_FILE="),
    (crash, "lock", "warning", "daemon start"),
    (no_database, "database", "failed", "daemon init"),
    (empty_database, "schema", "failed", "daemon init"),
    (on_database(text), "database", "failed", "daemon restore"),
    (on_database(overwritten), "database", "failed", "daemon restore"),
    (on_database(newer), "schema", "failed", "newest version"),
    (older_schema, "schema", "warning", "daemon start"),
    (sql("DROP TRIGGER audit_log_refuses_delete"), "schema", "failed", "daemon db schema"),
    (sql("DROP INDEX idx_sessions_agent_id"), "schema", "failed", "daemon restore"),
    (sql("CREATE TABLE photos (id)"), "schema", "failed", "daemon db schema"),
    (sql("ALTER TABLE agents ADD COLUMN extra"), "schema", "failed", "daemon db schema"),
    (on_database(orphaned), "foreign-keys", "failed", "daemon restore"),
    (on_database(tampered), "audit", "failed", "evidence"),
    (newest_event_gone, "checkpoints", "failed", "daemon audit verify --against"),
    (sql("DELETE FROM key_value_store WHERE key = 'master_password'"), "password", "failed", "daemon init"),
    (large_wal, "wal", "warning", "daemon restart"),
    (log_of(b"not json\n"), "log", "warning", "mv "),
    (log_of(b'{"ts": "2025'), "log", "warning", "mv "),
    (log_is_a_directory, "log", "failed", "mv "),
    (no_log, "log", "warning", "daemon start"),
    (no_backup, "backups", "warning", "daemon backup"),
    (old_backup, "backups", "warning", "daemon backup"),
]


@pytest.mark.parametrize(("prepare", "name", "status", "cure"), FAULTS)
def test_each_fault_is_found_with_its_cure(
    healthy: Past, prepare: Callable[[Past], None], name: str, status: str, cure: str
) -> None:
    prepare(healthy)
    before = files(healthy.root)
    found = [finding for finding in examined(healthy.root) if finding.status != "ok"]
    assert any((one.name, one.status) == (name, status) and cure in (one.cure or "") for one in found), found
    assert all(one.cure for one in found)
    assert files(healthy.root) == before


@pytest.mark.parametrize(
    ("now", "status"), [(1_750_000_100, "warning"), (1_750_000_200 - 2 * 86_400, "failed"), (0, "failed")]
)
def test_a_clock_that_is_behind_is_found(healthy: Past, now: int, status: str) -> None:
    (found,) = [finding for finding in examined(healthy.root, now) if finding.name == "clock"]
    assert (found.status, "timedatectl" in (found.cure or "")) == (status, True)


def test_a_home_that_is_not_there_is_the_only_finding(tmp_path: Path) -> None:
    (found,) = [finding for finding in examined(tmp_path / "none") if finding.status != "ok"]
    assert (found.name, found.status, "init" in (found.cure or "")) == ("home", "failed", True)


def test_a_port_that_another_program_has_is_found(healthy: Past) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        (found,) = [one for one in examined(healthy.root, DAEMON_SERVER_PORT=port) if one.status != "ok"]
    assert (found.name, found.status, "--port" in (found.cure or "")) == ("port", "failed", True)


class Impostor(http.server.BaseHTTPRequestHandler):
    """Answers as a daemon of another process does."""

    def do_GET(self) -> None:
        """Answer."""
        body = b'{"pid": 1, "status": "ok"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def impostor() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Impostor) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_daemon_that_does_not_answer_where_it_says_is_found(healthy: Past, impostor: str) -> None:
    live = LiveDaemon(healthy.root, FakeTime(NOW))
    try:
        info = healthy.home.json_file.read_text()
        for url, word in ((impostor, "another program"), ("http://127.0.0.1:1", "does not answer")):
            healthy.home.json_file.write_text(info.replace(live.url, url))
            (found,) = [one for one in examined(healthy.root) if one.status != "ok"]
            assert (found.name, found.status, word in found.detail) == ("port", "failed", True)
        healthy.home.json_file.write_text(info)
        healthy.home.pid_file.write_text("1\n")
        (found,) = [one for one in examined(healthy.root) if one.status != "ok"]
        assert (found.name, found.status, "restart" in (found.cure or "")) == ("lock", "warning", True)
    finally:
        live.stop()


def test_a_disk_that_is_nearly_full_full_or_read_only_is_found(healthy: Past, disk: Path) -> None:  # noqa: F811
    home = Path(shutil.copytree(healthy.root, disk / "home"))
    assert {"disk"} == {one.name for one in examined(home) if one.status == "failed"}
    fill(disk)
    found = {one.name: one for one in examined(home) if one.status == "failed"}
    assert found.keys() == {"disk", "writable"}
    assert "free some space" in (found["writable"].cure or "")
    assert mounted("-o", "remount,ro", str(disk))
    assert {"disk", "home", "writable"} <= {one.name for one in examined(home) if one.status == "failed"}
    assert mounted("-o", "remount,rw,size=60m", str(disk))
    assert {("disk", "warning")} == {(one.name, one.status) for one in examined(home) if one.status != "ok"}

"""Backups of a running daemon: whole, private, in nobody's way."""

import asyncio
import json
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from daemon.files import sha256
from tests.maintenance.conftest import Past
from tests.stores.test_storage_faults import disk, fill  # noqa: F401 (the fixture)
from tests.support.daemon_process import PASSWORD, DaemonProcess, cli
from tests.support.http import load, request
from tests.support.live import LiveDaemon

CONNECTIONS, EACH = 16, 120


def agents(database: Path) -> set[str]:
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        return {row[0] for row in connection.execute("SELECT id FROM agents")}


def test_a_backup_under_full_load_holds_everything_acknowledged_before_it_and_can_be_restored(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path / "home", DAEMON_SERVER_GLOBAL_RPM="0")
    headers = {"X-Master-Password": PASSWORD}
    httpx.get(f"{daemon.url}/v1/agents", headers=headers, trust_env=False).raise_for_status()
    body = json.dumps({"name": "busy", "metadata": {"fill": "x" * 500}}).encode()
    one = request("POST", "/v1/agents", body=body, X_Master_Password=PASSWORD)
    port, answers = int(daemon.url.rpartition(":")[2]), list[Any]()

    def work() -> None:
        answers.extend(asyncio.run(load(port, [[one] * EACH] * CONNECTIONS)))

    writers = threading.Thread(target=work)
    writers.start()
    time.sleep(0.15)
    spans, made = [], []
    while writers.is_alive() and len(made) < 3:
        started = time.perf_counter()
        made.append(httpx.post(f"{daemon.url}/v1/admin/backup", headers=headers, trust_env=False, timeout=30))
        spans.append((started, time.perf_counter()))
    writers.join()
    acknowledged = [answer for connection in answers for answer in connection]
    assert {answer.status for answer in acknowledged} == {201}
    assert any(start < answer.at < end for answer in acknowledged for start, end in spans), "nobody wrote meanwhile"
    for (start, _), answer in zip(spans, made, strict=True):
        found = answer.raise_for_status().json()
        before = {json.loads(answer.body)["id"] for answer in acknowledged if answer.at < start}
        assert before <= agents(Path(found["path"])), "an acknowledged change is not in the backup"
        assert (Path(found["path"]).stat().st_size, sha256(Path(found["path"]))) == (
            found["sizeBytes"],
            found["sha256"],
        )
        assert Path(found["path"]).stat().st_mode & 0o777 == 0o600
    assert max(end - start for start, end in spans) < 5
    daemon.stop()
    restored = tmp_path / "restored"
    assert cli(restored, "restore", made[-1].json()["path"], "--yes").code == 0
    assert agents(restored / "daemon.db") == agents(Path(made[-1].json()["path"]))
    assert cli(restored, "audit", "verify", "--offline").code == 0


def test_a_backup_is_recorded_by_name_and_two_at_once_do_not_collide(live: LiveDaemon) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: live.owner.post("/v1/admin/backup"), range(4)))
    made = [answer.raise_for_status().json() for answer in answers]
    assert len({one["path"] for one in made}) == 4
    events = live.events(type="BACKUP_CREATED")
    assert {event["details"]["path"] for event in events} == {Path(one["path"]).name for one in made}
    assert {event["details"]["sha256"] for event in events} == {one["sha256"] for one in made}
    assert {path.name for path in live.home.backups.iterdir()} == {Path(one["path"]).name for one in made}
    assert not list(live.root.glob("backups/*key*"))


def test_a_full_disk_is_503_with_a_hint_and_leaves_nothing_half_made(disk: Path) -> None:  # noqa: F811
    live = LiveDaemon(disk / "home")
    try:
        for _ in range(20):
            live.owner.post("/v1/agents", json={"name": "x", "metadata": {"fill": "y" * 8000}}).raise_for_status()
        filler = fill(disk)
        refused = live.owner.post("/v1/admin/backup")
        assert (refused.status_code, refused.json()["code"]) == (503, "STORAGE_UNAVAILABLE")
        assert "disk is full" in refused.json()["detail"]
        assert "Free disk space" in refused.json()["hint"]
        assert list(live.home.backups.iterdir()) == []
        filler.unlink()
        assert live.owner.post("/v1/admin/backup").status_code == 200
    finally:
        live.stop()


def test_a_broken_chain_is_not_backed_up(live: LiveDaemon) -> None:
    live.new_session()
    with closing(sqlite3.connect(live.home.database)) as database:
        database.execute("DROP TRIGGER audit_log_refuses_update")
        database.execute("UPDATE audit_log SET actor = 'nobody' WHERE id = 3")
        database.commit()
    refused = live.owner.post("/v1/admin/backup")
    assert (refused.status_code, list(live.home.backups.iterdir())) == (503, [])
    assert "event 3" in refused.json()["detail"]


def test_what_a_killed_backup_left_half_made_goes_at_the_next_start(past: Past) -> None:
    leftovers = [past.home.backups / ".daemon.partial", past.home.backups / ".daemon.partial-journal"]
    leftovers.append(past.root / "daemon.db.restoring")
    for path in leftovers:
        path.write_bytes(b"half")
    assert cli(past.root, "start", "--detach").code == 0
    assert cli(past.root, "stop").code == 0
    assert [path for path in leftovers if path.exists()] == []


def test_the_command_asks_the_daemon_and_copies_without_overwriting(past: Past, tmp_path: Path) -> None:
    daemon = DaemonProcess(past.root)
    try:
        made = daemon.cli("backup", str(tmp_path / "copy.db"), "--json").json()
        assert (made["path"], made["sha256"]) == (str(tmp_path / "copy.db"), sha256(tmp_path / "copy.db"))
        assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
        again = daemon.cli("backup", str(tmp_path / "copy.db"))
        assert (again.code, again.err.count("\n")) == (1, 1)
        assert "nothing is overwritten" in again.err
        assert len(list(past.home.backups.glob("daemon-*.db"))) == 1
    finally:
        daemon.stop()


def test_with_the_daemon_down_the_command_makes_the_copy_and_leaves_the_home_as_it_was(
    past: Past, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in past.root.iterdir() if path.is_file()}
    (tmp_path / "drawer").mkdir()
    made = cli(past.root, "backup", str(tmp_path / "drawer"), DAEMON_MASTER_PASSWORD=None)
    assert made.code == 0, made.err
    assert made.out.splitlines()[0].startswith(f"path    {tmp_path / 'drawer'}")
    assert {path.name: path.read_bytes() for path in past.root.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("content", [None, b"", b"no database at all" * 100])
def test_a_home_without_a_database_is_told_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    if content is not None:
        (tmp_path / "home" / "daemon.db").write_bytes(content)
    ended = cli(tmp_path / "home", "backup")
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "daemon.db" in ended.err

"""The audit archive: a proved file, an anchor in its place, and a chain that still shows what was touched."""

import asyncio
import hashlib
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from daemon.config import load
from daemon.domain.chain import GENESIS, chain_hash
from daemon.domain.errors import DaemonError
from daemon.domain.facts.daemon import AuditArchived
from daemon.home import Home
from daemon.maintenance import archive as maintenance
from daemon.settings import Config
from daemon.stores import inspection
from tests.maintenance.conftest import Past
from tests.maintenance.test_restore import files, read, write
from tests.stores.migration_help import schema
from tests.support.daemon_process import Ended, cli
from tests.support.live import FakeTime, LiveDaemon
from tests.support.postgres import ask

MIDDLE = datetime.fromtimestamp(1_750_000_150, UTC).isoformat()


def archive(home: Path, *arguments: str) -> Ended:
    return cli(home, "audit", "archive", *arguments, "--json", DAEMON_MASTER_PASSWORD=None)


def events(home: Path) -> list[dict[str, Any]]:
    live = LiveDaemon(home, FakeTime(1_750_001_000))
    try:
        return live.events()
    finally:
        live.stop()


def verified(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = cli(home, "audit", "verify", "--offline", "--json").json()
    return found


def test_an_archive_of_postgresql_leaves_a_whole_log_and_removes_no_event_that_is_not_in_its_file(
    tmp_path: Path, database_url: str
) -> None:
    env, home = {"DAEMON_DATABASE_URL": database_url}, tmp_path / "home"
    time = FakeTime(1_750_000_000)
    live = LiveDaemon(home, time, **env)
    live.new_session()
    time.advance(300)
    live.new_agent("late")
    shown = live.events()
    live.stop()
    old = [event for event in shown if event["timestamp"] < 1_750_000_150]
    done = cli(home, "audit", "archive", "--before", MIDDLE, "--json", **env).json()
    moved = [json.loads(line) for line in Path(done["file"]).read_text().splitlines()]
    assert (moved, done["events"], done["throughSeq"]) == (old, len(old), old[-1]["seq"])
    assert ask(database_url, "SELECT min(id) FROM audit_log") == [(len(old) + 1,)]
    assert ask(database_url, "SELECT actor FROM audit_log WHERE event_type = 'AUDIT_ARCHIVED'") == [("cli",)]
    found = cli(home, "audit", "verify", "--offline", "--json", **env).json()
    assert found["valid"] is True
    config = load(home, env, {}).config
    fact = AuditArchived(events=1, through_seq=found["head"]["seq"], through_hash="", file="x", sha256="")
    with pytest.raises(DaemonError, match="than those that are in the file"):
        asyncio.run(maintenance._remove(Home(home), config, fact))
    assert cli(home, "audit", "verify", "--offline", "--json", **env).json() == found


def test_an_archive_holds_the_events_as_the_api_shows_them_and_the_log_goes_on_without_a_gap(past: Past) -> None:
    shown, before = events(past.root), schema(past.root / "daemon.db")
    done = archive(past.root, "--before", MIDDLE).json()
    file = Path(done["file"])
    assert (file.parent, file.stat().st_mode & 0o777) == (past.home.backups, 0o600)
    moved = [json.loads(line) for line in file.read_text().splitlines()]
    old = [event for event in shown if event["timestamp"] < 1_750_000_150]
    assert (moved, done["events"], done["throughSeq"]) == (old, len(old), old[-1]["seq"])
    assert done["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert schema(past.root / "daemon.db") == before
    left = events(past.root)
    assert [event["seq"] for event in left] == list(range(len(old) + 1, len(old) + len(left) + 1))
    (anchor,) = [event for event in left if event["type"] == "AUDIT_ARCHIVED"]
    assert anchor["details"] == {
        "events": len(old), "throughSeq": old[-1]["seq"], "throughHash": old[-1]["hash"],
        "file": file.name, "sha256": done["sha256"],
    }  # fmt: skip
    assert anchor["actor"] == "cli"


def test_an_archived_log_verifies_online_offline_in_backups_and_against_its_log(past: Past, tmp_path: Path) -> None:
    assert archive(past.root, "--before", MIDDLE).code == 0
    assert verified(past.root)["valid"] is True
    log = str(past.root / "logs" / "daemon.log")
    assert cli(past.root, "audit", "verify", "--offline", "--against", log).code == 0
    live = LiveDaemon(past.root, FakeTime(1_750_001_000))
    try:
        assert live.owner.get("/v1/admin/audit/verify").json()["valid"] is True
        backup = live.owner.post("/v1/admin/backup").raise_for_status().json()["path"]
    finally:
        live.stop()
    assert cli(tmp_path / "other", "restore", backup, "--yes").code == 0
    again = archive(past.root, "--before", "2100-01-01").json()
    assert (verified(past.root)["valid"], verified(past.root)["events"]) == (True, 1)
    first, second = sorted(past.home.backups.glob("audit-*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    digest, seq = GENESIS, 0
    for line in [*first.read_text().splitlines(), *second.read_text().splitlines()]:
        event = json.loads(line)
        assert (event["prevHash"], event["seq"]) == (digest, seq + 1)
        digest, seq = event["hash"], event["seq"]
    assert (seq, digest) == (again["throughSeq"], again["throughHash"])


TOUCHED = {
    "changed": "UPDATE audit_log SET actor = 'nobody' WHERE id = (SELECT min(id) + 1 FROM audit_log)",
    "first removed": "DELETE FROM audit_log WHERE id = (SELECT min(id) FROM audit_log)",
    "all but the anchor removed": "DELETE FROM audit_log WHERE event_type <> 'AUDIT_ARCHIVED'",
    "anchor removed": "DELETE FROM audit_log WHERE event_type = 'AUDIT_ARCHIVED'",
    "anchor moved": "UPDATE audit_log SET details = replace(details, 'throughSeq\":', 'throughSeq\":1')",
}


@pytest.mark.parametrize("touched", TOUCHED)
def test_what_is_touched_after_an_archive_still_shows(past: Past, touched: str) -> None:
    database = past.home.database
    assert maintenance.archive(past.home, Config(), 1_750_000_150, None).events > 0
    with inspection.look(database) as connection:
        assert inspection.verify_chain(connection).valid is True
    write(database, *(f"DROP TRIGGER audit_log_refuses_{verb}" for verb in ("update", "delete")), TOUCHED[touched])
    with inspection.look(database) as connection:
        assert inspection.verify_chain(connection).valid is False


def test_an_anchor_that_was_made_up_for_a_log_that_was_cut_off_in_front_does_not_hold(past: Past) -> None:
    database = past.root / "daemon.db"
    assert archive(past.root, "--before", MIDDLE).code == 0
    write(database, "DROP TRIGGER audit_log_refuses_delete")
    write(database, "DELETE FROM audit_log WHERE id = (SELECT min(id) FROM audit_log)")
    with closing(sqlite3.connect(database)) as connection:
        (seq, prev), (first, first_prev) = (
            connection.execute(f"SELECT id, hash FROM audit_log ORDER BY id {order} LIMIT 1").fetchone()
            for order in ("DESC", "ASC")
        )
        details = json.dumps({"throughSeq": first - 1, "throughHash": first_prev})
        row = (seq + 1, 1_750_000_500, "AUDIT_ARCHIVED", "cli", None, None, "info", details, None, None)
        connection.execute(
            "INSERT INTO audit_log VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", (*row, prev, chain_hash(prev, row))
        )
        connection.commit()
    found = verified(past.root)
    assert (found["valid"], found["firstBad"]) == (False, first)


def test_a_broken_log_is_not_archived(past: Past) -> None:
    write(past.root / "daemon.db", "DROP TRIGGER audit_log_refuses_update")
    write(past.root / "daemon.db", "UPDATE audit_log SET actor = 'nobody' WHERE id = 3")
    before = files(past.root)
    ended = archive(past.root, "--before", MIDDLE)
    assert (ended.code, "event 3" in ended.err) == (1, True)
    assert files(past.root) == before


def test_nothing_older_archives_nothing_and_no_file_is_overwritten(past: Past, tmp_path: Path) -> None:
    before = files(past.root)
    assert archive(past.root, "--before", "2020-01-01").json()["events"] == 0
    (tmp_path / "taken").write_text("mine")
    ended = archive(past.root, "--before", MIDDLE, "--to", str(tmp_path / "taken"))
    assert (ended.code, "nothing is overwritten" in ended.err) == (1, True)
    nowhere = archive(past.root, "--before", MIDDLE, "--to", str(tmp_path / "nowhere" / "file"))
    assert (nowhere.code, "No such file or directory" in nowhere.err) == (1, True)
    assert [one.err.count("\n") for one in (ended, nowhere)] == [1, 1]
    assert files(past.root) == before
    for wrong in ("yesterday", "2025-06-15T12:00"):
        assert archive(past.root, "--before", wrong).code == 2
    assert archive(past.root, "--before", MIDDLE, "--to", str(tmp_path / "free")).code == 0
    assert (tmp_path / "free").read_text().count("\n") == read(
        past.root / "daemon.db", "SELECT min(id) - 1 FROM audit_log"
    )[0][0]

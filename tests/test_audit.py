"""The audit log: append-only, chained, verified, and never behind the structured log."""

import json
from typing import Any

import pytest

from tests.support import engines
from tests.support.daemon_process import DaemonProcess, cli
from tests.support.engines import both_engines
from tests.support.live import PASSWORD, START, LiveDaemon

pytestmark = both_engines


def tamper(live: LiveDaemon, sql: str, *values: int) -> None:
    engines.disarm(live.database)
    live.query(sql, *values)


@pytest.mark.parametrize(
    "change",
    [
        ("UPDATE audit_log SET details = '{}' WHERE id = 3",),
        ("UPDATE audit_log SET timestamp = ? WHERE id = 3", START + 1),
        ("UPDATE audit_log SET hash = prev_hash WHERE id = 3",),
        ("DELETE FROM audit_log WHERE id = 3",),
    ],
)
def test_verify_finds_the_first_event_that_was_touched(live: LiveDaemon, change: tuple[Any, ...]) -> None:
    live.new_session()
    assert live.owner.get("/v1/admin/audit/verify").json()["valid"] is True
    tamper(live, *change)
    verified = live.owner.get("/v1/admin/audit/verify").json()
    assert (verified["valid"], verified["firstBad"]) == (False, 3)


def test_verify_finds_a_log_that_was_cut_off(live: LiveDaemon) -> None:
    live.new_session()
    tamper(live, "DELETE FROM audit_log WHERE id = (SELECT max(id) FROM audit_log)")
    assert live.owner.get("/v1/admin/audit/verify").json()["valid"] is False


@pytest.mark.parametrize("sql", ["UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log"])
def test_triggers_refuse_changes(live: LiveDaemon, sql: str) -> None:
    with pytest.raises(engines.REFUSED):
        live.query(sql)


def test_events_are_filtered_and_paged_oldest_first(live: LiveDaemon) -> None:
    made = live.new_session()
    first = live.owner.get("/v1/admin/audit?limit=2")
    assert [event["seq"] for event in first.json()] == [1, 2]
    following = live.owner.get(first.links["next"]["url"]).json()
    assert following[0]["seq"] == 3
    assert {event["sessionId"] for event in live.events(sessionId=made["id"])} == {made["id"]}
    (created,) = live.events(type="SESSION_CREATED")
    assert (created["actor"], created["severity"], created["ipAddress"]) == ("owner", "info", "127.0.0.1")


def test_every_event_is_in_the_structured_log_with_its_seq(live: LiveDaemon) -> None:
    live.new_session()
    live.stop()
    lines = [json.loads(line) for line in (live.root / "logs" / "daemon.log").read_text().splitlines()]
    logged = [line["seq"] for line in lines if "seq" in line and line["event"] != "audit.checkpoint"]
    assert logged == list(range(1, live.query("SELECT max(id) FROM audit_log")[0][0] + 1))
    checkpoints = [line for line in lines if line["event"] == "audit.checkpoint"]
    assert checkpoints[-1]["seq"] == logged[-1]


def test_what_a_crash_kept_from_the_log_is_logged_at_the_next_start(live: LiveDaemon) -> None:
    live.new_session()
    live.stop()
    file = live.root / "logs" / "daemon.log"
    lines = file.read_text().splitlines(keepends=True)
    cut = next(number for number, line in enumerate(lines) if '"session.created"' in line)
    file.write_text("".join(lines[:cut]))
    live.start()
    live.stop()
    logged = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["event"] for line in logged].count("session.created") == 1


def test_the_command_line_verifies_offline_and_against_a_log(tmp_path) -> None:  # type: ignore[no-untyped-def]
    daemon = DaemonProcess(tmp_path / "home")
    daemon.cli("agent", "add", "a", "--session")
    log = daemon.ready["logFile"]
    assert daemon.cli("audit", "verify", "--against", log).code == 0
    daemon.stop()
    assert cli(daemon.home, "audit", "verify", "--offline", "--against", log).code == 0
    engines.disarm(daemon.home / "daemon.db")
    engines.ask(daemon.home / "daemon.db", "DELETE FROM audit_log WHERE id = (SELECT max(id) FROM audit_log)")
    assert cli(daemon.home, "audit", "verify", "--offline").code == 0
    cut = cli(daemon.home, "audit", "verify", "--offline", "--against", log)
    assert cut.code == 1
    assert "cut off" in cut.err
    assert PASSWORD not in cut.err


def test_the_command_line_lists_as_many_events_as_were_asked_for(live: LiveDaemon) -> None:
    for number in range(260):
        live.owner.post("/v1/agents", json={"name": f"agent {number}"})
    for count in (1, 200, 230):
        listed = cli(live.root, "audit", "list", "-n", str(count), "--json").json()
        assert [event["seq"] for event in listed] == list(range(1, count + 1))
    assert len(cli(live.root, "audit", "list", "-n", "230").out.splitlines()) == 231

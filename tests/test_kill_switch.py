"""The kill switch: everything stops, stays stopped, and only what it stopped comes back."""

import asyncio
import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.daemon_process import PASSWORD, DaemonProcess, cli, wait_for
from tests.support.engines import both_engines, broken, held, one_engine
from tests.support.http import load, request
from tests.support.live import LiveDaemon
from tests.support.owner import add, telegram
from tests.support.services.telegram import FakeTelegram
from tests.support.streams import Follower

pytestmark = both_engines

SWITCH = "/v1/admin/kill-switch"


def activate(live: LiveDaemon, reason: str = "it went mad") -> dict[str, Any]:
    answer: dict[str, Any] = live.owner.post(SWITCH, json={"reason": reason}).raise_for_status().json()
    return answer


def statuses(live: LiveDaemon) -> dict[str, str]:
    return {agent["name"]: agent["status"] for agent in live.owner.get("/v1/agents").json()}


def test_activation_revokes_every_session_and_suspends_every_active_agent_with_one_event(live: LiveDaemon) -> None:
    first, second = live.new_agent("first"), live.new_agent("second")
    sessions = [live.new_session(first), live.new_session(first), live.new_session(second)]
    live.owner.delete(f"/v1/sessions/{sessions[2]['id']}")
    state = activate(live)
    assert state == {
        "state": "ACTIVATED",
        "reason": "it went mad",
        "activatedAt": live.time.wall,
        "recoveryEligibleAt": None,
        "sessionsRevoked": 2,
        "agentsSuspended": 2,
        "processesKilled": 0,
        "processesLeft": 0,
    }
    assert live.owner.get(SWITCH).json() == state
    assert statuses(live) == {"first": "SUSPENDED", "second": "SUSPENDED"}
    (event,) = live.events(type="KILL_SWITCH_ACTIVATED")
    assert event["severity"] == "critical"
    assert event["details"] == {"reason": "it went mad", "sessionsRevoked": 2, "agentsSuspended": 2}
    revoked = [one for one in live.events(type="SESSION_REVOKED") if one["details"]["reason"] == "kill_switch"]
    assert {one["sessionId"] for one in revoked} == {sessions[0]["id"], sessions[1]["id"]}
    shown = live.owner.get(f"/v1/agents/{first}").json()
    assert (shown["suspensionReason"], shown["suspendedAt"]) == ("kill_switch", live.time.wall)
    assert live.anonymous.get("/health").json()["killSwitch"] == "ACTIVATED"
    assert live.owner.get("/v1/admin/status").json()["killSwitch"] == "ACTIVATED"


def test_while_it_is_on_only_health_owner_reads_and_the_way_back_answer(live: LiveDaemon) -> None:
    agent = live.new_agent()
    session = live.new_session(agent)
    client = live.agent(session["token"])
    activate(live)
    refused = [
        client.get("/v1/session"),
        client.delete("/v1/session"),
        client.put(f"/v1/sessions/{session['id']}/renew"),
        live.anonymous.get("/openapi.json"),
        live.anonymous.get("/nothing"),
        live.owner.post("/v1/agents", json={"name": "new"}),
        live.owner.post("/v1/sessions", json={"agentId": agent}),
        live.owner.post(f"/v1/agents/{agent}/activate"),
        live.owner.delete(f"/v1/agents/{agent}"),
        live.owner.post("/v1/owner/login"),
        live.owner.post("/v1/admin/rotate-secret"),
        live.owner.post("/v1/admin/cleanup"),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(503, "SYSTEM_LOCKED")] * 12
    assert not any(answer.json()["retryable"] for answer in refused)
    for path in ("/v1/agents", f"/v1/sessions/{session['id']}", "/v1/owner/sessions", "/v1/admin/audit/verify"):
        assert live.owner.get(path).status_code == 200
        assert live.anonymous.get(path).status_code == 401
    assert live.anonymous.get("/health").status_code == 200
    again = live.owner.post(SWITCH, json={"reason": "again"})
    assert (again.status_code, again.json()["code"]) == (409, "KILL_SWITCH_ALREADY_ACTIVE")
    changed = live.owner.post("/v1/admin/password", json={"newPassword": "another horse battery"})
    assert changed.status_code == 200


def test_recovery_reactivates_exactly_the_agents_that_the_switch_suspended(live: LiveDaemon) -> None:
    ids = {name: live.new_agent(name) for name in ("active", "suspended", "gone")}
    live.owner.post(f"/v1/agents/{ids['suspended']}/suspend", json={"reason": "kill_switch"})
    live.owner.delete(f"/v1/agents/{ids['gone']}")
    session = live.new_session(ids["active"])
    activate(live)
    answer = live.owner.post("/v1/admin/recover")
    assert (answer.status_code, answer.json()) == (200, {"state": "NORMAL", "agentsReactivated": 1})
    assert statuses(live) == {"active": "ACTIVE", "suspended": "SUSPENDED", "gone": "TERMINATED"}
    still = live.agent(session["token"]).get("/v1/session")
    assert (still.status_code, still.json()["code"]) == (401, "SESSION_REVOKED")
    assert live.agent(live.new_session(ids["active"])["token"]).get("/v1/session").status_code == 200
    twice = live.owner.post("/v1/admin/recover")
    assert (twice.status_code, twice.json()["code"]) == (409, "KILL_SWITCH_NOT_ACTIVE")
    assert live.owner.get(SWITCH).json()["state"] == "NORMAL"


def test_recovery_in_two_steps_waits_and_can_be_taken_back(launch: Callable[..., LiveDaemon]) -> None:
    live = launch(DAEMON_SECURITY_KILL_SWITCH_RECOVERY_WAIT="600")
    live.new_agent("one")
    activate(live)
    begun = live.owner.post("/v1/admin/recover")
    eligible = int(live.time.wall) + 600
    assert (begun.status_code, begun.json()) == (202, {"state": "RECOVERING", "recoveryEligibleAt": eligible})
    assert live.owner.post("/v1/agents", json={"name": "x"}).status_code == 503
    live.time.advance(599)
    early = live.owner.post("/v1/admin/recover")
    assert (early.status_code, early.json()["code"]) == (409, "RECOVERY_WAIT_REQUIRED")
    assert early.headers["Retry-After"] == "1"
    back = live.owner.post(SWITCH, json={"reason": "no, stay"})
    assert (back.status_code, back.json()["state"], back.json()["agentsSuspended"]) == (200, "ACTIVATED", 1)
    live.owner.post("/v1/admin/recover")
    live.time.advance(600)
    assert live.owner.post("/v1/admin/recover").json() == {"state": "NORMAL", "agentsReactivated": 1}


def test_it_is_still_on_after_a_restart(live: LiveDaemon) -> None:
    session = live.new_session()
    activate(live)
    live.restart()
    assert live.anonymous.get("/health").json()["killSwitch"] == "ACTIVATED"
    assert live.agent(session["token"]).get("/v1/session").json()["code"] == "SYSTEM_LOCKED"
    assert live.owner.post("/v1/admin/recover").status_code == 200
    live.restart()
    assert live.anonymous.get("/health").json()["killSwitch"] == "NORMAL"


def test_a_stored_state_that_cannot_be_read_counts_as_on_until_the_owner_recovers(live: LiveDaemon) -> None:
    session = live.new_session()
    live.stop()
    live.query("INSERT INTO key_value_store VALUES ('kill_switch', '{torn', ?)", 1)
    live.start()
    assert live.anonymous.get("/health").json()["killSwitch"] == "ACTIVATED"
    assert live.agent(session["token"]).get("/v1/session").json()["code"] == "SYSTEM_LOCKED"
    assert live.owner.get(SWITCH).json()["reason"] == "the stored state could not be read"
    assert live.owner.post("/v1/admin/recover").json() == {"state": "NORMAL", "agentsReactivated": 0}
    assert live.agent(session["token"]).get("/v1/session").status_code == 200


def test_while_owner_routes_are_locked_out_it_can_still_be_activated_at_one_attempt_a_second(live: LiveDaemon) -> None:
    for number in range(5):
        live.client(**{"X-Master-Password": f"wrong password {number}"}).get("/v1/agents")
    assert live.owner.get("/v1/agents").json()["code"] == "MASTER_AUTH_LOCKED"
    wrong = live.client(**{"X-Master-Password": "wrong once more"})
    assert wrong.post(SWITCH, json={"reason": "x"}).json()["code"] == "INVALID_MASTER_PASSWORD"
    hasty = live.owner.post(SWITCH, json={"reason": "x"})
    assert (hasty.status_code, hasty.json()["code"], hasty.headers["Retry-After"]) == (429, "RATE_LIMIT_EXCEEDED", "1")
    assert "`daemon stop`, then `daemon kill-switch on`" in hasty.json()["hint"]
    live.time.advance(1)
    assert live.owner.post(SWITCH, json={"reason": "x"}).json()["state"] == "ACTIVATED"
    assert live.owner.get("/v1/agents").json()["code"] == "MASTER_AUTH_LOCKED"


def test_a_ticket_activates_it_in_a_lockout_also_while_somebody_else_uses_up_the_attempts(live: LiveDaemon) -> None:
    ticket = live.owner.post("/v1/owner/login").json()["ticket"]
    for number in range(5):
        live.client(**{"X-Master-Password": f"wrong password {number}"}).get("/v1/agents")
    live.client(**{"X-Master-Password": "wrong once more"}).post(SWITCH, json={"reason": "x"})
    assert live.owner.post(SWITCH, json={"reason": "x"}).json()["code"] == "RATE_LIMIT_EXCEEDED"
    owner, forged = (live.client(Authorization=f"Bearer {text}") for text in (ticket, ticket[:-4] + "AAAA"))
    assert owner.get("/v1/agents").json()["code"] == "MASTER_AUTH_LOCKED"
    assert forged.post(SWITCH, json={"reason": "x"}).json()["code"] == "INVALID_MASTER_PASSWORD"
    assert owner.post(SWITCH, json={"reason": "x"}).json()["state"] == "ACTIVATED"


@one_engine
@pytest.mark.parametrize("reason", ["", "x" * 501, None, 7])
def test_a_reason_of_1_to_500_characters_is_required(live: LiveDaemon, reason: Any) -> None:
    answer = live.owner.post(SWITCH, json={"reason": reason})
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "reason")
    assert live.owner.get(SWITCH).json()["state"] == "NORMAL"


def test_under_32_busy_connections_no_agent_gets_a_2xx_for_what_it_sent_after_the_answer(live: LiveDaemon) -> None:
    tokens = [live.new_session(live.new_agent(f"busy {number}"))["token"] for number in range(16)]
    batches = []
    for number in range(32):
        auth = f"Bearer {tokens[number // 2]}"
        read = request("GET", "/v1/session", Authorization=auth)
        batches.append([read] * 500)
    answered: list[float] = []

    async def main() -> list[Any]:
        busy = asyncio.create_task(load(int(live.url.rpartition(":")[2]), batches))
        await asyncio.sleep(0.15)
        async with httpx.AsyncClient(base_url=live.url, trust_env=False) as owner:
            headers = {"X-Master-Password": PASSWORD}
            (await owner.post(SWITCH, json={"reason": "now"}, headers=headers)).raise_for_status()
        answered.append(time.perf_counter())
        return await busy

    results = asyncio.run(main())
    sent_after = [one for answers in results for one in answers if one.at - one.seconds > answered[0]]
    assert sum(len(answers) for answers in results) == 16_000
    assert len(sent_after) > 1000
    assert {one.status for one in sent_after} == {503}
    before = [one for answers in results for one in answers if one.at < answered[0]]
    assert any(one.status == 200 for one in before)
    activated = live.events(type="KILL_SWITCH_ACTIVATED")[0]["seq"]
    by_agents = [one for one in live.events() if one["seq"] > activated and one["actor"].startswith("agent:")]
    assert by_agents == [], "an agent's transaction was committed after the kill switch"


def test_agents_are_refused_while_the_activation_is_still_being_written(live: LiveDaemon) -> None:
    agent = live.agent(live.new_session()["token"])
    assert agent.get("/v1/session").status_code == 200
    with ThreadPoolExecutor() as pool:
        with held(live.database):
            activation = pool.submit(activate, live)
            wait_for(lambda: agent.get("/v1/session").status_code == 503, seconds=3)
            assert not activation.done()
        assert activation.result()["state"] == "ACTIVATED"
    assert agent.get("/v1/session").json()["code"] == "SYSTEM_LOCKED"


@pytest.mark.parametrize("path", ["/v1/session", "/v1/session/events"])
def test_a_request_that_is_only_complete_after_the_answer_gets_no_2xx(live: LiveDaemon, path: str) -> None:
    token, port = live.new_session()["token"], int(live.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as slow:
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
        slow.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n".encode())
        wait_for(lambda: live.daemon.envelope.in_flight == 1)
        activate(live)
        slow.sendall(b"{}")
        assert slow.recv(4096).startswith(b"HTTP/1.1 503 ")


def test_agents_are_refused_at_once_also_when_it_is_pressed_on_the_phone(live: LiveDaemon) -> None:
    with FakeTelegram() as phone:
        add(live, telegram(phone))
        agent = live.agent(live.new_session()["token"])
        assert agent.get("/v1/session").status_code == 200
        phone.wait(lambda: phone.messages)
        with held(live.database):
            query = phone.press(next(iter(phone.messages)), "Kill switch")
            wait_for(lambda: agent.get("/v1/session").status_code == 503, seconds=4)
        phone.wait(lambda: query in phone.answers)
        assert live.owner.get(SWITCH).json()["reason"] == "answered through phone"


def test_an_activation_that_could_not_be_written_leaves_everything_running(live: LiveDaemon) -> None:
    agent = live.agent(live.new_session()["token"])
    with broken(live.database, "audit_log", "NEW.event_type = 'KILL_SWITCH_ACTIVATED'"):
        answer = live.owner.post(SWITCH, json={"reason": "now"})
        assert (answer.status_code, answer.json()["code"]) == (503, "STORAGE_UNAVAILABLE")
        assert agent.get("/v1/session").status_code == 200
    assert activate(live)["state"] == "ACTIVATED"


def test_agents_streams_end_within_a_second_and_the_owners_shows_what_happened(live: LiveDaemon) -> None:
    session = live.new_session()
    agents = Follower(live.url, "/v1/session/events", Authorization=f"Bearer {session['token']}")
    owners = Follower(live.url, X_Master_Password=PASSWORD)
    began = time.monotonic()
    activate(live)
    assert agents.wait_end() - began < 1
    owners.wait(lambda: "KILL_SWITCH_ACTIVATED" in owners.types)
    assert owners.ended_at is None
    again = Follower(live.url, X_Master_Password=PASSWORD)
    assert again.status == 200
    for one in (owners, again):
        one.close()


def test_the_command_line_switches_it_on_and_off_also_with_the_daemon_down(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path / "home")
    made = daemon.cli("agent", "add", "one", "--session", "--json").json()
    assert "1 sessions revoked, 1 agents suspended" in daemon.cli("kill-switch", "on", "--reason", "drill").out
    assert json.loads(daemon.cli("kill-switch", "status", "--json").out)["reason"] == "drill"
    assert "kill switch" in daemon.cli("status").out
    assert daemon.cli("kill-switch", "off").code == 2
    assert "1 agents are active again" in daemon.cli("kill-switch", "off", "--yes").out
    token = daemon.cli("session", "create", "--agent", made["agent"]["id"], "--output", "token").out.strip()
    daemon.kill9()
    home = tmp_path / "home"
    down = cli(home, "kill-switch", "on", DAEMON_MASTER_PASSWORD=None)
    assert (down.code, down.err) == (0, "")
    assert "1 sessions revoked, 1 agents suspended" in down.out
    twice = cli(home, "kill-switch", "on")
    assert twice.code == 1
    assert "KILL_SWITCH_ALREADY_ACTIVE" in twice.err
    assert cli(home, "kill-switch", "off", "--yes").code == 1
    daemon.start()
    answer = httpx.get(f"{daemon.url}/v1/session", headers={"Authorization": f"Bearer {token}"}, trust_env=False)
    assert answer.json()["code"] == "SYSTEM_LOCKED"
    assert daemon.cli("kill-switch", "off", "--yes").code == 0
    assert daemon.stop() == 0
    assert cli(tmp_path / "nothing", "kill-switch", "on").code == 1

"""Auto-stop, the warning before a session's end, and what agents publish."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.support.engines import both_engines, one_engine
from tests.support.live import LiveDaemon

pytestmark = both_engines

RESTRICTED = {"allowedOperations": ["session.*"]}


def breach(live: LiveDaemon, session: dict[str, Any]) -> httpx.Response:
    return live.agent(session["token"]).put(f"/v1/sessions/{session['id']}/renew")


def incidents(live: LiveDaemon, session: dict[str, Any], minutes: int) -> None:
    for _ in range(minutes):
        breach(live, session)
        live.time.advance(60)


def status_of(live: LiveDaemon, agent: str) -> str:
    return str(live.owner.get(f"/v1/agents/{agent}").json()["status"])


def test_breaches_in_five_distinct_minutes_of_an_hour_suspend_the_agent(live: LiveDaemon) -> None:
    agent = live.new_agent()
    session = live.new_session(agent, constraints=RESTRICTED)
    incidents(live, session, 4)
    assert status_of(live, agent) == "ACTIVE"
    assert breach(live, session).json()["code"] == "CONSTRAINT_VIOLATED"
    assert status_of(live, agent) == "SUSPENDED"
    (event,) = live.events(type="AUTO_STOP_TRIGGERED")
    assert (event["severity"], event["agentId"]) == ("critical", agent)
    assert event["details"] == {"minutes": 5, "threshold": 5}
    assert live.owner.get(f"/v1/agents/{agent}").json()["suspensionReason"] == "auto_stop"
    assert live.agent(session["token"]).get("/v1/session").json()["code"] == "AGENT_SUSPENDED"


def test_incidents_of_one_minute_count_once_and_old_ones_not_at_all(live: LiveDaemon) -> None:
    agent = live.new_agent()
    sessions = [live.new_session(agent, constraints=RESTRICTED) for _ in range(5)]
    for session in sessions:
        breach(live, session)
    assert status_of(live, agent) == "ACTIVE"
    live.time.advance(3600)
    incidents(live, sessions[0], 4)
    assert status_of(live, agent) == "ACTIVE"


def test_reused_tokens_count_too_and_after_the_owner_activates_counting_begins_anew(live: LiveDaemon) -> None:
    agent = live.new_agent()
    sessions = [live.new_session(agent, ttl=300) for _ in range(5)]
    live.time.advance(150)
    for session in sessions:
        renewed = live.agent(session["token"]).put(f"/v1/sessions/{session['id']}/renew").json()
        live.agent(renewed["token"]).get("/v1/session")
    live.time.advance(31)
    for session in sessions[:4]:
        assert breach(live, session).json()["code"] == "TOKEN_REUSED"
        live.time.advance(60)
    assert status_of(live, agent) == "ACTIVE"
    restricted = live.new_session(agent, constraints=RESTRICTED)
    breach(live, restricted)
    assert status_of(live, agent) == "SUSPENDED"
    live.owner.post(f"/v1/agents/{agent}/activate")
    live.time.advance(60)
    incidents(live, restricted, 4)
    assert status_of(live, agent) == "ACTIVE"


def test_an_agent_that_polls_too_fast_is_never_stopped(live: LiveDaemon) -> None:
    agent = live.new_agent()
    session = live.new_session(agent, constraints={"requestsPerMinute": 2, "maxRequests": 9})
    client = live.agent(session["token"])
    codes = set()
    for _ in range(20):
        codes |= {client.get("/v1/session").json().get("code") for _ in range(5)}
        live.time.advance(60)
    assert codes == {None, "RATE_LIMIT_EXCEEDED", "CONSTRAINT_VIOLATED"}
    assert status_of(live, agent) == "ACTIVE"
    assert live.events(type="AUTO_STOP_TRIGGERED") == []


def test_the_threshold_0_stops_nobody(launch: Callable[..., LiveDaemon]) -> None:
    live = launch(DAEMON_SECURITY_AUTO_STOP_THRESHOLD="0")
    agent = live.new_agent()
    incidents(live, live.new_session(agent, constraints=RESTRICTED), 10)
    assert status_of(live, agent) == "ACTIVE"


def test_recovery_from_the_kill_switch_does_not_bring_back_what_auto_stop_suspended(
    launch: Callable[..., LiveDaemon],
) -> None:
    live = launch(DAEMON_SECURITY_AUTO_STOP_THRESHOLD="1")
    agent = live.new_agent()
    incidents(live, live.new_session(agent, constraints=RESTRICTED), 1)
    live.owner.post("/v1/admin/kill-switch", json={"reason": "x"})
    assert live.owner.post("/v1/admin/recover").json()["agentsReactivated"] == 0
    assert status_of(live, agent) == "SUSPENDED"


def test_expiring_soon_is_told_once_when_three_renewals_are_left(live: LiveDaemon) -> None:
    session = live.new_session(ttl=300, constraints={"maxRenewals": 5})
    for _ in range(5):
        live.time.advance(150)
        answer = live.agent(session["token"]).put(f"/v1/sessions/{session['id']}/renew")
        session["token"] = answer.raise_for_status().json()["token"]
    (event,) = live.events(type="SESSION_EXPIRING_SOON")
    assert event["details"]["remainingRenewals"] == 3
    assert event["severity"] == "warning"


def test_expiring_soon_is_told_when_the_absolute_end_is_a_day_away(launch: Callable[..., LiveDaemon]) -> None:
    live = launch(DAEMON_SECURITY_SESSION_ABSOLUTE_LIFETIME="172800")
    session = live.new_session(ttl=86_400)
    client = live.agent(session["token"])
    live.time.advance(43_200)
    token = client.put(f"/v1/sessions/{session['id']}/renew").json()["token"]
    assert live.events(type="SESSION_EXPIRING_SOON") == []
    live.time.advance(43_201)
    live.agent(token).put(f"/v1/sessions/{session['id']}/renew").raise_for_status()
    (event,) = live.events(type="SESSION_EXPIRING_SOON")
    assert event["details"]["remainingRenewals"] == 28


def test_expiring_soon_is_told_once_at_a_refusal_by_the_limit(live: LiveDaemon) -> None:
    session = live.new_session(constraints={"maxRenewals": 0})
    client = live.agent(session["token"])
    for _ in range(3):
        answer = client.put(f"/v1/sessions/{session['id']}/renew")
        assert (answer.status_code, answer.json()["code"]) == (403, "RENEWAL_LIMIT_REACHED")
    (event,) = live.events(type="SESSION_EXPIRING_SOON")
    assert event["sessionId"] == session["id"]


def publish(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/v1/session/events", json=body)


def test_an_agent_publishes_events_and_gets_their_sequence_numbers(live: LiveDaemon) -> None:
    session = live.new_session()
    client = live.agent(session["token"])
    for number, kind in enumerate(("TX_NOTIFY", "TX_DELAY_QUEUED", "TX_DELAY_EXECUTED", "TX_APPROVAL_REQUEST")):
        answer = publish(client, type=kind, referenceId=f"tx-{number}", title="<b>5 SOL</b>", details={"to": "@all"})
        assert answer.status_code == 202
        (event,) = live.events(type=kind)
        assert event["seq"] == answer.json()["seq"]
        assert event["actor"] == f"agent:{event['agentId']}"
        assert event["details"] == {
            "referenceId": f"tx-{number}",
            "title": "<b>5 SOL</b>",
            "details": {"to": "@all"},
        }
    assert publish(client, type="AGENT_REPORT").status_code == 202
    assert live.owner.get("/v1/admin/audit/verify").json()["valid"]


@one_engine
@pytest.mark.parametrize(
    "body",
    [
        {"type": "SESSION_REVOKED"},
        {"type": "KILL_SWITCH_ACTIVATED", "title": "x"},
        {"type": "AGENT_REPORT", "title": ""},
        {"type": "AGENT_REPORT", "title": "x" * 201},
        {"type": "AGENT_REPORT", "referenceId": "two\nlines"},
        {"type": "AGENT_REPORT", "details": [1]},
        {"type": "AGENT_REPORT", "details": {"x": "y" * 20_000}},
        {"type": "AGENT_REPORT", "severity": "critical"},
        {},
    ],
)
def test_what_is_no_event_of_an_agent_is_refused_and_nothing_written(live: LiveDaemon, body: dict[str, Any]) -> None:
    session = live.new_session()
    client = live.agent(session["token"])
    client.get("/v1/session")
    before = len(live.events())
    answer = publish(client, **body)
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
    assert len(live.events()) == before


def test_a_session_publishes_30_events_a_minute_and_no_more(live: LiveDaemon) -> None:
    agent = live.new_agent()
    client, other = (live.agent(live.new_session(agent)["token"]) for _ in range(2))
    answers = [publish(client, type="AGENT_REPORT") for _ in range(31)]
    assert [answer.status_code for answer in answers] == [202] * 30 + [429]
    assert (answers[30].json()["code"], answers[30].headers["Retry-After"]) == ("RATE_LIMIT_EXCEEDED", "61")
    assert (answers[0].headers["RateLimit-Limit"], answers[0].headers["RateLimit-Remaining"]) == ("30", "29")
    assert client.get("/v1/session").headers["RateLimit-Limit"] == "6000"
    assert publish(other, type="AGENT_REPORT").status_code == 202
    live.time.advance(60)
    assert publish(client, type="AGENT_REPORT").status_code == 202
    assert len(live.events(type="AGENT_REPORT")) == 32


def test_publishing_is_an_operation_that_constraints_can_forbid(live: LiveDaemon) -> None:
    session = live.new_session(constraints={"allowedOperations": ["session.read"]})
    answer = publish(live.agent(session["token"]), type="AGENT_REPORT")
    assert (answer.status_code, answer.json()["code"]) == (403, "CONSTRAINT_VIOLATED")
    assert live.events(type="AGENT_REPORT") == []

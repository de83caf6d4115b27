"""What a session has used is held against its budget: the owner is warned, then it stands still until he raises it."""

from typing import Any

import pytest

from tests.support.daemon_process import wait_for
from tests.support.services.webhook import FakeWebhook
from tests.support.supervised import BEGIN, Desk, ScriptedClaude, Supervised, code, heard, kill9, pass_time

SETTINGS = {"DAEMON_NOTIFICATIONS_DEDUP_TTL": "300"}

TOLD_OF_BUDGETS = {"BUDGET_WARNING", "SESSION_SUSPENDED"}
ONE_TURN = [*BEGIN, "started", "ACTIVE>IDLE 1 done"]


def spent(desk: Desk, **budget: Any) -> ScriptedClaude:
    """Return a session of which one turn has used the whole budget."""
    session = desk.claude(budget=budget or {"maxTokens": 100}).script(cost=1, tokens=100)
    session.send("one")
    return session.wait("SUSPENDED")


def budgets(desk: Desk, hook: FakeWebhook, session: Supervised) -> list[str]:
    """Return what was told of its budget; what happens at the same moment may be told in any order."""
    return sorted(one["type"] for one in heard(desk.live, hook, session) if one["type"] in TOLD_OF_BUDGETS)


def used(session: Supervised) -> tuple[int, int, float]:
    usage = session.process["usage"]
    return usage["turns"], usage["inputTokens"], usage["costUsd"]


def test_the_owner_is_warned_once_of_most_of_a_budget(desk: Desk, hook: FakeWebhook) -> None:
    session = desk.claude(budget={"maxCostUsd": 1.0}).script(cost=0.79)
    session.turn("one")
    assert budgets(desk, hook, session) == []
    session.script(cost=0.01)
    for number in range(2, 6):
        session.turn(str(number))
    assert budgets(desk, hook, session) == ["BUDGET_WARNING"]
    (event,) = [one for one in session.events() if one["type"] == "BUDGET_WARNING"]
    assert (event["severity"], event["actor"]) == ("warning", "system")
    assert event["details"] == {"budget": "maxCostUsd", "used": 0.8, "limit": 1.0}
    (message,) = [one for one in heard(desk.live, hook, session) if one["type"] == "BUDGET_WARNING"]
    assert (message["used"], message["limit"], message["agentId"]) == (0.8, 1.0, session.agent_id)
    assert session.story()[:7] == [*ONE_TURN, "IDLE>ACTIVE 2", "ACTIVE>IDLE 2 done"]
    assert session.story()[7] == "budget_warning"


def test_a_session_is_suspended_at_the_whole_of_its_budget_and_the_owner_told(desk: Desk, hook: FakeWebhook) -> None:
    session = desk.claude(budget={"maxTokens": 100}).script(tokens=90)
    session.turn("one")
    session.script(tokens=10).send("two")
    session.wait("SUSPENDED")
    wait_for(session.stopped)
    assert session.story() == [
        *ONE_TURN,
        "budget_warning",
        "IDLE>ACTIVE 2",
        "ACTIVE>IDLE 2 done",
        "suspended by budget",
    ]
    assert budgets(desk, hook, session) == ["BUDGET_WARNING", "SESSION_SUSPENDED"]
    assert code(desk.live.agent(session.token).get("/v1/session")) == (403, "SESSION_SUSPENDED")


def test_a_turn_that_uses_all_of_a_budget_at_once_warns_and_suspends(desk: Desk, hook: FakeWebhook) -> None:
    session = spent(desk, maxCostUsd=1.0)
    assert session.story() == [*ONE_TURN, "budget_warning", "suspended by budget"]
    assert budgets(desk, hook, session) == ["BUDGET_WARNING", "SESSION_SUSPENDED"]


@pytest.mark.parametrize("budget", [{"maxCostUsd": 0.5, "maxTokens": 1000}, {"maxCostUsd": 5, "maxTokens": 100}])
def test_whichever_budget_is_used_up_first_counts(desk: Desk, budget: dict[str, Any]) -> None:
    session = spent(desk, **budget)
    (event,) = [one for one in session.events() if one["type"] == "BUDGET_WARNING"]
    assert event["details"]["budget"] == ("maxCostUsd" if budget["maxCostUsd"] < 1 else "maxTokens")


def test_a_session_whose_budget_is_used_up_is_not_resumed_before_it_is_raised(desk: Desk) -> None:
    session = spent(desk)
    before = session.show(), session.story()
    refused = session.post("resume")
    assert code(refused) == (409, "INVALID_STATE_TRANSITION")
    assert "budget" in refused.json()["hint"]
    assert session.patch(process={"budget": {"maxTokens": 100}}).status_code == 200  # as it was
    assert code(session.post("resume")) == (409, "INVALID_STATE_TRANSITION")
    refused = session.post("messages", content="two", queue=True)
    assert code(refused) == (409, "INVALID_STATE_TRANSITION")
    assert "budget" in refused.json()["hint"]
    assert (session.show(), session.story()) == before


def test_what_waits_is_not_begun_before_the_budget_is_raised(desk: Desk) -> None:
    session = desk.claude(budget={"maxTokens": 100}).script(tokens=100, hold="go")
    session.send("one")
    session.send("two", queue=True)
    session.release("go")
    session.wait("SUSPENDED")
    assert session.notes("got") == ["one"]
    session.patch(process={"budget": {"maxTokens": 300}}).raise_for_status()
    session.do("resume")
    wait_for(lambda: session.process["turns"] == 2)
    assert session.notes("got") == ["one", "two"]


def test_with_more_tokens_it_goes_on_as_it_is(desk: Desk) -> None:
    session = spent(desk)
    pid = session.pid
    session.patch(process={"budget": {"maxTokens": 300}}).raise_for_status()
    session.do("resume")
    session.turn("two")
    assert session.pid == pid
    assert used(session) == (2, 200, 2.0)
    assert session.story()[7:] == ["updated process", "resumed", "READY>ACTIVE 2", "ACTIVE>IDLE 2 done"]


def test_with_more_money_it_begins_again_where_it_was_and_knows_what_is_left(desk: Desk) -> None:
    session = spent(desk, maxCostUsd=1.0)
    session.patch(process={"budget": {"maxCostUsd": 2.5}}).raise_for_status()
    wait_for(lambda: session.pids == [])
    assert session.state == "SUSPENDED"
    session.do("resume")
    session.turn("two")
    begin, again = session.notes("run")
    assert begin[begin.index("--max-budget-usd") + 1] == "1"
    assert again[again.index("--max-budget-usd") + 1] == "1.5"
    assert session.external_ids == [session.external_ids[0]] * 2
    assert used(session) == (2, 200, 2.0)


def test_the_owner_is_warned_again_of_a_new_budget(desk: Desk) -> None:
    session = spent(desk)
    session.patch(process={"budget": {"maxTokens": 240}}).raise_for_status()
    session.do("resume")
    session.turn("two")
    assert session.story().count("budget_warning") == 2
    assert session.state == "IDLE"


def test_the_owner_is_told_again_when_the_raised_budget_is_used_up_too(desk: Desk, hook: FakeWebhook) -> None:
    session = spent(desk)
    session.patch(process={"budget": {"maxTokens": 200}}).raise_for_status()
    session.do("resume")
    session.send("two")
    session.wait("SUSPENDED")
    assert budgets(desk, hook, session).count("SESSION_SUSPENDED") == 2


def test_usage_adds_up_over_the_runs_of_a_process(desk: Desk) -> None:
    session = desk.claude().script(cost=0.25, tokens=10)
    session.turn("one").turn("two")
    assert used(session) == (2, 20, 0.5)
    session.script(exit=3).send("crash")
    session.wait("ERROR")
    session.script(cost=0.25, tokens=10).do("resume")
    session.wait("READY").turn("three")
    assert used(session) == (3, 30, 0.75)
    session.patch(process={"model": "other"}).raise_for_status()
    wait_for(lambda: len(session.notes("run")) == 3)
    session.turn("four")
    assert used(session) == (4, 40, 1.0)
    assert session.process["usage"] == {
        "turns": 4,
        "inputTokens": 40,
        "outputTokens": 0,
        "cacheReadTokens": 0,
        "cacheCreationTokens": 0,
        "costUsd": 1.0,
    }
    assert session.process["turns"] == 4
    (listed,) = [one for one in desk.live.owner.get("/v1/owner/processes").json() if one["sessionId"] == session.id]
    assert (listed["costUsd"], listed["turns"]) == (1.0, 4)


def test_activating_its_agent_does_not_resume_what_has_no_budget_left(desk: Desk) -> None:
    session = spent(desk)
    path = f"/v1/agents/{session.agent_id}"
    desk.live.owner.post(f"{path}/suspend").raise_for_status()
    desk.live.owner.post(f"{path}/activate").raise_for_status()
    desk.claude(agent=session.agent_id).turn("hello")  # whatever the agent's activation does was done by now
    assert session.state == "SUSPENDED"
    assert session.story()[-1] == "suspended by budget"


def test_a_budget_that_is_lowered_to_what_is_used_is_used_up(desk: Desk) -> None:
    session = desk.claude(budget={"maxTokens": 1000}).script(tokens=100)
    session.turn("one")
    session.patch(process={"budget": {"maxTokens": 100}}).raise_for_status()
    refused = session.post("messages", content="two", queue=True)
    assert code(refused) == (409, "INVALID_STATE_TRANSITION")
    assert "budget" in refused.json()["hint"]
    assert session.notes("got") == ["one"]


def test_a_process_without_budget_that_is_killed_from_outside_is_not_started_again(desk: Desk) -> None:
    session = desk.claude(budget={"maxTokens": 100}, restart="on-failure").script(tokens=100)
    session.send("one")
    session.wait("SUSPENDED")
    wait_for(session.stopped)
    kill9(session.pid)
    session.wait("ERROR")
    pass_time(desk.live, 60)
    desk.claude()  # whatever was to happen at that moment has happened by now
    assert session.state in {"ERROR", "SUSPENDED"}
    assert len(session.notes("run")) == 1

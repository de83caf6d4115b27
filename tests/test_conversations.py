"""Conversations stick to the provider and model that they began with."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import uvloop

from daemon.config import ConfigError, load, shown
from tests.support.daemon_process import DaemonProcess, wait_for
from tests.support.engines import one_engine, one_place
from tests.support.http import load as send
from tests.support.http import request
from tests.support.live import PASSWORD, LiveDaemon

pytestmark = pytest.mark.usefixtures("kept_in")

ANTHROPIC = {"provider": "anthropic", "model": "claude-sonnet-4-5"}
OPENAI = {"provider": "openai", "model": "gpt-5"}
DAY = 86_400
OVERLOADED = {"expected": ANTHROPIC, **OPENAI, "reason": "anthropic answered 529"}
CONVERSATIONS = "/v1/conversations"


def path(conversation_id: str) -> str:
    # A client resolves `.` and `..` before it sends them, unless they are encoded.
    return f"{CONVERSATIONS}/{quote(conversation_id, safe='').replace('.', '%2E')}"


def bind(client: httpx.Client, conversation_id: str = "conv-1", **body: str) -> httpx.Response:
    return client.put(path(conversation_id), json={**ANTHROPIC, **body})


@pytest.fixture
def agent(live: LiveDaemon) -> httpx.Client:
    """A client with the token of a session that lasts."""
    return live.agent(live.new_session(ttl=604_800)["token"])


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_the_first_bind_decides_and_later_ones_are_told(live: LiveDaemon, agent: httpx.Client) -> None:
    first = bind(agent, externalId="thread_1")
    assert first.status_code == 201
    assert first.json() == {
        "conversationId": "conv-1",
        **ANTHROPIC,
        "externalId": "thread_1",
        "matched": True,
        "createdAt": 1_800_000_000,
        "lastActivity": 1_800_000_000,
        "expiresAt": 1_800_000_000 + DAY,
        "requestCount": 1,
    }
    live.time.advance(10)
    again = bind(agent, **OPENAI, externalId="thread_2")
    assert again.status_code == 200
    later = {"lastActivity": 1_800_000_010, "expiresAt": 1_800_000_010 + DAY, "requestCount": 2, "matched": False}
    assert again.json() == {**first.json(), **later}
    assert bind(agent).json()["matched"] is True
    assert bind(agent, model="claude-opus-4-1").json()["matched"] is False
    (event,) = live.events(type="CONVERSATION_BOUND")
    assert event["details"] == {"conversationId": "conv-1", **ANTHROPIC, "externalId": "thread_1"}


def test_looking_is_no_use_of_a_conversation_and_touching_is(live: LiveDaemon, agent: httpx.Client) -> None:
    bind(agent)
    live.time.advance(100)
    seen = agent.get(path("conv-1")).json()
    assert (seen["lastActivity"], seen["requestCount"], seen["rebindCount"]) == (1_800_000_000, 1, 0)
    assert agent.post(path("conv-1") + "/touch").json() == {"expiresAt": 1_800_000_100 + DAY}
    seen = agent.get(path("conv-1")).json()
    assert (seen["lastActivity"], seen["expiresAt"], seen["requestCount"]) == (1_800_000_100, 1_800_000_100 + DAY, 2)
    assert agent.get(CONVERSATIONS).json() == [seen]


def test_what_is_missing_is_404_to_get_delete_and_rebind_and_null_to_touch(agent: httpx.Client) -> None:
    gone = (404, "CONVERSATION_NOT_FOUND")
    assert code(agent.get(path("conv-1"))) == gone
    assert code(agent.delete(path("conv-1"))) == gone
    assert code(agent.post(path("conv-1") + "/rebind", json=OVERLOADED)) == gone
    assert agent.post(path("conv-1") + "/touch").json() == {"expiresAt": None}


def test_an_expired_conversation_begins_afresh_without_an_error(live: LiveDaemon, agent: httpx.Client) -> None:
    bind(agent)
    agent.post(path("conv-1") + "/rebind", json=OVERLOADED).raise_for_status()
    live.time.advance(DAY - 1)
    assert agent.get(path("conv-1")).status_code == 200
    live.time.advance(1)
    assert agent.get(path("conv-1")).status_code == 404
    assert agent.post(path("conv-1") + "/touch").json() == {"expiresAt": None}
    assert agent.get(CONVERSATIONS).json() == []
    fresh = bind(agent, model="claude-opus-4-1")
    assert (fresh.status_code, fresh.json()["requestCount"], fresh.json()["matched"]) == (201, 1, True)
    assert fresh.json()["createdAt"] == 1_800_000_000 + DAY
    assert agent.get(path("conv-1")).json()["rebindCount"] == 0


def test_a_deleted_conversation_is_gone_and_may_begin_afresh(live: LiveDaemon, agent: httpx.Client) -> None:
    bind(agent)
    bind(agent)
    deleted = agent.delete(path("conv-1"))
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert agent.get(path("conv-1")).status_code == 404
    assert live.query("SELECT count(*) FROM conversations") == [(0,)]
    assert bind(agent, **OPENAI).status_code == 201
    assert [event["details"] for event in live.events(type="CONVERSATION_DELETED")] == [{"conversationId": "conv-1"}]


def test_a_rebind_is_compare_and_swap_counted_and_told_with_its_reason(live: LiveDaemon, agent: httpx.Client) -> None:
    before = bind(agent).json()
    live.time.advance(5)
    done = agent.post(path("conv-1") + "/rebind", json=OVERLOADED)
    assert done.status_code == 200
    assert done.json() == {
        **{name: before[name] for name in ("conversationId", "externalId", "createdAt", "lastActivity", "expiresAt")},
        **OPENAI,
        "requestCount": 1,
        "rebindCount": 1,
    }
    late = agent.post(path("conv-1") + "/rebind", json=OVERLOADED)
    assert code(late) == (409, "CONVERSATION_CONFLICT")
    assert late.json()["details"] == {**OPENAI, "rebindCount": 1}
    assert bind(agent, **OPENAI).json()["matched"] is True
    (event,) = live.events(type="CONVERSATION_REBOUND")
    told = {"conversationId": "conv-1", "from": ANTHROPIC, "to": OPENAI, "reason": "anthropic answered 529"}
    assert event["details"] == told


def test_two_agents_never_meet_and_two_sessions_of_one_do(live: LiveDaemon, agent: httpx.Client) -> None:
    bind(agent)
    other = live.agent(live.new_session()["token"])
    assert other.get(path("conv-1")).status_code == 404
    assert other.delete(path("conv-1")).status_code == 404
    assert other.post(path("conv-1") + "/touch").json() == {"expiresAt": None}
    assert other.get(CONVERSATIONS).json() == []
    assert bind(other, **OPENAI).status_code == 201
    own = agent.get("/v1/session").json()
    colleague = live.agent(live.new_session(own["agentId"])["token"])
    assert bind(colleague).json()["requestCount"] == 2
    assert agent.get(path("conv-1")).json()["provider"] == "anthropic"


def test_200_workers_that_bind_the_same_new_id_at_once_get_the_same_answer(launch: Callable[..., LiveDaemon]) -> None:
    live = launch(DAEMON_SERVER_GLOBAL_RPM="0", DAEMON_SERVER_SESSION_RPM="0")
    token = live.new_session()["token"]
    asked = [{**ANTHROPIC, "model": f"model-{number}"} for number in range(200)]
    puts = [
        [request("PUT", path("new"), body=json.dumps(body).encode(), Authorization=f"Bearer {token}")] for body in asked
    ]
    answers = [one for (one,) in uvloop.run(send(int(live.url.rpartition(":")[2]), puts))]
    assert sorted(answer.status for answer in answers) == [200] * 199 + [201]
    bodies = [json.loads(answer.body) for answer in answers]
    assert len({body["model"] for body in bodies}) == 1
    assert [body["matched"] for body in bodies].count(True) == 1
    assert sorted(body["requestCount"] for body in bodies) == list(range(1, 201))
    assert len(live.events(type="CONVERSATION_BOUND")) == 1
    live.stop()
    assert live.query("SELECT request_count FROM conversations") == [(200,)]


def test_of_50_rebinds_at_once_one_wins(live: LiveDaemon, agent: httpx.Client) -> None:
    bind(agent)
    token = agent.headers["Authorization"]
    posts = [
        [request("POST", path("conv-1") + "/rebind", body=json.dumps(OVERLOADED).encode(), Authorization=token)]
    ] * 50
    answers = [one for (one,) in uvloop.run(send(int(live.url.rpartition(":")[2]), posts))]
    assert sorted(answer.status for answer in answers) == [200] + [409] * 49
    assert agent.get(path("conv-1")).json()["rebindCount"] == 1


def test_a_restart_keeps_bindings_and_counts(live: LiveDaemon, agent: httpx.Client) -> None:
    bind(agent, externalId="thread_1")
    agent.post(path("conv-1") + "/touch")
    before = agent.get(path("conv-1")).json()
    token = agent.headers["Authorization"]
    live.restart()
    after = live.client(Authorization=token)
    assert after.get(path("conv-1")).json() == before
    assert bind(after).json()["requestCount"] == 3


def test_kill_9_loses_at_most_a_second_of_uses_and_never_a_binding(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path / "home")
    with httpx.Client(base_url=daemon.url, headers={"X-Master-Password": PASSWORD}, trust_env=False) as owner:
        made = owner.post("/v1/agents", json={"name": "a"}).json()
        token = owner.post("/v1/sessions", json={"agentId": made["id"]}).json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=daemon.url, headers=headers, trust_env=False) as client:
        for number in range(20):
            assert bind(client, f"conv-{number}").status_code == 201
        assert [bind(client, "conv-0").json()["requestCount"] for _ in range(30)][-1] == 31
        stored = _stored_count(daemon)
        wait_for(lambda: _stored_count(daemon) == 31, 5)
        assert stored <= 31
        bind(client, "conv-0")
        assert bind(client, "last", **OPENAI).status_code == 201
        daemon.kill9()
    daemon.start()
    with httpx.Client(base_url=daemon.url, headers=headers, trust_env=False) as client:
        assert {one["conversationId"] for one in client.get(CONVERSATIONS).json()} >= {"last", "conv-19"}
        assert client.get(path("conv-0")).json()["requestCount"] in {31, 32}
        assert client.get(path("last")).json()["provider"] == "openai"
    daemon.stop()


def _stored_count(daemon: DaemonProcess) -> int:
    exported = daemon.cli("db", "export", "conversations", "--format", "json").json()
    return next(int(row["request_count"]) for row in exported if row["conversation_id"] == "conv-0")


GOOD = [
    "x", "x" * 256, "가" * 256, "\U0001f600" * 256, "a/b", "/", "touch", "rebind", "a/touch", "a%2Ftouch", "%", "%25",
    ".", "..", "../..", "a b", " ", "\u00e9", "e\u0301", "?x=1#y", "\\", "ünï", "\U0001f468\u200d\U0001f469", "+", ":",
]  # fmt: skip


def test_every_id_is_kept_as_it_is_and_no_two_are_mixed_up(live: LiveDaemon, agent: httpx.Client) -> None:
    for conversation_id in GOOD:
        answer = bind(agent, conversation_id, model=f"for {len(conversation_id)}")
        assert (answer.status_code, answer.json()["conversationId"]) == (201, conversation_id)
    for conversation_id in GOOD:
        assert agent.get(path(conversation_id)).json()["model"] == f"for {len(conversation_id)}"
        assert agent.post(path(conversation_id) + "/touch").json()["expiresAt"] is not None
    assert {one["conversationId"] for one in agent.get(CONVERSATIONS, params={"limit": 200}).json()} == set(GOOD)
    agent.delete(path("a/touch"))
    assert agent.get(path("a/touch")).status_code == 404
    assert agent.get(path("a%2Ftouch")).status_code == agent.get(path("a")).status_code - 204


@one_place
@pytest.mark.parametrize(
    "raw",
    ["x" * 257, quote("\U0001f600" * 257), "%00", "a%0Ab", "%7F", "%C2%85", "%E2%80%A8", "%E2%80%A9", "%ED%A0%80",
     "%FF", "%C3", "%", "%2", "%zz", "a%"],
)  # fmt: skip
def test_a_bad_id_is_400_and_nothing_is_written(live: LiveDaemon, agent: httpx.Client, raw: str) -> None:
    target = request(
        "PUT",
        f"{CONVERSATIONS}/{raw}",
        body=json.dumps(ANTHROPIC).encode(),
        Authorization=agent.headers["Authorization"],
    )
    ((answer,),) = uvloop.run(send(int(live.url.rpartition(":")[2]), [[target]]))
    assert (answer.status, json.loads(answer.body)["errors"][0]["path"]) == (400, "conversationId")
    assert live.query("SELECT count(*) FROM conversations") == [(0,)]


@one_place
@pytest.mark.parametrize(
    ("method", "raw", "status"),
    [
        ("PUT", "/v1/conversations/", 405),
        ("PUT", "/v1/conversations//", 404),
        ("POST", "/v1/conversations//touch", 404),
        ("PUT", "/v1/conversations%2Fconv", 404),
        ("PUT", "/v1/%63onversations/conv", 404),
        ("PUT", "/v1/conversations/a/b", 404),
        ("POST", "/v1/conversations/a/touch/touch", 404),
        ("POST", "/v1/conversations/a%2Ftouch", 405),
        ("POST", "/v1/conversations/a/%74ouch", 404),
        ("PUT", "/v1/conversations/a/touch", 405),
        ("PUT", "/v1/conversations/a?b", 400),
        ("PUT", "/v1/conversations/a#b", 400),
        ("PUT", "/v1/conversations/../owner/conversations", 404),
    ],
)
def test_a_path_that_could_mean_two_things_means_none(
    live: LiveDaemon, agent: httpx.Client, method: str, raw: str, status: int
) -> None:
    target = request(method, raw, body=json.dumps(ANTHROPIC).encode(), Authorization=agent.headers["Authorization"])
    ((answer,),) = uvloop.run(send(int(live.url.rpartition(":")[2]), [[target]]))
    assert answer.status == status
    assert live.query("SELECT count(*) FROM conversations") == [(0,)]


@one_place
@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({}, {"provider", "model"}),
        ({"provider": "", "model": "x" * 201}, {"provider", "model"}),
        ({"provider": "x" * 101, "model": " "}, {"provider", "model"}),
        ({**ANTHROPIC, "externalId": ""}, {"externalId"}),
        ({**ANTHROPIC, "externalId": "x" * 201, "more": 1}, {"externalId", "more"}),
        ({"provider": "a\nb", "model": 5}, {"provider", "model"}),
    ],
)
def test_a_bind_that_is_not_valid_lists_every_problem(agent: httpx.Client, body: Any, paths: set[str]) -> None:
    answer = agent.put(path("conv-1"), json=body)
    assert answer.status_code == 400
    assert {problem["path"] for problem in answer.json()["errors"]} == paths


@one_place
def test_a_rebind_that_is_not_valid_names_what_is_nested(agent: httpx.Client) -> None:
    bad = {"expected": {"provider": "x" * 101, "model": "m"}, "provider": "p", "reason": "x" * 501}
    answer = agent.post(path("conv-1") + "/rebind", json=bad)
    assert {problem["path"] for problem in answer.json()["errors"]} == {"expected.provider", "model", "reason"}


def test_a_session_that_may_not_work_may_not_bind(live: LiveDaemon) -> None:
    made = live.new_session()
    client = live.agent(made["token"])
    bind(client)
    live.owner.post(f"/v1/sessions/{made['id']}/suspend")
    assert code(bind(client)) == (403, "SESSION_SUSPENDED")
    live.owner.post(f"/v1/sessions/{made['id']}/resume")
    live.owner.post(f"/v1/agents/{made['agentId']}/suspend")
    assert code(client.post(path("conv-1") + "/touch")) == (403, "AGENT_SUSPENDED")
    live.owner.post(f"/v1/agents/{made['agentId']}/activate")
    live.owner.delete(f"/v1/sessions/{made['id']}")
    assert code(bind(client)) == (401, "SESSION_REVOKED")
    other = live.agent(live.new_session()["token"])
    live.owner.post("/v1/admin/kill-switch", json={"reason": "drill"})
    assert code(bind(other, "conv-2")) == (503, "SYSTEM_LOCKED")
    assert live.owner.get("/v1/owner/conversations").status_code == 200
    assert live.query("SELECT conversation_id, request_count FROM conversations") == [("conv-1", 1)]


def test_operations_are_allowed_one_by_one(live: LiveDaemon) -> None:
    allowed = {"allowedOperations": ["conversations.bind", "conversations.read"]}
    client = live.agent(live.new_session(constraints=allowed)["token"])
    assert bind(client).status_code == 201
    assert client.get(path("conv-1")).status_code == 200
    refused = [
        ("conversations.list", client.get(CONVERSATIONS)),
        ("conversations.touch", client.post(path("conv-1") + "/touch")),
        ("conversations.rebind", client.post(path("conv-1") + "/rebind", json=OVERLOADED)),
        ("conversations.delete", client.delete(path("conv-1"))),
    ]
    for operation, answer in refused:
        assert code(answer) == (403, "CONSTRAINT_VIOLATED")
        assert answer.json()["details"]["operation"] == operation


def test_the_sweeper_deletes_what_expired_without_an_event(live: LiveDaemon) -> None:
    client = live.agent(live.new_session(ttl=604_800)["token"])
    for number in range(3):
        bind(client, f"conv-{number}")
    live.time.advance(DAY - 10)
    bind(client, "conv-0")
    live.time.advance(80)
    events = live.owner.get("/v1/admin/audit/verify").json()["events"]
    assert live.owner.post("/v1/admin/cleanup").json() == {"expired": 0, "deleted": 0}
    assert live.query("SELECT conversation_id, request_count FROM conversations") == [("conv-0", 2)]
    assert live.owner.get("/v1/admin/audit/verify").json()["events"] == events


def test_a_session_that_is_swept_leaves_its_conversations(live: LiveDaemon) -> None:
    first = live.new_session(ttl=300)
    bind(live.agent(first["token"]))
    stays = live.agent(live.new_session(first["agentId"], ttl=604_800)["token"])
    live.time.advance(DAY - 600)
    assert bind(stays).status_code == 200
    live.time.advance(1000)
    assert live.owner.post("/v1/admin/cleanup").json()["deleted"] == 1
    assert bind(stays).json()["requestCount"] == 3
    (seen,) = live.owner.get("/v1/owner/conversations").json()["conversations"]
    assert (seen["sessionId"], seen["agentId"], seen["requestCount"]) == (None, first["agentId"], 3)


def test_lists_are_newest_first_and_linked_page_by_page(live: LiveDaemon, agent: httpx.Client) -> None:
    ids = [f"{'😀' * 200}/{number}" for number in range(7)]
    for conversation_id in ids:
        bind(agent, conversation_id)
        live.time.advance(1 if conversation_id != ids[3] else 0)
    for client, start in ((agent, CONVERSATIONS), (live.owner, "/v1/owner/conversations")):
        seen, target = [], f"{start}?limit=3"
        while target:
            page = client.get(target)
            body = page.json()
            seen += [one["conversationId"] for one in (body if start == CONVERSATIONS else body["conversations"])]
            target = page.links.get("next", {}).get("url", "")
        assert seen == ids[::-1]
    for row in ("", "1", f"{ids[0]}", f"5:{'a' * 36}:\x00", f"٣:{'a' * 36}", f"5:{'a' * 36}:\u2028"):
        cursor = base64.urlsafe_b64encode(row.encode()).decode().rstrip("=")
        for client, start in ((agent, CONVERSATIONS), (live.owner, "/v1/owner/conversations")):
            assert code(client.get(start, params={"cursor": cursor})) == (400, "VALIDATION_ERROR"), row


def test_the_owner_sees_all_with_counts_and_why_what_was_rebound(live: LiveDaemon) -> None:
    one, other = live.new_session(), live.new_session()
    first, second = live.agent(one["token"]), live.agent(other["token"])
    bind(first, "a")
    bind(first, "b")
    bind(second, "a", **OPENAI)
    first.post(path("b") + "/rebind", json=OVERLOADED).raise_for_status()
    whole = live.owner.get("/v1/owner/conversations").json()
    assert {(seen["agentId"], seen["conversationId"]) for seen in whole["conversations"]} == {
        (one["agentId"], "a"), (one["agentId"], "b"), (other["agentId"], "a"),
    }  # fmt: skip
    assert whole["counts"] == [
        {**ANTHROPIC, "conversations": 1, "rebinds": 0}, {**OPENAI, "conversations": 2, "rebinds": 1},
    ]  # fmt: skip
    (rebind,) = whole["rebinds"]
    assert (rebind["from"], rebind["to"], rebind["reason"]) == (ANTHROPIC, OPENAI, "anthropic answered 529")
    assert (rebind["agentId"], rebind["sessionId"], rebind["conversationId"]) == (one["agentId"], one["id"], "b")

    def found(**filters: str) -> tuple[list[str], int]:
        seen = live.owner.get("/v1/owner/conversations", params=filters).json()
        return sorted(row["conversationId"] for row in seen["conversations"]), len(seen["rebinds"])

    assert found(agentId=other["agentId"]) == (["a"], 0)
    assert found(sessionId=one["id"]) == (["a", "b"], 1)
    assert found(provider="openai") == (["a", "b"], 1)
    assert found(model="claude-sonnet-4-5") == (["a"], 1)
    assert found(provider="mistral") == ([], 0)
    for bad in ("agentId=x", "provider=", "provider=a%0Ab", "provider=%FF", "provider=a&provider=b", "more=1"):
        assert code(live.owner.get(f"/v1/owner/conversations?{bad}")) == (400, "VALIDATION_ERROR"), bad


def test_the_owner_finds_whatever_can_be_bound(live: LiveDaemon, agent: httpx.Client) -> None:
    bound = {"provider": "\u00a0a\u200db\u3000", "model": "\U0001f468\u200d\U0001f469"}
    bind(agent, **bound)
    found = live.owner.get("/v1/owner/conversations", params=bound)
    assert (found.status_code, found.json()["counts"]) == (200, [{**bound, "conversations": 1, "rebinds": 0}])


def test_what_agents_may_not_do_any_more_they_do_not_to_conversations(live: LiveDaemon) -> None:
    few = live.agent(live.new_session(constraints={"maxRequests": 3})["token"])
    assert [bind(few).status_code, few.post(path("conv-1") + "/touch").status_code, bind(few).status_code] == [
        201,
        200,
        200,
    ]
    assert code(bind(few)) == (403, "CONSTRAINT_VIOLATED")
    slow = live.agent(live.new_session(constraints={"requestsPerMinute": 2})["token"])
    assert [bind(slow).status_code, bind(slow, "conv-2").status_code] == [201, 201]
    refused = bind(slow)
    assert code(refused) == (429, "RATE_LIMIT_EXCEEDED")
    assert int(refused.headers["Retry-After"]) <= 60


def test_conversations_outlive_their_agent_for_the_owner_alone(live: LiveDaemon) -> None:
    made = live.new_session()
    client = live.agent(made["token"])
    bind(client)
    live.owner.delete(f"/v1/agents/{made['agentId']}").raise_for_status()
    assert bind(client).status_code == 401
    (seen,) = live.owner.get("/v1/owner/conversations").json()["conversations"]
    assert (seen["agentId"], seen["requestCount"]) == (made["agentId"], 1)
    live.time.advance(DAY + 61)
    live.owner.post("/v1/admin/cleanup").raise_for_status()
    assert live.query("SELECT count(*) FROM conversations") == [(0,)]


def test_at_the_second_of_expiry_a_touch_comes_too_late_and_a_bind_begins_afresh(
    live: LiveDaemon, agent: httpx.Client
) -> None:
    for conversation_id in ("a", "b"):
        bind(agent, conversation_id)
    live.time.advance(DAY - 1)
    assert agent.post(path("a") + "/touch").json() == {"expiresAt": 1_800_000_000 + 2 * DAY - 1}
    live.time.advance(1)
    assert agent.post(path("b") + "/touch").json() == {"expiresAt": None}
    assert code(agent.post(path("b") + "/rebind", json=OVERLOADED)) == (404, "CONVERSATION_NOT_FOUND")
    assert code(agent.delete(path("b"))) == (404, "CONVERSATION_NOT_FOUND")
    assert [one["conversationId"] for one in agent.get(CONVERSATIONS).json()] == ["a"]
    live.owner.post("/v1/admin/cleanup").raise_for_status()
    assert (bind(agent, "a").status_code, bind(agent, "b").status_code) == (200, 201)


def test_a_rebind_to_what_it_is_bound_to_is_counted_and_told(live: LiveDaemon, agent: httpx.Client) -> None:
    bind(agent)
    same = {"expected": ANTHROPIC, **ANTHROPIC, "reason": "a new key"}
    assert [agent.post(path("conv-1") + "/rebind", json=same).json()["rebindCount"] for _ in range(2)] == [1, 2]
    assert [event["details"]["reason"] for event in live.events(type="CONVERSATION_REBOUND")] == ["a new key"] * 2


def test_the_ttl_is_what_the_configuration_says(launch: Callable[..., LiveDaemon]) -> None:
    live = launch(SESSION_TTL_SECONDS="60")
    client = live.agent(live.new_session()["token"])
    assert bind(client).json()["expiresAt"] == 1_800_000_060
    live.time.advance(59)
    assert bind(client).status_code == 200
    live.time.advance(60)
    assert bind(client).status_code == 201


@one_place
@pytest.mark.parametrize("ttl", ["0", "-1", "59", "604801", "999999999999999999999", "day", "", "3600.5"])
def test_a_ttl_out_of_range_is_refused_and_the_variable_named(tmp_path: Path, ttl: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {"SESSION_TTL_SECONDS": ttl}, {})
    (problem,) = caught.value.problems
    assert problem.startswith("SESSION_TTL_SECONDS: conversations.conversation_ttl must be a whole number 60-604800")


@one_place
def test_session_ttl_seconds_ranks_between_the_file_and_the_keys_own_variable(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[conversations]\nconversation_ttl = 100\n")
    environ = {"SESSION_TTL_SECONDS": "200"}
    assert load(tmp_path, environ, {}).config.conversations.conversation_ttl == 200
    environ["DAEMON_CONVERSATIONS_CONVERSATION_TTL"] = "300"
    loaded = load(tmp_path, environ, {})
    assert loaded.config.conversations.conversation_ttl == 300
    assert loaded.origins["conversations.conversation_ttl"] == "DAEMON_CONVERSATIONS_CONVERSATION_TTL"


@one_place
@pytest.mark.parametrize(
    "url", ["http://{}h", "redis://{}", "redis://{}h:x", "redis://{}h/a", "redis://{} h", "redis:/{}h"]
)
def test_an_address_that_is_no_redis_is_refused_without_repeating_it(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {"DAEMON_CONVERSATIONS_URL": url.format("me:hunter2@")}, {})
    (problem,) = caught.value.problems
    assert problem.startswith("DAEMON_CONVERSATIONS_URL: conversations.url must be empty, redis://")
    assert "hunter2" not in problem


@one_place
def test_the_password_of_an_address_is_never_shown(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"DAEMON_CONVERSATIONS_URL": "rediss://:hunter2@cache:6380/1"}, {})
    assert shown(loaded.config)["conversations.url"] == "rediss://:***@cache:6380/1"


@one_engine
def test_a_full_disk_keeps_no_known_conversation_from_being_used(live: LiveDaemon, agent: httpx.Client) -> None:
    bind(agent)

    async def break_writes(daemon: Any) -> None:
        await daemon.parts.store._connection.run(lambda raw: raw.execute("PRAGMA query_only = 1"))

    live.call(break_writes)
    assert bind(agent).json()["requestCount"] == 2
    assert code(bind(agent, "new")) == (503, "STORAGE_UNAVAILABLE")
    assert code(agent.post(path("conv-1") + "/rebind", json=OVERLOADED)) == (503, "STORAGE_UNAVAILABLE")
    assert code(agent.delete(path("conv-1"))) == (503, "STORAGE_UNAVAILABLE")

    async def mend(daemon: Any) -> None:
        await daemon.parts.store._connection.run(lambda raw: raw.execute("PRAGMA query_only = 0"))

    live.call(mend)
    assert bind(agent).json()["requestCount"] == 3
    assert agent.get(path("conv-1")).json()["provider"] == "anthropic"

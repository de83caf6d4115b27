"""Delegation: what an agent makes from its session can do no more, and lasts no longer."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.daemon_process import wait_for
from tests.support.engines import both_engines, one_engine
from tests.support.live import START, LiveDaemon

pytestmark = both_engines

TTL = 3600
UNKNOWN = "01980e5a-7c00-7a2b-9c4d-5e6f708192a3"
Made = dict[str, Any]


def child_of(live: LiveDaemon, parent: Made, **body: Any) -> Made:
    made: Made = live.agent(parent["token"]).post("/v1/session/children", json=body).raise_for_status().json()
    return made


def own(live: LiveDaemon, made: Made) -> httpx.Response:
    return live.agent(made["token"]).get("/v1/session")


def renew(live: LiveDaemon, made: Made) -> httpx.Response:
    return live.agent(made["token"]).put(f"/v1/sessions/{made['id']}/renew")


def counted(live: LiveDaemon, path: str) -> int:
    return int(live.owner.get(path).json()["requestCount"])


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def family(live: LiveDaemon, **body: Any) -> list[Made]:
    """Return a session, its child, that one's child, and a second child."""
    top = live.new_session(**{"ttl": TTL, **body})
    first = child_of(live, top)
    return [top, first, child_of(live, first), child_of(live, top)]


# --- making one


def test_a_child_is_a_session_of_the_same_agent_that_tells_its_parent_and_its_depth(live: LiveDaemon) -> None:
    agent = live.new_agent()
    parent = live.new_session(agent, ttl=TTL, userId="u", workspaceId="w")
    made = child_of(live, parent, metadata={"task": "search"})
    assert made == {
        "id": made["id"],
        "token": made["token"],
        "expiresAt": START + TTL,
        "agentId": agent,
        "absoluteExpiresAt": parent["absoluteExpiresAt"],
        "maxRenewals": 30,
        "state": "READY",
        "parentId": parent["id"],
        "depth": 1,
        "ttl": TTL,
        "constraints": None,
    }
    shown = own(live, made).json()
    assert (shown["parentId"], shown["depth"], shown["agentName"]) == (parent["id"], 1, "agent")
    assert (shown["userId"], shown["workspaceId"], shown["metadata"]) == ("u", "w", {"task": "search"})
    assert (own(live, parent).json()["parentId"], own(live, parent).json()["depth"]) == (None, 0)
    (event,) = live.events(type="SESSION_CREATED", sessionId=made["id"])
    assert (event["actor"], event["details"]["parentId"]) == (f"agent:{agent}", parent["id"])


def test_what_lost_what_was_above_it_is_over(live: LiveDaemon) -> None:
    top, first, second, _ = family(live)
    live.call(lambda daemon: daemon.parts.store.flush())
    live.stop()
    live.query("DELETE FROM sessions WHERE id = ?", top["id"])
    live.start()
    for made in (first, second):
        answer = own(live, made)
        assert (code(answer), answer.json()["details"]) == ((401, "SESSION_REVOKED"), {"reason": "parent_ended"})
        assert code(renew(live, made)) == (401, "SESSION_REVOKED")


@one_engine
def test_the_body_is_strict(live: LiveDaemon) -> None:
    parent = live.new_session()
    asked = live.agent(parent["token"]).post("/v1/session/children", json={"ttl": 1, "agentId": UNKNOWN})
    assert code(asked) == (400, "VALIDATION_ERROR")
    assert live.query("SELECT count(*) FROM sessions") == [(1,)]


def test_an_idempotency_key_makes_one_child(live: LiveDaemon) -> None:
    parent, other = live.new_session(), live.new_session()
    key = {"Idempotency-Key": "once"}
    made = live.agent(parent["token"]).post("/v1/session/children", json={}, headers=key)
    again = live.agent(parent["token"]).post("/v1/session/children", json={}, headers=key)
    assert code(again) == (409, "IDEMPOTENCY_CONFLICT")
    assert again.json()["details"] == {"sessionId": made.json()["id"]}
    assert live.agent(other["token"]).post("/v1/session/children", json={}, headers=key).status_code == 201


def test_a_session_that_may_not_delegate_is_refused(live: LiveDaemon) -> None:
    parent = live.new_session(constraints={"allowedOperations": ["session.read", "sessions.renew"]})
    answer = live.agent(parent["token"]).post("/v1/session/children", json={})
    assert code(answer) == (403, "CONSTRAINT_VIOLATED")


def test_children_are_outside_of_max_sessions_per_agent(live: LiveDaemon) -> None:
    agent = live.new_agent()
    parent = live.new_session(agent)
    for _ in range(6):
        child_of(live, parent)
    for _ in range(4):
        live.new_session(agent)
    assert code(live.owner.post("/v1/sessions", json={"agentId": agent})) == (403, "SESSION_LIMIT_EXCEEDED")


def test_a_tree_is_three_levels_deep_below_its_top(live: LiveDaemon) -> None:
    made = live.new_session()
    for depth in (1, 2, 3):
        made = child_of(live, made)
        assert made["depth"] == depth
    answer = live.agent(made["token"]).post("/v1/session/children", json={})
    assert code(answer) == (403, "SESSION_LIMIT_EXCEEDED")
    assert answer.json()["details"] == {"of": "depth", "limit": 3, "active": 3}


def test_of_250_creations_at_once_200_are_children(live: LiveDaemon) -> None:
    parent = live.new_session()
    with live.agent(parent["token"]) as client, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: client.post("/v1/session/children", json={}), range(250)))
    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(201), statuses.count(403)) == (200, 50)
    refused = next(answer for answer in answers if answer.status_code == 403)
    assert refused.json()["details"] == {"of": "children", "limit": 200, "active": 200}
    ended = next(answer.json()["id"] for answer in answers if answer.status_code == 201)
    live.agent(parent["token"]).delete(f"/v1/session/children/{ended}").raise_for_status()
    assert child_of(live, parent)["depth"] == 1


# --- its time


def test_a_child_expires_with_its_parent_at_the_latest(live: LiveDaemon) -> None:
    parent = live.new_session(ttl=TTL)
    live.time.advance(1000)
    assert child_of(live, parent, ttl=604_800)["expiresAt"] == START + TTL
    assert child_of(live, parent, ttl=300)["expiresAt"] == START + 1300


def test_renewals_lengthen_a_child_no_further_than_its_parent(live: LiveDaemon) -> None:
    parent = live.new_session(ttl=TTL)
    made = child_of(live, parent, ttl=2400)
    live.time.advance(1800)
    answer = renew(live, made).json()
    assert answer["expiresAt"] == START + TTL
    assert answer["absoluteExpiresAt"] == parent["absoluteExpiresAt"]


def test_a_child_waits_for_its_parent_to_be_renewed_and_then_goes_on(live: LiveDaemon) -> None:
    parent = live.new_session(ttl=TTL)
    live.time.advance(600)
    made = child_of(live, parent)
    assert own(live, made).json()["renewableAt"] == START + 600 + 1500
    live.time.advance(1500)
    answer = renew(live, made)
    assert code(answer) == (403, "RENEWAL_TOO_EARLY")
    assert (answer.json()["details"], answer.headers["Retry-After"]) == ({"retryAfter": 10}, "10")
    parent |= renew(live, parent).json()
    assert renew(live, made).json()["expiresAt"] == parent["expiresAt"] == START + 2100 + TTL


def test_a_child_made_just_before_its_parent_ends_can_still_be_renewed_in_time(live: LiveDaemon) -> None:
    parent = live.new_session(ttl=TTL)
    live.time.advance(TTL - 100)
    made = child_of(live, parent)
    live.time.advance(40)
    renew(live, parent).raise_for_status()
    assert code(renew(live, made)) == (403, "RENEWAL_TOO_EARLY")
    live.time.advance(10)
    assert renew(live, made).json()["expiresAt"] == START + TTL - 60 + TTL


def test_the_owner_extends_a_child_no_further_than_its_parent(live: LiveDaemon) -> None:
    parent = live.new_session(ttl=TTL)
    made = child_of(live, parent, ttl=600)
    path = f"/v1/sessions/{made['id']}/extend"
    assert live.owner.post(path, json={"seconds": 100_000}).json()["expiresAt"] == START + TTL
    answer = live.owner.post(path, json={"seconds": 100_000})
    assert code(answer) == (403, "SESSION_ABSOLUTE_LIFETIME_EXCEEDED")
    live.owner.post(f"/v1/sessions/{parent['id']}/extend", json={"seconds": 7200}).raise_for_status()
    assert live.owner.post(path, json={"seconds": 5000}).json()["expiresAt"] == START + 5000


def test_a_child_of_a_session_that_cannot_be_renewed_any_more_is_told_so(live: LiveDaemon) -> None:
    top = live.new_session(ttl=TTL, constraints={"maxRenewals": 1})
    first = child_of(live, top)
    live.time.advance(TTL // 2)
    renew(live, top).raise_for_status()
    first |= renew(live, first).json()
    live.time.advance(TTL // 2)
    assert code(renew(live, first)) == (403, "RENEWAL_LIMIT_REACHED")


def test_a_grandchild_waits_for_the_last_of_those_above_it(live: LiveDaemon) -> None:
    top = live.new_session(ttl=TTL)
    live.time.advance(1000)
    first = child_of(live, top)
    second = child_of(live, first)
    live.time.advance(1300)
    top |= renew(live, top).json()
    assert renew(live, second).json()["details"] == {"retryAfter": 10}
    first |= renew(live, first).json()
    assert renew(live, second).json()["expiresAt"] == top["expiresAt"]


# --- its constraints


@pytest.mark.parametrize(
    ("bound", "asked", "left"),
    [
        ({"maxRequests": 5}, {"maxRequests": 9}, {"maxRequests": 5}),
        ({"maxRequests": 5}, {"maxRequests": 3}, {"maxRequests": 3}),
        ({"maxRequests": 5}, {}, {"maxRequests": 5}),
        ({"requestsPerMinute": 10}, {"requestsPerMinute": 60}, {"requestsPerMinute": 10}),
        ({"idleTimeout": 600}, {"idleTimeout": 6000}, {"idleTimeout": 600}),
        ({"renewalRejectWindow": 600}, {"renewalRejectWindow": 700}, {"renewalRejectWindow": 600}),
        ({"maxRenewals": 3}, {"maxRenewals": 4}, {"maxRenewals": 3}),
        ({"budget": {"usd": 5}}, {"budget": {"usd": 50}, "mine": 2}, {"budget": {"usd": 5}, "mine": 2}),
        (
            {"allowedOperations": ["session.*", "conversations.bind"]},
            {"allowedOperations": ["session.read"]},
            {"allowedOperations": ["session.read"]},
        ),
        (
            {"allowedOperations": ["session.*", "conversations.bind"]},
            {"allowedOperations": ["*.read", "conversations.*"]},
            {"allowedOperations": ["session.read", "conversations.bind"]},
        ),
        ({"allowedOperations": ["session.*"]}, {}, {"allowedOperations": ["session.*"]}),
        (
            {"allowedOperations": ["session.*", "wallet.r*"]},
            {"allowedOperations": ["wallet.*", "wallet.read"]},
            {"allowedOperations": ["wallet.read"]},
        ),
        ({"allowedOperations": ["session.*"]}, {"allowedOperations": ["output.read"]}, {"allowedOperations": []}),
    ],
)  # fmt: skip
def test_every_known_constraint_of_a_child_is_at_most_its_parent_s(
    live: LiveDaemon, bound: Made, asked: Made, left: Made
) -> None:
    made = child_of(live, live.new_session(constraints=bound), constraints=asked)
    assert made["constraints"] == left
    assert live.owner.get(f"/v1/sessions/{made['id']}").json()["constraints"] == left
    assert made["maxRenewals"] == left.get("maxRenewals", 30)


def test_a_child_may_do_what_its_parent_may_do_now(live: LiveDaemon) -> None:
    top, first, second, _ = family(live)
    assert live.agent(second["token"]).get("/v1/conversations").status_code == 200
    narrow = {"constraints": {"allowedOperations": ["session.read"]}}
    live.owner.patch(f"/v1/sessions/{first['id']}", json=narrow).raise_for_status()
    answer = live.agent(second["token"]).get("/v1/conversations")
    assert (code(answer), answer.json()["details"]["constraint"]) == ((403, "CONSTRAINT_VIOLATED"), "allowedOperations")
    assert live.agent(top["token"]).get("/v1/conversations").status_code == 200


def test_the_owner_makes_no_child_wider_than_its_parent(live: LiveDaemon) -> None:
    top = live.new_session(constraints={"maxRenewals": 2, "maxRequests": 100, "idleTimeout": 600, "budget": 1})
    path = f"/v1/sessions/{child_of(live, top)['id']}"
    wide = {"maxRenewals": 100, "maxRequests": 10**6, "renewalRejectWindow": 86_400, "note": "mine"}
    shown = live.owner.patch(path, json={"constraints": wide}).json()
    assert shown["constraints"] == {
        "maxRenewals": 2, "maxRequests": 100, "idleTimeout": 600, "budget": 1, "renewalRejectWindow": 86_400,
        "note": "mine",
    }  # fmt: skip
    assert shown["maxRenewals"] == 2
    again = live.owner.patch(path, json={"constraints": shown["constraints"]}).json()
    assert again["constraints"] == shown["constraints"]


def test_a_limit_of_renewals_that_stands_in_no_constraints_bounds_a_child_too(live: LiveDaemon) -> None:
    made = child_of(live, live.new_session(), constraints={"maxRenewals": 90})
    assert (made["maxRenewals"], made["constraints"]) == (30, {"maxRenewals": 30})


def test_what_is_refused_for_another_session_counts_for_none(live: LiveDaemon) -> None:
    top, first, second, other = family(live)
    live.owner.patch(f"/v1/sessions/{first['id']}", json={"constraints": {"requestsPerMinute": 2}}).raise_for_status()
    live.owner.patch(f"/v1/sessions/{top['id']}", json={"constraints": {"requestsPerMinute": 1}}).raise_for_status()
    assert own(live, other).status_code == 200
    assert [own(live, second).status_code for _ in range(5)] == [429] * 5
    live.owner.patch(f"/v1/sessions/{top['id']}", json={"constraints": None}).raise_for_status()
    assert [own(live, second).status_code for _ in range(3)] == [200, 200, 429]


def test_requests_of_descendants_count_against_max_requests_of_all_above(live: LiveDaemon) -> None:
    top, first, second, other = family(live, constraints={"maxRequests": 12})
    # Three of the twelve made the family: each creation is a request of its parent, and of those above.
    for made, count in ((second, 4), (other, 3), (first, 2)):
        for _ in range(count):
            own(live, made).raise_for_status()
    for made in (top, first, second, other):
        answer = own(live, made)
        assert (code(answer), answer.json()["details"]["constraint"]) == ((403, "CONSTRAINT_VIOLATED"), "maxRequests")
    for made, count in ((top, 12), (first, 7)):
        wait_for(lambda path=f"/v1/sessions/{made['id']}", count=count: counted(live, path) == count)


def test_children_share_the_requests_per_minute_of_those_above(live: LiveDaemon) -> None:
    top, first, second, other = family(live, constraints={"requestsPerMinute": 9})
    answers = [own(live, made).status_code for made in (first, second, other, top) for _ in range(2)]
    assert (answers.count(200), answers.count(429)) == (6, 2)
    live.time.advance(60)
    assert own(live, second).status_code == 200


def test_a_child_that_works_keeps_its_parent_from_being_idle(live: LiveDaemon) -> None:
    top = live.new_session(constraints={"idleTimeout": 60})
    made = child_of(live, top)
    for _ in range(3):
        live.time.advance(59)
        assert own(live, made).status_code == 200
    assert own(live, top).status_code == 200
    live.time.advance(60)
    assert code(own(live, made)) == (401, "TOKEN_EXPIRED")


# --- its end


def revoke(live: LiveDaemon, top: Made) -> None:
    live.owner.delete(f"/v1/sessions/{top['id']}").raise_for_status()


def end_itself(live: LiveDaemon, top: Made) -> None:
    live.agent(top["token"]).delete("/v1/session").raise_for_status()


def expire(live: LiveDaemon, _top: Made) -> None:
    live.time.advance(TTL)
    live.owner.post("/v1/admin/cleanup").raise_for_status()


def idle_out(live: LiveDaemon, _top: Made) -> None:
    live.time.advance(1000)
    live.owner.post("/v1/admin/cleanup").raise_for_status()


def reuse(live: LiveDaemon, top: Made) -> None:
    live.time.advance(TTL // 2)
    renewed = renew(live, top).json()
    own(live, renewed).raise_for_status()
    live.time.advance(100)
    assert code(renew(live, top)) == (401, "TOKEN_REUSED")


def reject(live: LiveDaemon, top: Made) -> None:
    live.time.advance(TTL // 2)
    renew(live, top).raise_for_status()
    live.owner.delete(f"/v1/sessions/{top['id']}").raise_for_status()


def terminate(live: LiveDaemon, top: Made) -> None:
    live.owner.delete(f"/v1/agents/{top['agentId']}").raise_for_status()


def rotate_secret(live: LiveDaemon, _top: Made) -> None:
    live.owner.post("/v1/admin/rotate-secret", json={"revokeSessions": True}).raise_for_status()


def kill_switch(live: LiveDaemon, _top: Made) -> None:
    live.owner.post("/v1/admin/kill-switch", json={"reason": "test"}).raise_for_status()


WAYS = [revoke, end_itself, expire, idle_out, reuse, reject, terminate, rotate_secret, kill_switch]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_ending_a_session_ends_all_that_descends_from_it_in_the_same_transaction(
    live: LiveDaemon, way: Callable[[LiveDaemon, Made], None]
) -> None:
    constraints = {"idleTimeout": 900} if way is idle_out else None
    members = family(live, constraints=constraints)
    stranger = live.new_session(ttl=604_800)
    way(live, members[0])
    rows = live.query("SELECT state, revoked_at, expired_at FROM sessions WHERE agent_id = ?", members[0]["agentId"])
    assert len(rows) == 4
    assert all(state == "CLOSED" and (revoked or expired) for state, revoked, expired in rows)
    closed = [event for event in live.events(type="SESSION_CLOSED") if event["sessionId"] != stranger["id"]]
    assert {event["sessionId"] for event in closed} == {made["id"] for made in members}
    assert closed[-1]["seq"] - closed[0]["seq"] <= 8, "nothing was recorded in between"
    if way is not kill_switch:
        assert all(own(live, made).status_code == 401 for made in members)
    if way not in (kill_switch, rotate_secret):
        assert own(live, stranger).status_code == 200


def test_a_reset_clock_ends_with_a_session_what_was_made_from_it_since(live: LiveDaemon) -> None:
    top = family(live)[0]
    live.time.step(-86_400 * 3)
    child_of(live, top)
    live.call(lambda daemon: daemon.parts.services.admin.follow_clock_reset())
    rows = live.query("SELECT DISTINCT state FROM sessions WHERE agent_id = ?", top["agentId"])
    assert rows == [("CLOSED",)]


def test_ending_a_child_leaves_its_parent_and_its_siblings(live: LiveDaemon) -> None:
    top, first, second, other = family(live)
    revoke(live, first)
    assert [own(live, made).status_code for made in (top, first, second, other)] == [200, 401, 401, 200]
    answer = own(live, second)
    assert (code(answer), answer.json()["details"]) == ((401, "SESSION_REVOKED"), {"reason": "parent_ended"})


def test_a_child_that_has_ended_is_not_ended_again(live: LiveDaemon) -> None:
    top, first, second, _ = family(live)
    revoke(live, second)
    revoke(live, top)
    shown = [live.owner.get(f"/v1/sessions/{made['id']}").json()["revokedReason"] for made in (first, second)]
    assert shown == ["parent_ended", "manual_revoke"]
    assert len(live.events(type="SESSION_REVOKED", sessionId=second["id"])) == 1


def test_revoking_a_parent_of_200_children_and_grandchildren_is_one_transaction(live: LiveDaemon) -> None:
    top = live.new_session()
    with live.agent(top["token"]) as client:
        made = [client.post("/v1/session/children", json={}).json() for _ in range(200)]
    made += [child_of(live, one) for one in made[:50]]
    seen, done = set[int](), threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(live.query("SELECT count(*) FROM sessions WHERE revoked_at IS NOT NULL")[0][0])

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        wait_for(lambda: seen)
        revoke(live, top)
        refused = [own(live, one).status_code for one in made]
        wait_for(lambda: 251 in seen)
        done.set()
        watching.result()
    assert refused == [401] * 250
    assert seen == {0, 251}
    events = live.events(type="SESSION_REVOKED")
    assert (len(events), len({event["timestamp"] for event in events})) == (251, 1)


def test_no_child_is_made_while_its_parent_ends(live: LiveDaemon) -> None:
    for _ in range(5):
        top = live.new_session()
        with ThreadPoolExecutor(8) as pool, live.agent(top["token"]) as client:
            making = [pool.submit(client.post, "/v1/session/children", json={}) for _ in range(24)]
            ending = pool.submit(revoke, live, top)
            answers = [one.result() for one in making]
            ending.result()
        assert {answer.status_code for answer in answers} <= {201, 401}
        assert live.query("SELECT count(*) FROM sessions WHERE revoked_at IS NULL") == [(0,)]


def test_a_suspended_session_suspends_all_that_descends_from_it(live: LiveDaemon) -> None:
    top, first, second, other = family(live)
    live.owner.post(f"/v1/sessions/{first['id']}/suspend", json={}).raise_for_status()
    assert [own(live, made).status_code for made in (top, other)] == [200, 200]
    assert [code(own(live, made)) for made in (first, second)] == [(403, "SESSION_SUSPENDED")] * 2
    live.owner.post(f"/v1/sessions/{first['id']}/resume", json={}).raise_for_status()
    assert own(live, second).status_code == 200


def test_an_agent_ends_what_descends_from_its_session_and_nothing_else(live: LiveDaemon) -> None:
    top, first, second, other = family(live)
    stranger = live.new_session()
    client = live.agent(first["token"])
    for made in (top, other, first, stranger):
        assert code(client.delete(f"/v1/session/children/{made['id']}")) == (404, "SESSION_NOT_FOUND")
    assert code(client.delete(f"/v1/session/children/{UNKNOWN}")) == (404, "SESSION_NOT_FOUND")
    for _ in range(2):
        assert live.agent(top["token"]).delete(f"/v1/session/children/{second['id']}").json()["status"] == "REVOKED"
    assert own(live, second).status_code == 401
    (event,) = live.events(type="SESSION_REVOKED", sessionId=second["id"])
    assert (event["actor"], event["details"]["reason"]) == (f"agent:{top['agentId']}", "ended_by_parent")


# --- what is remembered


def test_after_a_restart_a_child_is_held_to_those_above_it(live: LiveDaemon) -> None:
    top, first, second, _ = family(live, constraints={"maxRequests": 6})
    live.restart()
    answers = [own(live, second).status_code for _ in range(4)]
    assert answers == [200, 200, 200, 403]
    assert live.owner.get(f"/v1/sessions/{top['id']}").json()["requestCount"] == 6
    revoke(live, first)
    live.restart()
    assert code(own(live, second)) == (401, "SESSION_REVOKED")


def test_what_ended_together_is_swept_together(live: LiveDaemon) -> None:
    members = family(live)
    revoke(live, members[0])
    live.time.advance(86_400)
    live.owner.post("/v1/admin/cleanup").raise_for_status()
    assert live.query("SELECT count(*) FROM sessions") == [(0,)]
    assert {code(own(live, made)) for made in members} == {(401, "INVALID_TOKEN")}


# --- what is shown


def test_an_agent_lists_its_children_page_by_page(live: LiveDaemon) -> None:
    top, first, second, other = family(live)
    client = live.agent(top["token"])
    page = client.get("/v1/session/children", params={"limit": 1})
    rest = client.get(page.links["next"]["url"])
    assert sorted(one["id"] for one in page.json() + rest.json()) == sorted([first["id"], other["id"]])
    assert [one["id"] for one in live.agent(first["token"]).get("/v1/session/children").json()] == [second["id"]]


def test_the_owner_sees_the_trees(live: LiveDaemon) -> None:
    top, first, second, other = family(live)
    lone = live.new_session()
    shown = live.owner.get(f"/v1/sessions/{top['id']}/tree").json()
    assert (shown["id"], shown["depth"]) == (top["id"], 0)
    by_id = {one["id"]: one for one in shown["children"]}
    assert by_id.keys() == {first["id"], other["id"]}
    (below,) = by_id[first["id"]]["children"]
    assert (below["id"], below["depth"], below["children"]) == (second["id"], 2, [])
    assert live.owner.get(f"/v1/sessions/{first['id']}/tree").json() == by_id[first["id"]]
    trees = live.owner.get("/v1/owner/sessions/trees").json()
    assert sorted(one["id"] for one in trees) == sorted([top["id"], lone["id"]])
    assert shown in trees
    mine = live.owner.get("/v1/owner/sessions/trees", params={"agentId": lone["agentId"]}).json()
    assert [one["id"] for one in mine] == [lone["id"]]
    revoke(live, first)
    assert [one["id"] for one in live.owner.get(f"/v1/sessions/{top['id']}/tree").json()["children"]] == [other["id"]]
    assert code(live.owner.get(f"/v1/sessions/{UNKNOWN}/tree")) == (404, "SESSION_NOT_FOUND")

"""The contract of session management, by name."""

import hashlib
from collections.abc import Callable

import httpx
import pytest

from tests.support.engines import both_engines, one_engine
from tests.support.live import START, LiveDaemon

pytestmark = both_engines

UNKNOWN = "01980e5a-7c00-7a2b-9c4d-5e6f708192a3"
AGENT_ROUTES = [("GET", "/v1/session"), ("DELETE", "/v1/session"), ("PUT", "/v1/sessions/{id}/renew")]


def test_create_answers_201_with_token_expires_at_and_agent_id(live: LiveDaemon) -> None:
    agent = live.new_agent()
    answer = live.owner.post("/v1/sessions", json={"agentId": agent, "ttl": 600})
    assert answer.status_code == 201
    made = answer.json()
    assert made["token"].startswith("wai_sess_")
    assert (made["expiresAt"], made["agentId"], made["state"]) == (START + 600, agent, "READY")
    assert (made["absoluteExpiresAt"], made["maxRenewals"]) == (START + 2_592_000, 30)


def test_create_for_an_unknown_agent_is_404_agent_not_found(live: LiveDaemon) -> None:
    answer = live.owner.post("/v1/sessions", json={"agentId": UNKNOWN})
    assert (answer.status_code, answer.json()["code"]) == (404, "AGENT_NOT_FOUND")


def test_the_sixth_session_is_403_session_limit_exceeded(live: LiveDaemon) -> None:
    agent = live.new_agent()
    made = [live.new_session(agent) for _ in range(5)]
    answer = live.owner.post("/v1/sessions", json={"agentId": agent})
    assert (answer.status_code, answer.json()["code"]) == (403, "SESSION_LIMIT_EXCEEDED")
    live.owner.delete(f"/v1/sessions/{made[0]['id']}")
    assert live.owner.post("/v1/sessions", json={"agentId": agent}).status_code == 201


@one_engine
def test_without_master_password_it_is_401(live: LiveDaemon) -> None:
    agent = live.new_agent()
    answer = live.anonymous.post("/v1/sessions", json={"agentId": agent})
    assert (answer.status_code, answer.json()["code"]) == (401, "INVALID_MASTER_PASSWORD")
    assert live.query("SELECT count(*) FROM sessions") == [(0,)]


def test_the_list_of_two_has_all_fields_and_no_token(live: LiveDaemon) -> None:
    agent = live.new_agent()
    first, second = live.new_session(agent), live.new_session(agent)
    listed = live.owner.get("/v1/sessions", params={"agentId": agent}).json()
    assert {row["id"] for row in listed} == {first["id"], second["id"]}
    for row in listed:
        assert set(row) == {
            "id", "agentId", "status", "state", "renewalCount", "maxRenewals", "expiresAt", "absoluteExpiresAt",
            "createdAt", "lastRenewedAt", "lastActivity", "requestCount",
        }  # fmt: skip
        assert "wai_sess_" not in str(row)


@one_engine
def test_the_list_without_agent_id_is_400(live: LiveDaemon) -> None:
    answer = live.owner.get("/v1/sessions")
    assert (answer.status_code, answer.json()["detail"]) == (400, "agentId query parameter required")


def test_revoked_sessions_are_excluded_from_the_list(live: LiveDaemon) -> None:
    agent = live.new_agent()
    kept, gone = live.new_session(agent), live.new_session(agent)
    live.owner.delete(f"/v1/sessions/{gone['id']}")
    assert [row["id"] for row in live.owner.get("/v1/sessions", params={"agentId": agent}).json()] == [kept["id"]]
    every = live.owner.get("/v1/sessions", params={"agentId": agent, "status": "all"}).json()
    assert {row["status"] for row in every} == {"ACTIVE", "REVOKED"}


def test_delete_revokes_and_is_idempotent(live: LiveDaemon) -> None:
    made = live.new_session()
    live.time.advance(5)
    first = live.owner.delete(f"/v1/sessions/{made['id']}")
    assert (first.status_code, first.json()) == (
        200,
        {"id": made["id"], "status": "REVOKED", "revokedAt": START + 5},
    )
    live.time.advance(5)
    again = live.owner.delete(f"/v1/sessions/{made['id']}").json()
    assert again == {**first.json(), "message": "Session already revoked"}
    assert len(live.events(type="SESSION_REVOKED")) == 1


def test_delete_of_an_unknown_session_is_404_session_not_found(live: LiveDaemon) -> None:
    answer = live.owner.delete(f"/v1/sessions/{UNKNOWN}")
    assert (answer.status_code, answer.json()["code"]) == (404, "SESSION_NOT_FOUND")


@pytest.mark.parametrize(("method", "path"), AGENT_ROUTES)
def test_a_revoked_token_is_refused_on_every_agent_route(live: LiveDaemon, method: str, path: str) -> None:
    made = live.new_session()
    live.owner.delete(f"/v1/sessions/{made['id']}")
    answer = live.agent(made["token"]).request(method, path.format(id=made["id"]))
    assert (answer.status_code, answer.json()["code"]) == (401, "SESSION_REVOKED")


def test_the_file_holds_the_hash_of_the_token_and_both_expiries(live: LiveDaemon) -> None:
    made = live.new_session(ttl=3600)
    (row,) = live.query("SELECT token_hash, expires_at, absolute_expires_at FROM sessions WHERE id = ?", made["id"])
    digest = hashlib.sha256(made["token"].encode()).hexdigest()
    assert row == (digest, START + 3600, START + 2_592_000)


def test_no_file_of_the_home_holds_a_token_or_the_password(live: LiveDaemon) -> None:
    made = live.new_session()
    live.agent(made["token"]).get("/v1/session")
    live.time.advance(43_200)
    renewed = live.agent(made["token"]).put(f"/v1/sessions/{made['id']}/renew").json()["token"]
    live.stop()
    content = b"".join(path.read_bytes() for path in live.root.rglob("*") if path.is_file())
    for secret in (made["token"], renewed, "correct horse battery staple"):
        assert secret.encode() not in content


def test_an_idempotency_key_makes_one_session_and_eats_no_slot(live: LiveDaemon) -> None:
    agent = live.new_agent()
    asked = {"json": {"agentId": agent}, "headers": {"Idempotency-Key": "job-7"}}
    first = live.owner.post("/v1/sessions", **asked)
    again = live.owner.post("/v1/sessions", **asked)
    assert (first.status_code, again.status_code) == (201, 409)
    assert again.json()["code"] == "IDEMPOTENCY_CONFLICT"
    assert again.json()["details"] == {"sessionId": first.json()["id"]}
    assert live.query("SELECT count(*) FROM sessions") == [(1,)]
    live.time.advance(86_401)
    assert live.owner.post("/v1/sessions", **asked).status_code == 201


def test_lists_are_newest_first_in_pages_without_gap_or_repeat(launch: Callable[..., LiveDaemon]) -> None:
    live = launch(DAEMON_SECURITY_MAX_SESSIONS_PER_AGENT="100")
    agent = live.new_agent()
    made = []
    for _ in range(7):
        made.append(live.new_session(agent)["id"])
        live.time.advance(1)
    seen, link = [], f"/v1/owner/sessions?limit=3&agentId={agent}"
    while link:
        page = live.owner.get(link)
        seen += [row["id"] for row in page.json()]
        link = page.links["next"]["url"] if "next" in page.links else ""
    assert seen == made[::-1]


def test_patch_replaces_metadata_and_constraints_whole(live: LiveDaemon) -> None:
    made = live.new_session(metadata={"a": 1}, constraints={"maxRenewals": 3, "custom": [1]}, userId="u1")
    path = f"/v1/sessions/{made['id']}"
    patched = live.owner.patch(path, json={"metadata": {"b": 2}, "constraints": {"maxRenewals": 9}, "userId": None})
    body = patched.json()
    assert (body["metadata"], body["constraints"], body["maxRenewals"]) == ({"b": 2}, {"maxRenewals": 9}, 9)
    assert body["userId"] is None
    assert live.owner.patch(path, json={"constraints": None}).json()["maxRenewals"] == 9
    fields = [event["details"]["fields"] for event in live.events(type="SESSION_UPDATED")]
    assert fields == [["constraints", "max_renewals", "metadata", "user_id"], ["constraints"]]


def test_extend_never_shortens_and_stops_at_the_absolute_end(live: LiveDaemon) -> None:
    made = live.new_session(ttl=3600)
    path = f"/v1/sessions/{made['id']}/extend"
    assert live.owner.post(path, json={"seconds": 60}).json()["expiresAt"] == START + 3600
    assert live.owner.post(path, json={"seconds": 7_776_000}).json()["expiresAt"] == START + 2_592_000
    refused = live.owner.post(path, json={"seconds": 60})
    assert (refused.status_code, refused.json()["code"]) == (403, "SESSION_ABSOLUTE_LIFETIME_EXCEEDED")


@pytest.mark.parametrize("operation", ["rotate", "suspend", "resume", "extend", "patch"])
def test_operations_on_a_session_that_is_not_active_are_409(live: LiveDaemon, operation: str) -> None:
    made = live.new_session()
    path = f"/v1/sessions/{made['id']}"
    live.owner.delete(path)
    body = {"json": {"seconds": 60}} if operation == "extend" else {}
    if operation == "patch":
        answer = live.owner.patch(path, json={"userId": "x"})
    else:
        answer = live.owner.post(f"{path}/{operation}", **body)
    assert (answer.status_code, answer.json()["code"]) == (409, "INVALID_STATE_TRANSITION")


def test_suspend_twice_and_resume_twice_are_409_with_the_allowed_states(live: LiveDaemon) -> None:
    path = f"/v1/sessions/{live.new_session()['id']}"
    assert live.owner.post(f"{path}/resume").json()["details"]["from"] == "READY"
    assert live.owner.post(f"{path}/suspend", json={"reason": "lunch"}).status_code == 200
    twice = live.owner.post(f"{path}/suspend").json()
    assert twice["details"] == {"from": "SUSPENDED", "to": "SUSPENDED", "allowed": ["READY", "CLOSING", "ERROR"]}
    assert live.owner.post(f"{path}/resume").status_code == 200
    assert live.owner.post(f"{path}/resume").status_code == 409


def test_a_suspended_agent_is_refused_until_activated_and_gets_no_session(live: LiveDaemon) -> None:
    agent = live.new_agent()
    made = live.new_session(agent)
    client = live.agent(made["token"])
    assert client.get("/v1/session").status_code == 200
    for _ in range(2):
        assert live.owner.post(f"/v1/agents/{agent}/suspend", json={"reason": "\0"}).status_code == 400
        suspended = live.owner.post(f"/v1/agents/{agent}/suspend", json={"reason": "odd"})
        assert (suspended.status_code, suspended.json()["suspensionReason"]) == (200, "odd")
    refused = client.get("/v1/session")
    assert (refused.status_code, refused.json()["code"]) == (403, "AGENT_SUSPENDED")
    create = live.owner.post("/v1/sessions", json={"agentId": agent})
    assert (create.status_code, create.json()["code"]) == (409, "AGENT_SUSPENDED")
    assert live.owner.post(f"/v1/agents/{agent}/activate").json()["status"] == "ACTIVE"
    assert client.get("/v1/session").status_code == 200
    assert len(live.events(type="AGENT_SUSPENDED")) == 1


def test_terminating_an_agent_is_final_and_revokes_its_sessions(live: LiveDaemon) -> None:
    agent = live.new_agent()
    tokens = [live.new_session(agent)["token"] for _ in range(2)]
    ended = live.owner.delete(f"/v1/agents/{agent}")
    assert ended.json() == {"id": agent, "status": "TERMINATED", "sessionsRevoked": 2}
    assert {live.agent(token).get("/v1/session").json()["code"] for token in tokens} == {"SESSION_REVOKED"}
    for answer in (
        live.owner.delete(f"/v1/agents/{agent}"),
        live.owner.post(f"/v1/agents/{agent}/activate"),
        live.owner.post("/v1/sessions", json={"agentId": agent}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (410, "AGENT_TERMINATED")


def test_a_public_key_belongs_to_one_agent(live: LiveDaemon) -> None:
    first = live.owner.post("/v1/agents", json={"name": "a", "publicKey": "k1", "chain": "solana"}).json()
    second = live.owner.post("/v1/agents", json={"name": "b", "publicKey": "k1"})
    assert (second.status_code, second.json()["code"]) == (409, "AGENT_EXISTS")
    assert second.json()["details"] == {"agentId": first["id"]}


def test_owner_state_is_derived_and_a_new_address_is_unverified(live: LiveDaemon) -> None:
    path = f"/v1/agents/{live.new_agent()}"
    states = [live.owner.get(path).json()["ownerState"]]
    for body in ({"ownerAddress": "abc"}, {"ownerVerified": True}, {"ownerAddress": "def"}, {"ownerAddress": None}):
        states.append(live.owner.patch(path, json=body).json()["ownerState"])
    assert states == ["NONE", "GRACE", "LOCKED", "GRACE", "NONE"]


def test_first_request_starts_a_session_silence_makes_it_idle_and_use_wakes_it(live: LiveDaemon) -> None:
    made = live.new_session()
    client = live.agent(made["token"])
    assert client.get("/v1/session").json()["state"] == "ACTIVE"
    live.time.advance(299)
    assert live.call(lambda daemon: daemon.parts.services.admin.mark_idle()) == 0
    live.time.advance(3)  # PostgreSQL waits two seconds for uses that another daemon may not have stored yet
    live.call(lambda daemon: daemon.parts.services.admin.mark_idle())
    assert live.owner.get(f"/v1/sessions/{made['id']}").json()["state"] == "IDLE"
    assert client.get("/v1/session").json()["state"] == "ACTIVE"
    types = [event["type"] for event in live.events(sessionId=made["id"])]
    assert types == ["SESSION_CREATED", "SESSION_STARTED", "SESSION_STATE_CHANGED", "SESSION_STATE_CHANGED"]


def test_constraints_are_enforced_with_one_event_a_minute(live: LiveDaemon) -> None:
    made = live.new_session(constraints={"allowedOperations": ["sessions.*"], "unknown": {"kept": True}})
    client = live.agent(made["token"])
    for _ in range(3):
        refused = client.get("/v1/session")
        assert (refused.status_code, refused.json()["code"]) == (403, "CONSTRAINT_VIOLATED")
        assert refused.json()["details"]["constraint"] == "allowedOperations"
    live.time.advance(60)
    client.get("/v1/session")
    assert [event["details"]["count"] for event in live.events(type="CONSTRAINT_VIOLATED")] == [1, 3]
    whole = live.owner.get(f"/v1/sessions/{made['id']}").json()
    assert (whole["constraints"]["unknown"], whole["requestCount"]) == ({"kept": True}, 0)


def test_max_requests_and_requests_per_minute(live: LiveDaemon) -> None:
    few = live.agent(live.new_session(constraints={"maxRequests": 2})["token"])
    assert [few.get("/v1/session").status_code for _ in range(3)] == [200, 200, 403]
    slow = live.agent(live.new_session(constraints={"requestsPerMinute": 2})["token"])
    answers = [slow.get("/v1/session") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["Retry-After"] == "60"
    live.time.advance(60)
    assert slow.get("/v1/session").status_code == 200
    kinds = [event["details"]["constraint"] for event in live.events(type="CONSTRAINT_VIOLATED")]
    assert kinds == ["maxRequests"]


def test_an_idle_timeout_ends_a_session_that_is_not_used(live: LiveDaemon) -> None:
    made = live.new_session(constraints={"idleTimeout": 60})
    client = live.agent(made["token"])
    for _ in range(3):
        live.time.advance(59)
        assert client.get("/v1/session").status_code == 200
    live.time.advance(60)
    refused = client.get("/v1/session")
    assert (refused.json()["code"], refused.json()["details"]) == ("TOKEN_EXPIRED", {"reason": "idle"})
    live.time.advance(2)  # PostgreSQL waits for uses that another daemon may not have stored yet
    assert live.owner.post("/v1/admin/cleanup").json() == {"expired": 1, "deleted": 0}
    assert live.owner.get(f"/v1/sessions/{made['id']}").json()["status"] == "EXPIRED"
    (event,) = live.events(type="SESSION_EXPIRED")
    assert event["details"] == {"expiredAt": START + 3 * 59 + 60, "reason": "idle"}


def test_the_sweeper_marks_expired_sessions_once_and_deletes_old_ones_with_one_event(live: LiveDaemon) -> None:
    agent = live.new_agent()
    made = [live.new_session(agent, ttl=300) for _ in range(3)]
    live.owner.delete(f"/v1/sessions/{made[0]['id']}")
    live.time.advance(300)
    assert live.owner.post("/v1/admin/cleanup").json() == {"expired": 2, "deleted": 0}
    assert live.owner.post("/v1/admin/cleanup").json() == {"expired": 0, "deleted": 0}
    expired = live.owner.get("/v1/sessions", params={"agentId": agent, "status": "EXPIRED"}).json()
    assert [row["state"] for row in expired] == ["CLOSED", "CLOSED"]
    live.time.advance(86_400)
    assert live.owner.post("/v1/admin/cleanup").json() == {"expired": 0, "deleted": 3}
    assert [event["details"] for event in live.events(type="SESSIONS_PURGED")] == [{"count": 3}]
    assert len(live.events(type="SESSION_EXPIRED")) == 2
    gone = live.agent(made[1]["token"]).get("/v1/session")
    assert (gone.status_code, gone.json()["code"]) == (401, "INVALID_TOKEN")


def test_what_an_owner_reads_includes_activity_that_is_not_stored_yet(live: LiveDaemon) -> None:
    made = live.new_session()
    client = live.agent(made["token"])
    for _ in range(25):
        client.get("/v1/session")
    live.time.advance(1)
    client.get("/v1/session")
    whole = live.owner.get(f"/v1/sessions/{made['id']}").json()
    assert (whole["requestCount"], whole["lastActivity"]) == (26, START + 1)
    live.restart()
    assert live.owner.get(f"/v1/sessions/{made['id']}").json()["requestCount"] == 26


def test_an_agent_ends_its_own_session(live: LiveDaemon) -> None:
    made = live.new_session()
    client: httpx.Client = live.agent(made["token"])
    assert client.delete("/v1/session").json()["status"] == "REVOKED"
    assert client.get("/v1/session").json()["code"] == "SESSION_REVOKED"
    (event,) = live.events(type="SESSION_REVOKED")
    assert (event["actor"], event["details"]) == (f"agent:{made['agentId']}", {"reason": "ended_by_agent"})

"""Other services on the machine accept the daemon's tokens: introspection (RFC 7662) and revocation (RFC 7009)."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.engines import both_engines, one_engine
from tests.support.live import PASSWORD, START, LiveDaemon
from tests.support.oauth import INACTIVE, INTROSPECT, REVOKE, Service

pytestmark = both_engines

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def service(live: LiveDaemon) -> Service:
    """A service that may only ask."""
    return Service(live)


def rows(live: LiveDaemon) -> list[Any]:
    """Return everything that could change about sessions, activity that was not stored yet included."""
    live.call(lambda daemon: daemon.parts.store.flush())
    return [live.query(f"SELECT * FROM {table} ORDER BY 1") for table in ("agents", "sessions", "audit_log")]


def renewed(live: LiveDaemon, session: dict[str, Any]) -> str:
    """Renew a session and return its new token."""
    answer = live.agent(session["token"]).put(f"/v1/sessions/{session['id']}/renew").raise_for_status()
    return str(answer.json()["token"])


def test_of_a_good_token_a_service_learns_whose_it_is_and_until_when(live: LiveDaemon, service: Service) -> None:
    agent = live.new_agent("researcher")
    session = live.new_session(agent, ttl=3600, userId="user-7", workspaceId="search")
    assert service.told(session["token"]) == {
        "active": True,
        "sub": session["id"],
        "client_id": agent,
        "client_name": "researcher",
        "scope": "*",
        "token_type": "Bearer",
        "exp": START + 3600,
        "iat": START,
        "iss": "daemon",
        "session_state": "READY",
        "user_id": "user-7",
        "workspace_id": "search",
    }
    allowed = ["session.*", "wallet.sign"]
    plain = service.told(live.new_session(agent, constraints={"allowedOperations": allowed})["token"])
    assert plain["scope"] == "session.* wallet.sign"
    assert plain.keys().isdisjoint({"user_id", "workspace_id"}), "what there is not is left out, as RFC 7662 has it"


@one_engine
def test_the_end_is_the_rows_own_whatever_the_token_says(live: LiveDaemon, service: Service) -> None:
    session = live.new_session(ttl=3600)
    live.owner.post(f"/v1/sessions/{session['id']}/extend", json={"seconds": 7200}).raise_for_status()
    assert service.told(session["token"])["exp"] == START + 7200
    idle = live.new_session(constraints={"idleTimeout": 60})
    assert service.told(idle["token"])["exp"] == START + 60
    live.time.advance(30)
    live.agent(idle["token"]).get("/v1/session").raise_for_status()
    assert service.told(idle["token"])["exp"] == START + 90
    live.time.advance(1800)
    new = renewed(live, session)
    told = service.told(new)
    assert (told["iat"], told["exp"]) == (live.time.wall, START + 7200)


Spoil = Callable[[LiveDaemon, dict[str, Any]], None]
"""Makes the token of a session bad."""


def _expired(live: LiveDaemon, _: dict[str, Any]) -> None:
    live.time.advance(300)


def _expired_and_swept(live: LiveDaemon, _: dict[str, Any]) -> None:
    live.time.advance(300)
    live.owner.post("/v1/admin/cleanup").raise_for_status()


def _idle(live: LiveDaemon, _: dict[str, Any]) -> None:
    live.time.advance(60)


def _revoked(live: LiveDaemon, session: dict[str, Any]) -> None:
    live.owner.delete(f"/v1/sessions/{session['id']}").raise_for_status()


def _ended_by_its_agent(live: LiveDaemon, session: dict[str, Any]) -> None:
    live.agent(session["token"]).delete("/v1/session").raise_for_status()


def _suspended(live: LiveDaemon, session: dict[str, Any]) -> None:
    live.owner.post(f"/v1/sessions/{session['id']}/suspend").raise_for_status()


def _agent_suspended(live: LiveDaemon, session: dict[str, Any]) -> None:
    live.owner.post(f"/v1/agents/{session['agentId']}/suspend").raise_for_status()


def _agent_terminated(live: LiveDaemon, session: dict[str, Any]) -> None:
    live.owner.delete(f"/v1/agents/{session['agentId']}").raise_for_status()


def _renewed(live: LiveDaemon, session: dict[str, Any]) -> None:
    live.time.advance(150)
    renewed(live, session)


def _rotated(live: LiveDaemon, session: dict[str, Any]) -> None:
    live.owner.post(f"/v1/sessions/{session['id']}/rotate").raise_for_status()


def _all_requests_made(live: LiveDaemon, session: dict[str, Any]) -> None:
    for _ in range(3):
        live.agent(session["token"]).get("/v1/session").raise_for_status()


def _deleted(live: LiveDaemon, session: dict[str, Any]) -> None:
    _revoked(live, session)
    live.time.advance(86_401)
    live.owner.post("/v1/admin/cleanup").raise_for_status()


SPOILED: list[Spoil] = [
    _expired, _expired_and_swept, _idle, _revoked, _ended_by_its_agent, _suspended, _agent_suspended,
    _agent_terminated, _renewed, _rotated, _all_requests_made, _deleted,
]  # fmt: skip


def test_of_whatever_the_daemon_would_refuse_nothing_is_told_but_that(live: LiveDaemon, service: Service) -> None:
    for spoil in SPOILED:
        constraints = {"idleTimeout": 60} if spoil is _idle else {"idleTimeout": 86_400, "maxRequests": 3}
        session = live.new_session(ttl=300, constraints=constraints)
        assert service.is_active(session["token"])
        spoil(live, session)
        answer = service.introspect(session["token"])
        assert (answer.status_code, answer.content) == (200, INACTIVE), spoil.__name__
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Cache-Control"] == "no-store"


def test_a_revoked_token_is_inactive_in_the_very_next_introspection(live: LiveDaemon, service: Service) -> None:
    for session in [live.new_session() for _ in range(10)]:
        assert service.is_active(session["token"])
        live.owner.delete(f"/v1/sessions/{session['id']}").raise_for_status()
        assert not service.is_active(session["token"])


def test_a_token_is_active_again_when_its_agent_or_its_session_is(live: LiveDaemon, service: Service) -> None:
    session = live.new_session()
    for path in (f"/v1/sessions/{session['id']}", f"/v1/agents/{session['agentId']}"):
        on, off = ("activate" if "agents" in path else "resume"), "suspend"
        live.owner.post(f"{path}/{off}").raise_for_status()
        assert not service.is_active(session["token"])
        live.owner.post(f"{path}/{on}").raise_for_status()
        assert service.is_active(session["token"])


def test_an_introspection_is_no_use_of_a_token(live: LiveDaemon, service: Service) -> None:
    session = live.new_session(constraints={"idleTimeout": 60, "maxRequests": 2})
    before = rows(live)
    for _ in range(20):
        assert service.is_active(session["token"])
        live.time.advance(2)
    assert rows(live) == before, "nothing is counted, stamped, started or told"
    whole = live.owner.get(f"/v1/sessions/{session['id']}").json()
    assert (whole["requestCount"], whole["lastActivity"], whole["state"]) == (0, None, "READY")
    live.time.advance(20)
    assert not service.is_active(session["token"]), "it was asked about all the time, and never used"


@one_engine
def test_an_introspection_of_the_new_token_leaves_the_lost_answer_to_who_has_the_old_one(
    live: LiveDaemon, service: Service
) -> None:
    session = live.new_session(ttl=300)
    live.time.advance(150)
    new = renewed(live, session)
    assert service.is_active(new)
    live.time.advance(100)  # the retry window is over; only that the new token was never used keeps it open
    assert renewed(live, session) == new


def test_no_superseded_token_is_taken_for_a_stolen_one(live: LiveDaemon, service: Service) -> None:
    session = live.new_session(ttl=600)
    tokens = [session["token"]]
    for _ in range(3):
        live.time.advance(300)
        tokens.append(renewed(live, {**session, "token": tokens[-1]}))
    live.agent(tokens[-1]).get("/v1/session").raise_for_status()
    live.time.advance(60)
    before = rows(live)
    assert [service.is_active(token) for token in tokens] == [False, False, False, True]
    assert rows(live) == before
    assert live.events(type="TOKEN_REUSED") == []
    assert live.agent(tokens[-1]).get("/v1/session").status_code == 200
    assert live.agent(tokens[0]).get("/v1/session").json()["code"] == "TOKEN_REUSED", "shown to the daemon, it is"


# --- revocation


@pytest.fixture
def killer(live: LiveDaemon) -> Service:
    """A service that may revoke too."""
    return Service(live, "killer", mayRevoke=True)


def test_a_verifier_that_may_ends_the_session_of_a_token(live: LiveDaemon, killer: Service) -> None:
    session = live.new_session()
    answer = killer.revoke(session["token"], token_type_hint="access_token")
    assert (answer.status_code, answer.json()) == (200, {})
    assert not killer.is_active(session["token"])
    assert live.agent(session["token"]).get("/v1/session").json()["code"] == "SESSION_REVOKED"
    revoked, closed = live.events(sessionId=session["id"])[-2:]
    assert (revoked["type"], closed["type"]) == ("SESSION_REVOKED", "SESSION_CLOSED")
    assert (revoked["actor"], revoked["details"]) == (f"verifier:{killer.id}", {"reason": "revoked_by_verifier"})
    assert revoked["requestId"] == answer.headers["X-Request-Id"]
    whole = live.owner.get(f"/v1/sessions/{session['id']}").json()
    assert (whole["status"], whole["revokedReason"]) == ("REVOKED", "revoked_by_verifier")
    before = rows(live)
    assert killer.revoke(session["token"]).json() == {}, "repeated, nothing changes"
    assert rows(live) == before


@one_engine
def test_a_verifier_that_may_not_is_403_and_nothing_happens(live: LiveDaemon, service: Service) -> None:
    session = live.new_session()
    before = rows(live)
    for token in (session["token"], "garbage"):
        refused = service.revoke(token)
        assert (refused.status_code, refused.json()["code"]) == (403, "REVOCATION_NOT_ALLOWED")
    assert rows(live) == before
    assert service.is_active(session["token"])


@one_engine
def test_a_suspended_session_and_that_of_a_suspended_agent_can_be_revoked(live: LiveDaemon, killer: Service) -> None:
    for suspend in (_suspended, _agent_suspended):
        session = live.new_session()
        suspend(live, session)
        killer.revoke(session["token"]).raise_for_status()
        assert live.owner.get(f"/v1/sessions/{session['id']}").json()["status"] == "REVOKED"


def test_a_revocation_does_not_miss_a_session_that_has_just_been_renewed(live: LiveDaemon, killer: Service) -> None:
    session = live.new_session(ttl=300)
    live.time.advance(150)
    new = renewed(live, session)
    killer.revoke(session["token"]).raise_for_status()
    assert not killer.is_active(new)
    assert live.agent(session["token"]).put(f"/v1/sessions/{session['id']}/renew").json()["code"] == "SESSION_REVOKED"
    (event,) = live.events(type="SESSION_REVOKED")
    assert event["details"] == {"reason": "revoked_by_verifier"}, "it rejects no renewal: only the owner does"


def test_a_token_that_is_none_any_more_is_200_and_nothing_happens(live: LiveDaemon, killer: Service) -> None:
    gone = live.new_session(ttl=300)
    _deleted(live, gone)
    older = live.new_session(ttl=600)
    newest = older["token"]
    for _ in range(2):
        live.time.advance(300)
        newest = renewed(live, {**older, "token": newest})
    replaced = live.new_session()
    _rotated(live, replaced)
    before = rows(live)
    for token in (older["token"], replaced["token"], gone["token"], "garbage", killer.credential, "wai_own_x"):
        answer = killer.revoke(token)
        assert (answer.status_code, answer.json()) == (200, {})
    assert rows(live) == before
    assert killer.is_active(newest)


# --- children


def child_of(live: LiveDaemon, parent: dict[str, Any], **body: Any) -> dict[str, Any]:
    """Let an agent make a session from its own."""
    answer = live.agent(parent["token"]).post("/v1/session/children", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_the_token_of_a_child_is_good_for_as_long_as_all_above_it(live: LiveDaemon, service: Service) -> None:
    top = live.new_session(ttl=3600, constraints={"maxRequests": 4, "idleTimeout": 600})
    child = child_of(live, child_of(live, top))
    told = service.told(child["token"])
    assert (told["sub"], told["exp"]) == (child["id"], START + 600)
    for _ in range(2):
        assert service.is_active(child["token"])
        live.agent(child["token"]).get("/v1/session").raise_for_status()
    assert not service.is_active(child["token"]), "its requests count above it too"
    assert not service.is_active(top["token"])
    live.owner.patch(f"/v1/sessions/{top['id']}", json={"constraints": None}).raise_for_status()
    assert service.is_active(child["token"])
    live.owner.post(f"/v1/sessions/{top['id']}/suspend").raise_for_status()
    assert not service.is_active(child["token"])
    live.owner.post(f"/v1/sessions/{top['id']}/resume").raise_for_status()
    assert service.is_active(child["token"])
    live.owner.delete(f"/v1/sessions/{top['id']}").raise_for_status()
    assert not service.is_active(child["token"])


def test_a_child_comes_by_no_scope_that_those_above_it_lack(live: LiveDaemon, service: Service) -> None:
    top = live.new_session(constraints={"allowedOperations": ["session.*", "wallet.read"]})
    child = child_of(live, top, constraints={"allowedOperations": ["session.re*", "wallet.*", "wallet.read"]})
    told = service.told(child["token"])["scope"].split(" ")
    assert set(told) == {"wallet.read", "session.re*"}
    narrowed = {"constraints": {"allowedOperations": ["session.end"]}}
    live.owner.patch(f"/v1/sessions/{top['id']}", json=narrowed).raise_for_status()
    assert service.told(child["token"])["scope"] == ""


def test_who_revokes_a_token_ends_all_that_descends_from_its_session(live: LiveDaemon, killer: Service) -> None:
    top = live.new_session()
    child, other = child_of(live, top), child_of(live, top)
    below = child_of(live, child)
    killer.revoke(child["token"]).raise_for_status()
    sessions = (top, other, child, below)
    assert [killer.is_active(one["token"]) for one in sessions] == [True, True, False, False]
    killer.revoke(top["token"]).raise_for_status()
    assert [killer.is_active(one["token"]) for one in sessions] == [False] * 4
    ends = [(one["sessionId"], one["details"]["reason"]) for one in live.events(type="SESSION_REVOKED")]
    by_verifier, by_descent = "revoked_by_verifier", "parent_ended"
    assert ends == [
        (child["id"], by_verifier), (below["id"], by_descent), (top["id"], by_verifier), (other["id"], by_descent),
    ]  # fmt: skip


# --- verifiers


def test_a_verifier_is_made_shown_and_revoked_for_good(live: LiveDaemon) -> None:
    service = Service(live, "gateway", mayRevoke=True)
    assert set(service.added) == {"id", "name", "mayRevoke", "createdAt", "credential"}
    assert service.credential.startswith("wai_verf_")
    assert len(service.credential) == len("wai_verf_") + 43, "256 random bits"
    path = f"/v1/owner/verifiers/{service.id}"
    shown = live.owner.get(path).json()
    assert shown == {
        "id": service.id, "name": "gateway", "mayRevoke": True, "createdAt": START, "revokedAt": None,
        "lastUsedAt": None,
    }  # fmt: skip
    live.time.advance(5)
    first = live.owner.delete(path)
    live.time.advance(5)
    again = live.owner.delete(path)
    assert (first.status_code, first.json()) == (200, {**shown, "revokedAt": START + 5})
    assert (again.status_code, again.json()) == (200, first.json())
    added, revoked = live.events(type="VERIFIER_ADDED"), live.events(type="VERIFIER_REVOKED")
    assert [(one["actor"], one["details"]) for one in added] == [
        ("owner", {"verifierId": service.id, "name": "gateway", "mayRevoke": True})
    ]
    assert [one["details"] for one in revoked] == [
        {"verifierId": service.id, "name": "gateway", "reason": "manual_revoke"}
    ]
    for method in ("GET", "DELETE"):
        missing = live.owner.request(method, "/v1/owner/verifiers/01980e5a-7c00-7a2b-9c4d-5e6f708192a3")
        assert (missing.status_code, missing.json()["code"]) == (404, "VERIFIER_NOT_FOUND")


def test_a_revoked_credential_is_refused_in_the_next_request_as_an_unknown_one_is(live: LiveDaemon) -> None:
    token = live.new_session()["token"]
    service, other = Service(live), Service(live)
    assert service.is_active(token)
    live.owner.delete(f"/v1/owner/verifiers/{service.id}").raise_for_status()
    unknown = live.client(Authorization="Bearer wai_verf_" + "x" * 43)
    answers = [
        client.post(path, data={"token": token})
        for client in (service.client, unknown)
        for path in (INTROSPECT, REVOKE)
    ]
    assert {answer.status_code for answer in answers} == {401}
    told = [
        ({**answer.json(), "requestId": None, "instance": None}, answer.headers["WWW-Authenticate"])
        for answer in answers
    ]
    assert told == [told[0]] * 4, "nobody learns that a credential was good once"
    assert told[0][0]["code"] == "INVALID_VERIFIER"
    assert told[0][1].startswith('Bearer realm="daemon", error="invalid_token"')
    assert other.is_active(token)


def test_the_list_is_newest_first_in_pages_and_shows_no_credential(live: LiveDaemon) -> None:
    made = []
    for number in range(5):
        made.append(Service(live, f"service {number}"))
        live.time.advance(1)
    live.owner.delete(f"/v1/owner/verifiers/{made[1].id}").raise_for_status()
    seen, link = list[dict[str, Any]](), "/v1/owner/verifiers?limit=2"
    while link:
        page = live.owner.get(link)
        seen += page.json()
        link = page.links["next"]["url"] if "next" in page.links else ""
    assert [one["name"] for one in seen] == [f"service {number}" for number in (4, 3, 2, 1, 0)]
    assert [one["revokedAt"] is not None for one in seen] == [False, False, False, True, False]
    assert "wai_verf_" not in str(seen)
    assert live.owner.get("/v1/owner/verifiers?limit=0").status_code == 400


def test_when_a_verifier_was_used_last_is_known_to_the_minute(live: LiveDaemon, service: Service) -> None:
    path = f"/v1/owner/verifiers/{service.id}"
    service.introspect("x")
    live.time.advance(59)
    service.introspect("x")
    assert live.owner.get(path).json()["lastUsedAt"] == START
    live.time.advance(1)
    service.introspect("x")
    assert live.owner.get("/v1/owner/verifiers").json()[0]["lastUsedAt"] == START + 60
    live.restart()
    assert live.owner.get(path).json()["lastUsedAt"] == START + 60
    assert live.query("SELECT last_used_at FROM verifiers") == [(START + 60,)]


def test_a_verifier_and_its_revocation_outlive_a_restart_and_a_kill_switch(live: LiveDaemon) -> None:
    kept, gone = Service(live, "kept"), Service(live, "gone")
    live.owner.delete(f"/v1/owner/verifiers/{gone.id}").raise_for_status()
    live.restart()
    token = live.new_session()["token"]
    assert kept.at(live).post(INTROSPECT, data={"token": token}).json()["active"] is True
    assert gone.at(live).post(INTROSPECT, data={"token": token}).status_code == 401
    live.owner.post("/v1/admin/kill-switch", json={"reason": "test"}).raise_for_status()
    for path in (INTROSPECT, REVOKE):
        locked = kept.at(live).post(path, data={"token": token})
        assert (locked.status_code, locked.json()["code"]) == (503, "SYSTEM_LOCKED")
    assert live.owner.post("/v1/owner/verifiers", json={"name": "late"}).status_code == 503
    assert live.owner.get("/v1/owner/verifiers").status_code == 200
    live.owner.post("/v1/admin/recover").raise_for_status()
    assert kept.at(live).post(INTROSPECT, data={"token": token}).content == INACTIVE


@one_engine
def test_no_file_of_the_home_holds_a_credential(live: LiveDaemon) -> None:
    service = Service(live)
    service.introspect(live.new_session()["token"])
    service.introspect(service.credential)
    live.client(Authorization=f"Bearer {service.credential}x").post(INTROSPECT, data={"token": "x"})
    live.stop()
    content = b"".join(path.read_bytes() for path in live.root.rglob("*") if path.is_file())
    assert service.credential.encode() not in content


@one_engine
def test_wrong_credentials_are_bounded_and_hold_nobody_up_who_has_a_good_one(
    live: LiveDaemon, service: Service
) -> None:
    wrong = live.client(Authorization="Bearer wai_verf_wrong")
    answers = [wrong.post(INTROSPECT, data={"token": "x"}) for _ in range(70)]
    assert [answer.status_code for answer in answers] == [401] * 60 + [429] * 10
    assert (answers[-1].json()["code"], answers[-1].headers["Retry-After"]) == ("RATE_LIMIT_EXCEEDED", "61")
    assert service.introspect("x").content == INACTIVE
    live.time.advance(60)
    assert wrong.post(INTROSPECT, data={"token": "x"}).status_code == 401


@one_engine
def test_each_verifier_has_a_rate_of_its_own(launch: Callable[..., LiveDaemon]) -> None:
    live = launch(DAEMON_SERVER_SESSION_RPM="2")
    one, other = Service(live, "one"), Service(live, "other")
    answers = [one.introspect("x") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["RateLimit-Remaining"] for answer in answers] == ["1", "0", "0"]
    assert answers[2].json()["code"] == "RATE_LIMIT_EXCEEDED"
    assert other.introspect("x").status_code == 200
    token = live.new_session()["token"]
    assert live.agent(token).get("/v1/session").status_code == 200


@one_engine
def test_the_log_tells_who_asked_and_no_token(live: LiveDaemon, service: Service) -> None:
    token = live.new_session()["token"]
    asked = service.introspect(token)
    live.stop()
    text = live.home.log_file("logs/daemon.log").read_text()
    (line,) = [line for line in text.splitlines() if asked.headers["X-Request-Id"] in line]
    assert f'"actor":"verifier:{service.id}"' in line
    assert token not in text


# --- forms


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of a daemon for all tests of forms."""
    live = LiveDaemon(tmp_path_factory.mktemp("forms") / "home", DAEMON_SERVER_SESSION_RPM="0")
    yield Service(live, mayRevoke=True)
    live.stop()


@pytest.mark.parametrize("path", [INTROSPECT, REVOKE])
@pytest.mark.parametrize(
    ("content", "problems"),
    [
        (b"", {"token"}), (b"token", {"token"}), (b"token=", {"token"}), (b"token_type_hint=access_token", {"token"}),
        (b"Token=a", {"token"}), (b"token=a&token=a", {"token"}), (b"token=a&token=", {"token"}),
        (b"token=a&token_type_hint=x&token_type_hint=y", {"token_type_hint"}), (b"token=a&other=1&other=2", {"other"}),
        (b"token=\xff", {""}), (b"token=%FF", {""}), (b"token=%ED%A0%80", {""}), (b"a=1&" * 200 + b"token=a", {""}),
        (b"x=1&x=2", {"x", "token"}),
    ],
)  # fmt: skip
def test_a_form_without_one_token_is_400_with_every_problem(
    shared: Service, path: str, content: bytes, problems: set[str]
) -> None:
    answer = shared.client.post(path, content=content, headers=FORM)
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
    assert {problem["path"] for problem in answer.json()["errors"]} == problems
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", [INTROSPECT, REVOKE])
@pytest.mark.parametrize("sent", ["application/json", "text/plain", "multipart/form-data; boundary=x", None])
def test_a_body_that_is_no_form_is_415(shared: Service, path: str, sent: str | None) -> None:
    headers = {"Content-Type": sent} if sent else {}
    answer = shared.client.post(path, content=b'{"token": "a"}', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert "x-www-form-urlencoded" in answer.json()["hint"]


@pytest.mark.parametrize("media", ["APPLICATION/X-WWW-FORM-URLENCODED", f"{FORM['Content-Type']}; charset=utf-8"])
def test_a_form_may_have_parameters_and_fields_that_nobody_knows(shared: Service, media: str) -> None:
    content = b"client_id=x&token=+%zz%00&token_type_hint=nonsense&empty"
    answer = shared.client.post(INTROSPECT, content=content, headers={"Content-Type": media})
    assert (answer.status_code, answer.content) == (200, INACTIVE)


def test_a_form_of_1_mib_is_garbage_and_one_byte_more_is_413(shared: Service) -> None:
    largest = b"token=" + b"x" * (2**20 - 6)
    assert shared.client.post(INTROSPECT, content=largest, headers=FORM).content == INACTIVE
    refused = shared.client.post(INTROSPECT, content=largest + b"x", headers=FORM)
    assert (refused.status_code, refused.json()["code"]) == (413, "BODY_TOO_LARGE")


@one_engine
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=80) | st.text(max_size=80).map(lambda text: b"token=" + text.encode()))
def test_no_bytes_make_a_500_or_a_good_token(shared: Service, content: bytes) -> None:
    for path, empty in ((INTROSPECT, INACTIVE), (REVOKE, b"{}")):
        answer = shared.client.post(path, content=content, headers=FORM)
        assert answer.status_code in {200, 400}, answer.text
        assert answer.status_code == 400 or answer.content == empty


def test_what_the_daemon_handed_out_for_something_else_is_garbage(shared: Service) -> None:
    live = shared.live
    assert isinstance(live, LiveDaemon)
    token = live.new_session()["token"]
    ticket = live.owner.post("/v1/owner/login").raise_for_status().json()["ticket"]
    other = "A" if token[-1] != "A" else "B"
    for garbage in (
        token[:-1] + other, token + "x", token.removeprefix("wai_sess_"), token * 2_000, f"Bearer {token}", ticket,
        PASSWORD, shared.credential, Service(live).credential,
    ):  # fmt: skip
        assert not shared.is_active(garbage), garbage
        assert shared.revoke(garbage).json() == {}
    assert shared.is_active(token)


@one_engine
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(token=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=400))
def test_every_garbage_is_inactive_with_200(shared: Service, token: str) -> None:
    for one in (token, f"wai_sess_{token}"):
        answer = shared.introspect(one)
        assert (answer.status_code, answer.content) == (200, INACTIVE)

"""Every route that the app really serves: guarded, documented, and never silent about a body."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from litestar.routes import HTTPRoute

from daemon import background
from daemon.domain.clock import DomainClock
from daemon.web.application import make_app
from daemon.web.middleware.rate import SessionRates
from daemon.web.openapi import build
from tests.support.live import PASSWORD, LiveDaemon
from tests.support.oauth import Service

APP = make_app(SessionRates(0, DomainClock(lambda: 0.0, lambda: 0.0)), metrics=True)
DOCUMENT = build(APP)
ROUTES = [
    (method, route.path_format.replace(":str", ""), handler)
    for route in APP.routes
    if isinstance(route, HTTPRoute)
    for method, (handler, _) in sorted(route.route_handler_map.items())
]
IDS = [f"{method} {path}" for method, path, _ in ROUTES]
UNKNOWN = "01980e5a-7c00-7a2b-9c4d-5e6f708192a3"
WITH_BODY = [entry for entry in ROUTES if entry[2].opt["describes"].body is not None]
WITH_FORM = [entry for entry in ROUTES if entry[2].opt["describes"].form is not None]
WITHOUT_BODY = [entry for entry in ROUTES if entry not in WITH_BODY + WITH_FORM]


def ids(entries: list[Any]) -> list[str]:
    return [f"{method} {path}" for method, path, _ in entries]


class World:
    """A daemon with an expired, a revoked and a live session, whose tables can be compared."""

    def __init__(self, live: LiveDaemon) -> None:
        self.live = live
        agent = live.new_agent()
        self.expired = live.new_session(agent, ttl=300)
        live.time.advance(300)
        self.revoked = live.new_session(agent)
        live.owner.delete(f"/v1/sessions/{self.revoked['id']}")
        self.session, self.other = live.new_session(agent), live.new_session(agent)
        live.agent(self.session["token"]).get("/v1/session")
        self.agent = agent
        self.ticket = live.owner.post("/v1/owner/login").json()["ticket"]
        self.verifier = Service(live, mayRevoke=True)
        self.verifier.introspect(self.session["token"])
        live.call(lambda daemon: background.flush(daemon.parts))

    def path(self, template: str) -> str:
        return (
            template.replace("{agent_id}", self.agent)
            .replace("{session_id}", self.session["id"])
            .replace("{channel_id}", UNKNOWN)
            .replace("{verifier_id}", UNKNOWN)
            .replace("{token}", "x" * 22)
            .replace("{conversationId}", "conv%2F1")
        )

    def tables(self) -> list[Any]:
        self.live.call(lambda daemon: daemon.parts.store.flush())
        names = ("agents", "sessions", "conversations", "key_value_store", "idempotency_keys")
        names += ("notification_channels", "answers", "processes", "turns", "verifiers")
        return [self.live.query(f"SELECT * FROM {name} ORDER BY 1") for name in names]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    live = LiveDaemon(tmp_path_factory.mktemp("routes") / "home", DAEMON_SERVER_METRICS="true")
    yield World(live)
    live.stop()


def credentials(world: World) -> dict[str, dict[str, str]]:
    return {
        "none": {},
        "expired token": {"Authorization": f"Bearer {world.expired['token']}"},
        "revoked token": {"Authorization": f"Bearer {world.revoked['token']}"},
        "session token": {"Authorization": f"Bearer {world.session['token']}"},
        "wrong ticket": {"Authorization": "Bearer wai_own_" + "x" * 43},
        "ticket": {"Authorization": f"Bearer {world.ticket}"},
        "password": {"X-Master-Password": PASSWORD},
        "forged": {"Authorization": "Bearer wai_sess_e30.e30.e30"},
        "verifier": {"Authorization": f"Bearer {world.verifier.credential}"},
        "wrong verifier": {"Authorization": "Bearer wai_verf_" + "x" * 43},
        "basic": {"Authorization": "Basic b3duZXI6b3duZXI="},
    }


ACCEPTED = {
    "owner": {"ticket", "password"},
    "agent": {"session token"},
    "either": {"ticket", "password", "session token"},
    "verifier": {"verifier"},
}
SESSION_TOKENS = {"expired token": "TOKEN_EXPIRED", "revoked token": "SESSION_REVOKED", "forged": "INVALID_TOKEN"}


def code_of_refusal(group: str, credential: str) -> str:
    """Return what a guard answers to a credential that it does not accept."""
    if group == "agent":
        return SESSION_TOKENS.get(credential, "INVALID_TOKEN")
    if group == "verifier":
        return "INVALID_VERIFIER"
    if group == "either":
        return SESSION_TOKENS.get(credential, "INVALID_MASTER_PASSWORD")
    return "INVALID_MASTER_PASSWORD"


@pytest.mark.parametrize(("method", "path", "handler"), ROUTES, ids=IDS)
def test_every_route_has_a_group_and_refuses_every_other_credential(
    world: World, method: str, path: str, handler: Any
) -> None:
    group = handler.opt["group"]
    if group in {"public", "link"}:
        return
    before = world.tables()
    for name, headers in credentials(world).items():
        if name in ACCEPTED[group]:
            continue
        for target in (world.path(path), world.path(path) + "/"):
            answer = world.live.anonymous.request(method, target, headers=headers)
            assert answer.status_code == 401, (name, target, answer.text)
            assert answer.headers["WWW-Authenticate"]
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["code"] == code_of_refusal(group, name), name
    assert world.tables() == before


OF_EITHER = [entry for entry in ROUTES if entry[2].opt["group"] == "either"]
CONTENT = {"POST": {"content": "next"}, "GET": None}


def test_messages_and_output_are_for_the_owner_and_for_the_sessions_own_token() -> None:
    assert set(ids(OF_EITHER)) == {"GET /v1/sessions/{session_id}/output", "POST /v1/sessions/{session_id}/messages"}
    (kill,) = [handler for _, path, handler in ROUTES if path == "/v1/sessions/{session_id}/kill"]
    assert kill.opt["group"] == "owner"


@pytest.mark.parametrize(("method", "path", "handler"), OF_EITHER, ids=ids(OF_EITHER))
def test_a_route_for_either_answers_the_owner_and_the_paths_own_session_and_hides_every_other(
    world: World, method: str, path: str, handler: Any
) -> None:
    def code(headers: dict[str, str], session_id: str) -> tuple[int, str]:
        target = path.replace("{session_id}", session_id)
        answer = world.live.anonymous.request(method, target, headers=headers, json=CONTENT[method])
        return answer.status_code, answer.json()["code"]

    own, elsewhere, nowhere = world.session["id"], world.other["id"], UNKNOWN
    without, hidden = (409, "INVALID_STATE_TRANSITION"), (404, "SESSION_NOT_FOUND")
    sent = credentials(world)
    for name in ("ticket", "password"):
        assert [code(sent[name], one) for one in (own, elsewhere, nowhere)] == [without, without, hidden], name
        assert code({**sent["session token"], **sent["password"]}, elsewhere) == without
    assert [code(sent["session token"], one) for one in (own, elsewhere, nowhere)] == [without, hidden, hidden]
    assert code(sent["session token"], own.upper()) == without
    assert code(sent["session token"], "x" * 36) == code(sent["password"], "x" * 36) == (400, "VALIDATION_ERROR")
    wrong = {**sent["session token"], "X-Master-Password": "not the password"}
    assert code(wrong, own) == (401, "INVALID_MASTER_PASSWORD")


@pytest.mark.parametrize(("method", "path", "handler"), OF_EITHER, ids=ids(OF_EITHER))
def test_a_route_for_either_holds_an_agent_to_its_constraints_and_its_rate(
    launch: Callable[..., LiveDaemon], method: str, path: str, handler: Any
) -> None:
    live = launch(DAEMON_SERVER_SESSION_RPM="2")
    operation = handler.opt["operation"]
    agent = live.new_agent()
    may, may_not = (
        live.new_session(agent, constraints={"allowedOperations": [allowed]}) for allowed in (operation, "session.*")
    )

    def ask(client: httpx.Client, made: dict[str, Any]) -> tuple[int, str]:
        answer = client.request(method, path.replace("{session_id}", made["id"]), json=CONTENT[method])
        return answer.status_code, answer.json()["code"]

    without = (409, "INVALID_STATE_TRANSITION")
    assert ask(live.agent(may_not["token"]), may_not) == (403, "CONSTRAINT_VIOLATED")
    assert ask(live.owner, may_not) == without
    assert [ask(live.agent(may["token"]), may) for _ in range(3)] == [
        without,
        without,
        (429, "RATE_LIMIT_EXCEEDED"),
    ]
    assert [ask(live.owner, may) for _ in range(3)] == [without] * 3


@pytest.mark.parametrize(("method", "path", "handler"), ROUTES, ids=IDS)
def test_other_methods_are_405_with_allow_and_unknown_sub_paths_404(
    world: World, method: str, path: str, handler: Any
) -> None:
    served = {one for one, other, _ in ROUTES if other == path}
    for other in {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"} - served:
        answer = world.live.anonymous.request(other, world.path(path))
        assert answer.status_code == 405, (other, path)
        assert set(answer.headers["Allow"].split(", ")) == served
    for suffix in ("/nothing", "%2Fnothing", "//"):
        answer = world.live.anonymous.request(method, world.path(path) + suffix)
        assert answer.status_code in {401, 404, 405}, suffix
        if answer.status_code == 404:
            assert answer.json()["code"] == "ROUTE_NOT_FOUND"


def test_every_route_is_in_the_document_and_nothing_else() -> None:
    documented = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert documented == {(method, path) for method, path, _ in ROUTES}


@pytest.mark.parametrize(("method", "path", "handler"), WITHOUT_BODY, ids=ids(WITHOUT_BODY))
def test_a_route_without_a_body_refuses_any_but_an_empty_one(
    world: World, method: str, path: str, handler: Any
) -> None:
    headers = _headers(world, handler)
    before = world.tables()
    for content in (b'{"x": 1}', b"[]", b"null", b"not json", b"{} {}"):
        sent = {**headers, "Content-Type": "application/json"}
        answer = world.live.anonymous.request(method, world.path(path), content=content, headers=sent)
        assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR"), content
    plain = world.live.anonymous.request(
        method, world.path(path), content=b"x", headers={**headers, "Content-Type": "text/plain"}
    )
    assert plain.status_code == 400
    assert world.tables() == before or handler.opt["group"] == "agent"


@pytest.mark.parametrize(("method", "path", "handler"), WITH_BODY, ids=ids(WITH_BODY))
def test_a_route_with_a_body_wants_json_and_lists_every_problem(
    world: World, method: str, path: str, handler: Any
) -> None:
    headers = _headers(world, handler)
    before = world.tables()
    text = world.live.anonymous.request(
        method, world.path(path), content=b"a=1", headers={**headers, "Content-Type": "text/plain"}
    )
    assert (text.status_code, text.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    bare = world.live.anonymous.request(method, world.path(path), content=b'{"reason": null}', headers=headers)
    assert bare.status_code == 415
    unknown = world.live.anonymous.request(
        method, world.path(path), json={"nonsense": 1, "more": 2}, headers=headers
    ).json()
    assert {"nonsense", "more"} <= {problem["path"] for problem in unknown["errors"]}
    schema = DOCUMENT["paths"][path][method.lower()]["requestBody"]
    if schema["required"]:
        empty = world.live.anonymous.request(method, world.path(path), headers=headers)
        assert (empty.status_code, empty.json()["code"]) == (400, "VALIDATION_ERROR")
    assert world.tables() == before or handler.opt["group"] == "agent"  # whose requests are counted


@pytest.mark.parametrize(("method", "path", "handler"), WITH_FORM, ids=ids(WITH_FORM))
def test_a_route_with_a_form_wants_one_and_is_for_verifiers(world: World, method: str, path: str, handler: Any) -> None:
    assert handler.opt["group"] == "verifier"
    headers = _headers(world, handler)
    before = world.tables()
    for media in ("text/plain", "application/json"):
        answer = world.live.anonymous.request(
            method, world.path(path), content=b"token=a", headers={**headers, "Content-Type": media}
        )
        assert (answer.status_code, answer.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    empty = world.live.anonymous.request(method, world.path(path), headers=headers)
    assert (empty.status_code, empty.json()["errors"]) == (400, [{"path": "token", "message": "is required"}])
    assert world.live.anonymous.request(method, world.path(path), data={"token": "a"}, headers=headers).is_success
    assert world.tables() == before


def _headers(world: World, handler: Any) -> dict[str, str]:
    group = handler.opt["group"]
    if group in {"public", "link"}:
        return {}
    return credentials(world)[{"agent": "session token", "verifier": "verifier"}.get(group, "password")]


@pytest.mark.parametrize("bad", ["x", UNKNOWN[:-1], UNKNOWN + "0", "%00", "%F0%9F", "0" * 36])
def test_a_malformed_id_is_400_or_404_after_authentication(world: World, bad: str) -> None:
    for path in ("/v1/agents/{}", "/v1/sessions/{}", "/v1/sessions/{}/output"):
        assert world.live.anonymous.get(path.format(bad)).status_code in {401, 404}
        answer = world.live.owner.get(path.format(bad))
        assert answer.status_code in {400, 404}
        assert answer.json()["code"] in {"VALIDATION_ERROR", "ROUTE_NOT_FOUND"}


def test_forwarded_headers_change_nothing(world: World) -> None:
    sent = {"X-Forwarded-For": "8.8.8.8", "Forwarded": "for=8.8.8.8", "X-Real-IP": "8.8.8.8"}
    agent = world.live.owner.post("/v1/agents", json={"name": "far"}, headers=sent).json()
    (event,) = world.live.events(type="AGENT_CREATED", agentId=agent["id"])
    assert event["ipAddress"] == "127.0.0.1"


def test_the_sessions_rate_limit_counts_down_and_refuses(launch: Callable[..., LiveDaemon]) -> None:
    live = launch(DAEMON_SERVER_SESSION_RPM="3")
    client = live.agent(live.new_session()["token"])
    answers = [client.get("/v1/session") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert {answer.headers["RateLimit-Limit"] for answer in answers} == {"3"}
    assert (answers[3].json()["code"], answers[3].headers["Retry-After"]) == ("RATE_LIMIT_EXCEEDED", "61")
    live.time.advance(60)
    assert client.get("/v1/session").status_code == 200


def test_the_global_rate_limit_spares_the_owner_and_health(launch: Callable[..., LiveDaemon]) -> None:
    live = launch(DAEMON_SERVER_GLOBAL_RPM="2")
    client: httpx.Client = live.agent(live.new_session()["token"])
    assert [client.get("/v1/session").status_code for _ in range(3)] == [200, 200, 429]
    assert live.owner.get("/v1/agents").status_code == 200
    assert live.anonymous.get("/health").status_code == 200

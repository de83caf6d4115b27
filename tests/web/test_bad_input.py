"""Bad input gets one clear problem document; nothing is written, and it is never a 500."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.live import LiveDaemon

SETTINGS = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    live = LiveDaemon(tmp_path_factory.mktemp("bad") / "home")
    yield live
    live.stop()


def refused(live: LiveDaemon, content: bytes, path: str = "/v1/agents") -> dict[str, Any]:
    before = live.query("SELECT count(*) FROM audit_log")
    answer = live.owner.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert live.query("SELECT count(*) FROM audit_log") == before
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize(
    "content",
    [
        b'{"name": NaN}', b'{"name": "a", "metadata": {"x": NaN}}', b'{"name": "a", "metadata": {"x": 1e999}}',
        b"[" * 2000, b'{"name": "a", "metadata": ' + b'{"a":' * 2000 + b"1" + b"}" * 2000 + b"}",
        b'{"name": "\xff"}', b"\xff\xfe", b'"a"', b"null", b"{", b'{"name": "a"} x', b'{"name": "\\ud800"}',
    ],
)  # fmt: skip
def test_what_is_not_valid_json_is_400(shared: LiveDaemon, content: bytes) -> None:
    assert refused(shared, content)["code"] == "VALIDATION_ERROR"


def test_all_problems_are_listed_with_dotted_paths(shared: LiveDaemon) -> None:
    agent = shared.new_agent()
    body = {
        "agentId": agent, "ttl": 5, "userId": "", "nope": 1, "metadata": [],
        "constraints": {"maxRenewals": 101, "idleTimeout": True, "allowedOperations": ["ok", 7]},
    }  # fmt: skip
    answer = shared.owner.post("/v1/sessions", json=body)
    paths = {problem["path"] for problem in answer.json()["errors"]}
    assert paths == {
        "ttl", "userId", "nope", "metadata", "constraints.maxRenewals", "constraints.idleTimeout",
        "constraints.allowedOperations.1",
    }  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        {"name": ""}, {"name": " "}, {"name": "x" * 101}, {"name": "a\nb"}, {"name": "a\u0000"}, {"name": 7}, {},
        {"name": "a", "chain": "bitcoin"}, {"name": "a", "metadata": {"a": "x" * 17_000}},
        {"name": "a", "metadata": {"n": {"n": {"n": 1}}}, "extra": None},
    ],
)  # fmt: skip
def test_bad_agents_are_400(shared: LiveDaemon, body: dict[str, Any]) -> None:
    before = shared.query("SELECT count(*) FROM agents")
    assert shared.owner.post("/v1/agents", json=body).status_code == 400
    assert shared.query("SELECT count(*) FROM agents") == before


def test_a_body_of_1_mib_and_a_byte_is_413(shared: LiveDaemon) -> None:
    answer = shared.owner.post("/v1/agents", content=b" " * (2**20 + 1), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "BODY_TOO_LARGE")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=201", "limit=x", "limit=1&limit=2", "cursor=x", "cursor=", "unknown=1", "status=active",
        "state=NOPE", "agentId=7", "userId=", "userId=%00", "limit=99999999999999999999999",
    ],
)  # fmt: skip
def test_bad_queries_are_400(shared: LiveDaemon, query: str) -> None:
    answer = shared.owner.get(f"/v1/owner/sessions?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR"), answer.text


def test_a_credential_that_is_sent_twice_is_400(shared: LiveDaemon) -> None:
    twice = [("X-Master-Password", "a"), ("X-Master-Password", "b")]
    assert shared.anonymous.get("/v1/agents", headers=twice).status_code == 400


@pytest.mark.parametrize("header", ["!!!", "wrong", "4pyTIGZvcmdlZCBwYXNzd29yZA=="])
def test_a_coded_password_that_is_wrong_is_401(shared: LiveDaemon, header: str) -> None:
    answer = shared.anonymous.get("/v1/agents", headers={"X-Master-Password-B64": header})
    assert (answer.status_code, answer.json()["code"]) == (401, "INVALID_MASTER_PASSWORD")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["name", "agentId", "ttl", "constraints", "metadata", "userId", "reason", "seconds", "chain", "revokeSessions"]
)
BODIES = st.dictionaries(FIELDS | st.text(max_size=5), JSON, max_size=5)
PATHS = ["/v1/agents", "/v1/sessions", "/v1/sessions/{}/extend", "/v1/sessions/{}/suspend", "/v1/owner/login"]


@pytest.mark.parametrize("path", PATHS)
@SETTINGS
@given(body=BODIES)
def test_no_body_makes_a_500(shared: LiveDaemon, path: str, body: dict[str, Any]) -> None:
    target = path.format("01980e5a-7c00-7a2b-9c4d-5e6f708192a3")
    answer = shared.owner.post(target, json=body)
    assert answer.status_code in {200, 201, 400, 404}, answer.text
    assert answer.headers["X-Request-Id"]


@SETTINGS
@given(content=st.binary(max_size=200))
def test_no_bytes_make_a_500(shared: LiveDaemon, content: bytes) -> None:
    answer = shared.owner.post("/v1/agents", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


@SETTINGS
@given(token=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=400))
def test_no_token_makes_a_500(shared: LiveDaemon, token: str) -> None:
    answer = shared.anonymous.get("/v1/session", headers={"Authorization": f"Bearer wai_sess_{token}"})
    assert (answer.status_code, answer.json()["code"]) == (401, "INVALID_TOKEN")

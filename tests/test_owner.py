"""The owner: master password, lockout, tickets, and what is remembered."""

import base64
import unicodedata
from collections.abc import Callable

import httpx

from tests.support.engines import both_engines, one_engine
from tests.support.live import PASSWORD, START, LiveDaemon

pytestmark = both_engines


def ask(live: LiveDaemon, password: str | bytes) -> httpx.Response:
    raw = password.encode() if isinstance(password, str) else password
    return live.anonymous.get("/v1/agents", headers={b"X-Master-Password": raw})


@one_engine
def test_a_missing_header_is_no_failure(live: LiveDaemon) -> None:
    for _ in range(20):
        assert live.anonymous.get("/v1/agents").status_code == 401
    assert ask(live, PASSWORD).status_code == 200
    assert live.events(type="MASTER_AUTH_FAILED") == []


@one_engine
def test_the_same_wrong_password_counts_once(live: LiveDaemon) -> None:
    for _ in range(20):
        assert ask(live, "stale password").json()["code"] == "INVALID_MASTER_PASSWORD"
    assert ask(live, PASSWORD).status_code == 200
    assert [event["details"] for event in live.events(type="MASTER_AUTH_FAILED")] == [{"failures": 1}]


def test_five_wrong_ones_lock_for_half_an_hour_and_agents_go_on(live: LiveDaemon) -> None:
    token = live.new_session()["token"]
    ticket = live.owner.post("/v1/owner/login").json()["ticket"]
    for number in range(5):
        assert ask(live, f"wrong {number}").status_code == 401
    locked = ask(live, PASSWORD)
    assert (locked.status_code, locked.json()["code"], locked.headers["Retry-After"]) == (
        429,
        "MASTER_AUTH_LOCKED",
        "1801",
    )
    bearer = live.client(Authorization=f"Bearer {ticket}")
    assert bearer.get("/v1/agents").json()["code"] == "MASTER_AUTH_LOCKED"
    assert live.agent(token).get("/v1/session").status_code == 200
    live.time.advance(1801)
    assert ask(live, PASSWORD).status_code == 200
    (event,) = live.events(type="MASTER_AUTH_LOCKED")
    assert (event["severity"], event["details"]) == ("critical", {"seconds": 1800})


def test_a_success_in_between_begins_the_count_anew(live: LiveDaemon) -> None:
    for round_ in range(3):
        for number in range(4):
            assert ask(live, f"wrong {round_} {number}").status_code == 401
        assert ask(live, PASSWORD).status_code == 200


def test_a_restart_unlocks(live: LiveDaemon) -> None:
    for number in range(5):
        ask(live, f"wrong {number}")
    live.restart()
    assert ask(live, PASSWORD).status_code == 200


def test_a_ticket_stands_for_the_password_until_it_ends(live: LiveDaemon) -> None:
    made = live.owner.post("/v1/owner/login", json={"ttl": 60}).json()
    assert made["expiresAt"] == START + 60
    assert made["ticket"].startswith("wai_own_")
    bearer = live.client(Authorization=f"Bearer {made['ticket']}")
    assert bearer.get("/v1/agents").status_code == 200
    assert bearer.post("/v1/owner/login").status_code == 401
    live.time.advance(60)
    assert bearer.get("/v1/agents").json()["code"] == "INVALID_MASTER_PASSWORD"


@one_engine
def test_logout_ends_one_ticket_and_with_the_password_all(live: LiveDaemon) -> None:
    tickets = [live.owner.post("/v1/owner/login").json()["ticket"] for _ in range(3)]
    first = live.client(Authorization=f"Bearer {tickets[0]}")
    assert first.post("/v1/owner/logout").json() == {"ticketsRevoked": 1}
    assert first.get("/v1/agents").status_code == 401
    assert live.owner.post("/v1/owner/logout").json() == {"ticketsRevoked": 2}
    assert live.client(Authorization=f"Bearer {tickets[1]}").get("/v1/agents").status_code == 401


def test_a_change_of_password_ends_tickets_and_forgets_the_old_one(live: LiveDaemon) -> None:
    ticket = live.owner.post("/v1/owner/login").json()["ticket"]
    short = live.owner.post("/v1/admin/password", json={"newPassword": "short"})
    assert (short.status_code, short.json()["errors"][0]["path"]) == (400, "newPassword")
    new = "another horse, another battery"
    assert live.owner.post("/v1/admin/password", json={"newPassword": new}).json() == {"changedAt": START}
    assert live.client(Authorization=f"Bearer {ticket}").get("/v1/agents").status_code == 401
    assert ask(live, PASSWORD).status_code == 401
    assert ask(live, new).status_code == 200


@one_engine
def test_korean_letters_pass_raw_and_coded_in_any_normal_form(live: LiveDaemon) -> None:
    korean = "한글 비밀번호입니다"
    live.owner.post("/v1/admin/password", json={"newPassword": unicodedata.normalize("NFD", korean)})
    assert ask(live, korean).status_code == 200
    assert ask(live, unicodedata.normalize("NFD", korean)).status_code == 200
    coded = base64.b64encode(korean.encode()).decode()
    assert live.anonymous.get("/v1/agents", headers={"X-Master-Password-B64": coded}).status_code == 200
    assert ask(live, b"\xff\xfe").status_code == 401


def test_a_remembered_password_is_verified_again_after_its_time(launch: Callable[..., LiveDaemon]) -> None:
    live = launch(DAEMON_SECURITY_MASTER_CACHE_TTL="0")
    assert ask(live, PASSWORD).status_code == 200
    assert ask(live, PASSWORD).status_code == 200


def test_parameters_of_the_hash_are_upgraded_at_the_next_success(launch: Callable[..., LiveDaemon]) -> None:
    live = launch()
    live.stop()
    stronger = launch(live.root, live.time, DAEMON_SECURITY_ARGON2_TIME="2")
    assert ask(stronger, PASSWORD).status_code == 200
    (stored,) = stronger.query("SELECT value FROM key_value_store WHERE key = 'master_password'")
    assert "t=2" in stored[0]


def test_secrets_are_in_no_line_of_the_log(live: LiveDaemon) -> None:
    made = live.new_session()
    ticket = live.owner.post("/v1/owner/login").json()["ticket"]
    ask(live, "a wrong password")
    live.agent(made["token"]).get("/v1/session")
    live.anonymous.get(f"/v1/sessions/{made['token']}?x={ticket}")
    live.stop()
    text = (live.root / "logs" / "daemon.log").read_text()
    assert "session.created" in text
    for secret in (made["token"], ticket, PASSWORD, "a wrong password"):
        assert secret not in text

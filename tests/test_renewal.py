"""Renewal: the guards, the lost answer, the stolen token."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.support.engines import both_engines, one_engine
from tests.support.live import START, LiveDaemon

pytestmark = both_engines

TTL = 3600
HALF = TTL // 2


def renew(live: LiveDaemon, made: dict[str, Any], token: str | None = None) -> httpx.Response:
    return live.agent(token or made["token"]).put(f"/v1/sessions/{made['id']}/renew")


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_renewal_succeeds_at_exactly_half_of_the_term(live: LiveDaemon) -> None:
    made = live.new_session(ttl=TTL)
    live.time.advance(HALF)
    answer = renew(live, made)
    body = answer.json()
    assert answer.status_code == 200
    assert body == {
        "id": made["id"],
        "token": body["token"],
        "expiresAt": START + HALF + TTL,
        "renewalCount": 1,
        "maxRenewals": 30,
        "absoluteExpiresAt": made["absoluteExpiresAt"],
        "lastRenewedAt": START + HALF,
    }
    assert live.agent(body["token"]).get("/v1/session").json()["generation"] == 2


def test_one_second_before_it_is_too_early_and_says_how_long_to_wait(live: LiveDaemon) -> None:
    made = live.new_session(ttl=TTL)
    live.time.advance(HALF - 1)
    answer = renew(live, made)
    assert code(answer) == (403, "RENEWAL_TOO_EARLY")
    assert answer.json()["details"] == {"retryAfter": 1}
    assert (answer.headers["Retry-After"], answer.json()["retryable"]) == ("1", True)
    live.time.advance(1)
    assert renew(live, made).status_code == 200


def test_the_limit_of_renewals_holds(live: LiveDaemon) -> None:
    made = live.new_session(ttl=TTL, constraints={"maxRenewals": 2})
    token = made["token"]
    for _ in range(2):
        live.time.advance(HALF)
        token = renew(live, made, token).json()["token"]
    live.time.advance(HALF)
    assert code(renew(live, made, token)) == (403, "RENEWAL_LIMIT_REACHED")


def test_max_renewals_0_means_never(live: LiveDaemon) -> None:
    made = live.new_session(ttl=TTL, constraints={"maxRenewals": 0})
    live.time.advance(HALF)
    assert code(renew(live, made)) == (403, "RENEWAL_LIMIT_REACHED")


def test_at_the_absolute_end_a_renewal_is_cut_short_and_then_refused(launch: Callable[..., LiveDaemon]) -> None:
    live = launch(DAEMON_SECURITY_SESSION_ABSOLUTE_LIFETIME="86400", DAEMON_SECURITY_SESSION_TTL="50000")
    made = live.new_session()
    live.time.advance(40_000)
    renewed = renew(live, made).json()
    assert renewed["expiresAt"] == made["absoluteExpiresAt"] == START + 86_400
    live.time.advance(30_000)
    assert code(renew(live, made, renewed["token"])) == (403, "SESSION_ABSOLUTE_LIFETIME_EXCEEDED")
    live.time.advance(16_400)
    assert code(live.agent(renewed["token"]).get("/v1/session")) == (401, "TOKEN_EXPIRED")


def test_a_token_renews_its_own_session_only(live: LiveDaemon) -> None:
    mine, other = live.new_session(ttl=TTL), live.new_session(ttl=TTL)
    live.time.advance(HALF)
    answer = live.agent(mine["token"]).put(f"/v1/sessions/{other['id']}/renew")
    assert code(answer) == (403, "SESSION_RENEWAL_MISMATCH")


def test_revoked_expired_and_suspended_sessions_are_not_renewed(live: LiveDaemon) -> None:
    revoked, expired, suspended = (live.new_session(ttl=TTL) for _ in range(3))
    live.owner.delete(f"/v1/sessions/{revoked['id']}")
    live.owner.post(f"/v1/sessions/{suspended['id']}/suspend")
    live.time.advance(HALF)
    assert code(renew(live, revoked)) == (401, "SESSION_REVOKED")
    assert code(renew(live, suspended)) == (403, "SESSION_SUSPENDED")
    live.time.advance(HALF)
    assert code(renew(live, expired)) == (401, "TOKEN_EXPIRED")


def test_the_old_token_is_refused_on_every_other_route_after_renewal(live: LiveDaemon) -> None:
    made = live.new_session(ttl=TTL)
    live.time.advance(HALF)
    renew(live, made)
    old = live.agent(made["token"])
    for answer in (old.get("/v1/session"), old.delete("/v1/session")):
        assert code(answer) == (401, "TOKEN_ROTATED")
    assert live.events(type="TOKEN_REUSED") == []


def test_a_lost_answer_is_recovered_inside_the_window_even_when_the_new_token_is_used(live: LiveDaemon) -> None:
    made = live.new_session(ttl=TTL)
    live.time.advance(HALF)
    first = renew(live, made).json()
    assert live.agent(first["token"]).get("/v1/session").status_code == 200
    live.time.advance(29)
    assert renew(live, made).json() == first
    assert len(live.events(type="SESSION_RENEWED")) == 1


def test_a_lost_answer_is_recovered_after_the_window_while_the_new_token_is_unused(live: LiveDaemon) -> None:
    made = live.new_session(ttl=TTL)
    live.time.advance(HALF)
    first = renew(live, made).json()
    live.time.advance(1500)
    live.restart()
    assert renew(live, made).json() == first
    assert live.agent(first["token"]).get("/v1/session").status_code == 200


def test_after_the_window_a_used_successor_makes_the_old_token_stolen(live: LiveDaemon) -> None:
    made = live.new_session(ttl=TTL)
    live.time.advance(HALF)
    first = renew(live, made).json()
    live.agent(first["token"]).get("/v1/session")
    live.time.advance(31)
    assert code(renew(live, made)) == (401, "TOKEN_REUSED")
    assert code(renew(live, made)) == (401, "SESSION_REVOKED")
    assert code(live.agent(first["token"]).get("/v1/session")) == (401, "SESSION_REVOKED")
    (event,) = live.events(type="TOKEN_REUSED")
    assert (event["severity"], event["details"]["currentGeneration"]) == ("critical", 2)


def test_generation_n_minus_2_revokes_once(live: LiveDaemon) -> None:
    made = live.new_session(ttl=TTL)
    live.time.advance(HALF)
    second = renew(live, made).json()["token"]
    live.time.advance(HALF)
    third = renew(live, made, second).json()["token"]
    assert code(live.agent(made["token"]).get("/v1/session")) == (401, "TOKEN_REUSED")
    assert code(live.agent(third).get("/v1/session")) == (401, "SESSION_REVOKED")
    live.agent(made["token"]).get("/v1/session")
    assert len(live.events(type="TOKEN_REUSED")) == 1
    assert live.owner.get(f"/v1/sessions/{made['id']}").json()["revokedReason"] == "token_reused"


def test_reuse_only_tells_when_configured_so_and_once(launch: Callable[..., LiveDaemon]) -> None:
    live = launch(DAEMON_SECURITY_TOKEN_REUSE_ACTION="notify")
    made = live.new_session(ttl=TTL)
    live.time.advance(HALF)
    second = renew(live, made).json()["token"]
    live.time.advance(HALF)
    third = renew(live, made, second).json()["token"]
    for _ in range(3):
        assert code(live.agent(made["token"]).get("/v1/session")) == (401, "TOKEN_REUSED")
    assert live.agent(third).get("/v1/session").status_code == 200
    assert len(live.events(type="TOKEN_REUSED")) == 1


def test_reuse_of_an_expired_sessions_token_is_not_acted_on(live: LiveDaemon) -> None:
    made = live.new_session(ttl=TTL)
    live.time.advance(HALF)
    renew(live, made)
    live.time.advance(2 * TTL)
    assert code(live.agent(made["token"]).get("/v1/session")) == (401, "TOKEN_EXPIRED")
    assert live.events(type="TOKEN_REUSED") == []


def test_the_owners_rotate_cuts_the_old_token_off_without_punishing_its_holder(live: LiveDaemon) -> None:
    made = live.new_session(ttl=TTL)
    rotated = live.owner.post(f"/v1/sessions/{made['id']}/rotate").json()
    assert (rotated["expiresAt"], rotated["id"]) == (made["expiresAt"], made["id"])
    live.time.advance(HALF)
    for _ in range(2):
        assert code(live.agent(made["token"]).get("/v1/session")) == (401, "TOKEN_ROTATED")
        assert code(renew(live, made)) == (401, "TOKEN_ROTATED")
    assert live.agent(rotated["token"]).get("/v1/session").json()["renewalCount"] == 0
    assert live.events(type="TOKEN_REUSED") == []


def test_rotate_after_renewal_forgets_the_sealed_answer(live: LiveDaemon) -> None:
    made = live.new_session(ttl=TTL)
    live.time.advance(HALF)
    renew(live, made)
    live.owner.post(f"/v1/sessions/{made['id']}/rotate")
    assert code(renew(live, made)) == (401, "TOKEN_ROTATED")
    assert live.query("SELECT previous_token_hash, retry_answer FROM sessions") == [(None, None)]


@one_engine
def test_a_copy_of_the_database_file_alone_yields_no_usable_token(live: LiveDaemon, tmp_path: Path) -> None:
    """Whoever has the file has the signing secret too: a token made with it matches no row."""
    from daemon.crypto.tokens import TokenSigner, decode_secrets
    from daemon.domain.rows import Session

    made = live.new_session(ttl=TTL)
    live.time.advance(HALF)
    new = renew(live, made).json()["token"]
    copy = tmp_path / "copy.db"
    source, target = sqlite3.connect(live.home.database), sqlite3.connect(copy)
    source.backup(target)
    (secret,) = target.execute("SELECT value FROM key_value_store WHERE key = 'token_secrets'").fetchone()
    columns = ", ".join(Session.__struct_fields__)
    row = Session(*target.execute(f"SELECT {columns} FROM sessions").fetchone())
    forged, _ = TokenSigner(decode_secrets(secret)).sign(row, "00" * 16)
    assert code(live.agent(forged).get("/v1/session")) == (401, "INVALID_TOKEN")
    dump = b"\n".join(line.encode() for line in target.iterdump())
    for token in (made["token"], new):
        assert token.encode() not in dump
        assert token.rpartition(".")[2].encode() not in dump
    assert live.agent(new).get("/v1/session").status_code == 200


def test_the_new_expiry_never_shortens_an_extended_session(live: LiveDaemon) -> None:
    made = live.new_session(ttl=TTL)
    live.owner.post(f"/v1/sessions/{made['id']}/extend", json={"seconds": 86_400})
    live.time.advance(HALF)
    assert renew(live, made).json()["expiresAt"] == START + 86_400


def test_a_change_of_the_configuration_does_not_reach_back(launch: Callable[..., LiveDaemon], tmp_path: Path) -> None:
    before = launch(tmp_path / "home")
    made = before.new_session(ttl=TTL)
    before.stop()
    changed = {"SESSION_ABSOLUTE_LIFETIME": "86400", "SESSION_TTL": "300", "DEFAULT_MAX_RENEWALS": "0"}
    env = {f"DAEMON_SECURITY_{name}": value for name, value in changed.items()}
    after = launch(tmp_path / "home", before.time, **env)
    after.time.advance(HALF)
    renewed = renew(after, made).json()
    assert renewed["expiresAt"] == START + HALF + TTL
    assert (renewed["absoluteExpiresAt"], renewed["maxRenewals"]) == (made["absoluteExpiresAt"], 30)


def test_secret_rotation_strands_nobody(live: LiveDaemon) -> None:
    made = live.new_session(ttl=TTL)
    assert live.owner.post("/v1/admin/rotate-secret").status_code == 200
    early = live.owner.post("/v1/admin/rotate-secret")
    assert (code(early), early.headers["Retry-After"]) == ((429, "ROTATION_TOO_RECENT"), "300")
    assert live.agent(made["token"]).get("/v1/session").status_code == 200
    live.time.advance(HALF)
    live.restart()
    first = renew(live, made).json()
    live.owner.post("/v1/admin/rotate-secret")
    assert renew(live, made).json() == first
    assert live.agent(first["token"]).get("/v1/session").status_code == 200


def test_secret_rotation_can_cut_everyone_off(live: LiveDaemon) -> None:
    made = [live.new_session() for _ in range(3)]
    live.owner.post("/v1/admin/rotate-secret", json={"revokeSessions": True})
    assert {code(live.agent(one["token"]).get("/v1/session")) for one in made} == {(401, "SESSION_REVOKED")}
    assert live.events(type="SECRET_ROTATED")[0]["details"]["sessionsRevoked"] == 3


def test_an_old_token_signed_with_a_forgotten_secret_is_invalid_not_reused(live: LiveDaemon) -> None:
    made = live.new_session(ttl=TTL)
    live.owner.post(f"/v1/sessions/{made['id']}/rotate")
    live.owner.post("/v1/admin/rotate-secret")
    assert code(live.agent(made["token"]).get("/v1/session")) == (401, "TOKEN_ROTATED")
    live.time.advance(301)
    assert code(live.agent(made["token"]).get("/v1/session")) == (401, "INVALID_TOKEN")


def test_revoking_inside_the_reject_window_rejects_the_renewal(live: LiveDaemon) -> None:
    made, late = live.new_session(ttl=TTL), live.new_session(ttl=7200)
    live.time.advance(HALF)
    renew(live, made)
    whole = live.owner.get(f"/v1/sessions/{made['id']}").json()
    assert whole["rejectWindowExpiry"] == START + HALF + 3600
    live.owner.delete(f"/v1/sessions/{made['id']}")
    (event,) = live.events(type="SESSION_RENEWAL_REJECTED")
    assert event["details"] == {"renewalCount": 1, "rejectedAt": START + HALF}
    live.time.advance(HALF)
    renew(live, late)
    live.time.advance(3600)
    live.owner.delete(f"/v1/sessions/{late['id']}")
    reasons = [row[0] for row in live.query("SELECT revoked_reason FROM sessions ORDER BY revoked_at")]
    assert reasons == ["renewal_rejected", "manual_revoke"]


def test_stepping_the_clock_back_an_hour_neither_revives_nor_kills(live: LiveDaemon) -> None:
    short, long = live.new_session(ttl=300), live.new_session(ttl=7200)
    live.time.advance(300)
    assert code(live.agent(short["token"]).get("/v1/session")) == (401, "TOKEN_EXPIRED")
    live.time.step(-3600)
    for _ in range(2):
        assert code(live.agent(short["token"]).get("/v1/session")) == (401, "TOKEN_EXPIRED")
        assert live.agent(long["token"]).get("/v1/session").status_code == 200
        live.restart()


def test_a_jump_forward_expires_at_once(live: LiveDaemon) -> None:
    made = live.new_session(ttl=3600)
    live.time.step(3600)
    assert code(live.agent(made["token"]).get("/v1/session")) == (401, "TOKEN_EXPIRED")


def test_a_step_back_of_more_than_a_day_is_followed_and_revokes_what_lies_in_the_future(live: LiveDaemon) -> None:
    before = live.new_session(ttl=604_800)
    live.time.step(3 * 86_400)
    future = live.new_session(ttl=604_800)
    live.time.step(-3 * 86_400)
    live.restart()
    assert live.agent(before["token"]).get("/v1/session").status_code == 200
    assert code(live.agent(future["token"]).get("/v1/session")) == (401, "SESSION_REVOKED")
    assert live.query("SELECT revoked_reason FROM sessions WHERE id = ?", future["id"]) == [("clock_reset",)]

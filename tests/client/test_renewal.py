"""When a session is renewed, and what becomes of its token where that fails: in simulated time."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from daemon.client import (
    RenewalsExhausted,
    SessionEnded,
    Suspended,
    TokenFileError,
    TokenReplaced,
    Unreachable,
    calls,
)
from daemon.client.claims import claims
from daemon.client.effects import Effect, Lost, NotSent, Pause, Send, Work
from daemon.domain.views import RenewedSession
from tests.support.agents import Driven, Stop, of_file, token_file
from tests.support.live import LiveDaemon

TTL = 1000


def generation(file: Path) -> int:
    return claims(file.read_text().strip(), "the file").gen


def keep_until(driven: Driven, live: LiveDaemon, moment: float) -> None:
    """Let the session be kept until this time of day."""
    until, before = moment, driven.on

    def watch(effect: Effect) -> Any:
        if isinstance(effect, Pause) and live.time.wall >= until:
            raise Stop
        return before(effect)

    driven.on = watch
    with pytest.raises(Stop):
        driven.run(driven.core.keep())
    driven.on = before


def failing(driven: Driven, times: int, error: Exception, what: type[Effect] = Send) -> None:
    """Let the next effects of a kind fail."""
    left = times

    def fail(effect: Effect) -> None:
        nonlocal left
        if isinstance(effect, what) and left:
            left -= 1
            raise error

    driven.on = fail


# --- when


def test_it_is_renewed_at_60_percent_of_its_time_give_or_take_five(live: LiveDaemon) -> None:
    at = []
    for number in range(20):
        made = live.new_session(ttl=TTL)
        file = token_file(live.root, made["token"], f"token-{number}")
        driven, made_at = Driven(live, of_file(file)), claims(made["token"], "it").iat
        driven.on = lambda effect: (_ for _ in ()).throw(Stop) if isinstance(effect, Send) else None
        with pytest.raises(Stop):
            driven.run(driven.core.keep())
        at.append((live.time.wall - made_at) / TTL)
        driven.close()
    assert 0.55 <= min(at) <= max(at) <= 0.66
    assert max(at) - min(at) > 0.02


def test_nobody_has_to_use_it_for_it_to_live_to_its_absolute_end(live: LiveDaemon, tmp_path: Path) -> None:
    made = live.new_session(ttl=86_400, constraints={"maxRenewals": 100})
    driven = Driven(live, of_file(token_file(tmp_path, made["token"])))
    with pytest.raises(Stop):
        keep_until_over(driven, live, made["absoluteExpiresAt"] - 100)
    shown = live.owner.get(f"/v1/sessions/{made['id']}").json()
    assert shown["status"] == "ACTIVE"
    assert shown["expiresAt"] == made["absoluteExpiresAt"]
    assert 2_592_000 / 86_400 / 0.66 < shown["renewalCount"] < 2_592_000 / 86_400 / 0.54
    driven.close()


def keep_until_over(driven: Driven, live: LiveDaemon, moment: float) -> None:
    def watch(effect: Effect) -> None:
        if isinstance(effect, Pause):
            live.time.advance(max(0.0, min(1800.0, moment - live.time.wall)))  # a minute at a time would take long
            if live.time.wall >= moment:
                raise Stop

    driven.on = watch
    driven.run(driven.core.keep())


def test_a_machine_that_slept_renews_when_it_wakes_up(driven: Driven, live: LiveDaemon, file: Path) -> None:
    slept = False

    def sleep(effect: Effect) -> None:
        nonlocal slept
        if isinstance(effect, Pause) and not slept:
            slept = True
            assert effect.seconds <= 60
            live.time.step(900)  # the clock that only goes on has stood still
        elif isinstance(effect, Pause):
            raise Stop

    driven.on = sleep
    with pytest.raises(Stop):
        driven.run(driven.core.keep())
    assert generation(file) == 2


def test_before_a_request_it_is_renewed_if_that_is_due(driven: Driven, live: LiveDaemon, made: dict[str, Any]) -> None:
    live.time.advance(700)
    own = driven.run(driven.core.call(calls.whoami()))
    assert own.renewal_count == 1
    assert [method for method, _ in driven.sent] == ["PUT", "GET"]


def test_who_asks_too_early_comes_again_when_the_daemon_says(live: LiveDaemon, tmp_path: Path) -> None:
    """As where the owner has rotated the token: its time is short, but the guard counts from the last renewal."""
    made = live.new_session(ttl=TTL)
    live.time.advance(300)
    rotated = live.owner.post(f"/v1/sessions/{made['id']}/rotate").json()
    live.owner.post(f"/v1/sessions/{made['id']}/extend", json={"seconds": TTL})
    driven = Driven(live, of_file(token_file(tmp_path, rotated["token"])))
    keep_until(driven, live, live.time.wall + 600)
    assert live.owner.get(f"/v1/sessions/{made['id']}").json()["renewalCount"] == 1
    driven.close()


def test_where_renewals_are_used_up_it_tries_again_as_the_owner_may_allow_more(
    live: LiveDaemon, tmp_path: Path
) -> None:
    made = live.new_session(ttl=TTL, constraints={"maxRenewals": 0})
    driven = Driven(live, of_file(token_file(tmp_path, made["token"])))
    live.time.advance(700)
    assert driven.run(driven.core.call(calls.whoami())).renewal_count == 0
    with pytest.raises(RenewalsExhausted):
        driven.run(driven.core.renew())
    live.owner.patch(f"/v1/sessions/{made['id']}", json={"constraints": {"maxRenewals": 5}}).raise_for_status()
    keep_until(driven, live, live.time.wall + 250)
    assert driven.run(driven.core.call(calls.whoami())).renewal_count == 1
    driven.close()


# --- what gets lost


def test_the_old_token_is_kept_while_the_daemon_is_away_and_it_is_tried_less_and_less_often(
    driven: Driven, live: LiveDaemon, file: Path
) -> None:
    live.time.advance(700)
    failing(driven, 12, NotSent("away"))
    keep_until(driven, live, live.time.wall + 60)
    assert generation(file) == 2
    waits = driven.pauses[:12]
    assert waits[0] <= 0.05
    assert all(after > before * 0.9 for before, after in pairwise(waits[:8]))
    assert 5 <= max(waits) <= 10


def test_a_renewal_whose_answer_was_lost_is_asked_for_again(driven: Driven, live: LiveDaemon, file: Path) -> None:
    live.time.advance(700)
    lost = 0

    def lose(effect: Effect) -> None:
        nonlocal lost
        if isinstance(effect, Send) and effect.method == "PUT" and lost < 3:
            lost += 1
            driven._wire.send(effect)
            raise Lost("cut")

    driven.on = lose
    answer = driven.run(driven.core.renew())
    assert (answer.renewal_count, generation(file), lost) == (1, 2, 3)


def test_a_lost_renewal_long_ago_strands_nobody(driven: Driven, live: LiveDaemon, file: Path) -> None:
    """Nobody has used the next token, so the daemon answers with it for as long as the session lives."""
    live.time.advance(700)
    with pytest.raises(Unreachable):
        failing_after_the_daemon(driven)
    live.time.advance(295)
    assert generation(file) == 1
    assert driven.run(driven.core.call(calls.whoami())).renewal_count == 1
    assert generation(file) == 2


def failing_after_the_daemon(driven: Driven) -> None:
    def lose(effect: Effect) -> None:
        if isinstance(effect, Send):
            driven._wire.send(effect)
            raise Lost("cut")

    driven.on = lose
    try:
        driven.run(driven.core.renew())
    finally:
        driven.on = lambda _effect: None


def test_a_token_that_could_not_be_stored_is_not_used(driven: Driven, live: LiveDaemon, file: Path) -> None:
    live.time.advance(700)
    works = 0

    def full(effect: Effect) -> None:
        nonlocal works
        if isinstance(effect, Work):
            works += 1
            if works == 2:  # after the answer
                raise TokenFileError("no space left")

    driven.on = full
    with pytest.raises(TokenFileError):
        driven.run(driven.core.renew())
    assert generation(file) == 1
    live.time.advance(100)
    assert driven.run(driven.core.call(calls.whoami())).renewal_count == 1
    assert generation(file) == 2


def test_without_room_for_the_next_token_no_renewal_is_asked_for(driven: Driven, live: LiveDaemon, file: Path) -> None:
    live.time.advance(700)
    failing(driven, 1, TokenFileError("no space left"), Work)
    with pytest.raises(TokenFileError):
        driven.run(driven.core.renew())
    assert driven.sent == []
    assert driven.run(driven.core.call(calls.whoami())).renewal_count == 1


def test_a_request_goes_on_with_the_token_of_another_process(driven: Driven, live: LiveDaemon, file: Path) -> None:
    driven.run(driven.core.call(calls.whoami()))
    live.time.advance(700)
    other = Driven(live, of_file(file))
    fresh = other.run(other.core.renew()).token
    other.run(other.core.call(calls.whoami()))
    other.close()
    assert driven.run(driven.core.call(calls.whoami())).renewal_count == 1
    assert driven.core.token() == fresh
    assert [method for method, _ in driven.sent] == ["GET", "GET"]


def test_a_request_that_was_under_way_during_a_renewal_is_sent_again(
    driven: Driven, live: LiveDaemon, file: Path
) -> None:
    live.time.advance(501)
    other = Driven(live, of_file(file))

    def renew_meanwhile(effect: Effect) -> None:
        if isinstance(effect, Send) and not driven.sent:
            other.run(other.core.renew())

    driven.on = renew_meanwhile
    told = driven.run(driven.core.call(calls.publish("AGENT_REPORT", None, None, None)))
    assert told.seq > 0
    assert driven.sent == [("POST", "/v1/session/events")] * 2
    other.close()


def test_who_renews_second_gets_the_answer_of_the_first(driven: Driven, live: LiveDaemon, file: Path) -> None:
    live.time.advance(501)
    other, claim = Driven(live, of_file(file)), of_file(file).claim()
    answers: list[RenewedSession] = []

    def first(effect: Effect) -> None:
        if isinstance(effect, Pause) and claim and not answers:
            claim.release()
            answers.append(other.run(other.core.renew()))

    driven.on = first
    assert [driven.run(driven.core.renew())] == answers
    assert driven.sent == [("GET", "/v1/session")]
    other.close()


def test_a_token_that_the_owner_has_replaced_is_refused_until_the_new_one_is_in_the_file(
    driven: Driven, live: LiveDaemon, made: dict[str, Any], file: Path
) -> None:
    fresh = live.owner.post(f"/v1/sessions/{made['id']}/rotate").json()["token"]
    with pytest.raises(TokenReplaced):
        driven.run(driven.core.call(calls.whoami()))
    assert sum(driven.pauses) <= 1.5
    file.write_text(f"{fresh}\n")
    assert driven.run(driven.core.call(calls.whoami())).generation == 2


def test_a_new_token_that_is_just_being_written_is_waited_for(
    driven: Driven, live: LiveDaemon, made: dict[str, Any], file: Path
) -> None:
    fresh = live.owner.post(f"/v1/sessions/{made['id']}/rotate").json()["token"]

    def write(effect: Effect) -> None:
        if isinstance(effect, Pause):
            file.write_text(f"{fresh}\n")

    driven.on = write
    assert driven.run(driven.core.call(calls.whoami())).generation == 2


# --- how it ends


@pytest.mark.parametrize("code", ["SESSION_REVOKED", "TOKEN_EXPIRED"])
def test_who_keeps_a_session_stops_for_good_when_it_is_over(
    driven: Driven, live: LiveDaemon, made: dict[str, Any], code: str
) -> None:
    if code == "SESSION_REVOKED":
        live.owner.delete(f"/v1/sessions/{made['id']}").raise_for_status()
    live.time.advance(700 if code == "SESSION_REVOKED" else TTL)
    assert driven.run(driven.core.keep()) is None
    sent = len(driven.sent)
    with pytest.raises(SessionEnded) as ended:
        driven.run(driven.core.call(calls.whoami()))
    assert ended.value.code == code
    assert len(driven.sent) == sent, "what is known to be over is not asked again"
    assert driven.pauses == []


def test_a_suspended_session_is_told_at_once_and_kept_for_when_it_is_resumed(
    driven: Driven, live: LiveDaemon, made: dict[str, Any]
) -> None:
    live.owner.post(f"/v1/sessions/{made['id']}/suspend").raise_for_status()
    live.time.advance(700)
    with pytest.raises(Suspended) as refused:
        driven.run(driven.core.call(calls.whoami()))
    assert (refused.value.code, driven.pauses) == ("SESSION_SUSPENDED", [])
    live.owner.post(f"/v1/sessions/{made['id']}/resume").raise_for_status()
    keep_until(driven, live, live.time.wall + 70)
    assert driven.run(driven.core.call(calls.whoami())).renewal_count == 1


def test_a_session_that_was_replaced_in_the_file_goes_on(
    driven: Driven, live: LiveDaemon, made: dict[str, Any], file: Path
) -> None:
    live.owner.delete(f"/v1/sessions/{made['id']}").raise_for_status()
    with pytest.raises(SessionEnded):
        driven.run(driven.core.call(calls.whoami()))
    other = live.new_session(made["agentId"])
    file.write_text(f"{other['token']}\n")
    assert driven.run(driven.core.call(calls.whoami())).id == other["id"]
    assert driven.core.renews

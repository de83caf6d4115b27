"""Delivery: through which channel, in which order, how often again, and when it ends."""

import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.notify.deliver import backoff
from tests.support.daemon_process import wait_for
from tests.support.engines import both_engines
from tests.support.live import FakeTime, LiveDaemon
from tests.support.owner import (
    CHANNELS,
    add,
    attempts,
    discord,
    drained,
    ntfy,
    publish,
    renewed,
    telegram,
    told,
    webhook,
)
from tests.support.services import Drop, Status, Timeout, TooMany
from tests.support.services.base import FakeService
from tests.support.services.discord import FakeDiscord
from tests.support.services.ntfy import FakeNtfy
from tests.support.services.telegram import FakeTelegram
from tests.support.services.webhook import FakeWebhook

Launch = Callable[..., LiveDaemon]
ALWAYS = random.Random(0)


def broken(fake: FakeService) -> None:
    """Let a service fail until `mended`."""
    fake.random_faults(ALWAYS, 1.0, [Status(500)])


def mended(fake: FakeService) -> None:
    fake.random_faults(ALWAYS, 0.0)


def outcomes(live: LiveDaemon) -> list[tuple[str, str]]:
    """The delivery log as (name of the channel, status)."""
    names = {one["id"]: one["name"] for one in live.owner.get(CHANNELS).json()}
    return [(names[one["channelId"]] if one["channelId"] else "", one["status"]) for one in attempts(live)]


def test_the_first_success_ends_a_message_that_is_not_critical(
    hook: FakeWebhook, phone: FakeTelegram, team: FakeDiscord, time: FakeTime, launch: Launch
) -> None:
    live = launch(time=time)
    session = live.new_session()
    add(live, discord(team, priority=1))
    add(live, telegram(phone, priority=9))
    add(live, webhook(hook, priority=5))
    publish(live, session)
    drained(live)
    phone.script(Drop(before=True))
    publish(live, session, "TX_FAILED")
    drained(live)
    assert outcomes(live) == [("phone", "DELIVERED"), ("phone", "FAILED"), ("hook", "DELIVERED")]
    assert (len(phone.messages), told(hook), team.messages) == (1, ["TX_FAILED"], [])
    assert attempts(live, status="FAILED")[0]["error"] == "connection lost"


def test_a_critical_message_goes_to_all_channels_at_once_and_again_to_those_that_failed(
    *, hook: FakeWebhook, phone: FakeTelegram, team: FakeDiscord, push: FakeNtfy, time: FakeTime, launch: Launch
) -> None:
    live = launch(time=time)
    for number, body in enumerate((telegram(phone), discord(team), ntfy(push), webhook(hook))):
        add(live, {**body, "priority": number})
    phone.script(Status(502), Status(502))
    live.owner.post("/v1/admin/kill-switch", json={"reason": "x"}).raise_for_status()
    drained(live)
    assert (len(team.messages), len(push.messages["alerts-x1"]), told(hook)) == (1, 1, ["KILL_SWITCH_ACTIVATED"])
    for _ in range(2):
        assert not phone.messages
        time.advance(3)
        drained(live)
    assert sorted(outcomes(live)) == [
        *(("hook", "DELIVERED"), ("phone", "DELIVERED"), ("phone", "FAILED"), ("phone", "FAILED")),
        *(("push", "DELIVERED"), ("team", "DELIVERED")),
    ]
    assert [one["retryCount"] for one in attempts(live) if one["status"] == "FAILED"] == [0, 1]
    assert (len(phone.messages), len(team.messages)) == (1, 1)


def test_what_waits_is_sent_by_urgency_and_then_by_age(team: FakeDiscord, time: FakeTime, launch: Launch) -> None:
    live = launch(time=time)
    session = live.new_session()
    add(live, discord(team))
    for _ in range(5):
        publish(live, session)
    drained(live)
    assert len(team.messages) == 5
    for kind in ("TX_NOTIFY", "AGENT_REPORT", "TX_FAILED", "TX_APPROVAL_REQUEST"):
        publish(live, session, kind)
    live.owner.post("/v1/admin/kill-switch", json={"reason": "x"}).raise_for_status()
    drained(live)
    for sent in range(6, 11):
        time.advance(1)
        drained(live)
        assert len(team.messages) == sent
    assert [one["embeds"][0]["title"] for one in team.messages[5:]] == [
        *("Kill switch activated", "Transaction failed", "Approval asked", "Transaction", "Report of an agent"),
    ]


@both_engines
def test_the_kill_switch_does_not_wait_for_messages_that_hang(
    hook: FakeWebhook, phone: FakeTelegram, launch: Launch, time: FakeTime
) -> None:
    live = launch(time=time)
    session = live.new_session()
    add(live, telegram(phone, priority=9, minLevel="INFO", events=["AGENT_REPORT"]))
    add(live, webhook(hook, events=["KILL_SWITCH_ACTIVATED"]))
    phone.random_faults(ALWAYS, 1.0, [Timeout(4, before=True)])
    for _ in range(12):
        publish(live, session)
    wait_for(lambda: sum(one.path.endswith("/sendMessage") for one in phone.requests) == 8)
    live.owner.post("/v1/admin/kill-switch", json={"reason": "x"}).raise_for_status()
    wait_for(lambda: told(hook) == ["KILL_SWITCH_ACTIVATED"], 2)
    phone.closing.set()


@both_engines
def test_a_channel_that_must_be_left_alone_hides_no_message_of_another(
    hook: FakeWebhook, phone: FakeTelegram, launch: Launch, time: FakeTime
) -> None:
    live = launch(time=time, DAEMON_SECURITY_MAX_SESSIONS_PER_AGENT="1000")
    agent = live.new_agent()
    session = live.new_session(agent)
    add(live, telegram(phone, minLevel="CRITICAL"))
    add(live, webhook(hook))
    phone.script(*[TooMany(3600)] * 8)
    ((channel,),) = live.query("SELECT id FROM notification_channels WHERE type = 'TELEGRAM'")
    live.owner.post("/v1/admin/kill-switch", json={"reason": "x"}).raise_for_status()
    drained(live)
    live.owner.post("/v1/admin/recover").raise_for_status()
    # As if 300 more critical events had happened, which takes too long here.
    live.query(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i + 1 FROM n WHERE i < 300),"
        " one AS (SELECT * FROM notification_outbox WHERE level = 'CRITICAL' LIMIT 1)"
        " INSERT INTO notification_outbox (channel_id, seq, event, level, created_at, next_attempt_at)"
        f" SELECT '{channel}', seq, event, level, created_at, created_at FROM n, one",
    )
    session = live.new_session(agent)
    publish(live, session)
    drained(live)
    assert sorted(told(hook)) == ["AGENT_REPORT", "KILL_SWITCH_ACTIVATED", "KILL_SWITCH_RECOVERED", "SESSION_CREATED"]


@pytest.mark.parametrize("kind", ["TELEGRAM", "DISCORD", "NTFY", "WEBHOOK"])
def test_a_service_that_asks_to_wait_is_left_alone_for_so_long(
    request: pytest.FixtureRequest, kind: str, time: FakeTime, launch: Launch
) -> None:
    name, body = {
        "TELEGRAM": ("phone", telegram),
        "DISCORD": ("team", discord),
        "NTFY": ("push", ntfy),
        "WEBHOOK": ("hook", webhook),
    }[kind]
    fake: Any = request.getfixturevalue(name)
    live = launch(time=time)
    session = live.new_session()
    add(live, body(fake))

    def sent() -> int:
        return sum(fake.sends(one) and b"ping" not in one.body for one in fake.requests)

    waits = [("header", 7), ("body", 7 if kind in {"TELEGRAM", "DISCORD"} else 1)]
    for number, (where, wait) in enumerate(waits):
        fake.script(TooMany(7, where))
        publish(live, session)
        drained(live)
        publish(live, session)
        time.advance(wait - 0.1)
        drained(live)
        assert (sent(), len(outcomes(live))) == (3 * number + 1, 3 * number + 1)
        time.advance(0.1)
        drained(live)
        assert sent() == 3 * number + 3
    assert outcomes(live) == [(name, status) for status in ("RATE_LIMITED", "DELIVERED", "DELIVERED")] * 2
    live.stop()


def test_another_channel_takes_over_while_one_must_be_left_alone(
    hook: FakeWebhook, phone: FakeTelegram, time: FakeTime, launch: Launch
) -> None:
    live = launch(time=time)
    session = live.new_session()
    add(live, telegram(phone, priority=9))
    add(live, webhook(hook))
    phone.script(TooMany(3600))
    for _ in range(3):
        publish(live, session)
        drained(live)
    assert outcomes(live) == [("phone", "RATE_LIMITED"), *[("hook", "DELIVERED")] * 3]


@pytest.mark.parametrize(("kind", "burst", "seconds"), [("DISCORD", 5, 1), ("NTFY", 60, 5), ("TELEGRAM", 30, 1 / 30)])
def test_no_service_gets_more_than_its_rate(
    *, request: pytest.FixtureRequest, kind: str, burst: int, seconds: float, time: FakeTime, launch: Launch
) -> None:
    live = launch(time=time)
    sessions = [live.new_session() for _ in range(3)]
    if kind == "DISCORD":
        team: FakeDiscord = request.getfixturevalue("team")
        add(live, discord(team))
        sent: Callable[[], int] = lambda: len(team.messages)  # noqa: E731
    elif kind == "NTFY":
        push: FakeNtfy = request.getfixturevalue("push")
        add(live, ntfy(push))
        sent = lambda: len(push.messages["alerts-x1"])  # noqa: E731
    else:
        phone: FakeTelegram = request.getfixturevalue("phone")
        add(live, telegram(phone))
        sent = lambda: len(phone.messages)  # noqa: E731
    for number in range(burst + 3):
        publish(live, sessions[number % 3])
    drained(live)
    assert sent() == burst
    for more in (1, 2):
        time.advance(seconds * 0.9)
        drained(live)
        assert sent() == burst + more - 1
        time.advance(seconds * 0.1001)
        drained(live)
        assert sent() == burst + more
    live.stop()


@given(st.integers(0, 200), st.integers())
def test_waits_double_up_to_a_quarter_of_an_hour_with_their_upper_half_random(rounds: int, seed: int) -> None:
    whole = min(900.0, 2.0**rounds)
    assert max(1.0, whole / 2) <= backoff(rounds, random.Random(seed)) <= max(1.0, whole)
    assert rounds < 2 or len({backoff(rounds, random.Random(seed + more)) for more in range(5)}) > 1


@both_engines
def test_after_24_hours_a_message_is_given_up_and_that_is_told_to_nobody(
    hook: FakeWebhook, time: FakeTime, launch: Launch
) -> None:
    live = launch(time=time)
    session = live.new_session()
    channel = add(live, webhook(hook))
    broken(hook)
    seq = publish(live, session, referenceId="tx-1")
    gaps = []
    for _ in range(14):
        drained(live)
        ((due,),) = live.query("SELECT next_attempt_at FROM notification_outbox")
        gaps.append(due - int(time.wall))
        time.advance(gaps[-1])
    assert all(max(1, min(450, 2**n // 2)) <= gap <= min(900, 2**n) for n, gap in enumerate(gaps)), gaps
    time.advance(86_400 - sum(gaps) - 1)
    drained(live)
    assert live.owner.get("/v1/admin/status").json()["notifications"] == {"pending": 1, "failed": 1}
    assert live.events(type="NOTIFICATION_FAILED") == []
    time.advance(1)
    drained(live)
    (event,) = live.events(type="NOTIFICATION_FAILED")
    assert (event["severity"], event["sessionId"]) == ("critical", session["id"])
    assert event["details"] == {"eventType": "AGENT_REPORT", "eventSeq": seq, "channelId": None, "attempts": 16}
    log = attempts(live)
    assert [one["status"] for one in log] == ["FAILED"] * 16 + ["ALL_FAILED"]
    assert (log[-1]["channelId"], log[-1]["error"], log[-1]["retryCount"]) == (None, "HTTP 500", 15)
    mended(hook)
    time.advance(1000)
    drained(live)
    assert told(hook) == []
    assert live.owner.get("/v1/admin/status").json()["notifications"] == {"pending": 0, "failed": 0}
    assert channel["enabled"]


def test_a_machine_that_slept_for_days_does_not_give_up_before_its_network_is_back(
    hook: FakeWebhook, time: FakeTime, launch: Launch
) -> None:
    live = launch(time=time)
    session = live.new_session(ttl=604_800)
    add(live, webhook(hook))
    broken(hook)
    publish(live, session)
    drained(live)
    time.advance(3 * 86_400)
    for _ in range(3):
        drained(live)
        time.advance(20)
    mended(hook)
    drained(live)
    assert told(hook) == ["AGENT_REPORT"]
    broken(hook)
    publish(live, session)
    drained(live)
    time.advance(3 * 86_400)
    for _ in range(10):
        drained(live)
        time.advance(900)
    assert live.events(type="NOTIFICATION_FAILED")[0]["details"]["attempts"] == 8


def test_a_channel_that_is_unwell_three_times_in_a_row_is_reported_through_the_others(
    hook: FakeWebhook, team: FakeDiscord, live: LiveDaemon, time: FakeTime
) -> None:
    time.wall = live.time.wall
    lost = add(live, discord(team, priority=9, name="lost"))
    add(live, webhook(hook))
    team.webhook_token = "another"

    def look() -> None:
        live.call(lambda daemon: daemon.parts.services.channels.check_all())

    look()
    look()
    assert live.events(type="CHANNEL_UNREACHABLE") == []
    for _ in range(3):
        look()
    drained(live)
    (event,) = live.events(type="CHANNEL_UNREACHABLE")
    assert event["details"] == {
        "channelId": lost["id"],
        "channel": "lost",
        "reason": "HTTP 401: Invalid Webhook Token",
    }
    assert told(hook) == ["CHANNEL_UNREACHABLE"]
    shown = live.owner.get(CHANNELS).json()[0]
    assert (shown["enabled"], shown["health"]) == (True, "failing")
    team.webhook_token = "TEST-webhook-token"
    look()
    shown = live.owner.get(CHANNELS).json()[0]
    assert (shown["health"], shown["lastError"]) == ("ok", None)
    team.webhook_token = "another"
    for _ in range(3):
        look()
    assert len(live.events(type="CHANNEL_UNREACHABLE")) == 2


def test_the_korean_messages_of_a_renewal_and_of_its_rejection(phone: FakeTelegram, launch: Launch) -> None:
    live = launch(DAEMON_NOTIFICATIONS_LOCALE="ko")
    add(live, telegram(phone, events=["SESSION_RENEWED", "SESSION_RENEWAL_REJECTED"]))
    session = renewed(live, "매매_봇*1*")
    phone.wait(lambda: phone.messages)
    live.owner.delete(f"/v1/sessions/{session['id']}").raise_for_status()
    phone.wait(lambda: len(phone.messages) == 2)
    first, second = (one.sent for one in phone.messages.values())
    last = f"세션: {session['id']}"
    assert first.plain == (
        "🔄 세션 갱신\n에이전트: 매매_봇*1*\n갱신 횟수: 1/30\n남은 수명: 29d 23h\n"
        f"거부 가능 시한: 2027-01-15 09:02 UTC\n{last}"
    )
    assert (
        second.plain
        == f"⛔ 세션 갱신 거부\n에이전트: 매매_봇*1*\n갱신 횟수: 1\n거부 시각: 2027-01-15 08:02 UTC\n{last}"
    )
    assert first.text.startswith("🔄 *세션 갱신*\n에이전트: 매매\\_봇\\*1\\*\n갱신 횟수: 1/30\n")
    assert second.text.startswith("⛔ *세션 갱신 거부*\n에이전트: ")
    live.stop()


def test_a_webhook_is_signed_and_keeps_its_id_over_retries(hook: FakeWebhook, time: FakeTime, launch: Launch) -> None:
    live = launch(time=time)
    session = live.new_session()
    add(live, webhook(hook))
    hook.script(Drop(before=False), Status(500), Drop(before=False))
    publish(live, session, title="x")
    for _ in range(4):
        drained(live)
        time.advance(5)
    assert hook.rejected == []
    assert len({one.headers["webhook-id"] for one in hook.requests if b"ping" not in one.body}) == 1
    assert (told(hook), len(hook.duplicates)) == (["AGENT_REPORT"], 2)
    assert [one["status"] for one in attempts(live)] == ["FAILED", "FAILED", "FAILED", "DELIVERED"]
    body = hook.messages[-1].body
    assert (body["type"], body["data"]["sessionId"], body["data"]["title"]) == ("AGENT_REPORT", session["id"], "x")


def test_a_crash_free_stop_sends_the_rest_after_the_next_start(
    hook: FakeWebhook, time: FakeTime, launch: Launch
) -> None:
    live = launch(time=time)
    session = live.new_session()
    add(live, webhook(hook))
    broken(hook)
    publish(live, session)
    drained(live)
    live.stop()
    mended(hook)
    time.advance(3600)
    live.start()
    hook.wait(lambda: told(hook) == ["AGENT_REPORT"])
    with pytest.raises(httpx.HTTPStatusError):  # the session's first token is over by then
        live.agent(session["token"]).get("/v1/nothing").raise_for_status()

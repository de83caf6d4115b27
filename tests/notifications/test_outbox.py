"""The outbox: what the owner is told, and that a fact and its message are written together or not at all."""

import random
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tests.support.daemon_process import cli, wait_for
from tests.support.engines import both_engines, broken
from tests.support.live import FakeTime, LiveDaemon
from tests.support.owner import add, drained, publish, renewed, telegram, told, webhook
from tests.support.services.telegram import FakeTelegram
from tests.support.services.webhook import FakeWebhook

pytestmark = both_engines
Launch = Callable[..., LiveDaemon]


def outbox(live: LiveDaemon) -> list[tuple[Any, ...]]:
    """What was ever written: event, level, sequence number."""
    return live.query("SELECT event, level, seq FROM notification_outbox ORDER BY id")


def test_a_message_is_written_in_the_transaction_of_its_event(hook: FakeWebhook, live: LiveDaemon) -> None:
    add(live, webhook(hook))
    agent = live.new_agent()
    with broken(live.database, "notification_outbox"):
        assert live.owner.post("/v1/sessions", json={"agentId": agent}).status_code == 503
        assert live.owner.get("/v1/owner/sessions").json() == []
        assert live.events(type="SESSION_CREATED") == []
    with broken(live.database, "audit_log"):
        assert live.owner.post("/v1/sessions", json={"agentId": agent}).status_code == 503
        assert outbox(live) == []
    live.new_session(agent)
    (event,) = live.events(type="SESSION_CREATED")
    assert outbox(live) == [("SESSION_CREATED", "INFO", event["seq"])]


def test_a_refused_change_writes_no_message(hook: FakeWebhook, live: LiveDaemon) -> None:
    session = live.new_session()
    add(live, webhook(hook))
    answer = live.agent(session["token"]).put(f"/v1/sessions/{session['id']}/renew")
    assert answer.json()["code"] == "RENEWAL_TOO_EARLY"
    assert outbox(live) == []


def test_without_an_enabled_channel_no_message_is_written(hook: FakeWebhook, live: LiveDaemon) -> None:
    live.new_session()
    channel = add(live, webhook(hook))
    live.owner.delete(f"/v1/owner/notification-channels/{channel['id']}").raise_for_status()
    live.new_session()
    assert outbox(live) == []


def test_while_notifications_are_disabled_no_message_is_written(hook: FakeWebhook, launch: Launch) -> None:
    live = launch(DAEMON_NOTIFICATIONS_ENABLED="false")
    add(live, webhook(hook))
    live.new_session()
    live.stop()
    switch = ("kill-switch", "on", "--reason", "x")
    off = cli(live.root, *switch, DAEMON_NOTIFICATIONS_ENABLED="false", **live.where)
    assert off.code == 0, off.err
    live.start()
    assert live.owner.get("/v1/admin/kill-switch").json()["state"] == "ACTIVATED"
    assert outbox(live) == []


def test_a_channel_is_told_of_what_its_filters_let_pass(
    time: FakeTime, hook: FakeWebhook, phone: FakeTelegram, launch: Launch
) -> None:
    live = launch(time=time)
    loud, quiet = live.new_agent("loud"), live.new_agent("quiet")
    first, second = live.new_session(loud), live.new_session(quiet)
    channel = add(live, webhook(hook, minLevel="WARNING"))
    path = f"/v1/owner/notification-channels/{channel['id']}"
    publish(live, first)
    publish(live, first, "TX_FAILED")
    drained(live)
    live.owner.put(path, json={"minLevel": "INFO", "events": ["TX_NOTIFY", "KILL_SWITCH_ACTIVATED"]})
    publish(live, first, "TX_NOTIFY")
    publish(live, first, "TX_FAILED")
    drained(live)
    live.owner.put(path, json={"events": None, "agents": [quiet]})
    publish(live, first, "TX_CONFIRMED")
    publish(live, second, "TX_DELAY_QUEUED")
    live.owner.post("/v1/admin/kill-switch", json={"reason": "what concerns no agent is told all the same"})
    drained(live)
    passed = ["TX_FAILED", "TX_NOTIFY", "TX_DELAY_QUEUED", "KILL_SWITCH_ACTIVATED"]
    assert [event for event, _, _ in outbox(live)] == passed
    assert sorted(told(hook)) == sorted(passed)


def test_an_equal_message_within_dedup_ttl_is_written_once(hook: FakeWebhook, launch: Launch, time: FakeTime) -> None:
    live = launch(time=time, DAEMON_NOTIFICATIONS_DEDUP_TTL="100")
    agent = live.new_agent()
    session, other = live.new_session(agent), live.new_session(agent)
    add(live, webhook(hook))
    seqs = [publish(live, session, referenceId="tx-1")]
    time.advance(99)
    publish(live, session, referenceId="tx-1")
    seqs.append(publish(live, session, referenceId="tx-2"))
    seqs.append(publish(live, session, "TX_NOTIFY", referenceId="tx-1"))
    seqs.append(publish(live, other, referenceId="tx-1"))
    seqs += [publish(live, session), publish(live, session)]
    time.advance(1)
    seqs.append(publish(live, session, referenceId="tx-1"))
    assert [seq for _, _, seq in outbox(live)] == seqs


def test_every_renewal_is_told_however_soon_it_follows(hook: FakeWebhook, launch: Launch, time: FakeTime) -> None:
    live = launch(time=time)
    add(live, webhook(hook))
    session = renewed(live)
    time.advance(150)
    live.agent(session["token"]).put(f"/v1/sessions/{session['id']}/renew").raise_for_status()
    assert [event for event, _, _ in outbox(live)] == ["SESSION_CREATED", "SESSION_RENEWED", "SESSION_RENEWED"]


def test_a_critical_message_is_never_a_repetition(hook: FakeWebhook, launch: Launch, time: FakeTime) -> None:
    live = launch(time=time, DAEMON_SECURITY_AUTO_STOP_THRESHOLD="1")
    agent = live.new_agent()
    session = live.new_session(agent, constraints={"allowedOperations": ["session.*"]})
    add(live, webhook(hook, minLevel="CRITICAL"))
    for _ in range(2):
        live.agent(session["token"]).put(f"/v1/sessions/{session['id']}/renew")
        live.owner.post(f"/v1/agents/{agent}/activate").raise_for_status()
        time.advance(60)
    assert [event for event, _, _ in outbox(live)] == ["AUTO_STOP_TRIGGERED"] * 2
    drained(live)
    assert told(hook) == ["AUTO_STOP_TRIGGERED"] * 2


def test_the_kill_switch_is_one_message_and_not_one_for_each_session(hook: FakeWebhook, live: LiveDaemon) -> None:
    agent = live.new_agent()
    for _ in range(5):
        live.new_session(agent)
    add(live, webhook(hook))
    live.owner.post("/v1/admin/kill-switch", json={"reason": "x"}).raise_for_status()
    assert [(event, level) for event, level, _ in outbox(live)] == [("KILL_SWITCH_ACTIVATED", "CRITICAL")]
    assert len(live.events(type="SESSION_REVOKED")) == 5


def test_a_rotated_secret_is_one_message_and_not_one_for_each_session(hook: FakeWebhook, live: LiveDaemon) -> None:
    agent = live.new_agent()
    for _ in range(5):
        live.new_session(agent)
    add(live, webhook(hook))
    live.owner.post("/v1/admin/rotate-secret", json={"revokeSessions": True}).raise_for_status()
    assert [event for event, _, _ in outbox(live)] == ["SECRET_ROTATED"]
    assert len(live.events(type="SESSION_REVOKED")) == 5


def test_the_daily_summary_is_told_once_a_day_and_counts_from_the_one_before(
    hook: FakeWebhook, time: FakeTime, launch: Launch
) -> None:
    at = datetime.fromtimestamp(time.wall + 60).astimezone().strftime("%H:%M")
    live = launch(time=time, DAEMON_NOTIFICATIONS_DAILY_SUMMARY=at)
    add(live, webhook(hook, events=["DAILY_SUMMARY"]))

    def told() -> int:
        """The summaries there are once one is asked for; the daemon's own worker may have been first."""
        live.call(lambda daemon: daemon.parts.services.summary.tell())
        return len(live.events(type="DAILY_SUMMARY"))

    live.new_session(ttl=604_800)
    assert told() == 0
    time.advance(60)
    assert told() == 1
    live.new_session(ttl=604_800)
    live.restart()
    assert told() == 1
    time.advance(86_340)
    assert told() == 1
    time.advance(3600)
    assert told() == 2
    drained(live)
    said = [one.body["data"] for one in hook.messages if one.body["type"] == "DAILY_SUMMARY"]
    assert [(one["created"], one["activeSessions"]) for one in said] == [(1, 1), (1, 2)]
    assert said[0]["date"] < said[1]["date"]


def test_a_summary_whose_time_the_machine_slept_through_is_told_when_it_is_up(
    hook: FakeWebhook, time: FakeTime, launch: Launch
) -> None:
    at = datetime.fromtimestamp(time.wall).astimezone().strftime("%H:%M")
    live = launch(time=time, DAEMON_NOTIFICATIONS_DAILY_SUMMARY=at)
    wait_for(lambda: len(live.events(type="DAILY_SUMMARY")) == 1)
    live.stop()
    time.advance(2 * 86_400 - 3600)
    live.start()
    wait_for(lambda: len(live.events(type="DAILY_SUMMARY")) == 2)
    time.advance(3600)
    live.call(lambda daemon: daemon.parts.services.summary.tell())
    dates = [datetime.fromtimestamp(time.wall - days * 86_400).astimezone() for days in (2, 1, 0)]
    found = [one["details"]["date"] for one in live.events(type="DAILY_SUMMARY")]
    assert found == [date.strftime("%Y-%m-%d") for date in dates]


def test_what_happened_while_the_daemon_was_down_is_told_when_it_is_up(
    hook: FakeWebhook, time: FakeTime, launch: Launch
) -> None:
    live = launch(time=time)
    live.new_session(ttl=300)
    add(live, webhook(hook, events=["SESSION_EXPIRED", "KILL_SWITCH_ACTIVATED"]))
    live.stop()
    time.advance(400)
    live.start()
    hook.wait(lambda: told(hook) == ["SESSION_EXPIRED"])
    live.stop()
    assert cli(live.root, "kill-switch", "on", "--reason", "x", **live.where).code == 0
    live.start()
    hook.wait(lambda: told(hook) == ["SESSION_EXPIRED", "KILL_SWITCH_ACTIVATED"])


def test_the_delivery_log_is_filtered_and_paged(time: FakeTime, hook: FakeWebhook, launch: Launch) -> None:
    live = launch(time=time)
    session = live.new_session()
    channel = add(live, webhook(hook))
    live.owner.post(f"/v1/owner/notification-channels/{channel['id']}/test").raise_for_status()
    for number in range(7):
        publish(live, session, "TX_FAILED" if number % 2 else "AGENT_REPORT", referenceId=f"r{number}")
        time.advance(1)
    drained(live)
    path = "/v1/owner/notifications"
    assert len(live.owner.get(path, params={"event": "TX_FAILED"}).json()) == 3
    assert len(live.owner.get(path, params={"event": "TEST"}).json()) == 1
    assert len(live.owner.get(path, params={"status": "DELIVERED"}).json()) == 8
    assert live.owner.get(path, params={"status": "ALL_FAILED"}).json() == []
    for bad in ({"status": "LOST"}, {"event": "x"}, {"limit": "0"}, {"cursor": "%"}, {"other": "1"}):
        answer = live.owner.get(path, params=bad)
        assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR"), bad
    seen: list[str] = []
    following: str | None = f"{path}?limit=3"
    while following:
        page = live.owner.get(following)
        seen += [one["id"] for one in page.json()]
        following = page.links.get("next", {}).get("url")
    assert len(seen) == len(set(seen)) == 8
    sixth = next(one for one in live.owner.get(path).json() if one["referenceId"] == "r6")
    assert sixth.keys() == {
        *("id", "channelId", "event", "level", "referenceId", "status", "error", "retryCount", "sentAt")
    }
    assert (sixth["channelId"], sixth["retryCount"]) == (channel["id"], 0)


def test_what_was_sent_long_ago_is_forgotten(time: FakeTime, hook: FakeWebhook, launch: Launch) -> None:
    live = launch(time=time, DAEMON_NOTIFICATIONS_RETENTION_DAYS="7")
    add(live, webhook(hook))
    live.new_session()
    drained(live)
    for days, kept in ((1, (1, 1)), (2, (1, 0)), (5, (0, 0))):
        time.advance(days * 86_400 - (days == 1) * 10)
        live.call(lambda daemon: daemon.parts.services.notifications.purge())
        counts = [live.query(f"SELECT count(*) FROM notification_{table}")[0][0] for table in ("log", "outbox")]
        assert tuple(counts) == kept, days


def test_notifications_are_reloaded_while_running(phone: FakeTelegram, live: LiveDaemon) -> None:
    add(live, telegram(phone))

    def reload(text: str, times: int) -> None:
        drained(live)
        (live.home.root / "config.toml").write_text(f"[notifications]\n{text}\n")
        live.loop.call_soon_threadsafe(live.daemon.reload_soon)
        wait_for(lambda: len(live.events(type="CONFIG_RELOADED")) == times)

    live.new_session()
    reload('locale = "ko"', 1)
    live.new_session()
    reload("enabled = false", 2)
    live.new_session()
    reload("enabled = true", 3)
    live.new_session()
    drained(live)
    titles = [one.sent.plain.partition("\n")[0] for one in phone.messages.values()]
    assert titles == ["🆕 Session created", "🆕 세션 생성", "🆕 Session created"]


def test_the_owners_status_counts_what_waits(hook: FakeWebhook, time: FakeTime, launch: Launch) -> None:
    live = launch(time=time)
    add(live, webhook(hook))

    def status() -> Any:
        return live.owner.get("/v1/admin/status").json()["notifications"]

    assert status() == {"pending": 0, "failed": 0}
    hook.random_faults(random.Random(1), 1.0)
    live.new_session()
    drained(live)
    assert status() == {"pending": 1, "failed": 1}

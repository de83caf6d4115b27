"""Answers: what the owner chooses on the phone or through a link happens once, and nobody else chooses."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.daemon_process import PASSWORD, DaemonProcess, wait_for
from tests.support.engines import both_engines
from tests.support.live import FakeTime, LiveDaemon
from tests.support.owner import (
    CHANNELS,
    RENEWED,
    add,
    answers,
    drained,
    newest,
    press,
    publish,
    renewed,
    state,
    telegram,
)
from tests.support.services.base import ClosedError, Reply
from tests.support.services.telegram import FakeTelegram
from tests.support.services.webhook import FakeWebhook

pytestmark = both_engines

Launch = Callable[..., LiveDaemon]
SEEN = {"events": ["SESSION_RENEWED", "OWNER_ANSWERED"]}
PUBLIC = {"DAEMON_SERVER_PUBLIC_URL": "https://daemon.example"}


def test_reject_on_the_phone_ends_the_session_at_once_and_the_message_says_so(
    phone: FakeTelegram, live: LiveDaemon
) -> None:
    channel = add(live, telegram(phone, **RENEWED))
    session = renewed(live)
    message = newest(phone)
    assert [one["text"] for one in message.sent.buttons()] == ["Keep", "Reject", "Suspend agent", "Kill switch"]
    assert state(live, session) == (200, None)
    assert press(phone, message, "Reject") == "⛔ Rejected by the owner: the session is revoked"
    assert state(live, session) == (401, "SESSION_REVOKED")
    (rejected,) = live.events(type="SESSION_RENEWAL_REJECTED")
    (answered,) = live.events(type="OWNER_ANSWERED")
    assert (rejected["actor"], rejected["sessionId"]) == ("owner", session["id"])
    assert (answered["actor"], answered["sessionId"], answered["agentId"]) == (
        *("owner", session["id"], session["agentId"]),
    )
    assert answered["details"] == {
        "channelId": channel["id"],
        "channel": "phone",
        "answer": "reject",
        "outcome": "rejected",
        "who": "424242",
    }
    phone.wait(lambda: message.edits)
    assert message.shown.plain == (f"{message.sent.plain.rstrip()}\n\n⛔ Rejected by the owner: the session is revoked")
    assert message.shown.buttons() == []
    assert live.owner.get(f"/v1/sessions/{session['id']}").json()["revokedReason"] == "renewal_rejected"
    events = len(live.events())
    assert press(phone, message, "Reject") == "Already answered"
    assert press(phone, message, "Kill switch") == "Already answered"
    assert len(live.events()) == events
    live.stop()


def test_keep_changes_nothing_but_is_an_answer(phone: FakeTelegram, live: LiveDaemon) -> None:
    add(live, telegram(phone, **RENEWED))
    session = renewed(live)
    message = newest(phone)
    assert press(phone, message, "Keep") == "✅ Kept by the owner: the session goes on"
    phone.wait(lambda: message.edits)
    assert press(phone, message, "Reject") == "Already answered"
    assert state(live, session) == (200, None)
    assert answers(live) == [("keep", "kept")]
    live.stop()


def test_an_agent_is_suspended_from_the_phone_and_not_restored_by_it(phone: FakeTelegram, live: LiveDaemon) -> None:
    add(live, telegram(phone, **RENEWED))
    session = renewed(live)
    first = newest(phone)
    live.time.advance(150)
    again = live.agent(session["token"]).put(f"/v1/sessions/{session['id']}/renew").raise_for_status().json()
    second = phone.wait(lambda: newest(phone) if newest(phone) is not first else None)
    assert press(phone, first, "Suspend agent") == "⏸️ The owner suspended the agent"
    assert state(live, again) == (403, "AGENT_SUSPENDED")
    (event,) = live.events(type="AGENT_SUSPENDED")
    assert (event["actor"], event["details"]["reason"]) == ("owner", "answered through phone")
    assert press(phone, second, "Suspend agent") == "The agent is suspended already"
    assert answers(live) == [("suspend_agent", "agent_suspended"), ("suspend_agent", "already_done")]
    assert live.owner.get(f"/v1/agents/{session['agentId']}").json()["status"] == "SUSPENDED"
    live.stop()


def test_the_kill_switch_is_activated_from_the_phone(phone: FakeTelegram, hook: FakeWebhook, live: LiveDaemon) -> None:
    add(live, telegram(phone))
    session = renewed(live)
    message = newest(phone)
    assert press(phone, message, "Kill switch") == "🛑 The owner activated the kill switch"
    assert state(live, session) == (503, "SYSTEM_LOCKED")
    switch = live.owner.get("/v1/admin/kill-switch").json()
    assert (switch["state"], switch["reason"]) == ("ACTIVATED", "answered through phone")
    newest(phone, "Kill switch activated")
    created = newest(phone, "Session created")
    assert press(phone, created, "Kill switch") == "The kill switch is active already"
    assert len(live.events(type="KILL_SWITCH_ACTIVATED")) == 1
    live.stop()


def test_a_press_of_anybody_else_is_refused_and_reported(phone: FakeTelegram, live: LiveDaemon) -> None:
    add(live, telegram(phone, **SEEN))
    session = renewed(live)
    message = newest(phone)
    for number, who in enumerate(({"from_id": 999}, {"chat_id": 777}, {"chat_id": 777, "from_id": 424_242}), 1):
        for _ in range(3):
            assert press(phone, message, "Kill switch", **who) == "Not allowed"
        found = live.events(type="OWNER_ANSWERED")
        assert len(found) == number, "a stranger who presses again and again fills no log"
        assert (found[-1]["actor"], found[-1]["severity"]) == ("system", "warning")
        assert (found[-1]["details"]["answer"], found[-1]["details"]["outcome"]) == ("kill_switch", "not_allowed")
        stranger = f"Who: {who.get('from_id', 777)}\n"
        phone.wait(lambda stranger=stranger: stranger in newest(phone, "Somebody else tried to answer").sent.plain)
    assert state(live, session) == (200, None)
    assert not message.edits
    assert press(phone, message, "Reject") == "⛔ Rejected by the owner: the session is revoked"
    live.stop()


def test_in_a_group_those_count_who_are_named(live: LiveDaemon) -> None:
    group = -1_001_234_567_890
    with FakeTelegram(chat_id=group) as phone:
        config = {"botToken": phone.token, "chatId": group, "apiUrl": phone.url, "allowedUserIds": [7, 9]}
        add(live, telegram(phone, config=config, **RENEWED))
        session = renewed(live)
        message = newest(phone)
        for stranger in (8, -group, 123_456):
            assert press(phone, message, "Reject", from_id=stranger) == "Not allowed"
        assert state(live, session) == (200, None)
        assert press(phone, message, "Reject", from_id=9).startswith("⛔ Rejected by the owner")
        assert live.events(type="OWNER_ANSWERED")[-1]["details"]["who"] == "9"
        live.stop()


def test_after_the_reject_window_the_button_rejects_no_more(phone: FakeTelegram, launch: Launch) -> None:
    live = launch(DAEMON_SECURITY_DEFAULT_RENEWAL_REJECT_WINDOW="300")
    add(live, telegram(phone, **RENEWED))
    session = renewed(live)
    message = newest(phone)
    live.time.advance(299)
    live.agent(session["token"]).put(f"/v1/sessions/{session['id']}/renew").raise_for_status()
    live.time.advance(1)
    assert press(phone, message, "Reject") == "This button no longer works"
    assert live.events(type="SESSION_RENEWAL_REJECTED") == []
    assert press(phone, message, "Suspend agent") == "⏸️ The owner suspended the agent"
    live.stop()


def test_a_button_survives_a_restart_and_later_renewals(phone: FakeTelegram, live: LiveDaemon) -> None:
    add(live, telegram(phone, **RENEWED))
    session = renewed(live)
    message = newest(phone)
    live.time.advance(150)
    session = {
        **session,
        **live.agent(session["token"]).put(f"/v1/sessions/{session['id']}/renew").raise_for_status().json(),
    }
    drained(live)
    live.stop()
    query = phone.press(message.message_id, "Reject")
    live.start()
    assert phone.wait(lambda: phone.answers.get(query))["text"].startswith("⛔ Rejected")
    assert state(live, session) == (401, "SESSION_REVOKED")
    live.restart()
    assert press(phone, newest(phone), "Reject") == "Already answered"
    assert answers(live) == [("reject", "rejected")]
    live.stop()


def test_a_button_of_one_channel_does_nothing_through_another(phone: FakeTelegram, live: LiveDaemon) -> None:
    with FakeTelegram("654321:OTHER-token", 5) as other:
        config = {"botToken": other.token, "chatId": 5, "apiUrl": other.url}
        add(live, telegram(phone, priority=9, **RENEWED))
        add(live, telegram(other, name="other", config=config, events=["AGENT_REPORT"]))
        session = renewed(live)
        publish(live, session)
        stolen = newest(phone).sent.buttons()[1]
        there = newest(other, "Report of an agent")
        there.sent.buttons()[0].update(stolen)
        assert press(other, there, "Reject") == "This button no longer works"
        assert state(live, session) == (200, None)
        assert answers(live) == []
        assert press(phone, newest(phone), "Reject").startswith("⛔ Rejected")
        live.stop()


def test_a_press_with_something_else_does_nothing(phone: FakeTelegram, live: LiveDaemon) -> None:
    add(live, telegram(phone, **RENEWED))
    session = renewed(live)
    message = newest(phone)
    for data in ("", "r", "r:", "x:" + "A" * 22, "z:" + "A" * 22, "\ud7ff" * 20, "0" * 64):
        message.sent.buttons()[0]["callback_data"] = data
        assert press(phone, message, "Keep") == "This button no longer works"
    assert answers(live) == []
    assert press(phone, message, "Reject").startswith("⛔ Rejected")
    assert state(live, session) == (401, "SESSION_REVOKED")
    live.stop()


def test_two_channels_of_one_bot_share_one_poll_and_both_are_answered(phone: FakeTelegram, live: LiveDaemon) -> None:
    add(live, telegram(phone, **RENEWED))
    second = telegram(phone, name="second", events=["AGENT_REPORT"])
    second["config"]["apiUrl"] += "/"
    add(live, second)
    session = renewed(live)
    publish(live, session)
    assert press(phone, newest(phone), "Keep").startswith("✅ Kept")
    assert press(phone, newest(phone, "Report of an agent"), "Suspend agent") == "⏸️ The owner suspended the agent"
    assert [one["details"]["channel"] for one in live.events(type="OWNER_ANSWERED")] == ["phone", "second"]
    polls = [one for one in phone.requests if one.path.endswith("/getUpdates")]
    assert len(polls) <= 5, "two polls of one bot end each other again and again"
    live.stop()


def test_of_two_who_answer_at_once_exactly_one_does(phone: FakeTelegram, hook: FakeWebhook, launch: Launch) -> None:
    live = launch(**PUBLIC)
    hook._clock = lambda: live.time.wall
    add(live, telegram(phone, priority=9, **RENEWED))
    for number in range(1, 6):
        session = renewed(live)
        message = phone.wait(lambda number=number: len(phone.messages) == number and newest(phone))
        (link,) = (one["url"] for one in message.sent.buttons() if "url" in one)
        path = link.removeprefix("https://daemon.example")
        query = phone.press(message.message_id, "Reject")
        with ThreadPoolExecutor(3) as pool:
            posts = list(pool.map(lambda path: live.anonymous.post(path).status_code, [path] * 3))
        text = phone.wait(lambda query=query: phone.answers.get(query))["text"]
        assert posts.count(200) + text.startswith("⛔ Rejected") == 1, (posts, text)
        assert state(live, session) == (401, "SESSION_REVOKED")
        assert len(live.events(type="SESSION_RENEWAL_REJECTED")) == number
    live.stop()


class Deadly(FakeTelegram):
    """Calls `strike` once, before it delivers or answers a press."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self._deadly = method
        self.strike: Callable[[], None] | None = None

    def answer(self, request: Any) -> Reply:
        """Answer, unless this was the moment."""
        reply = super().answer(request) if self._deadly == "getUpdates" else None
        deadly = request.path.endswith(self._deadly) and (reply is None or b"callback_query" in reply.body)  # type: ignore[operator]
        if deadly and self.strike is not None:
            strike, self.strike = self.strike, None
            strike()
            raise ClosedError
        return reply or super().answer(request)


@pytest.mark.parametrize("method", ["getUpdates", "answerCallbackQuery", "editMessageText"])
def test_a_crash_between_a_press_and_its_answer_loses_nothing(method: str, tmp_path: Path) -> None:
    with Deadly(method) as phone:
        daemon = DaemonProcess(tmp_path / "home")
        owner = httpx.Client(headers={"X-Master-Password": PASSWORD}, trust_env=False)
        with owner:
            owner.post(f"{daemon.url}{CHANNELS}", json=telegram(phone)).raise_for_status()
            agent = owner.post(f"{daemon.url}/v1/agents", json={"name": "a"}).json()["id"]
            owner.post(f"{daemon.url}/v1/sessions", json={"agentId": agent}).raise_for_status()
            message = newest(phone, "Session created")
            phone.strike = daemon.process.kill
            query = phone.press(message.message_id, "Suspend agent")
            daemon.kill9() if phone.wait(lambda: daemon.process.poll() is not None) else None
            daemon.lines.clear()
            daemon.start()
            wait_for(lambda: query in phone.answers and not phone.updates)
            assert owner.get(f"{daemon.url}/v1/agents/{agent}").json()["status"] == "SUSPENDED"
            found = owner.get(f"{daemon.url}/v1/admin/audit", params={"type": "OWNER_ANSWERED"}).json()
            assert [one["details"]["outcome"] for one in found] == ["agent_suspended"]
            daemon.stop()


def test_a_bot_api_that_does_not_hold_a_poll_is_not_asked_without_a_pause(live: LiveDaemon) -> None:
    class Hasty(FakeTelegram):
        def _get_updates(self, _params: Any) -> list[Any]:
            return [{}, "x"]

    with Hasty() as phone:
        add(live, telegram(phone))
        asked: Callable[[], int] = lambda: sum(one.path.endswith("/getUpdates") for one in phone.requests)  # noqa: E731
        phone.wait(asked)
        for _ in range(30):
            live.owner.get("/v1/owner/sessions")
        assert asked() <= 3
        live.stop()


def test_a_locked_out_owner_can_still_stop_everything_from_the_phone(
    phone: FakeTelegram, time: FakeTime, launch: Launch
) -> None:
    live = launch(time=time)
    session = live.new_session()
    add(live, telegram(phone, minLevel="CRITICAL"))
    for number in range(5):
        live.client(**{"X-Master-Password": f"wrong password {number}"}).get("/v1/agents")
    message = newest(phone, "Owner access locked")
    assert live.owner.get("/v1/agents").status_code == 429
    assert [one["text"] for one in message.sent.buttons()] == ["Kill switch"]
    assert press(phone, message, "Kill switch") == "🛑 The owner activated the kill switch"
    assert state(live, session) == (503, "SYSTEM_LOCKED")
    live.stop()

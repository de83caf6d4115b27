"""The reject link: looking changes nothing, its button acts once, and what it shows runs nothing."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.live import FakeTime, LiveDaemon
from tests.support.owner import (
    RENEWED,
    add,
    answers,
    discord,
    newest,
    press,
    publish,
    renewed,
    state,
    telegram,
    told,
    webhook,
)
from tests.support.services.discord import FakeDiscord
from tests.support.services.telegram import FakeTelegram
from tests.support.services.webhook import FakeWebhook

Launch = Callable[..., LiveDaemon]
PUBLIC = {"DAEMON_SERVER_PUBLIC_URL": "https://daemon.example"}


def link_of(hook: FakeWebhook) -> str:
    """The path of the newest reject link."""
    hook.wait(lambda: "SESSION_RENEWED" in told(hook))
    url = str(hook.messages[-1].body["data"]["rejectUrl"])
    assert url.startswith("https://daemon.example/reject/")
    return url.removeprefix("https://daemon.example")


@pytest.fixture
def linked(hook: FakeWebhook, launch: Launch, time: FakeTime) -> LiveDaemon:
    """A daemon with a public URL whose links arrive at the webhook."""
    live = launch(time=time, **PUBLIC)
    add(live, webhook(hook, **RENEWED))
    return live


def test_looking_at_a_reject_link_changes_nothing(hook: FakeWebhook, linked: LiveDaemon) -> None:
    session = renewed(linked, "<script>alert(1)</script>")
    path = link_of(hook)
    events = len(linked.events())
    for headers in ({}, {"Host": "daemon.example"}, {"Origin": "null"}, {"Purpose": "prefetch"}):
        page = linked.anonymous.get(path, headers=headers)
        assert page.status_code == 200, page.text
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
        assert "<script" not in page.text
        assert session["id"] in page.text
        assert path.rpartition("/")[2] not in page.text
        policy = page.headers["content-security-policy"]
        assert {"default-src 'none'", "form-action 'self'"} <= set(policy.split("; "))
        assert (page.headers["referrer-policy"], page.headers["cache-control"]) == ("no-referrer", "no-store")
    assert linked.anonymous.head(path).status_code == 405
    assert linked.anonymous.get(path, headers={"Host": "evil.example"}).status_code == 403
    assert len(linked.events()) == events
    assert state(linked, session) == (200, None)


def test_the_button_of_a_reject_link_rejects_once(hook: FakeWebhook, linked: LiveDaemon) -> None:
    ways: list[dict[str, Any]] = [
        {},
        {"data": {"any": "field"}},
        {"headers": {"Origin": "null"}},
        {"headers": {"Host": "daemon.example"}},
    ]
    for number, sent in enumerate(ways, 1):
        session = renewed(linked)
        hook.wait(lambda number=number: len(told(hook)) == number)
        path = link_of(hook)
        assert linked.anonymous.post(path, json={"a": 1}).status_code in {400, 415}
        assert state(linked, session) == (200, None)
        page = linked.anonymous.post(path, **sent)
        assert (page.status_code, "Rejected" in page.text) == (200, True)
        assert state(linked, session) == (401, "SESSION_REVOKED")
        for again in (linked.anonymous.post(path, **sent), linked.anonymous.get(path)):
            assert again.status_code == 410
            assert "This link no longer works" in again.text
            assert "content-security-policy" in again.headers
        found = linked.events(type="OWNER_ANSWERED")
        assert len(found) == number
        assert found[-1]["details"] == {
            "channelId": None,
            "channel": "link",
            "answer": "reject",
            "outcome": "rejected",
            "who": "127.0.0.1",
        }


def test_rejecting_through_a_link_ends_what_the_session_delegated(hook: FakeWebhook, linked: LiveDaemon) -> None:
    session = renewed(linked)
    made = linked.agent(session["token"]).post("/v1/session/children", json={}).raise_for_status().json()
    assert "Rejected" in linked.anonymous.post(link_of(hook)).text
    assert state(linked, made) == (401, "SESSION_REVOKED")


def test_a_dead_link_is_a_page_that_does_not_say_why(hook: FakeWebhook, linked: LiveDaemon, time: FakeTime) -> None:
    session = renewed(linked)
    path = link_of(hook)
    unknown = linked.anonymous.get("/reject/" + "A" * 22)
    assert unknown.status_code == 410
    time.advance(3600)
    pages = [linked.anonymous.get(path), linked.anonymous.post(path)]
    for strange in ("x", "A" * 500, "..%2f", "é", "k:" + "A" * 22):
        pages.append(linked.anonymous.post(f"/reject/{strange}"))
    assert [(page.status_code, page.text) for page in pages[:4]] == [(410, unknown.text)] * 4
    assert all(400 <= page.status_code < 500 for page in pages)
    assert linked.events(type="OWNER_ANSWERED") == []
    assert linked.owner.get(f"/v1/sessions/{session['id']}").json()["revokedAt"] is None


def test_rejecting_ends_every_other_token_of_the_session(
    hook: FakeWebhook, phone: FakeTelegram, linked: LiveDaemon, time: FakeTime
) -> None:
    session = renewed(linked)
    first = link_of(hook)
    add(linked, telegram(phone, priority=9, **RENEWED))
    time.advance(150)
    linked.agent(session["token"]).put(f"/v1/sessions/{session['id']}/renew").raise_for_status()
    message = newest(phone)
    (second,) = (one["url"] for one in message.sent.buttons() if "url" in one)
    other = renewed(linked)
    third = phone.wait(lambda: newest(phone) if newest(phone) is not message else None)
    assert linked.anonymous.post(first).status_code == 200
    assert linked.anonymous.get(second.removeprefix("https://daemon.example")).status_code == 410
    assert press(phone, message, "Keep") == "Already answered"
    assert state(linked, other) == (200, None)
    assert press(phone, third, "Reject").startswith("⛔ Rejected")
    linked.stop()


def test_the_tokens_of_links_and_buttons_are_stored_as_hashes_and_logged_nowhere(
    hook: FakeWebhook, phone: FakeTelegram, team: FakeDiscord, linked: LiveDaemon
) -> None:
    add(linked, telegram(phone, priority=9, events=["SESSION_CREATED"]))
    add(linked, discord(team, priority=-1))
    renewed(linked)
    path = link_of(hook)
    linked.anonymous.get(path)
    button = newest(phone, "Session created").sent.buttons()[0]["callback_data"]
    linked.stop()
    files = [file.read_bytes() for file in linked.root.rglob("*") if file.is_file()]
    for token in (path.rpartition("/")[2], button.partition(":")[2]):
        assert not [content for content in files if token.encode() in content]


def test_a_button_is_no_link_and_a_link_is_no_button(
    hook: FakeWebhook, phone: FakeTelegram, linked: LiveDaemon
) -> None:
    session = renewed(linked)
    link = link_of(hook)
    add(linked, telegram(phone, priority=9, events=["AGENT_REPORT"]))
    publish(linked, session)
    button = newest(phone, "Report of an agent").sent.buttons()[0]
    token = button["callback_data"].partition(":")[2]
    for path in (f"/reject/{token}", f"/reject/s:{token}"):
        assert linked.anonymous.get(path).status_code == 410
        assert linked.anonymous.post(path).status_code == 410
    button["callback_data"] = f"r:{link.rpartition('/')[2]}"
    assert press(phone, newest(phone, "Report of an agent"), "Suspend agent") == "This button no longer works"
    # What a message did not offer cannot be chosen with its token.
    button["callback_data"] = f"k:{token}"
    assert press(phone, newest(phone, "Report of an agent"), "Suspend agent") == "This button no longer works"
    assert answers(linked) == []
    assert linked.anonymous.get(link).status_code == 200
    linked.stop()

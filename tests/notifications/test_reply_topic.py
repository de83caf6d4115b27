"""The reply topic: taps in ntfy arrive with no open port, and garbage on the topic does nothing."""

from collections.abc import Callable
from typing import Any

import httpx

from tests.support.daemon_process import wait_for
from tests.support.live import LiveDaemon
from tests.support.owner import (
    RENEWED,
    add,
    answers,
    drained,
    ntfy,
    renewed,
    state,
)
from tests.support.services.base import Reply
from tests.support.services.ntfy import FakeNtfy

Launch = Callable[..., LiveDaemon]
PUBLIC = {"DAEMON_SERVER_PUBLIC_URL": "https://daemon.example"}


def tapped(push: FakeNtfy, title: str = "Session renewed") -> dict[str, Any]:
    """The newest ntfy message with this title, once it is there."""
    return push.wait(lambda: [one for one in push.messages["alerts-x1"] if one.get("title") == title])[-1]  # type: ignore[no-any-return]


def test_a_tap_in_ntfy_rejects_and_its_token_acts_once(push: FakeNtfy, live: LiveDaemon) -> None:
    add(live, ntfy(push, **RENEWED))
    session = renewed(live)
    message = tapped(push)
    assert [one["label"] for one in message["actions"]] == ["Reject", "Suspend agent", "Kill switch"]
    assert not [one for one in message["actions"] if one.get("headers")]
    push.wait(lambda: push.subscribers("reply-y2"))
    assert push.tap(message["id"], "Reject") == 200
    wait_for(lambda: state(live, session) == (401, "SESSION_REVOKED"))
    push.wait(lambda: "Rejected by the owner" in push.messages["alerts-x1"][-1]["message"])
    sent = len(push.messages["alerts-x1"])
    push.tap(message["id"], "Reject")
    push.tap(message["id"], "Kill switch")
    live.restart()
    push.wait(lambda: push.subscribers("reply-y2"))
    assert answers(live) == [("reject", "rejected")]
    assert live.owner.get("/v1/admin/kill-switch").json()["state"] == "NORMAL"
    assert len(push.messages["alerts-x1"]) == sent
    live.stop()


def test_a_tap_while_the_daemon_is_down_counts_when_it_is_up(push: FakeNtfy, live: LiveDaemon) -> None:
    add(live, ntfy(push, **RENEWED))
    session = renewed(live)
    message = tapped(push)
    drained(live)
    live.stop()
    push.tap(message["id"], "Suspend agent")
    live.start()
    wait_for(lambda: answers(live) == [("suspend_agent", "agent_suspended")])
    assert state(live, session) == (403, "AGENT_SUSPENDED")
    live.stop()


def test_garbage_on_the_reply_topic_is_harmless(push: FakeNtfy, live: LiveDaemon) -> None:
    add(live, ntfy(push, **RENEWED))
    session = renewed(live)
    message = tapped(push)
    push.wait(lambda: push.subscribers("reply-y2"))
    sent = len(push.messages["alerts-x1"])
    garbage = ["r:" + "A" * 22, "x:" + "A" * 22, "kill everything", "0", "[]", "é" * 40, "x" * 5000, '{"token": 1}']
    for text in (*garbage, *garbage):
        httpx.post(f"{push.url}/reply-y2", content=text.encode(), trust_env=False).raise_for_status()
    push.tap(message["id"], "Reject")
    wait_for(lambda: answers(live) == [("reject", "rejected")])
    assert state(live, session) == (401, "SESSION_REVOKED")
    push.wait(lambda: len(push.messages["alerts-x1"]) == sent + 1)
    live.stop()


def test_a_reply_topic_that_ends_at_once_is_not_asked_without_a_pause(live: LiveDaemon) -> None:
    class Curt(FakeNtfy):
        def _subscribe(self, _request: Any) -> Reply:
            return Reply(200, b"<html>Sign in to the network</html>")

    with Curt() as push:
        add(live, ntfy(push))
        asked: Callable[[], int] = lambda: sum(one.path == "/reply-y2/json" for one in push.requests)  # noqa: E731
        push.wait(asked)
        for _ in range(30):
            live.owner.get("/health")
            add(live, {**ntfy(push), "name": "more", "config": {**ntfy(push)["config"], "replyTopic": "another"}})
        assert asked() <= 3
        live.stop()

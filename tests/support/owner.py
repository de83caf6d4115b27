"""An owner with channels: fakes of the services, and what he sees on the phone."""

import asyncio
from typing import Any

from daemon.running import Daemon
from tests.support.live import LiveDaemon
from tests.support.services.discord import FakeDiscord
from tests.support.services.ntfy import FakeNtfy
from tests.support.services.telegram import FakeTelegram, Message
from tests.support.services.webhook import FakeWebhook

RENEWED = {"events": ["SESSION_RENEWED"]}
CHANNELS = "/v1/owner/notification-channels"
WEBHOOK_SECRET = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I="


def telegram(fake: FakeTelegram, **more: Any) -> dict[str, Any]:
    """Return the body that adds a fake Telegram chat."""
    config = {"botToken": "123456:TEST-token", "chatId": 424242, "apiUrl": fake.url}
    return {"type": "TELEGRAM", "name": "phone", "config": config, **more}


def discord(fake: FakeDiscord, **more: Any) -> dict[str, Any]:
    """Return the body that adds a fake Discord channel."""
    return {"type": "DISCORD", "name": "team", "config": {"webhookUrl": fake.webhook_url}, **more}


def ntfy(fake: FakeNtfy, **more: Any) -> dict[str, Any]:
    """Return the body that adds a fake ntfy topic with a reply topic."""
    config = {"serverUrl": fake.url, "topic": "alerts-x1", "replyTopic": "reply-y2"}
    return {"type": "NTFY", "name": "push", "config": config, **more}


def webhook(fake: FakeWebhook, **more: Any) -> dict[str, Any]:
    """Return the body that adds a fake webhook."""
    return {"type": "WEBHOOK", "name": "hook", "config": {"url": fake.url, "secret": WEBHOOK_SECRET}, **more}


def add(live: LiveDaemon, body: dict[str, Any]) -> dict[str, Any]:
    """Add a channel and return it."""
    answer = live.owner.post(CHANNELS, json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def renewed(live: LiveDaemon, name: str = "agent", **body: Any) -> dict[str, Any]:
    """Make a session of a new agent and let it renew once; return it with its new token."""
    session = live.new_session(live.new_agent(name), **{"ttl": 300, **body})
    live.time.advance(150)
    answer = live.agent(session["token"]).put(f"/v1/sessions/{session['id']}/renew").raise_for_status()
    return {**session, **answer.json()}


def drained(live: LiveDaemon) -> None:
    """Return once a run of the delivering worker that began after this call has ended: all that may be sent is sent."""

    async def runs(daemon: Daemon) -> None:
        (worker,) = (one for one in daemon.parts.workers._workers if one.name == "notifications")
        for _ in range(2):  # the first may have begun before
            worker.last_run = None
            worker.woken.set()
            while worker.last_run is None:
                await asyncio.sleep(0.005)

    live.call(runs)


def publish(live: LiveDaemon, session: dict[str, Any], kind: str = "AGENT_REPORT", **body: Any) -> int:
    """Let a session's agent publish an event, and return its sequence number."""
    answer = live.agent(session["token"]).post("/v1/session/events", json={"type": kind, **body})
    assert answer.status_code == 202, answer.text
    return int(answer.json()["seq"])


def told(fake: FakeWebhook) -> list[str]:
    """Return the events that a webhook was told of, in order."""
    return [one.body["type"] for one in fake.messages if one.body["type"] != "ping"]


def attempts(live: LiveDaemon, **filters: str) -> list[dict[str, Any]]:
    """Return the delivery log, oldest first."""
    found: list[dict[str, Any]] = live.owner.get("/v1/owner/notifications", params={"limit": 200, **filters}).json()
    return found[::-1]


def newest(phone: FakeTelegram, title: str = "Session renewed") -> Message:
    """The newest message with this title, once it is there."""
    return phone.wait(lambda: [one for one in phone.messages.values() if title in one.sent.plain])[-1]  # type: ignore[no-any-return]


def press(phone: FakeTelegram, message: Message, button: str, **who: int) -> str:
    """Press a button and return what the presser is told."""
    query = phone.press(message.message_id, button, **who)
    return str(phone.wait(lambda: phone.answers.get(query))["text"])


def state(live: LiveDaemon, session: dict[str, Any]) -> tuple[int, str | None]:
    """What the agent's next request gets."""
    answer = live.agent(session["token"]).get("/v1/session")
    return answer.status_code, answer.json().get("code")


def answers(live: LiveDaemon) -> list[tuple[str, str]]:
    """What was chosen and what came of it."""
    found = live.events(type="OWNER_ANSWERED")
    return [(one["details"]["answer"], one["details"]["outcome"]) for one in found]

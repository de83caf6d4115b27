"""Channels: checked before they are stored, sealed when they are, masked whenever they are shown."""

import re
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from daemon.crypto.seal_key import SealKey
from daemon.domain.channels import read_config
from daemon.domain.ids import uuid7
from tests.support.daemon_process import DaemonProcess, wait_for
from tests.support.live import PASSWORD, FakeTime, LiveDaemon
from tests.support.owner import (
    CHANNELS,
    WEBHOOK_SECRET,
    add,
    attempts,
    discord,
    drained,
    ntfy,
    publish,
    telegram,
    told,
    webhook,
)
from tests.support.services import Garbage, Status, TooMany
from tests.support.services.base import Reply, json_reply
from tests.support.services.discord import FakeDiscord
from tests.support.services.ntfy import FakeNtfy
from tests.support.services.telegram import FakeTelegram
from tests.support.services.webhook import FakeWebhook

Launch = Callable[..., LiveDaemon]
NOBODY = uuid7(1, bytes(10))


def refused(live: LiveDaemon, body: dict[str, Any], reason: str) -> None:
    """A channel is refused with a reason, and nothing is written."""
    before = (live.owner.get(CHANNELS).json(), len(live.events()))
    answer = live.owner.post(CHANNELS, json=body)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (400, "INVALID_CHANNEL_CONFIG"), answer.text
    assert reason in problem["detail"], problem
    values = [str(value) for value in body["config"].values() if isinstance(value, str) and len(value) > 4]
    assert not [value for value in values if value in answer.text], answer.text
    assert (live.owner.get(CHANNELS).json(), len(live.events())) == before


def test_a_telegram_channel_is_added_only_if_its_bot_exists(phone: FakeTelegram, live: LiveDaemon) -> None:
    good = telegram(phone)
    for change, reason in (
        ({"botToken": "123456:OTHER-token"}, "HTTP 401: Unauthorized"),
        ({"apiUrl": "http://127.0.0.1:9"}, "connection refused"),
        ({"botToken": "nonsense-token"}, "config.botToken: must be a bot token"),
        ({"chatId": "not a chat"}, "config.chatId: must be a chat's number"),
        ({"chatId": True}, "config.chatId"),
        ({"allowedUserIds": ["x"]}, "config.allowedUserIds"),
        ({"apiUrl": "ftp://example.org"}, "config.apiUrl: must be an http:// or https:// URL"),
        ({"colour": "unknown"}, "config.colour: is not a known field"),
    ):
        refused(live, {**good, "config": {**good["config"], **change}}, reason)
    assert add(live, good)["config"] == {
        "botToken": "***",
        "chatId": "424242",
        "allowedUserIds": [],
        "apiUrl": phone.url,
    }


def test_a_discord_channel_is_added_only_if_its_webhook_exists(team: FakeDiscord, live: LiveDaemon) -> None:
    def body(url: str) -> dict[str, Any]:
        return {"type": "DISCORD", "name": "team", "config": {"webhookUrl": url}}

    refused(live, body(f"{team.webhook_url}X"), "HTTP 401: Invalid Webhook Token")
    refused(live, body(f"{team.url}/api/webhooks/42/secret-token"), "HTTP 404: Unknown Webhook")
    refused(live, body("ftp:"), "config.webhookUrl: must be an http:// or https:// URL")
    refused(live, {**body(""), "config": {}}, "config.webhookUrl: is required")
    assert add(live, body(team.webhook_url))["config"] == {"webhookUrl": "***"}


def test_an_ntfy_channel_is_added_only_if_its_server_is_well(push: FakeNtfy, live: LiveDaemon) -> None:
    good = ntfy(push)
    for change, reason in (
        ({"serverUrl": "http://127.0.0.1:9"}, "connection refused"),
        ({"topic": "with/slash-secret"}, "config.topic: must be"),
        ({"replyTopic": "alerts-x1"}, "config.replyTopic: must be another topic"),
        ({"authToken": "two words of secret"}, "config.authToken: must be"),
    ):
        refused(live, {**good, "config": {**good["config"], **change}}, reason)
    shown = add(live, {**good, "config": {**good["config"], "authToken": "tk_secret"}})["config"]
    assert shown == {"serverUrl": push.url, "topic": "***", "authToken": "***", "replyTopic": "***"}


def test_an_ntfy_server_that_is_not_well_is_refused(live: LiveDaemon) -> None:
    class Unwell(FakeNtfy):
        said: Any = None

        def answer(self, _request: Any) -> Reply:
            return json_reply(200, self.said)

    with Unwell() as fake:
        for said, reason in (({"healthy": False}, "not healthy"), ({"other": 1}, "not an answer of ntfy")):
            fake.said = said
            refused(live, ntfy(fake), reason)


def test_a_webhook_is_added_only_if_it_accepts_a_signed_ping(
    hook: FakeWebhook, time: FakeTime, live: LiveDaemon
) -> None:
    good = webhook(hook)
    other = "whsec_" + "b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItb3Q="
    refused(live, {**good, "config": {**good["config"], "secret": other}}, "HTTP 401")
    refused(live, {**good, "config": {**good["config"], "secret": "whsec_short"}}, "config.secret: must be whsec_")
    hook.script(Status(302, {"Location": hook.url}), Status(503), TooMany(60))
    for reason in ("HTTP 302: redirects are not followed", "HTTP 503", "HTTP 429"):
        refused(live, good, reason)
    assert add(live, good)["config"] == {"url": hook.url, "secret": "***"}
    time.advance(0)
    (ping,) = hook.messages
    assert ping.body["type"] == "ping"


def test_what_is_no_channel_is_refused(live: LiveDaemon) -> None:
    for change, path in (
        ({"type": "PIGEON"}, "type"),
        ({"name": ""}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"priority": 1001}, "priority"),
        ({"priority": "1"}, "priority"),
        ({"minLevel": "LOUD"}, "minLevel"),
        ({"events": ["SESSION_RENEWED", "NOTIFICATION_FAILED"]}, "events.1"),
        ({"agents": ["me"]}, "agents.0"),
        ({"config": []}, "config"),
        ({"config": {"url": "x" * 20_000}}, "config"),
        ({"enabled": False}, "enabled"),
    ):
        answer = live.owner.post(CHANNELS, json={"type": "WEBHOOK", "name": "x", "config": {}, **change})
        assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR"), answer.text
        assert path in [one["path"] for one in answer.json()["errors"]]
    assert live.owner.get(CHANNELS).json() == []


def test_what_is_shown_can_be_sent_back_and_keeps_what_is_stored(
    hook: FakeWebhook, phone: FakeTelegram, team: FakeDiscord, live: LiveDaemon, time: FakeTime
) -> None:
    time.wall = live.time.wall
    address = hook.url.removeprefix("http://")
    secret = {"url": f"http://me:pass@{address}/hook?key=KEY", "secret": WEBHOOK_SECRET}
    with FakeNtfy("tk_secret", ["reply-y2"]) as push:
        protected = ntfy(push)
        protected["config"]["authToken"] = "tk_secret"
        made = [add(live, body) for body in (telegram(phone), discord(team), protected, webhook(hook, config=secret))]
        assert made[3]["config"]["url"] == f"http://***@{address}/hook?***"
        for shown in made:
            path = f"{CHANNELS}/{shown['id']}"
            answer = live.owner.put(path, json={"name": f"{shown['name']} 2", "config": shown["config"]})
            assert answer.status_code == 200, answer.text
            assert answer.json()["config"] == shown["config"]
            assert live.owner.post(f"{path}/test").json() == {"status": "DELIVERED", "error": None}
        live.stop()
    last = hook.requests[-1]
    assert (last.path, last.query) == ("/hook", {"key": "KEY"})
    assert last.headers["authorization"].startswith("Basic ")


def test_a_mask_that_stands_for_nothing_is_no_credential(push: FakeNtfy, live: LiveDaemon) -> None:
    body = ntfy(push)
    refused(live, {**body, "config": {**body["config"], "authToken": "***"}}, "config.authToken")
    channel = add(live, body)
    answer = live.owner.put(f"{CHANNELS}/{channel['id']}", json={"config": {**channel["config"], "authToken": "***"}})
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_CHANNEL_CONFIG")


def test_a_changed_configuration_is_checked_and_a_bad_one_changes_nothing(
    phone: FakeTelegram, live: LiveDaemon
) -> None:
    channel = add(live, telegram(phone))
    path = f"{CHANNELS}/{channel['id']}"
    wrong = {**channel["config"], "botToken": "123456:OTHER-token"}
    answer = live.owner.put(path, json={"name": "x", "config": wrong})
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_CHANNEL_CONFIG")
    assert live.owner.get(CHANNELS).json() == [channel]
    assert live.events(type="CHANNEL_UPDATED") == []
    changed = live.owner.put(path, json={"priority": 7, "events": ["TX_FAILED", "TX_FAILED"], "agents": []}).json()
    assert (changed["priority"], changed["events"], changed["agents"]) == (7, ["TX_FAILED"], None)
    (event,) = live.events(type="CHANNEL_UPDATED")
    assert event["details"] == {"channelId": channel["id"], "fields": ["events", "priority"]}
    live.owner.put(path, json={"priority": 7})
    live.owner.put(path, json={"config": channel["config"]})
    assert len(live.events(type="CHANNEL_UPDATED")) == 1


def test_a_channel_is_disabled_and_enabled_again_if_it_works(phone: FakeTelegram, live: LiveDaemon) -> None:
    channel = add(live, telegram(phone))
    path = f"{CHANNELS}/{channel['id']}"
    live.owner.post(f"{path}/test").raise_for_status()
    for _ in range(2):
        answer = live.owner.delete(path)
        assert (answer.status_code, answer.json()["enabled"]) == (200, False)
    assert len(live.events(type="CHANNEL_DISABLED")) == 1
    assert attempts(live)[0]["channelId"] == channel["id"]
    phone.token = "654321:OTHER-token"
    assert live.owner.put(path, json={"enabled": True}).json()["code"] == "INVALID_CHANNEL_CONFIG"
    phone.token = "123456:TEST-token"
    assert live.owner.put(path, json={"enabled": True}).json()["enabled"]
    assert live.owner.put(path, json={"enabled": False}).json()["enabled"] is False


def test_a_test_message_answers_what_the_service_said(phone: FakeTelegram, live: LiveDaemon) -> None:
    channel = add(live, telegram(phone))
    path = f"{CHANNELS}/{channel['id']}/test"
    phone.script(TooMany(30), Garbage())
    said = [live.owner.post(path).json() for _ in range(3)]
    assert said == [
        {"status": "FAILED", "error": "HTTP 429: Too Many Requests: retry after 30"},
        {"status": "FAILED", "error": "not an answer of the Bot API"},
        {"status": "DELIVERED", "error": None},
    ]
    (message,) = phone.messages.values()
    assert message.sent.plain == "🔔 Test message\nChannel: phone"
    assert sorted((one["event"], one["status"]) for one in attempts(live)) == [
        *(("TEST", "DELIVERED"), ("TEST", "FAILED"), ("TEST", "FAILED")),
    ]


def test_unknown_channels_are_404_and_malformed_ids_400(live: LiveDaemon) -> None:
    calls: list[Callable[[str], httpx.Response]] = [
        lambda one: live.owner.put(f"{CHANNELS}/{one}", json={"name": "x"}),
        lambda one: live.owner.delete(f"{CHANNELS}/{one}"),
        lambda one: live.owner.post(f"{CHANNELS}/{one}/test"),
    ]
    for call in calls:
        assert (call(NOBODY).status_code, call(NOBODY).json()["code"]) == (404, "CHANNEL_NOT_FOUND")
        assert (call("x").status_code, call("x").json()["code"]) == (400, "VALIDATION_ERROR")
    assert live.owner.delete(f"{CHANNELS}/{NOBODY}?force=yes").status_code == 400
    assert live.anonymous.get(CHANNELS).status_code == 401
    session = live.new_session()
    assert live.agent(session["token"]).get(CHANNELS).status_code == 401


def test_of_two_who_disable_at_once_one_keeps_the_last_channel(phone: FakeTelegram, launch: Launch) -> None:
    live = launch(DAEMON_NOTIFICATIONS_MIN_CHANNELS="1")
    for _ in range(5):
        ids = [add(live, telegram(phone))["id"] for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda one: live.owner.delete(f"{CHANNELS}/{one}"), ids))
        assert sorted(answer.status_code for answer in answers) == [200, 400]
        (problem,) = (answer.json() for answer in answers if answer.status_code == 400)
        assert problem["code"] == "MIN_CHANNELS_REQUIRED"
        assert problem["details"] == {"minChannels": 1, "remaining": 0}
        (last,) = (one["id"] for one in live.owner.get(CHANNELS).json() if one["enabled"])
        assert live.owner.put(f"{CHANNELS}/{last}", json={"enabled": False}).status_code == 400
        assert live.owner.delete(f"{CHANNELS}/{last}?force=false").status_code == 400
        assert live.owner.delete(f"{CHANNELS}/{last}?force=true").json()["enabled"] is False


@pytest.mark.parametrize("key", [None, b"ab" * 32 + b"\n", b"garbage", b""])
def test_without_its_key_a_channel_is_unreadable_and_all_else_works(
    key: bytes | None, hook: FakeWebhook, phone: FakeTelegram, launch: Launch, time: FakeTime
) -> None:
    live = launch(time=time)
    session = live.new_session()
    lost = add(live, telegram(phone, priority=9))
    file = live.home.seal_key_file
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    right = file.read_bytes()
    live.stop()
    file.unlink()
    if key is not None:
        file.write_bytes(key)
        file.chmod(0o600)
    live.start()
    (shown,) = live.owner.get(CHANNELS).json()
    assert (shown["config"], shown["health"], shown["enabled"]) == (None, "unreadable", True)
    assert "seal.key" in shown["lastError"]
    path = f"{CHANNELS}/{lost['id']}"
    assert live.owner.post(f"{path}/test").json()["code"] == "INVALID_CHANNEL_CONFIG"
    assert live.owner.put(path, json={"name": "still here"}).json()["name"] == "still here"
    publish(live, session)
    drained(live)
    assert [one["status"] for one in attempts(live)] == ["FAILED"]
    if key in {b"garbage", b""}:  # perhaps the owner can mend it: it is not written over
        answer = live.owner.post(CHANNELS, json=webhook(hook))
        assert (answer.status_code, answer.json()["code"]) == (503, "STORAGE_UNAVAILABLE")
        assert "seal.key holds no readable key" in answer.json()["detail"]
        assert file.read_bytes() == key
    else:
        add(live, webhook(hook))
        time.advance(2)
        drained(live)
        assert told(hook) == ["AGENT_REPORT"]
    live.stop()
    file.write_bytes(right)
    live.start()
    shown = live.owner.get(CHANNELS).json()[0]
    assert (shown["name"], shown["config"]) == ("still here", lost["config"])


def test_a_sealed_configuration_opens_for_its_own_channel_alone(phone: FakeTelegram, launch: Launch) -> None:
    live = launch()
    first, second = (add(live, telegram(phone)) for _ in range(2))
    live.stop()
    copied = "(SELECT config FROM notification_channels WHERE id = ?)"
    live.query(f"UPDATE notification_channels SET config = {copied} WHERE id = ?", first["id"], second["id"])
    live.start()
    live.call(lambda daemon: daemon.parts.services.channels.check_all())
    shown = {one["id"]: one["health"] for one in live.owner.get(CHANNELS).json()}
    assert shown == {first["id"]: "ok", second["id"]: "unreadable"}


SECRETS = (
    *("TEST-token", "TEST-webhook-token", "tk_SECRETauth", "SECRETtopic", "SECRETreply", WEBHOOK_SECRET[6:]),
    *("hookpass", "HOOKKEY", "WRONG-token", "WRONGhook", "apipass"),
)


def test_credentials_are_in_no_file_no_answer_no_log_and_no_argument(
    phone: FakeTelegram, team: FakeDiscord, tmp_path: Path
) -> None:
    daemon = DaemonProcess(tmp_path / "home", DAEMON_LOG_LEVEL="debug", DAEMON_SERVER_PUBLIC_URL="https://d.example")
    seen: list[str] = []
    with (
        FakeNtfy("tk_SECRETauth", ["SECRETreply"]) as push,
        FakeWebhook(WEBHOOK_SECRET) as hook,
        httpx.Client(base_url=daemon.url, headers={"X-Master-Password": PASSWORD}, trust_env=False) as owner,
    ):
        owner.event_hooks["response"].append(lambda answer: seen.append(answer.read().decode()))
        address = hook.url.removeprefix("http://")
        bodies = [
            telegram(phone, config={"botToken": phone.token, "chatId": 424242, "apiUrl": _with_password(phone.url)}),
            discord(team),
            ntfy(push, config={**ntfy(push)["config"], **_NTFY}),
            webhook(hook, config={"url": f"http://me:hookpass@{address}/?k=HOOKKEY", "secret": WEBHOOK_SECRET}),
            telegram(phone, config={"botToken": "1:WRONG-token", "chatId": 1, "apiUrl": phone.url}),
            discord(team, config={"webhookUrl": f"{team.url}/api/webhooks/1/WRONGhook"}),
            webhook(hook, config={"url": "http://127.0.0.1:9/WRONGhook", "secret": WEBHOOK_SECRET}),
            telegram(phone, config={"botToken": "WRONG-token", "chatId": "x", "apiUrl": "y"}),
        ]
        made = [owner.post(CHANNELS, json=body) for body in bodies]
        assert [answer.status_code for answer in made] == [201] * 4 + [400] * 4
        for fake in (phone, team, push, hook):
            fake.script(Status(500), TooMany(1))
        for answer in made[:4]:
            owner.post(f"{CHANNELS}/{answer.json()['id']}/test").raise_for_status()
        agent = owner.post("/v1/agents", json={"name": "a"}).json()["id"]
        session = owner.post("/v1/sessions", json={"agentId": agent}).json()
        owner.post("/v1/admin/kill-switch", json={"reason": "x"}).raise_for_status()
        wait_for(lambda: team.messages and push.messages["SECRETtopic"] and told(hook) and phone.messages)
        for path in (CHANNELS, "/v1/owner/notifications", "/v1/admin/audit", "/v1/admin/status"):
            owner.get(path).raise_for_status()
        arguments = Path(f"/proc/{daemon.process.pid}/cmdline")
        seen.append(arguments.read_text() if arguments.exists() else "")
        _search(daemon.home, seen, session["token"])
        daemon.stop()
    _search(daemon.home, seen, session["token"])


_NTFY = {"topic": "SECRETtopic", "replyTopic": "SECRETreply", "authToken": "tk_SECRETauth"}


def _with_password(url: str) -> str:
    return url.replace("http://", "http://api:apipass@")


def _search(home: Path, seen: list[str], token: str) -> None:
    """No secret is in any file of the home, nor in what was seen."""
    secrets = [one.encode() for one in SECRETS]
    files = {str(file.relative_to(home)): file.read_bytes() for file in home.rglob("*") if file.is_file()}
    assert {"daemon.db", "seal.key"} <= files.keys()
    key = files.pop("seal.key").strip()
    assert re.fullmatch(rb"[0-9a-f]{64}", key)
    for name, content in files.items():
        assert not [one for one in (*secrets, key, bytes.fromhex(key.decode()), token.encode()) if one in content], name
    # The token of a new session is shown once; nothing else is ever shown.
    assert not [one for one in secrets if any(one in text.encode() for text in seen)]


def test_no_repr_shows_a_credential(tmp_path: Path) -> None:
    config, _ = read_config("TELEGRAM", {"botToken": "123456:TEST-token", "chatId": 1})
    assert "TEST" not in repr(config)
    key = SealKey(tmp_path / "seal.key")
    key.seal(b"x", "y")
    assert (tmp_path / "seal.key").read_text().strip() not in repr(key)

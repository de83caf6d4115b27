"""The senders against services that speak the real wire formats, and fail in all the ways that those do."""

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from email.utils import formatdate

import httpx
import msgspec
import pytest

from daemon.domain.channels import ChannelType, DiscordConfig, NtfyConfig, TelegramConfig, WebhookConfig
from daemon.notify import channels, discord, ntfy, telegram
from daemon.notify.client import LARGEST, Http
from daemon.notify.failure import LONGEST_WAIT, SendFailed, refusal
from tests.notify.notices import BUTTONS, RENEWED, WHEN, notice
from tests.support.services import Drop, FakeService, Garbage, Status, Timeout, TooMany
from tests.support.services.discord import FakeDiscord
from tests.support.services.ntfy import FakeNtfy
from tests.support.services.telegram import FakeTelegram
from tests.support.services.webhook import FakeWebhook

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
AUTH = "tk_SECRETauthtoken"
TOPIC = "SECRETtopic"
REPLIES = "SECRETreplies"
PUBLIC = "https://daemon.example/reject/abc"
RENEWAL = notice("SESSION_RENEWED", PUBLIC, BUTTONS, **RENEWED)
CREDENTIALS = ("TEST-token", "TEST-webhook-token", SECRET, SECRET[6:], "SECRET")
KINDS: tuple[ChannelType, ...] = ("TELEGRAM", "DISCORD", "NTFY", "WEBHOOK")


def telegram_config(fake: FakeTelegram, *allowed: int) -> TelegramConfig:
    return TelegramConfig(
        bot_token=fake.token, chat_id=str(fake.chat_id), allowed_user_ids=allowed, api_url=f"{fake.url}/"
    )


def ntfy_config(fake: FakeNtfy) -> NtfyConfig:
    return NtfyConfig(server_url=fake.url, topic=TOPIC, auth_token=AUTH, reply_topic=REPLIES)


def service(kind: ChannelType) -> FakeService:
    """A fake of a kind of channel."""
    match kind:
        case "TELEGRAM":
            return FakeTelegram()
        case "DISCORD":
            return FakeDiscord()
        case "NTFY":
            return FakeNtfy(AUTH, [REPLIES], keepalive=0.1)
        case "WEBHOOK":
            return FakeWebhook(SECRET, lambda: WHEN)


def config_of(fake: FakeService) -> tuple[ChannelType, object]:
    """The channel that leads to a fake."""
    match fake:
        case FakeTelegram():
            return "TELEGRAM", telegram_config(fake)
        case FakeDiscord():
            return "DISCORD", DiscordConfig(webhook_url=fake.webhook_url)
        case FakeNtfy():
            return "NTFY", ntfy_config(fake)
    return "WEBHOOK", WebhookConfig(url=f"{fake.url}/hook?a=b", secret=SECRET)


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    client = Http(timeout=2)
    yield client
    await client.close()


@pytest.fixture
def quick() -> Callable[[], Http]:
    return lambda: Http(timeout=0.15)


async def send(http: Http, fake: FakeService) -> str:
    kind, config = config_of(fake)
    return await channels.send(http, kind, config, RENEWAL, locale="ko", now=WHEN)


async def failure(attempt: Awaitable[object], caplog: pytest.LogCaptureFixture | None = None) -> SendFailed:
    """Why an attempt failed; neither that nor any log names a credential."""
    with pytest.raises(SendFailed) as caught:
        await attempt
    said = f"{caught.value!r} {caught.value} {caplog.text if caplog else ''}"
    assert not [one for one in CREDENTIALS if one in said]
    assert "127.0.0.1" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


# --- every kind of channel


@pytest.mark.parametrize("kind", KINDS)
async def test_a_message_arrives_and_its_id_is_returned(http: Http, kind: ChannelType) -> None:
    with service(kind) as fake:
        await channels.check(http, *config_of(fake), now=WHEN)
        sent = await send(http, fake)
        found = fake.messages  # type: ignore[attr-defined]
        expected = {
            "TELEGRAM": lambda: list(map(str, found)),
            "DISCORD": lambda: [one["id"] for one in found],
            "NTFY": lambda: [one["id"] for one in found[TOPIC]],
            "WEBHOOK": lambda: [one.webhook_id for one in found][1:],
        }[kind]()
        assert expected == [sent]
        assert fake.requests[-1].headers["user-agent"].startswith("agent-session-daemon/")


@pytest.mark.parametrize("kind", KINDS)
async def test_too_many_messages_is_told_with_the_seconds_to_wait(http: Http, kind: ChannelType) -> None:
    with service(kind) as fake:
        fake.script(TooMany(7, "header"), TooMany(7, "both"), TooMany(7, "body"))
        for _ in range(2):
            found = await failure(send(http, fake))
            assert (found.limited, found.permanent, found.retry_after) == (True, False, 7)
        found = await failure(send(http, fake))
        assert found.limited
        assert found.retry_after == (7 if kind in {"TELEGRAM", "DISCORD"} else None)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_broken_service_is_a_failure_that_a_retry_may_cure(http: Http, kind: ChannelType) -> None:
    with service(kind) as fake:
        fake.script(Status(500), Status(502, {}, b"<html>"), Status(503, {"Retry-After": "3"}), Drop(), Drop())
        found = [await failure(send(http, fake)) for _ in range(5)]
    assert [one.reason for one in found] == ["HTTP 500", "HTTP 502", "HTTP 503", "connection lost", "connection lost"]
    assert [one.retry_after for one in found] == [None, None, 3, None, None]
    assert not any(one.permanent or one.limited for one in found)
    assert (await failure(send(http, fake))).reason == "connection refused"


@pytest.mark.parametrize("kind", ["TELEGRAM", "DISCORD", "NTFY"])
async def test_a_page_instead_of_an_answer_is_a_failure(http: Http, kind: ChannelType) -> None:
    with service(kind) as fake:
        fake.script(Garbage(), Status(200, {}, b"[]"), Status(200, {}, b"\xff"), Status(204))
        for _ in range(4):
            assert (await failure(send(http, fake))).reason.startswith("not an answer of ")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_redirect_is_not_followed(http: Http, kind: ChannelType) -> None:
    with service(kind) as fake:
        fake.script(Status(307, {"Location": f"{fake.url}/elsewhere"}))
        assert (await failure(send(http, fake))).reason == "HTTP 307: redirects are not followed"
        assert len(fake.requests) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_what_hangs_drips_or_floods_is_cut_off(quick: Callable[[], Http], kind: ChannelType) -> None:
    client = quick()
    with service(kind) as fake:
        fake.script(Timeout(1, before=True), Status(200, {}, b"x" * (LARGEST + 1)))
        assert (await failure(send(client, fake))).reason == "timed out"
        assert (await failure(send(client, fake))).reason == "the answer is too large"
    await client.close()


async def test_a_server_that_drips_cannot_hold_a_request(quick: Callable[[], Http]) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.02)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = quick()
    began = time.monotonic()
    config = DiscordConfig(webhook_url=f"http://127.0.0.1:{port}/TEST-token")
    assert (await failure(discord.send(client, config, RENEWAL, "en"))).reason == "timed out"
    assert time.monotonic() - began < 1
    await client.close()
    server.close()


async def test_a_wrong_credential_is_permanent_and_named_nowhere(http: Http, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection"):
        caplog.set_level(logging.DEBUG, logger=name)
    other = "whsec_" + base64.b64encode(b"o" * 32).decode()
    with (
        FakeTelegram("1:other") as tele,
        FakeDiscord(webhook_token="other") as disc,
        FakeNtfy("other") as topics,
        FakeWebhook(other, lambda: WHEN) as hook,
    ):
        wrong = {
            "TELEGRAM": (TelegramConfig(bot_token="1:TEST-token", chat_id="1", api_url=tele.url), "Unauthorized"),
            "DISCORD": (
                DiscordConfig(webhook_url=f"{disc.url}/api/webhooks/{disc.webhook_id}/TEST-webhook-token"),
                "Invalid Webhook Token",
            ),
            "NTFY": (ntfy_config(topics), "unauthorized"),
            "WEBHOOK": (WebhookConfig(url=hook.url, secret=SECRET), ""),
        }
        for kind, (config, said) in wrong.items():
            found = await failure(
                channels.send(http, kind, config, RENEWAL, locale="en", now=WHEN),  # type: ignore[arg-type]
                caplog,
            )
            assert found.permanent
            assert found.reason.startswith("HTTP 401")
            assert said in found.reason


async def test_an_unknown_chat_or_webhook_is_told_in_the_services_words(http: Http) -> None:
    with FakeTelegram() as tele, FakeDiscord() as disc:
        chat = TelegramConfig(bot_token=tele.token, chat_id="5", api_url=tele.url)
        gone = await failure(telegram.send(http, chat, RENEWAL, "en"))
        assert (gone.permanent, gone.reason) == (True, "HTTP 400: Bad Request: chat not found")
        hook = DiscordConfig(webhook_url=f"{disc.url}/api/webhooks/1/x")
        gone = await failure(discord.check(http, hook))
        assert (gone.permanent, gone.reason) == (True, "HTTP 404: Unknown Webhook")


async def test_what_names_no_server_is_a_failure_too(http: Http) -> None:
    for url in ("http://[::1", "http://127.0.0.1:99999/", "ftp://127.0.0.1/", "http://"):
        assert (await failure(discord.check(http, DiscordConfig(webhook_url=url)))).reason


@pytest.mark.parametrize("proxy", ["nonsense://SECRET@x", "socks5://SECRET@x"])
async def test_a_proxy_that_cannot_be_used_is_a_failure(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    found = await failure(discord.check(Http(), DiscordConfig(webhook_url="http://a.invalid/SECRET")))
    assert found.reason == "the URL, or a proxy of the environment, cannot be used"


async def test_proxies_of_the_environment_are_used_but_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeDiscord() as proxy, FakeDiscord() as near:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        client = Http(timeout=2)
        await discord.check(client, DiscordConfig(webhook_url=near.webhook_url))
        assert not proxy.requests
        await failure(discord.check(client, DiscordConfig(webhook_url="http://discord.invalid/x")))
        assert len(proxy.requests) == 1
        await client.close()


def test_a_wait_is_read_in_every_form_and_bounded() -> None:
    def wait(*waits: object, **headers: str) -> float | None:
        sent = httpx.Headers({name.replace("_", "-"): value for name, value in headers.items()})
        return refusal(429, sent, 1000.0, waits=waits).retry_after

    assert wait() is None
    assert wait(retry_after="12") == 12
    assert wait(retry_after=formatdate(1060, usegmt=True)) == 60
    assert wait(retry_after=formatdate(9060, usegmt=True), date=formatdate(9000, usegmt=True)) == 60
    assert wait(retry_after=formatdate(10, usegmt=True)) == 0
    assert wait(0.25, retry_after="1", x_ratelimit_reset_after="1.5") == 1.5
    assert wait("nan", True, [], -3, retry_after="soon") == 0
    assert wait(10**400, retry_after="9" * 12) == LONGEST_WAIT


def test_what_a_service_says_is_one_short_line_without_the_credential() -> None:
    said = refusal(400, {}, 0, said="no\nsuch \u202echat " + "x" * 500).reason
    assert said.startswith("HTTP 400: no such chat xxx")
    assert len(said) < 250
    assert refusal(400, {}, 0, said="bad 1:TEST-token", secrets=("1:TEST-token",)).reason == "HTTP 400"


# --- Telegram


async def test_telegram_offers_the_answers_two_in_a_row_and_the_page_below(http: Http) -> None:
    with FakeTelegram() as fake:
        await telegram.send(http, telegram_config(fake), RENEWAL, "ko")
        sent = fake.messages[1].sent
        rows = (sent.reply_markup or {})["inline_keyboard"]
        assert [[one["text"] for one in row] for row in rows] == [
            ["유지", "거부"],
            ["에이전트 정지", "킬 스위치"],
            ["거부 페이지 열기"],
        ]
        assert fake.requests[-1].json()["link_preview_options"] == {"is_disabled": True}


@pytest.mark.parametrize(
    "url", ["http://localhost:3100/reject/abc", "http://127.0.0.1:3100/r/a", "https://box.lan/r/a"]
)
async def test_a_page_that_only_this_network_knows_is_text_and_no_button(http: Http, url: str) -> None:
    with FakeTelegram() as fake, FakeDiscord() as other:
        sent = notice("SESSION_RENEWED", url, **RENEWED)
        await telegram.send(http, telegram_config(fake), sent, "en")
        assert fake.messages[1].sent.plain.endswith(f"\nReject: {url}")
        await discord.send(http, DiscordConfig(webhook_url=other.webhook_url), sent, "en")
        assert "url" not in other.messages[0]["embeds"][0]
        assert other.messages[0]["embeds"][0]["description"].endswith(f"\nReject: <{url}>")


async def test_a_press_comes_back_with_who_and_whether_it_counts(http: Http) -> None:
    with FakeTelegram() as fake:
        config = telegram_config(fake)
        number = int(await telegram.send(http, config, RENEWAL, "en"))
        assert await telegram.updates(http, config, 0, 0) == ([], 0)
        fake.press(number, "Reject")
        fake.press(number, "Kill switch", from_id=77)
        fake.press(number, "Keep", chat_id=99)
        presses, offset = await telegram.updates(http, config, 0, 5)
        assert [(one.token, one.allowed, one.who) for one in presses] == [
            (BUTTONS[1].token, True, "424242"),
            (BUTTONS[3].token, False, "77"),
            (BUTTONS[0].token, False, "99"),
        ]
        assert (await telegram.updates(http, config, 0, 0))[1] == offset
        assert await telegram.updates(http, config, offset, 0) == ([], offset)
        assert fake.requests[-1].json()["allowed_updates"] == ["callback_query"]


async def test_in_a_group_only_those_who_are_named_count(http: Http) -> None:
    with FakeTelegram(chat_id=-1001234567890) as fake:
        config = telegram_config(fake, 5, 6)
        number = int(await telegram.send(http, config, RENEWAL, "en"))
        await telegram.updates(http, config, 0, 0)
        for presser in (5, 7, 1001234567890):
            fake.press(number, "Reject", from_id=presser)
        presses, _ = await telegram.updates(http, config, 0, 5)
        assert [one.allowed for one in presses] == [True, False, False]


async def test_the_outcome_answers_the_press_and_takes_the_place_of_the_buttons(http: Http) -> None:
    with FakeTelegram() as fake:
        config = telegram_config(fake)
        number = int(await telegram.send(http, config, RENEWAL, "en"))
        await telegram.updates(http, config, 0, 0)
        query = fake.press(number, "Reject")
        [press], _ = await telegram.updates(http, config, 0, 5)
        await telegram.tell(http, config, press, "Not allowed", edit=False)
        assert not fake.messages[number].edits
        for _ in range(2):  # the second is not modified
            await telegram.tell(http, config, press, "⛔ Rejected. " + "x" * 300, edit=True)
        assert len(fake.answers[query]["text"]) == 200
        [edit] = fake.messages[number].edits
        assert edit.plain.startswith(f"{fake.messages[number].sent.plain}\n\n⛔ Rejected. xxx")
        assert edit.entities == fake.messages[number].sent.entities
        assert edit.reply_markup is None
        fake.forget_press(query)
        await telegram.tell(http, config, press, "Already answered", edit=False)


async def test_updates_that_are_not_presses_are_passed_over(http: Http) -> None:
    with FakeTelegram() as fake:
        config = telegram_config(fake)
        odd = [7, {"update_id": 4}, {"update_id": 5, "callback_query": {"id": 1}}, {"callback_query": None}]
        fake.updates = [{"update_id": 1, "message": {"text": "hi"}}]
        assert await telegram.updates(http, config, 0, 0) == ([], 2)
        fake.sends = lambda request: True  # type: ignore[method-assign]
        fake.script(Status(200, {}, msgspec.json.encode({"ok": True, "result": odd})))
        assert await telegram.updates(http, config, 0, 0) == ([], 6)
        bare = {"update_id": 9, "callback_query": {"id": "8", "from": {"id": 424242}, "data": "t"}}
        fake.script(Status(200, {}, msgspec.json.encode({"ok": True, "result": [bare]})))
        [press], _ = await telegram.updates(http, config, 0, 0)
        assert not press.allowed


# --- Discord


@pytest.mark.parametrize(
    ("event", "title", "color"),
    [
        ("SESSION_RENEWED", "세션 갱신", 0x3498DB),
        ("SESSION_RENEWAL_REJECTED", "세션 갱신 거부", 0xE67E22),
        ("TX_CONFIRMED", "거래 확정", 0x3498DB),
        ("TX_FAILED", "거래 실패", 0xE67E22),
        ("TOKEN_REUSED", "교체된 토큰 재사용", 0xE74C3C),
    ],
)
async def test_discord_colours_say_how_urgent_it_is(http: Http, event: str, title: str, color: int) -> None:
    with FakeDiscord() as fake:
        config = DiscordConfig(webhook_url=f"{fake.webhook_url}?thread_id=5")
        await discord.send(http, config, notice(event, PUBLIC, **RENEWED), "ko")
        [embed] = fake.messages[0]["embeds"]
        assert (embed["title"], embed["color"], embed["url"]) == (title, color, PUBLIC)
        assert embed["timestamp"] == "2027-01-15T08:00:00+00:00"
        assert fake.requests[-1].query == {"thread_id": "5", "wait": "true"}


# --- ntfy


@pytest.mark.parametrize(
    ("event", "priority"),
    [("SESSION_RENEWED", 3), ("SESSION_RENEWAL_REJECTED", 4), ("AGENT_REPORT", 3), ("KILL_SWITCH_ACTIVATED", 5)],
)
async def test_ntfy_priorities_say_how_urgent_it_is(http: Http, event: str, priority: int) -> None:
    with FakeNtfy(AUTH) as fake:
        await ntfy.send(http, ntfy_config(fake), notice(event, PUBLIC, **RENEWED), "en")
        [message] = fake.messages[TOPIC]
        assert (message.get("priority", 3), message["click"]) == (priority, PUBLIC)
        assert message["tags"]


async def test_ntfy_buttons_carry_a_token_and_no_credential(http: Http) -> None:
    with FakeNtfy(AUTH, [REPLIES]) as fake:
        config = ntfy_config(fake)
        await ntfy.send(http, config, RENEWAL, "en")
        actions = fake.messages[TOPIC][0]["actions"]
        assert [one["label"] for one in actions] == ["Reject", "Suspend agent", "Kill switch"]
        assert AUTH not in str(actions)
        inside = msgspec.structs.replace(config, server_url=fake.url.replace("//", "//me:SECRETpassword@"))
        assert "SECRETpassword" not in str(ntfy.message(inside, RENEWAL, "en"))
        plain = msgspec.structs.replace(config, reply_topic=None)
        assert "actions" not in ntfy.message(plain, RENEWAL, "en")


async def test_a_tap_arrives_as_a_press_and_its_outcome_as_a_quiet_message(http: Http) -> None:
    with FakeNtfy(AUTH, [REPLIES], keepalive=0.1) as fake:
        config = ntfy_config(fake)
        sent = await ntfy.send(http, config, RENEWAL, "en")
        stream = ntfy.presses(http, config, "all")
        async with aclosing(stream):
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.to_thread(fake.wait, lambda: fake.subscribers(REPLIES))
            assert await asyncio.to_thread(fake.tap, sent, "Reject") == 200
            number, press = await waiting
            assert (press.token, press.allowed, press.who) == (BUTTONS[1].token, True, "ntfy")
            await asyncio.to_thread(fake.tap, sent, "Kill switch")
            assert (await anext(stream))[1].token == BUTTONS[3].token
        async with aclosing(ntfy.presses(http, config, number)) as later:
            assert (await anext(later))[1].token == BUTTONS[3].token
        await ntfy.tell(http, config, press, "Rejected by the owner")
        assert fake.messages[TOPIC][-1]["message"] == "Rejected by the owner"
        assert fake.messages[TOPIC][-1]["priority"] == 2


async def test_a_subscription_ends_with_its_connection_and_outlives_garbage(http: Http) -> None:
    with FakeNtfy(AUTH, [REPLIES], keepalive=0.1) as fake:
        config = ntfy_config(fake)
        garbage = [b"\xff", b"[1]", b"{", b'{"event":"message"}', b'{"event":"message","id":"a","message":7}']
        good = b'{"event":"message","id":"b","message":"t"}'
        fake.sends = lambda request: True  # type: ignore[method-assign]
        long = b'{"event":"message","id":"c","message":"' + b"x" * LARGEST + b'"}'
        fake.script(Status(200, {}, b"\n".join([*garbage, long, good, b""])))
        async with aclosing(ntfy.presses(http, config, "all")) as stream:
            assert [one[0] async for one in stream] == ["b"]
        stream = ntfy.presses(http, config, "all")
        waiting = asyncio.ensure_future(anext(stream, None))
        await asyncio.to_thread(fake.wait, lambda: fake.subscribers(REPLIES))
        fake.drop_streams()
        assert await waiting is None


async def test_a_subscription_that_falls_silent_ends(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ntfy, "SILENCE", 0.1)
    with FakeNtfy(AUTH, [REPLIES], keepalive=0.6) as fake:
        assert [one async for one in ntfy.presses(http, ntfy_config(fake), "all")] == []


async def test_a_subscription_that_is_refused_says_why(http: Http) -> None:
    with FakeNtfy("other") as fake:
        found = await failure(anext(ntfy.presses(http, ntfy_config(fake), "all")))
        assert (found.permanent, found.reason) == (True, "HTTP 401: unauthorized")
    found = await failure(anext(ntfy.presses(http, ntfy_config(fake), "all")))
    assert found.reason == "connection refused"


async def test_a_server_that_is_not_well_fails_its_check(http: Http) -> None:
    with FakeNtfy() as fake:
        fake.sends = lambda request: True  # type: ignore[method-assign]
        fake.script(Status(200, {}, b'{"healthy":false}'), Garbage())
        assert (await failure(ntfy.check(http, ntfy_config(fake)))).reason == "the server says that it is not healthy"
        assert (await failure(ntfy.check(http, ntfy_config(fake)))).reason == "not an answer of ntfy"


# --- webhook


async def test_a_webhook_gets_the_event_itself_signed_and_the_same_id_at_every_attempt(http: Http) -> None:
    with FakeWebhook(SECRET, lambda: WHEN) as fake:
        config = WebhookConfig(url=f"{fake.url}/hook", secret=SECRET)
        for _ in range(2):
            await channels.send(http, "WEBHOOK", config, RENEWAL, locale="en", now=WHEN)
        await channels.check(http, "WEBHOOK", config, now=WHEN)
        assert fake.messages[0].body == {
            "type": "SESSION_RENEWED",
            "timestamp": "2027-01-15T08:00:00Z",
            "data": {"level": "INFO", **RENEWED, "rejectUrl": PUBLIC},
        }
        assert [one.webhook_id for one in fake.duplicates] == ["ntf-1"]
        assert fake.messages[1].body["type"] == "ping"
        assert fake.rejected == []

"""The senders against services that speak the real wire formats."""

import asyncio
from contextlib import aclosing

import msgspec
import pytest

from daemon.domain.channels import ChannelType, DiscordConfig, TelegramConfig, WebhookConfig
from daemon.domain.notifications import Press
from daemon.notify import channels, discord, ntfy, telegram
from daemon.notify.client import LARGEST, Http
from tests.notify.notices import BUTTONS, RENEWED, WHEN, notice
from tests.notify.served import (
    AUTH,
    KINDS,
    PUBLIC,
    RENEWAL,
    REPLIES,
    SECRET,
    TOPIC,
    config_of,
    failure,
    ntfy_config,
    send,
    service,
    telegram_config,
)
from tests.support.services import Garbage, Status
from tests.support.services.discord import FakeDiscord
from tests.support.services.ntfy import FakeNtfy
from tests.support.services.telegram import FakeTelegram
from tests.support.services.webhook import FakeWebhook


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


async def pressed(http: Http, config: TelegramConfig, offset: int, seconds: int) -> tuple[list[Press], int]:
    found, following = await telegram.updates(http, config, offset, seconds)
    presses = [telegram.press_of([config], update) for update in found]
    return [one[1] for one in presses if one is not None], following


async def test_a_press_comes_back_with_who_and_whether_it_counts(http: Http) -> None:
    with FakeTelegram() as fake:
        config = telegram_config(fake)
        number = int(await telegram.send(http, config, RENEWAL, "en"))
        assert await telegram.updates(http, config, 0, 0) == ([], 0)
        fake.press(number, "Reject")
        fake.press(number, "Kill switch", from_id=77)
        fake.press(number, "Keep", chat_id=99)
        presses, offset = await pressed(http, config, 0, 5)
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
        presses, _ = await pressed(http, config, 0, 5)
        assert [one.allowed for one in presses] == [True, False, False]


async def test_the_outcome_answers_the_press_and_takes_the_place_of_the_buttons(http: Http) -> None:
    with FakeTelegram() as fake:
        config = telegram_config(fake)
        number = int(await telegram.send(http, config, RENEWAL, "en"))
        await telegram.updates(http, config, 0, 0)
        query = fake.press(number, "Reject")
        [press], _ = await pressed(http, config, 0, 5)
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
        assert await pressed(http, config, 0, 0) == ([], 2)
        fake.sends = lambda request: True  # type: ignore[method-assign]
        fake.script(Status(200, {}, msgspec.json.encode({"ok": True, "result": odd})))
        assert await pressed(http, config, 0, 0) == ([], 6)
        bare = {"update_id": 9, "callback_query": {"id": "8", "from": {"id": 424242}, "data": "t"}}
        fake.script(Status(200, {}, msgspec.json.encode({"ok": True, "result": [bare]})))
        [press], _ = await pressed(http, config, 0, 0)
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

"""The senders against services that fail, in all the ways that those do."""

import asyncio
import base64
import logging
import time
from email.utils import formatdate

import httpx
import pytest

from daemon.domain.channels import ChannelType, DiscordConfig, TelegramConfig, WebhookConfig
from daemon.notify import channels, discord, telegram
from daemon.notify.client import LARGEST, Http
from daemon.notify.failure import LONGEST_WAIT, refusal
from tests.notify.notices import WHEN
from tests.notify.served import (
    KINDS,
    RENEWAL,
    SECRET,
    failure,
    ntfy_config,
    send,
    service,
)
from tests.support.services import Drop, Garbage, Status, Timeout, TooMany
from tests.support.services.discord import FakeDiscord
from tests.support.services.ntfy import FakeNtfy
from tests.support.services.telegram import FakeTelegram
from tests.support.services.webhook import FakeWebhook


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
async def test_what_hangs_or_floods_is_cut_off(quick: Http, kind: ChannelType) -> None:
    with service(kind) as fake:
        fake.script(Timeout(1, before=True), Status(200, {}, b"x" * (LARGEST + 1)))
        assert (await failure(send(quick, fake))).reason == "timed out"
        assert (await failure(send(quick, fake))).reason == "the answer is too large"


async def test_a_server_that_drips_cannot_hold_a_request(quick: Http) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.02)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    began = time.monotonic()
    config = DiscordConfig(webhook_url=f"http://127.0.0.1:{port}/TEST-token")
    assert (await failure(discord.send(quick, config, RENEWAL, "en"))).reason == "timed out"
    assert time.monotonic() - began < 1
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

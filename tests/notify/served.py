"""Channels that lead to fake services, and what a failure must never name."""

import base64
from collections.abc import Awaitable

import pytest

from daemon.domain.channels import ChannelType, DiscordConfig, NtfyConfig, TelegramConfig, WebhookConfig
from daemon.notify import channels
from daemon.notify.client import Http
from daemon.notify.failure import SendFailed
from tests.notify.notices import BUTTONS, RENEWED, WHEN, notice
from tests.support.services import FakeService
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

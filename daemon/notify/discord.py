"""Discord: one embed for each message, through a channel's webhook (https://discord.com/developers/docs)."""

from datetime import UTC, datetime
from typing import Any

import httpx

from daemon.domain.channels import DiscordConfig
from daemon.domain.levels import Level
from daemon.domain.notifications import Notice
from daemon.notify.catalogue import REJECT_URL, Locale
from daemon.notify.client import Answer, Http
from daemon.notify.cutting import utf16
from daemon.notify.failure import SendFailed, refusal
from daemon.notify.links import is_public
from daemon.notify.templates import render
from daemon.notify.text import discord_markdown

LONGEST = 4096
"""Characters of an embed's description; counted here with the escapes, in UTF-16 code units, which is never less."""
_COLORS: dict[Level, int] = {"INFO": 0x3498DB, "WARNING": 0xE67E22, "CRITICAL": 0xE74C3C}


async def send(http: Http, config: DiscordConfig, notice: Notice, locale: Locale) -> str:
    """Send a message and return its id.

    Raises:
        SendFailed: Discord did not take it.
    """
    # Without `wait` Discord answers before it knows whether it takes the message; the URL may name a thread.
    url = str(httpx.URL(config.webhook_url).copy_merge_params({"wait": "true"}))
    answer = await http.request("POST", url, json=message(notice, locale))
    return _id(http, config, answer)


async def check(http: Http, config: DiscordConfig) -> None:
    """Ask for the webhook.

    Raises:
        SendFailed: there is no such webhook, or no Discord.
    """
    _id(http, config, await http.request("GET", config.webhook_url))


def message(notice: Notice, locale: Locale) -> dict[str, Any]:
    """Return the body that executes the webhook: one embed, which mentions nobody."""
    return {"embeds": [_embed(notice, locale)], "allowed_mentions": {"parse": []}}


def _embed(notice: Notice, locale: Locale) -> dict[str, Any]:
    rendered = render(notice, locale)
    embed: dict[str, Any] = {
        "title": rendered.title,
        "color": _COLORS[notice.level],
        "timestamp": datetime.fromtimestamp(notice.at, UTC).isoformat(),
    }
    link = ""
    if notice.reject_url and is_public(notice.reject_url):
        embed["url"] = notice.reject_url
    elif notice.reject_url:  # as the embed's URL Discord would refuse it
        link = f"\n{discord_markdown(REJECT_URL.in_(locale))}: <{notice.reject_url}>"

    def size(text: str) -> int:
        return utf16(discord_markdown(text))

    fitted = rendered.fitted(LONGEST - utf16(link), size)
    embed["description"] = (fitted.text(discord_markdown) + link).strip()
    return embed


def _id(http: Http, config: DiscordConfig, answer: Answer) -> str:
    """Return the id of what Discord answered with."""
    said = answer.json()
    said = said if isinstance(said, dict) else {}
    if answer.good:
        if isinstance(said.get("id"), str):
            return str(said["id"])
        raise SendFailed("not an answer of Discord")
    token = httpx.URL(config.webhook_url).path.rstrip("/").rpartition("/")[2]
    raise refusal(
        answer.status,
        answer.headers,
        http.wall(),
        said=said.get("message"),
        waits=[said.get("retry_after")],
        secrets=(config.webhook_url, token),
    )

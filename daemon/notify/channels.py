"""One door for every type of channel."""

from typing import Any

from daemon.domain.channels import ChannelType
from daemon.domain.notifications import Notice
from daemon.notify import discord, ntfy, telegram, webhook
from daemon.notify.catalogue import Locale
from daemon.notify.client import Http


async def send(http: Http, kind: ChannelType, config: Any, notice: Notice, *, locale: Locale, now: int) -> str:
    """Send a message and return the service's id of it.

    Args:
        http: the client.
        kind, config: of the channel.
        notice: what to send.
        locale: of its words.
        now: Unix seconds.

    Raises:
        SendFailed: the service did not take it.
    """
    match kind:
        case "TELEGRAM":
            return await telegram.send(http, config, notice, locale)
        case "DISCORD":
            return await discord.send(http, config, notice, locale)
        case "NTFY":
            return await ntfy.send(http, config, notice, locale)
        case "WEBHOOK":
            return await webhook.send(http, config, notice, now)


async def check(http: Http, kind: ChannelType, config: Any, now: int) -> None:
    """Ask a service whether the channel's configuration is good, without showing a message to anybody.

    Args:
        http: the client.
        kind, config: of the channel.
        now: Unix seconds.

    Raises:
        SendFailed: it is not, or the service cannot be reached.
    """
    match kind:
        case "TELEGRAM":
            await telegram.check(http, config)
        case "DISCORD":
            await discord.check(http, config)
        case "NTFY":
            await ntfy.check(http, config)
        case "WEBHOOK":
            await webhook.check(http, config, now)

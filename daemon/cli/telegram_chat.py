"""Which chat a Telegram bot is to write to: the one that the owner writes to the bot from."""

import asyncio
import sys
from typing import Any

import msgspec
import rich_click as click

from daemon.cli.failure import FAILED, USAGE, Failure
from daemon.cli.output import note, one_line
from daemon.domain.channels import read_config

_WAIT = 50
"""Seconds that a message is waited for; Telegram holds a poll no longer."""
_BY_HAND = "or give its number: --chat-id"


class _Chat(msgspec.Struct, frozen=True):
    id: int
    title: str = ""
    first_name: str = ""
    username: str = ""

    def __str__(self) -> str:
        return f"{one_line(self.title or self.first_name or self.username)} ({self.id})"


class _Message(msgspec.Struct):
    chat: _Chat


class _Update(msgspec.Struct):
    message: _Message | None = None


class _Said(msgspec.Struct):
    result: list[_Update] = []
    description: str = ""


def find_chat(config: dict[str, Any]) -> str:
    """Return the number of the only chat that somebody wrote to the bot from, if the owner says that it is his.

    Nothing is confirmed to Telegram: whoever polls the bot later sees the message too.

    Args:
        config: of the channel, without `chatId`.

    Raises:
        Failure: 1, where nobody wrote or the Bot API refuses; 2, where somebody has to choose.
    """
    _, problems = read_config("TELEGRAM", {**config, "chatId": "0"})
    if problems:
        raise Failure("; ".join(f"{path}: {message}" for path, message in problems), USAGE)
    note(f"write a message to the bot now, from the chat it shall write to; waiting {_WAIT} s for it")
    chats = asyncio.run(_heard(config.get("apiUrl", "https://api.telegram.org"), config["botToken"]))
    if not chats:
        raise Failure("Nobody wrote to the bot", FAILED, hint=f"run the command again and write, {_BY_HAND}")
    seen = ", ".join(map(str, chats))
    if len(chats) > 1 or not sys.stdin.isatty():
        raise Failure(f"The bot was written to from {seen}", USAGE, hint="name the chat that is yours: --chat-id")
    # A stranger may have found the bot first, and whoever has the messages has their buttons.
    click.confirm(f"The bot was written to from {seen}. Is this your chat?", abort=True, err=True)
    return str(chats[0].id)


async def _heard(api_url: str, token: str) -> list[_Chat]:
    """Return the chats of the messages to a bot; waits for one if there is none."""
    # Imported here: httpx takes 120 ms, longer than most commands run.
    from daemon.notify.client import Http  # noqa: PLC0415
    from daemon.notify.failure import SendFailed, refusal  # noqa: PLC0415

    http = Http()
    asked = {"timeout": _WAIT, "allowed_updates": ["message"]}
    try:
        answer = await http.request("POST", f"{api_url.rstrip('/')}/bot{token}/getUpdates", json=asked, wait=_WAIT)
        if answer.status == 409:
            hint = f"disable the channel that has the bot already (daemon channel disable), {_BY_HAND}"
            raise Failure("Another program hears what is written to the bot", FAILED, hint=hint)
        said = msgspec.convert(answer.json(), _Said)
        if not answer.good:
            raise refusal(answer.status, answer.headers, http.wall(), said=said.description, secrets=(token,))
    except SendFailed as failure:
        hint = "correct the bot token, or --api-url" if failure.permanent else "try again when it can be reached"
        raise Failure(f"The chat cannot be looked for: {failure.reason}", FAILED, hint=hint) from None
    except msgspec.ValidationError:
        raise Failure("What answers there is no Bot API", FAILED, hint="correct --api-url") from None
    finally:
        await http.close()
    return list(dict.fromkeys(update.message.chat for update in said.result if update.message))

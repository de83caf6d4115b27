"""Telegram: messages with buttons through the Bot API (https://core.telegram.org/bots/api), and who pressed them."""

from collections.abc import Sequence
from typing import Any

import msgspec

from daemon.domain.channels import TelegramConfig
from daemon.domain.notifications import Notice, Press
from daemon.notify.catalogue import REJECT_PAGE, REJECT_URL, Locale
from daemon.notify.client import Http
from daemon.notify.cutting import cut, utf16
from daemon.notify.failure import SendFailed, refusal
from daemon.notify.links import is_public
from daemon.notify.templates import Rendered, button_label, render
from daemon.notify.text import markdown_v2

LONGEST = 4096
"""UTF-16 code units of a message after its entities are parsed."""
_DECISION = 200
"""Of these, what is kept free for the decision that `tell` adds; also the most that an answered press shows."""
_NOT_FAILED = ("message is not modified", "query is too old")
"""What was to be told is there already, or nobody waits for it any more."""


class Pressed(msgspec.Struct, frozen=True):
    """The `reference` of a press: where its outcome is to be shown.

    Args:
        callback_id: of the query that waits for an answer.
        chat_id, message_id: of the message with the button; None when Telegram no longer shows it.
        text: of the message, without its formatting; empty when Telegram does not tell it.
    """

    callback_id: str
    chat_id: int | None = None
    message_id: int | None = None
    text: str = ""


class _User(msgspec.Struct):
    id: int


class _Chat(msgspec.Struct):
    id: int
    type: str = ""
    username: str = ""


class _Message(msgspec.Struct):
    message_id: int
    chat: _Chat
    text: str = ""


class _Query(msgspec.Struct):
    id: str
    from_: _User = msgspec.field(name="from")
    message: _Message | None = None
    data: str = ""


class _Update(msgspec.Struct):
    update_id: int
    callback_query: _Query | None = None


async def send(http: Http, config: TelegramConfig, notice: Notice, locale: Locale) -> str:
    """Send a message and return its number.

    Raises:
        SendFailed: the Bot API did not take it.
    """
    sent = await _call(http, config, "sendMessage", message(config, notice, locale))
    return str(sent.get("message_id", "")) if isinstance(sent, dict) else ""


def message(config: TelegramConfig, notice: Notice, locale: Locale) -> dict[str, Any]:
    """Return the body of `sendMessage`, with room in its text for a decision to be added."""
    rendered = render(notice, locale)
    url, keyboard = notice.reject_url, _keyboard(notice, locale)
    if url and is_public(url):
        keyboard.append([{"text": REJECT_PAGE.in_(locale), "url": url}])
    elif url:  # a button with such a URL would make Telegram refuse the message
        rendered.lines.append((REJECT_URL.in_(locale), url))
    body: dict[str, Any] = {
        "chat_id": config.chat_id,
        "text": _text(rendered),
        "parse_mode": "MarkdownV2",
        "link_preview_options": {"is_disabled": True},
    }
    if keyboard:
        body["reply_markup"] = {"inline_keyboard": keyboard}
    return body


async def check(http: Http, config: TelegramConfig) -> None:
    """Ask who the bot is.

    Raises:
        SendFailed: there is no such bot, or no Bot API.
    """
    await _call(http, config, "getMe", {})


async def updates(http: Http, config: TelegramConfig, offset: int, seconds: int) -> tuple[list[object], int]:
    """Wait for updates of the bot; return them and the offset that confirms them at the next call.

    Args:
        http, config: whom to ask; every chat of the bot is answered alike.
        offset: the first update that is wanted; 0 for all that are not confirmed.
        seconds: to wait if there is none.

    Raises:
        SendFailed: the Bot API did not answer.
    """
    body = {"offset": offset, "timeout": seconds, "allowed_updates": ["callback_query"]}
    found = await _call(http, config, "getUpdates", body, wait=seconds)
    if not isinstance(found, list):
        raise SendFailed("not an answer of the Bot API")
    for raw in found:
        number = raw.get("update_id") if isinstance(raw, dict) else None
        if isinstance(number, int):
            offset = max(offset, number + 1)
    return found, offset


def press_of(configs: Sequence[TelegramConfig], update: object) -> tuple[list[int], Press] | None:
    """Return the press in an update and the numbers of the channels it may belong to; None if it is none.

    Args:
        configs: of the bot's channels; a press in no chat of theirs is the first one's, and not allowed.
        update: as `updates` returned it.
    """
    presses = [press for config in configs if (press := _press(config, update)) is not None]
    if not presses:
        return None
    numbers = [number for number, press in enumerate(presses) if press.allowed] or [0]
    return numbers, presses[numbers[0]]


async def tell(http: Http, config: TelegramConfig, press: Press, outcome: str, *, edit: bool) -> None:
    """Show the outcome of a press to the presser and, on demand, to all in the message, which loses its buttons.

    Args:
        http, config: whom to tell.
        press: as `press_of` returned it.
        outcome: one line.
        edit: whether the message changes.

    Raises:
        SendFailed: the Bot API did not take it.
    """
    pressed = msgspec.convert(press.reference, Pressed)
    shown = cut(outcome, _DECISION, utf16)
    try:
        await _call(http, config, "answerCallbackQuery", {"callback_query_id": pressed.callback_id, "text": shown})
    finally:  # the message tells it, whether the presser was told or not
        if edit and pressed.message_id is not None and pressed.text:
            await _edit(http, config, pressed, shown)


async def _edit(http: Http, config: TelegramConfig, pressed: Pressed, shown: str) -> None:
    body: dict[str, Any] = {
        "chat_id": pressed.chat_id,
        "message_id": pressed.message_id,
        "text": decided(pressed.text, shown),
        "parse_mode": "MarkdownV2",
        "link_preview_options": {"is_disabled": True},
        "reply_markup": {"inline_keyboard": []},
    }
    await _call(http, config, "editMessageText", body)


def _text(rendered: Rendered) -> str:
    head = f"{rendered.emoji} {rendered.title}\n"
    text = rendered.fitted(LONGEST - _DECISION - utf16(head), utf16).text(markdown_v2)
    return f"{rendered.emoji} *{markdown_v2(rendered.title)}*\n{text}".rstrip("\n")


def decided(text: str, outcome: str) -> str:
    """Return a sent message with the decision added; Telegram tells its text without escapes and formatting."""
    text = cut(text, LONGEST - utf16(outcome) - 2, utf16)
    head, _, rest = text.partition("\n")
    emoji, _, title = head.partition(" ")
    body = f"\n{markdown_v2(rest)}" if rest else ""
    return f"{markdown_v2(emoji)} *{markdown_v2(title)}*{body}\n\n{markdown_v2(outcome)}"


def _keyboard(notice: Notice, locale: Locale) -> list[list[dict[str, str]]]:
    """Return the buttons in rows of two; what is pressed comes back as the token alone (1 to 64 bytes)."""
    buttons = [{"text": button_label(one.action, locale), "callback_data": one.token} for one in notice.buttons]
    return [buttons[start : start + 2] for start in range(0, len(buttons), 2)]


def _press(config: TelegramConfig, raw: object) -> Press | None:
    """Return the press in an update; None if it is none, or none of ours."""
    try:
        query = msgspec.convert(raw, _Update).callback_query
    except msgspec.ValidationError:
        return None
    if query is None:
        return None
    message = query.message
    where = Pressed(query.id)
    if message is not None:
        where = Pressed(query.id, message.chat.id, message.message_id, message.text)
    allowed = message is not None and _is_allowed(config, message.chat, query.from_.id)
    return Press(token=query.data, allowed=allowed, who=str(query.from_.id), reference=where)


def _is_allowed(config: TelegramConfig, chat: _Chat, presser: int) -> bool:
    """Return whether a press counts: in our chat alone, by its only person or, in a group, by one who is named."""
    if config.chat_id.lower() not in {str(chat.id), f"@{chat.username.lower()}"}:
        return False
    return presser == chat.id or presser in config.allowed_user_ids


async def _call(http: Http, config: TelegramConfig, method: str, body: dict[str, Any], *, wait: float = 0) -> Any:
    """Return the `result` of a method of the Bot API."""
    url = f"{config.api_url.rstrip('/')}/bot{config.bot_token}/{method}"
    answer = await http.request("POST", url, json=body, wait=wait)
    said = answer.json()
    if not isinstance(said, dict) or not isinstance(said.get("ok"), bool):
        if answer.good:
            raise SendFailed("not an answer of the Bot API")
        said = {}
    if answer.good and said.get("ok"):
        return said.get("result")
    description = said.get("description")
    if isinstance(description, str) and any(text in description for text in _NOT_FAILED):
        return None
    given = said.get("parameters")
    waits = [given.get("retry_after")] if isinstance(given, dict) else []
    secrets = (config.bot_token, config.bot_token.partition(":")[2])
    raise refusal(answer.status, answer.headers, http.wall(), said=description, waits=waits, secrets=secrets)

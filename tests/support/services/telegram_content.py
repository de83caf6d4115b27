"""What a Telegram message may say: its text, its entities, its keyboard, and the Bot API's words of refusal."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.services.markdown_v2 import Entity, Parsed, ParseError, is_web_url, parse, utf16_length

MAX_TEXT = 4096  # UTF-16 code units after entities are parsed: https://core.telegram.org/bots/api#sendmessage
MAX_BUTTONS = 100


class RefusalError(Exception):
    """The Bot API answers with an error."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(description)
        self.code = code


@dataclass(frozen=True)
class Content:
    """What a message says: the text as sent, as parsed, and its keyboard."""

    text: str
    plain: str
    entities: list[Entity]
    reply_markup: dict[str, Any] | None

    def buttons(self) -> list[dict[str, Any]]:
        """Return all buttons, row by row."""
        return [button for row in (self.reply_markup or {}).get("inline_keyboard", []) for button in row]


def read_content(params: Mapping[str, Any]) -> Content:
    """Return what `sendMessage` or `editMessageText` is to show.

    Raises:
        RefusalError: 400; the text or the keyboard is not acceptable.
    """
    text = params.get("text")
    if not isinstance(text, str) or not text.strip():
        raise RefusalError(400, "Bad Request: message text is empty")
    markup = _markup(params.get("reply_markup"))
    parsed = _parsed(text, str(params.get("parse_mode") or ""))
    if not parsed.plain.strip():
        raise RefusalError(400, "Bad Request: message text is empty")
    if utf16_length(parsed.plain) > MAX_TEXT:
        raise RefusalError(400, "Bad Request: message is too long")
    return Content(text, parsed.plain, parsed.entities, markup)


def _parsed(text: str, mode: str) -> Parsed:
    if mode.lower() not in ("", "markdownv2"):
        raise RefusalError(400, "Bad Request: unsupported parse_mode")
    if not mode:
        return Parsed(text, [])
    try:
        return parse(text)
    except ParseError as error:
        raise RefusalError(400, f"Bad Request: can't parse entities: {error}") from None


def _markup(given: Any) -> dict[str, Any] | None:
    """Return the keyboard; https://core.telegram.org/bots/api#inlinekeyboardbutton."""
    if given in (None, ""):
        return None
    markup = json.loads(given) if isinstance(given, str) else given
    rows = markup.get("inline_keyboard") if isinstance(markup, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise RefusalError(400, "Bad Request: object expected as reply markup")
    buttons = [button for row in rows for button in row]
    for button in buttons:
        _check_button(button)
    if len(buttons) > MAX_BUTTONS:
        raise RefusalError(400, "Bad Request: REPLY_MARKUP_TOO_LONG")
    return {"inline_keyboard": rows} if buttons else None


def _check_button(button: Any) -> None:
    wrong = "Bad Request: can't parse inline keyboard button: "
    if not isinstance(button, dict) or not isinstance(button.get("text"), str) or not button["text"].strip():
        raise RefusalError(400, f'{wrong}Field "text" must be of type String')
    if ("callback_data" in button) == ("url" in button):
        raise RefusalError(400, f"{wrong}Text buttons are unallowed in the inline keyboard")
    if "callback_data" in button and not 1 <= len(str(button["callback_data"]).encode()) <= 64:
        raise RefusalError(400, "Bad Request: BUTTON_DATA_INVALID")
    if "url" in button and not is_web_url(str(button["url"])):
        raise RefusalError(400, f"Bad Request: inline keyboard button URL '{button['url']}' is invalid: Wrong HTTP URL")


def entity_result(entity: Entity) -> dict[str, Any]:
    """Return a `MessageEntity`."""
    made: dict[str, Any] = {"type": entity.kind, "offset": entity.offset_utf16, "length": entity.length_utf16}
    return made | ({"url": entity.url} if entity.kind == "text_link" else {})

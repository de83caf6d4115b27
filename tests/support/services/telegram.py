"""Telegram's Bot API, as far as a bot needs it that sends, edits and hears of pressed buttons."""

import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl

from tests.support.services.base import ClosedError, FakeService, Received, Reply, TooMany, json_reply
from tests.support.services.markdown_v2 import utf16_length
from tests.support.services.telegram_content import Content, RefusalError, entity_result, read_content

MAX_POLL = 50.0  # seconds
BOT = {"id": 123456, "is_bot": True, "first_name": "Session daemon", "username": "session_daemon_bot"}
UNASKED = {"chat_member", "message_reaction", "message_reaction_count"}  # kinds that must be asked for by name

Params = dict[str, Any]


@dataclass
class Message:
    """A message in a chat.

    Args:
        sent: what it said first.
        edits: what it said after each edit.
        date: Unix seconds.
    """

    message_id: int
    chat_id: int
    sent: Content
    date: int
    edits: list[Content] = field(default_factory=list)

    @property
    def shown(self) -> Content:
        """What it says now."""
        return self.edits[-1] if self.edits else self.sent


class FakeTelegram(FakeService):
    """The Bot API for one bot and one chat.

    Args:
        token: the bot's.
        chat_id: the chat that the bot is in; a group's is negative.

    Attributes:
        messages: by their id.
        answers: what `answerCallbackQuery` was called with, by callback query id.
        updates: those that the bot did not acknowledge yet.
    """

    def __init__(self, token: str = "123456:TEST-token", chat_id: int = 424_242) -> None:
        super().__init__()
        self.token = token
        self.chat_id = chat_id
        self.messages: dict[int, Message] = {}
        self.answers: dict[str, Params] = {}
        self.updates: list[dict[str, Any]] = []
        self._asked: set[str] | None = None
        self._pressed: set[str] = set()
        self._ids = {"message": 0, "update": 870_000_000, "query": 4_382_000_000_000_000_000, "poll": 0}

    def press(self, message_id: int, button: str | int, from_id: int | None = None, chat_id: int | None = None) -> str:
        """Press a button of a message, by its text or its place, and return the callback query's id.

        A button that an edit took away can still be pressed, on a phone that has not heard of the edit.

        Args:
            from_id: who presses; the chat's own id if none is given.
            chat_id: the chat that the update names; the message's if none is given.
        Raises:
            LookupError: the message never had that button, or it only opens a URL.
        """
        with self.changed:
            message = self.messages[message_id]
            pressed = _find_button(message, button)
            query_id = str(self._next("query"))
            self._pressed.add(query_id)
            chat = message.chat_id if chat_id is None else chat_id
            query = {
                "id": query_id,
                "from": _user(abs(chat) if from_id is None else from_id),
                "message": {
                    **self._as_result(message),
                    "chat": _chat(chat),
                },
                "chat_instance": "-3141592653589793238",
                "data": pressed["callback_data"],
            }
            self._queue("callback_query", query)
            return query_id

    def say(self, text: str, from_id: int | None = None) -> None:
        """Write to the bot in the chat."""
        with self.changed:
            sender = _user(abs(self.chat_id) if from_id is None else from_id)
            ids = {"message_id": self._next("message"), "date": int(time.time())}
            self._queue("message", {**ids, "from": sender, "chat": _chat(self.chat_id), "text": text})

    def forget_press(self, query_id: str) -> None:
        """Let a callback query become too old to be answered."""
        with self.changed:
            self._pressed.discard(query_id)

    def sends(self, request: Received) -> bool:
        """Return whether a request sends or edits a message."""
        return request.path.lower().endswith(("/sendmessage", "/editmessagetext"))

    def too_many(self, fault: TooMany) -> Reply:
        """Return 429 with `parameters.retry_after`, the header `Retry-After`, or both."""
        seconds = math.ceil(fault.seconds)
        told: dict[str, Any] = {"description": "Too Many Requests"}
        if fault.where != "header":
            told = {
                "description": f"Too Many Requests: retry after {seconds}",
                "parameters": {"retry_after": seconds},
            }
        headers = {} if fault.where == "body" else {"Retry-After": str(seconds)}
        return json_reply(429, {"ok": False, "error_code": 429, **told}, headers)

    def answer(self, request: Received) -> Reply:
        """Call a method; https://core.telegram.org/bots/api#making-requests."""
        try:
            return json_reply(200, {"ok": True, "result": self._method(request.path)(_params(request))})
        except RefusalError as refusal:
            said = {"ok": False, "error_code": refusal.code, "description": str(refusal)}
            return json_reply(refusal.code, said)

    def _method(self, path: str) -> Callable[[Params], Any]:
        found = re.fullmatch(r"/bot([^/]+)/(\w+)", path)
        if not found:
            raise RefusalError(404, "Not Found")
        if found[1] != self.token:
            raise RefusalError(401, "Unauthorized")
        methods: dict[str, Callable[[Params], Any]] = {
            "getme": lambda _: BOT | {"can_join_groups": True, "supports_inline_queries": False},
            "sendmessage": self._send,
            "editmessagetext": self._edit,
            "getupdates": self._get_updates,
            "answercallbackquery": self._answer_query,
        }
        if found[2].lower() not in methods:
            raise RefusalError(404, "Not Found")
        return methods[found[2].lower()]

    def _send(self, params: Params) -> dict[str, Any]:
        content = read_content(params)
        self._check_chat(params)
        with self.changed:
            message = Message(self._next("message"), self.chat_id, content, int(time.time()))
            self.messages[message.message_id] = message
            self.changed.notify_all()
            return self._as_result(message)

    def _edit(self, params: Params) -> dict[str, Any]:
        content = read_content(params)
        self._check_chat(params)
        with self.changed:
            message = self.messages.get(_integer(params, "message_id", 0))
            if message is None:
                raise RefusalError(400, "Bad Request: message to edit not found")
            shown = message.shown
            if content == replace(shown, text=content.text):
                raise RefusalError(
                    400,
                    "Bad Request: message is not modified: specified new message content and reply markup are exactly "
                    "the same as a current content and reply markup of the message",
                )
            message.edits.append(content)
            self.changed.notify_all()
            return self._as_result(message)

    def _check_chat(self, params: Params) -> None:
        if params.get("chat_id") in (None, ""):
            raise RefusalError(400, "Bad Request: chat_id is empty")
        if str(params["chat_id"]) != str(self.chat_id):
            raise RefusalError(400, "Bad Request: chat not found")

    def _answer_query(self, params: Params) -> bool:
        with self.changed:
            query_id = str(params.get("callback_query_id", ""))
            if query_id not in self._pressed:
                raise RefusalError(
                    400, "Bad Request: query is too old and response timeout expired or query ID is invalid"
                )
            if utf16_length(str(params.get("text", ""))) > 200:
                raise RefusalError(400, "Bad Request: MESSAGE_TOO_LONG")
            self.answers[query_id] = params
            self.changed.notify_all()
            return True

    def _get_updates(self, params: Params) -> list[dict[str, Any]]:
        """Wait for updates; https://core.telegram.org/bots/api#getupdates."""
        offset, limit = _integer(params, "offset", 0), _integer(params, "limit", 100)
        seconds = min(float(_integer(params, "timeout", 0)), MAX_POLL)
        with self.changed:
            mine = self._next("poll")
            self.changed.notify_all()  # ends an older poll
            if "allowed_updates" in params:
                asked = params["allowed_updates"]
                self._asked = set(json.loads(asked) if isinstance(asked, str) else asked) or None
            self._acknowledge(offset)
            self.changed.wait_for(lambda: self._ended(mine) or bool(self.updates), seconds)
            if self.closing.is_set():
                raise ClosedError
            if self._ended(mine):
                raise RefusalError(
                    409,
                    "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running",
                )
            return self.updates[: max(1, min(limit, 100))]

    def _ended(self, poll: int) -> bool:
        return self.closing.is_set() or self._ids["poll"] != poll

    def _acknowledge(self, offset: int) -> None:
        """Forget what is before the offset; a negative one counts from the end."""
        if offset < 0:
            self.updates = self.updates[offset:]
        else:
            self.updates = [update for update in self.updates if update["update_id"] >= offset]

    def _queue(self, kind: str, value: dict[str, Any]) -> None:
        if kind in self._asked if self._asked is not None else kind not in UNASKED:
            self.updates.append({"update_id": self._next("update"), kind: value})
            self.changed.notify_all()

    def _next(self, kind: str) -> int:
        self._ids[kind] += 1
        return self._ids[kind]

    def _as_result(self, message: Message) -> dict[str, Any]:
        shown = message.shown
        result = {"message_id": message.message_id, "from": BOT, "chat": _chat(message.chat_id), "date": message.date}
        if message.edits:
            result["edit_date"] = int(time.time())
        result["text"] = shown.plain
        if shown.entities:
            result["entities"] = [entity_result(entity) for entity in shown.entities]
        if shown.reply_markup:
            result["reply_markup"] = shown.reply_markup
        return result


def _params(request: Received) -> Params:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        try:
            body = request.json()
        except ValueError:
            raise RefusalError(400, "Bad Request: can't parse JSON object") from None
        return {**request.query, **body}
    return {**request.query, **dict(parse_qsl(request.body.decode(), keep_blank_values=True))}


def _integer(params: Params, name: str, otherwise: int) -> int:
    try:
        return int(params.get(name, otherwise))
    except (TypeError, ValueError):
        return otherwise


def _find_button(message: Message, button: str | int) -> dict[str, Any]:
    for content in reversed([message.sent, *message.edits]):
        for place, one in enumerate(content.buttons()):
            if button in (place, one["text"]) and "callback_data" in one:
                return one
    raise LookupError(f"message {message.message_id} has no button {button!r}")


def _user(user_id: int) -> dict[str, Any]:
    return {"id": user_id, "is_bot": False, "first_name": "Owner", "language_code": "ko"}


def _chat(chat_id: int) -> dict[str, Any]:
    if chat_id > 0:
        return {"id": chat_id, "first_name": "Owner", "type": "private"}
    return {"id": chat_id, "title": "Owners", "type": "supergroup" if chat_id < -(10**12) else "group"}

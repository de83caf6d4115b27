"""ntfy: messages to a topic, and the presses that their buttons publish to another (https://docs.ntfy.sh).

The owner's token is sent only with our own requests. A button is a request that the reader's phone makes: whatever it
held could be read by everybody who reads the topic. So it holds a single-use token and no credential, and on a server
with access control everyone must be allowed to write to the reply topic.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from daemon.domain.channels import NtfyConfig
from daemon.domain.levels import Level
from daemon.domain.notifications import Action, Notice, Press
from daemon.notify.catalogue import Locale
from daemon.notify.client import Answer, Http
from daemon.notify.cutting import cut, utf8
from daemon.notify.failure import SendFailed, refusal
from daemon.notify.links import without_userinfo
from daemon.notify.templates import button_label, render

LONGEST = 4096
"""Bytes of a message; a longer one would become an attachment."""
_LONGEST_JSON = 2 * LONGEST
"""Bytes of the JSON that publishes it; a text full of quotation marks is twice as long there."""
LONGEST_TITLE = 250
"""Bytes of a title."""
SILENCE = 75.0
"""Seconds without a byte after which a subscription is dead: the server sends something every 45."""
_PRIORITY: dict[Level, int] = {"INFO": 3, "WARNING": 4, "CRITICAL": 5}
_LOW = 2
_BUTTONS: tuple[Action, ...] = ("reject", "suspend_agent", "kill_switch")
"""A message has at most three; that nothing is pressed keeps the session too."""
_LONGEST_TOKEN = 64


class _Line(msgspec.Struct):
    event: str
    id: str = ""
    message: str = ""


_read_line = msgspec.json.Decoder(_Line).decode


async def send(http: Http, config: NtfyConfig, notice: Notice, locale: Locale) -> str:
    """Publish a message and return its id.

    Raises:
        SendFailed: the server did not take it.
    """
    return await _publish(http, config, message(config, notice, locale))


def message(config: NtfyConfig, notice: Notice, locale: Locale) -> dict[str, Any]:
    """Return the JSON that publishes a message."""
    rendered = render(notice, locale)
    body: dict[str, Any] = {
        "topic": config.topic,
        "title": cut(rendered.title, LONGEST_TITLE, utf8),
        "message": "",
        "priority": _PRIORITY[notice.level],
        "tags": [rendered.tag],
    }
    if notice.reject_url:
        body["click"] = notice.reject_url
    actions = _actions(config, notice, locale)
    if actions:
        body["actions"] = actions
    room = _LONGEST_JSON - len(msgspec.json.encode(body))
    body["message"] = rendered.fitted(LONGEST, utf8).fitted(room, _quoted).text() or rendered.title
    return body


async def check(http: Http, config: NtfyConfig) -> None:
    """Ask the server whether it is well.

    Raises:
        SendFailed: it is not, or is no ntfy.
    """
    answer = await http.request("GET", f"{_server(config)}/v1/health", headers=_headers(config))
    said = _object(http, config, answer)
    if said.get("healthy") is not True:
        raise SendFailed("the server says that it is not healthy" if "healthy" in said else "not an answer of ntfy")


async def presses(http: Http, config: NtfyConfig, since: str) -> AsyncGenerator[tuple[str, Press], None]:
    """Yield what the buttons publish as (id, press), until the connection ends; close it with `aclosing`.

    Every press is allowed: whoever knows topic and token was sent the message.

    Args:
        http, config: whom to ask; its `reply_topic` is set.
        since: the id after which to begin, Unix seconds, or `all`.

    Raises:
        SendFailed: the server cannot be reached or does not let us read.
    """
    url = f"{_server(config)}/{config.reply_topic}/json?since={since}"
    async with aclosing(http.lines(url, headers=_headers(config), silence=SILENCE)) as lines:
        async for line in lines:
            if isinstance(line, Answer):
                _object(http, config, line)
                raise SendFailed("not an answer of ntfy")
            found = _message(line)
            if found is not None:
                yield found.id, Press(token=found.message, allowed=True, who="ntfy", reference=found.id)


async def tell(http: Http, config: NtfyConfig, press: Press, text: str) -> None:
    """Publish the outcome of a press quietly: ntfy can neither answer a button nor change a message.

    Args:
        http, config: whom to tell.
        press: not needed here, but every kind of channel that has buttons is told alike.
        text: one line.

    Raises:
        SendFailed: the server did not take it.
    """
    await _publish(http, config, {"topic": config.topic, "message": cut(text, LONGEST, utf8), "priority": _LOW})


def _quoted(text: str) -> int:
    """Return the bytes of a text within JSON."""
    return len(msgspec.json.encode(text)) - 2


def _actions(config: NtfyConfig, notice: Notice, locale: Locale) -> list[dict[str, Any]]:
    if config.reply_topic is None:
        return []
    url = f"{without_userinfo(_server(config))}/{config.reply_topic}"
    return [
        {
            "action": "http",
            "label": button_label(button.action, locale),
            "url": url,
            "method": "POST",
            "body": button.token,
            "clear": True,
        }
        for action in _BUTTONS
        for button in notice.buttons
        if button.action == action
    ]


async def _publish(http: Http, config: NtfyConfig, body: dict[str, Any]) -> str:
    """Publish as JSON, which is done at the server's root, and return the message's id."""
    answer = await http.request("POST", f"{_server(config)}/", json=body, headers=_headers(config))
    said = _object(http, config, answer)
    if not isinstance(said.get("id"), str):
        raise SendFailed("not an answer of ntfy")
    return str(said["id"])


def _object(http: Http, config: NtfyConfig, answer: Answer) -> dict[str, Any]:
    """Return the JSON object that a good answer holds; one that is none is empty."""
    said = answer.json()
    said = said if isinstance(said, dict) else {}
    if answer.good:
        return said
    secrets = (config.topic, config.reply_topic, config.auth_token)
    raise refusal(answer.status, answer.headers, http.wall(), said=said.get("error"), secrets=secrets)


def _message(line: bytes) -> _Line | None:
    """Return a published message; None for keepalives, what is no line of ntfy, and what can be no token."""
    try:
        found = _read_line(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return found if found.event == "message" and found.id and 0 < len(found.message) <= _LONGEST_TOKEN else None


def _server(config: NtfyConfig) -> str:
    return config.server_url.rstrip("/")


def _headers(config: NtfyConfig) -> dict[str, str]:
    return {"Authorization": f"Bearer {config.auth_token}"} if config.auth_token else {}

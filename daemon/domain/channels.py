"""Notification channels: where the owner is told, and what each kind of service needs to be reached."""

import base64
import re
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import msgspec

ChannelType = Literal["TELEGRAM", "DISCORD", "NTFY", "WEBHOOK"]

MASK = "***"
"""What stands for a credential in every answer."""

_BOT_TOKEN = re.compile(r"[0-9]{1,20}:[A-Za-z0-9_-]{4,100}")
_CHAT = re.compile(r"-?[0-9]{1,20}|@[A-Za-z0-9_]{4,40}")
_TOPIC = re.compile(r"[-_A-Za-z0-9]{1,64}")
_LONGEST_URL = 2000
_LONGEST_TOKEN = 500

Problems = list[tuple[str, str]]


class ChannelConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Base of what a channel needs; a repr shows no value, since some are credentials."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    def problems(self) -> Problems:
        """Return what the types cannot say: problems as (field, message)."""
        return []


class TelegramConfig(ChannelConfig, frozen=True, kw_only=True):
    """A bot and the chat it writes to.

    Args:
        bot_token: of @BotFather.
        chat_id: a user's or group's number; presses of buttons come from there.
        allowed_user_ids: whose presses count in a group.
        api_url: of a self-hosted Bot API server.
    """

    bot_token: str
    chat_id: str
    allowed_user_ids: tuple[int, ...] = ()
    api_url: str = "https://api.telegram.org"

    def problems(self) -> Problems:
        """Return what is wrong with token, chat and URL."""
        found = _base_problems("apiUrl", self.api_url)
        if not _BOT_TOKEN.fullmatch(self.bot_token):
            found.append(("botToken", "must be a bot token such as 123456:ABC-DEF"))
        if not _CHAT.fullmatch(self.chat_id):
            found.append(("chatId", "must be a chat's number such as -1001234567890, or @channel"))
        return found


class DiscordConfig(ChannelConfig, frozen=True, kw_only=True):
    """A channel's webhook.

    Args:
        webhook_url: of the channel's settings; whoever knows it can write there.
    """

    webhook_url: str

    def problems(self) -> Problems:
        """Return what is wrong with the URL."""
        return _url_problems("webhookUrl", self.webhook_url)


class NtfyConfig(ChannelConfig, frozen=True, kw_only=True):
    """A topic of an ntfy server.

    Args:
        server_url: of the server.
        topic: whoever knows it can read it, unless the server protects it.
        auth_token: of the server's user.
        reply_topic: where the buttons of a message publish; without one messages have no buttons.
    """

    server_url: str = "https://ntfy.sh"
    topic: str
    auth_token: str | None = None
    reply_topic: str | None = None

    def problems(self) -> Problems:
        """Return what is wrong with URL, topics and token."""
        found = _base_problems("serverUrl", self.server_url)
        if not _TOPIC.fullmatch(self.topic):
            found.append(("topic", "must be 1 to 64 of A-Z a-z 0-9 _ -"))
        if self.reply_topic is not None and not _TOPIC.fullmatch(self.reply_topic):
            found.append(("replyTopic", "must be 1 to 64 of A-Z a-z 0-9 _ -"))
        if self.reply_topic == self.topic:
            found.append(("replyTopic", "must be another topic than `topic`, and a private one"))
        if self.auth_token is not None and not _is_header_text(self.auth_token):
            found.append(("authToken", f"must be 1 to {_LONGEST_TOKEN} printable ASCII characters without blanks"))
        return found


class WebhookConfig(ChannelConfig, frozen=True, kw_only=True):
    """An HTTP endpoint of the owner's.

    Args:
        url: gets a POST for each message.
        secret: signs it (Standard Webhooks): `whsec_` and Base64 of 24 to 64 bytes.
    """

    url: str
    secret: str

    def problems(self) -> Problems:
        """Return what is wrong with URL and secret."""
        found = _url_problems("url", self.url)
        if not _is_webhook_secret(self.secret):
            found.append(("secret", "must be whsec_ and the Base64 of 24 to 64 random bytes (Standard Webhooks)"))
        return found


CONFIGS: dict[ChannelType, type[ChannelConfig]] = {
    "TELEGRAM": TelegramConfig,
    "DISCORD": DiscordConfig,
    "NTFY": NtfyConfig,
    "WEBHOOK": WebhookConfig,
}

_SECRET: dict[ChannelType, frozenset[str]] = {
    "TELEGRAM": frozenset({"botToken"}),
    "DISCORD": frozenset({"webhookUrl"}),
    "NTFY": frozenset({"topic", "authToken", "replyTopic"}),
    "WEBHOOK": frozenset({"secret"}),
}


def read_config(kind: ChannelType, given: dict[str, Any]) -> tuple[ChannelConfig | None, Problems]:
    """Return a channel's configuration, or every problem of it as (dotted path, message).

    Args:
        kind: of the channel.
        given: what the owner sent; a chat's number may be a number.
    """
    model = CONFIGS[kind]
    fields = {field.encode_name: field for field in msgspec.structs.fields(model)}
    found = [(f"config.{name}", "is not a known field") for name in given if name not in fields]
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in given:
            if field.required:
                found.append((f"config.{name}", "is required"))
            continue
        value = given[name]
        if name == "chatId" and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        try:
            values[field.name] = msgspec.convert(value, field.type)
        except msgspec.ValidationError as problem:
            text = str(problem).partition(" - at `")[0]
            found.append((f"config.{name}", text[:1].lower() + text[1:]))
    if found:
        return None, found
    made = model(**values)
    return made, [(f"config.{name}", message) for name, message in made.problems()]


def masked(kind: ChannelType, config: ChannelConfig) -> dict[str, Any]:
    """Return a configuration as the API shows it: every field, credentials as `***`, also those within URLs."""
    shown: dict[str, Any] = msgspec.to_builtins(config)
    for name, value in shown.items():
        if value is not None and name in _SECRET[kind]:
            shown[name] = MASK
        elif isinstance(value, str) and name.endswith(("rl", "Url")):
            shown[name] = _shown_url(value)
    return shown


def unmasked(kind: ChannelType, given: dict[str, Any], old: ChannelConfig | None) -> dict[str, Any]:
    """Return what the owner sent with what is shown replaced by what is stored: a shown channel can be sent back."""
    if old is None:
        return given
    known, shown = msgspec.to_builtins(old), masked(kind, old)
    return {name: known[name] if name in known and value == shown[name] else value for name, value in given.items()}


def _shown_url(url: str) -> str:
    """Return a URL with userinfo and query masked, where people put credentials."""
    parts = urlsplit(url)
    _, userinfo, host = parts.netloc.rpartition("@")
    who, query = f"{MASK}@" if userinfo else "", f"?{MASK}" if parts.query else ""
    return f"{parts.scheme}://{who}{host}{parts.path}{query}"


def _url_problems(name: str, url: str) -> Problems:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and not parts.fragment
    except ValueError:
        good = False
    good = good and len(url) <= _LONGEST_URL and url.isascii() and url.isprintable()
    good = good and " " not in url and MASK not in url
    return [] if good else [(name, "must be an http:// or https:// URL")]


def _base_problems(name: str, url: str) -> Problems:
    """Return what is wrong with a URL that paths are added to."""
    found = _url_problems(name, url)
    return [(name, "must be a URL without `?`")] if not found and "?" in url else found


def _is_webhook_secret(text: str) -> bool:
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        return False
    return text.startswith("whsec_") and 24 <= len(key) <= 64


def _is_header_text(text: str) -> bool:
    good = 1 <= len(text) <= _LONGEST_TOKEN and text.isascii() and text.isprintable()
    return good and " " not in text and text != MASK


CHANNEL_TYPES: tuple[ChannelType, ...] = get_args(ChannelType)

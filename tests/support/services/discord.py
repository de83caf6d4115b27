"""A Discord webhook: its limits, its rate limit and whom its messages would ping."""

import itertools
import math
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from tests.support.services.base import FakeService, Received, Reply, TooMany, json_reply

# https://discord.com/developers/docs/resources/message#embed-object-embed-limits
MAX_CONTENT = 2000
MAX_EMBEDS = 10
MAX_FIELDS = 25
MAX_EMBED_SUM = 6000
EMBED_TEXTS = {"title": 256, "description": 4096}
NESTED_TEXTS = {"footer": ("text", 2048), "author": ("name", 256)}
FIELD_TEXTS = {"name": 256, "value": 1024}
BUCKET_SIZE, BUCKET_SECONDS = 5, 2.0

PING = re.compile(r"@everyone|@here|<@!?(?P<user>\d+)>|<@&(?P<role>\d+)>")
LINK = re.compile(
    r"""(?ix)
    \[[^\]]*\]\(\s*<?https?://[^)]*\)
    | https?://\S+
    | \bdiscord(?:app)?\.(?:gg|com/invite)/\S+
    | @everyone | @here
    | <(?:@[!&]?|\#|id:|/[^>]*:)[^>\s]+>
    """
)

Problem = tuple[tuple[str | int, ...], str, str]


class FakeDiscord(FakeService):
    """One webhook of one channel.

    Args:
        webhook_id: a snowflake.
        webhook_token: its secret part.
        bucket: whether five requests in two seconds are the limit, as they are for a real webhook.

    Attributes:
        messages: the message objects, in order.
        pings: the id of a message and what in it would notify people.
    """

    def __init__(
        self,
        webhook_id: str = "1100000000000000001",
        webhook_token: str = "TEST-webhook-token",
        *,
        bucket: bool = False,
    ) -> None:
        super().__init__()
        self.webhook_id = webhook_id
        self.webhook_token = webhook_token
        self.messages: list[dict[str, Any]] = []
        self.pings: list[tuple[str, str]] = []
        self._bucket = bucket
        self._window, self._left = 0.0, 0
        self._ids = itertools.count(1_200_000_000_000_000_001)

    @property
    def webhook_url(self) -> str:
        """What the owner copies from Discord."""
        return f"{self.url}/api/webhooks/{self.webhook_id}/{self.webhook_token}"

    def sends(self, request: Received) -> bool:
        """Return whether a request executes a webhook."""
        return request.method == "POST"

    def too_many(self, fault: TooMany) -> Reply:
        """Return 429: with a body that tells the seconds, or with headers alone as its proxies answer, or with both."""
        headers = {
            "Retry-After": str(math.ceil(fault.seconds)),
            "X-RateLimit-Reset-After": f"{fault.seconds:.3f}",
            "X-RateLimit-Scope": "user",
        }
        if fault.where == "header":
            return Reply(429, b"error code: 1015", {**headers, "Content-Type": "text/plain"})
        told = {"message": "You are being rate limited.", "retry_after": fault.seconds, "global": False}
        return json_reply(429, told, headers if fault.where == "both" else None)

    def answer(self, request: Received) -> Reply:
        """Show or execute the webhook; https://discord.com/developers/docs/resources/webhook#execute-webhook."""
        found = re.fullmatch(r"/api(?:/v\d+)?/webhooks/(\d+)/([^/]+)", request.path)
        if not found:
            return json_reply(404, {"message": "404: Not Found", "code": 0})
        if found[1] != self.webhook_id:
            return json_reply(404, {"message": "Unknown Webhook", "code": 10015})
        if found[2] != self.webhook_token:
            return json_reply(401, {"message": "Invalid Webhook Token", "code": 50027})
        if request.method == "GET":
            return json_reply(200, self._webhook())
        if request.method != "POST":
            return json_reply(405, {"message": "405: Method Not Allowed", "code": 0})
        limits, wait = self._take()
        if wait:
            limited = self.too_many(TooMany(wait))
            return Reply(429, limited.body, {**limits, **limited.headers})
        reply = self._execute(request)
        return Reply(reply.status, reply.body, {**limits, **reply.headers})

    def _take(self) -> tuple[dict[str, str], float]:
        """Take one from the bucket; return its headers, and the seconds to wait if it was empty."""
        if not self._bucket:
            return {}, 0.0
        with self.changed:
            now = time.monotonic()
            if now >= self._window:
                self._window, self._left = now + BUCKET_SECONDS, BUCKET_SIZE
            wait = 0.0 if self._left else self._window - now
            self._left = max(0, self._left - 1)
            return {
                "X-RateLimit-Limit": str(BUCKET_SIZE),
                "X-RateLimit-Remaining": str(self._left),
                "X-RateLimit-Reset": f"{time.time() + self._window - now:.3f}",
                "X-RateLimit-Reset-After": f"{self._window - now:.3f}",
                "X-RateLimit-Bucket": "b6a8e1d0c0ffee",
            }, wait

    def _execute(self, request: Received) -> Reply:
        try:
            body = request.json()
        except ValueError:
            return json_reply(400, {"message": "The request body contains invalid JSON.", "code": 50109})
        problems = list(_problems(body))
        if problems:
            return json_reply(400, {"message": "Invalid Form Body", "code": 50035, "errors": _nested(problems)})
        if not str(body.get("content") or "").strip() and not body.get("embeds"):
            return json_reply(400, {"message": "Cannot send an empty message", "code": 50006})
        with self.changed:
            message = self._message(body)
            self.messages.append(message)
            self.pings += [(message["id"], ping) for ping in _pings(body)]
            self.changed.notify_all()
        return json_reply(200, message) if request.query.get("wait") == "true" else Reply(204)

    def _webhook(self) -> dict[str, Any]:
        return {
            "application_id": None,
            "avatar": None,
            "channel_id": "1100000000000000002",
            "guild_id": "1100000000000000003",
            "id": self.webhook_id,
            "name": "Session daemon",
            "type": 1,
            "token": self.webhook_token,
            "url": self.webhook_url,
        }

    def _message(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "type": 0,
            "content": body.get("content") or "",
            "mentions": [],
            "mention_roles": [],
            "attachments": [],
            "embeds": [{"type": "rich", **embed} for embed in body.get("embeds") or []],
            "timestamp": datetime.now().astimezone().isoformat(),
            "edited_timestamp": None,
            "flags": 0,
            "components": [],
            "id": str(next(self._ids)),
            "channel_id": "1100000000000000002",
            "author": {"id": self.webhook_id, "username": body.get("username") or "Session daemon", "bot": True},
            "pinned": False,
            "mention_everyone": "@everyone" in _pings(body) or "@here" in _pings(body),
            "tts": False,
            "webhook_id": self.webhook_id,
        }


def markdown_links(text: str) -> list[str]:
    """Return what Discord shows as a link or a mention: masked links, bare URLs, invites, people, roles, channels."""
    shown = re.sub(r"\\([^0-9A-Za-z\s])", "\ufffc", text)  # an escaped mark is no mark
    return [match[0] for match in LINK.finditer(shown)]


def _problems(body: Any) -> Iterator[Problem]:
    """Yield where the body breaks a limit, the code and the message."""
    if not isinstance(body, dict):
        yield (), "DICT_TYPE_CONVERT", "Only dictionaries may be used in a DictType"
        return
    yield from _text(body, "content", MAX_CONTENT, ())
    yield from _text(body, "username", 80, ())
    embeds = body.get("embeds") or []
    if not isinstance(embeds, list) or not all(isinstance(embed, dict) for embed in embeds):
        yield ("embeds",), "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType"
        return
    if len(embeds) > MAX_EMBEDS:
        yield ("embeds",), "BASE_TYPE_MAX_LENGTH", f"Must be {MAX_EMBEDS} or fewer in length."
    for place, embed in enumerate(embeds):
        yield from _embed_problems(embed, ("embeds", place))
    if sum(len(text) for embed in embeds for text in _counted(embed)) > MAX_EMBED_SUM:
        yield ("embeds",), "MAX_EMBED_SIZE_EXCEEDED", f"Embed size exceeds maximum size of {MAX_EMBED_SUM}"
    yield from _mention_problems(body.get("allowed_mentions") or {})


def _embed_problems(embed: Mapping[str, Any], at: tuple[str | int, ...]) -> Iterator[Problem]:
    for name, most in EMBED_TEXTS.items():
        yield from _text(embed, name, most, at)
    for name, (key, most) in NESTED_TEXTS.items():
        if name in embed:
            yield from _text(embed[name], key, most, (*at, name), required=True)
    fields = embed.get("fields") or []
    if len(fields) > MAX_FIELDS:
        yield (*at, "fields"), "BASE_TYPE_MAX_LENGTH", f"Must be {MAX_FIELDS} or fewer in length."
    for place, one in enumerate(fields):
        for name, most in FIELD_TEXTS.items():
            yield from _text(one, name, most, (*at, "fields", place), required=True)
    color = embed.get("color")
    if color is not None and (isinstance(color, bool) or not isinstance(color, int)):
        yield (*at, "color"), "NUMBER_TYPE_COERCE", f'Value "{color}" is not int.'
    elif color is not None and not 0 <= color <= 0xFFFFFF:
        yield (*at, "color"), "NUMBER_TYPE_MAX", "int value should be between 0 and 16777215."
    if embed.get("url") is not None and not _is_url(embed["url"]):
        yield (*at, "url"), "URL_TYPE_INVALID_URL", "Not a well formed URL."
    if embed.get("timestamp") is not None and not _is_timestamp(embed["timestamp"]):
        yield (*at, "timestamp"), "DATE_TIME_TYPE_PARSE", f"Could not parse {embed['timestamp']}. Should be ISO8601."


def _text(
    holder: Mapping[str, Any], name: str, most: int, at: tuple[str | int, ...], *, required: bool = False
) -> Iterator[Problem]:
    """Check one text; surrounding white space counts for its length, but makes no text."""
    text = holder.get(name)
    if text is not None and not isinstance(text, str):
        yield (*at, name), "STRING_TYPE_CONVERT", "Could not interpret as string."
    elif required and not (text or "").strip():
        yield (*at, name), "BASE_TYPE_REQUIRED", "This field is required"
    elif len(text or "") > most:
        yield (*at, name), "BASE_TYPE_MAX_LENGTH", f"Must be {most} or fewer in length."


def _mention_problems(allowed: Mapping[str, Any]) -> Iterator[Problem]:
    parse = allowed.get("parse") or []
    for place, kind in enumerate(parse):
        if kind not in ("roles", "users", "everyone"):
            message = "Value must be one of ('users', 'roles', 'everyone')."
            yield ("allowed_mentions", "parse", place), "BASE_TYPE_CHOICES", message
    for kind in ("users", "roles"):
        if kind in parse and allowed.get(kind):
            message = f'parse:["{kind}"] and {kind}: [ids...] are mutually exclusive.'
            yield ("allowed_mentions",), "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE", message


def _counted(embed: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts that count for the sum over all embeds."""
    yield from (str(embed.get(name) or "") for name in EMBED_TEXTS)
    yield from (str((embed.get(name) or {}).get(key) or "") for name, (key, _) in NESTED_TEXTS.items())
    yield from (str(one.get(name) or "") for one in embed.get("fields") or [] for name in FIELD_TEXTS)


def _pings(body: Mapping[str, Any]) -> list[str]:
    """Return what notifies people: without `allowed_mentions` all that is mentioned, embeds counted to be safe."""
    allowed = body.get("allowed_mentions")
    parse = ("users", "roles", "everyone") if allowed is None else allowed.get("parse") or ()
    texts = [str(body.get("content") or ""), *(text for embed in body.get("embeds") or [] for text in _counted(embed))]
    found = []
    for match in PING.finditer("\n".join(texts)):
        kind = "users" if match["user"] else "roles" if match["role"] else "everyone"
        named = (allowed or {}).get(kind) or ()
        if kind in parse or (match["user"] or match["role"]) in named:
            found.append(match[0])
    return found


def _nested(problems: list[Problem]) -> dict[str, Any]:
    """Return problems as Discord nests them; https://discord.com/developers/docs/reference#error-messages."""
    root: dict[str, Any] = {}
    for path, code, message in problems:
        node = root
        for step in path:
            node = node.setdefault(str(step), {})
        node.setdefault("_errors", []).append({"code": code, "message": message})
    return root


def _is_url(url: Any) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https", "attachment") and bool(parts.hostname) and not re.search(r"\s", url)
    except (TypeError, ValueError):
        return False


def _is_timestamp(value: Any) -> bool:
    try:
        return bool(datetime.fromisoformat(value))
    except (TypeError, ValueError):
        return False

"""An ntfy server: publishing, subscribing, and the phone app that taps an action."""

import itertools
import json
import math
import re
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

from tests.support.services.base import ClosedError, FakeService, Received, Reply, TooMany, json_reply
from tests.support.services.ntfy_publication import TOPIC, ServerError, from_headers, from_json

MAX_MESSAGE = 4096  # bytes; what is longer becomes an attachment: https://docs.ntfy.sh/publish/#limitations
DISALLOWED = {"docs", "static", "file", "app", "metrics", "account", "settings", "signup", "login", "v1"}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
PHONE = "ntfy/1.16.0 (play; Android 14; SDK 34)"


class FakeNtfy(FakeService):
    """A server with a cache.

    Args:
        auth_token: needed to publish and subscribe; None: everyone may.
        everyone_write: topics that everyone may publish to, though not subscribe to.
        keepalive: seconds between the signs of life of a stream.

    Attributes:
        messages: by topic, in order.
        attachments: the topic and the body of messages that were too long to be messages.
        cleared: the ids of messages that the phone removed after a tap.
    """

    def __init__(
        self, auth_token: str | None = None, everyone_write: Iterable[str] = (), *, keepalive: float = 45
    ) -> None:
        super().__init__()
        self.auth_token = auth_token
        self.everyone_write = set(everyone_write)
        self.messages: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.attachments: list[tuple[str, bytes]] = []
        self.cleared: set[str] = set()
        self._keepalive = keepalive
        self._cache: list[dict[str, Any]] = []
        self._ids = itertools.count(1)
        self._cuts = 0
        self._streams: list[set[str]] = []

    def subscribers(self, topic: str) -> int:
        """Return how many streams of a topic are open; one whose client died counts until the next sign of life."""
        with self.changed:
            return sum(topic in topics for topics in self._streams)

    def drop_streams(self) -> None:
        """Cut all streams."""
        with self.changed:
            self._cuts += 1
            self.changed.notify_all()

    def tap(self, message_id: str, label: str) -> int:
        """Tap an `http` action in the phone app: send its request, and return the status of the answer.

        Raises:
            LookupError: there is no such message or action.
        """
        found = [
            action
            for message in self._cache
            if message["id"] == message_id
            for action in message.get("actions", [])
            if action["label"] == label and action["action"] == "http"
        ]
        if not found:
            raise LookupError(f"message {message_id} has no action {label!r}")
        status = _request(found[0])
        if found[0].get("clear") and status < 300:
            self.cleared.add(message_id)
        return status

    def sends(self, request: Received) -> bool:
        """Return whether a request publishes something, unless the phone does."""
        return request.method in ("POST", "PUT") and request.headers.get("user-agent") != PHONE

    def too_many(self, fault: TooMany) -> Reply:
        """Return 429; ntfy's body never tells the seconds, only the header may."""
        headers = {} if fault.where == "body" else {"Retry-After": str(math.ceil(fault.seconds))}
        return _error(ServerError(42901), headers)

    def answer(self, request: Received) -> Reply:
        """Serve a request; https://docs.ntfy.sh/publish/ and https://docs.ntfy.sh/subscribe/api/."""
        try:
            if request.path == "/v1/health":
                return json_reply(200, {"healthy": True})
            if request.method == "GET" and request.path.endswith("/json"):
                return self._subscribe(request)
            if request.method in ("POST", "PUT"):
                return json_reply(200, self._publish(request))
            raise ServerError(40401)
        except ServerError as error:
            return _error(error)

    def _publish(self, request: Received) -> dict[str, Any]:
        given = from_json(request.body) if request.path == "/" else from_headers(request)
        topic = given.pop("topic")
        if topic in DISALLOWED:
            raise ServerError(40010)
        if topic not in self.everyone_write:
            self._authorize(request)
        body: bytes = given.pop("message")
        with self.changed:
            message = self._event("message", topic)
            message |= {name: value for name, value in given.items() if value}
            message |= self._body(message, body)
            self._cache.append(message)
            self.messages[topic].append(message)
            self.changed.notify_all()
        return message

    def _body(self, message: dict[str, Any], body: bytes) -> dict[str, Any]:
        """Return the body as a message or, if it is too long or no text, as an attachment."""
        text = _utf8(body)
        if text is not None and len(body) <= MAX_MESSAGE:
            return {"message": text.strip() or "triggered"}
        self.attachments.append((message["topic"], body))
        name = "attachment.txt" if text is not None else "attachment.bin"
        attached = {"name": name, "size": len(body), "url": f"{self.url}/file/{message['id']}"}
        return {"message": f"You received a file: {name}", "attachment": attached}

    def _authorize(self, request: Received) -> None:
        """Let pass whoever has the token; https://docs.ntfy.sh/publish/#authentication."""
        given = request.headers.get("authorization")
        if self.auth_token is None or given == f"Bearer {self.auth_token}":
            return
        raise ServerError(40101 if given else 40301)

    def _subscribe(self, request: Received) -> Reply:
        topics = set(request.path.removeprefix("/").removesuffix("/json").split(","))
        if not all(TOPIC.fullmatch(topic) for topic in topics):
            raise ServerError(40401)
        self._authorize(request)
        poll = request.query.get("poll") in ("1", "true", "yes")
        with self.changed:
            newer = self._since(request.query.get("since") or ("all" if poll else "none"), topics)
            old = [message for message in self._cache if message["topic"] in topics and newer(message)]
            start, cuts = len(self._cache), self._cuts
            opened = self._event("open", ",".join(sorted(topics)))
        headers = {"Content-Type": "application/x-ndjson; charset=utf-8"}
        if poll:
            return Reply(200, b"".join(map(_line, old)), headers)
        return Reply(200, self._stream(topics, [opened, *old], start, cuts), headers)

    def _since(self, since: str, topics: set[str]) -> Callable[[dict[str, Any]], bool]:
        """Return which cached messages are wanted; https://docs.ntfy.sh/subscribe/api/#fetch-cached-messages."""
        places = {message["id"]: place for place, message in enumerate(self._cache) if message["topic"] in topics}
        if since == "none":
            return lambda _: False
        if since == "latest":
            return lambda message: message["id"] == list(places)[-1]
        if since == "all" or re.fullmatch(r"[A-Za-z0-9]{12}", since):
            return lambda message: places[message["id"]] > places.get(since, -1)
        duration = re.fullmatch(r"(\d+)([smhd])", since)
        if not duration and not since.isdigit():
            raise ServerError(40008)
        begin = int(time.time()) - int(duration[1]) * UNITS[duration[2]] if duration else int(since)
        return lambda message: bool(message["time"] >= begin)

    def _stream(
        self, topics: set[str], first: list[dict[str, Any]], start: int, cuts: int
    ) -> Generator[bytes, None, None]:
        """Send what is cached, then what is published, and keepalives in between.

        Raises:
            ClosedError: the stream was cut.
        """
        with self.changed:
            self._streams.append(topics)
            self.changed.notify_all()
        try:
            yield b"".join(map(_line, first))
            while True:
                published = self._await_messages(start, cuts)
                start += len(published)
                lines = [message for message in published if message["topic"] in topics]
                if not published:
                    lines = [self._event("keepalive", ",".join(sorted(topics)))]
                yield from (_line(line) for line in lines)
        finally:
            with self.changed:
                self._streams.remove(topics)

    def _await_messages(self, start: int, cuts: int) -> list[dict[str, Any]]:
        """Return what was published since `start`; nothing when a sign of life is due."""
        with self.changed:
            self.changed.wait_for(lambda: self._ended(cuts) or len(self._cache) > start, self._keepalive)
            if self._ended(cuts):
                raise ClosedError
            return self._cache[start:]

    def _ended(self, cuts: int) -> bool:
        return self.closing.is_set() or self._cuts != cuts

    def _event(self, kind: str, topic: str) -> dict[str, Any]:
        return {"id": f"M{next(self._ids):011d}", "time": int(time.time()), "event": kind, "topic": topic}


def _error(error: ServerError, headers: Mapping[str, str] | None = None) -> Reply:
    status = error.code // 100
    return json_reply(status, {"code": error.code, "http": status, "error": str(error)}, headers)


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode() + b"\n"


def _utf8(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _request(action: Mapping[str, Any]) -> int:
    request = urllib.request.Request(
        action["url"],
        data=action.get("body", "").encode() or None,
        headers={"User-Agent": PHONE, **action.get("headers", {})},
        method=action.get("method", "POST").upper() or "POST",
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code

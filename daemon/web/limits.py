"""What a single request, and all of them together, may take."""

import re
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

from daemon.domain.errors import BAD_REQUEST, BODY_TOO_LARGE, DaemonError

MAX_BODY = 1 << 20
"""Bytes of a request body."""
BROKEN = "daemon.broken"
"""Scope key under which the server leaves the ErrorKind of a body that will never be complete."""
TRANSPORT = "daemon.transport"
"""Scope key of the connection's transport, to cut off a client that does not read."""
EVENT_STREAM = b"text/event-stream"
"""The media type of Server-Sent Events (WHATWG HTML, section 9.2)."""
PLAIN_TEXT = b"text/plain"
FORM = "application/x-www-form-urlencoded"
"""The media type of forms (WHATWG URL, section 5)."""
METRICS_PATH = "/metrics"
"""Where the metrics are, if there are any."""
EVENT_STREAM_PATHS = frozenset(("/v1/owner/events", "/v1/session/events"))
_OUTPUT = re.compile(r"/v1/sessions/[^/]+/output")
"""What is answered as such, and what may be."""
LINK_PATH = "/reject/"
"""Where the reject links lead; what stands after it is a credential."""
WINDOW = 60.0
"""Seconds of a rate window."""

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]


class RateWindow:
    """Counts requests in fixed windows of one minute.

    Args:
        limit: requests a minute; 0 is no limit. May be changed at any time.
    """

    __slots__ = ("_count", "_ends", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._ends = 0.0
        self._count = 0

    def take(self, now: float) -> int | None:
        """Count one request and return None, or the seconds until the window ends if it is over the limit.

        Args:
            now: monotonic seconds.
        """
        if now >= self._ends:
            self._ends = now + WINDOW
            self._count = 0
        if self._count >= self.limit:
            return int(self._ends - now) + 1
        self._count += 1
        return None


def limited_body(receive: Receive, scope: Any, complete: Callable[[], None]) -> Receive:
    """Return a `receive` that raises where the body is too large, broken, late, or its sender gone.

    Args:
        receive: the server's.
        scope: of the request.
        complete: called once the whole body is there; may raise.

    Raises (when called):
        DaemonError: BODY_TOO_LARGE, REQUEST_TIMEOUT, VALIDATION_ERROR, and what `complete` raises.
    """
    total = 0
    whole = False

    async def limited() -> Message:
        nonlocal total, whole
        message = await receive()
        if whole:
            return message
        if broken := scope.get(BROKEN):
            raise DaemonError(broken)
        if message["type"] == "http.disconnect":
            raise DaemonError(BAD_REQUEST, "The client went away before it had sent the whole request")
        total += len(message.get("body", b""))
        if total > MAX_BODY:
            raise DaemonError(BODY_TOO_LARGE)
        whole = not message.get("more_body", False)
        if whole:
            complete()
        return message

    return limited


def is_routable(raw_path: bytes) -> bool:
    """Return whether a path means the same to every reader: one slash at a time, none of them encoded, valid UTF-8.

    Args:
        raw_path: as it was sent, without the query.
    """
    lowered = raw_path.lower()
    if b"//" in raw_path or b"%2f" in lowered or b"%5c" in lowered or b"%00" in lowered:
        return False
    try:
        unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        return False
    return True


def accepts(accept: bytes, path: str) -> bool:
    """Return whether an Accept header takes what a path answers: JSON, or an event stream or a page where there is one.

    The pages of `/reject/` are for browsers of all kinds and for programs that show previews, and metrics are answered
    in plain text if none of their formats is asked for, as those who scrape them expect: they take any header.
    """
    if accepts_json(accept) or path.startswith(LINK_PATH) or path.rstrip("/") == METRICS_PATH:
        return True
    path = path.rstrip("/")
    if _OUTPUT.fullmatch(path):
        return accepts_events(accept) or accepts_text(accept)
    return path in EVENT_STREAM_PATHS and accepts_events(accept)


@lru_cache(64)
def accepts_text(accept: bytes) -> bool:
    """Return whether an Accept header names plain text."""
    ranges = _ranges(accept)
    return ranges.get(PLAIN_TEXT, ranges.get(b"text/*", False))


@lru_cache(64)
def accepts_events(accept: bytes) -> bool:
    """Return whether an Accept header names event streams, as EventSource does."""
    ranges = _ranges(accept)
    return ranges.get(EVENT_STREAM, ranges.get(b"text/*", False))


@lru_cache(64)
def accepts_json(accept: bytes) -> bool:
    """Return whether an Accept header takes JSON of any kind (RFC 9110, section 12.5.1)."""
    ranges = _ranges(accept)
    exact = ranges.get(b"application/json")
    return not ranges or exact or (exact is None and any(ranges[name] for name in ranges if _is_json(name)))


def _is_json(media_range: bytes) -> bool:
    return media_range in {b"*/*", b"application/*"} or (
        media_range.startswith(b"application/") and media_range.endswith(b"+json")
    )


def _ranges(accept: bytes) -> dict[bytes, bool]:
    return dict(_range(part) for part in accept.lower().split(b",") if part.strip())


def _range(part: bytes) -> tuple[bytes, bool]:
    """Return a media range and whether its quality is above zero."""
    name, *parameters = (piece.strip() for piece in part.split(b";"))
    quality = next((text[2:].strip() for text in parameters if text.startswith(b"q=")), b"1")
    return name, quality.strip(b"0.") != b""

"""Bodies and queries: strict, and every problem at once."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
from litestar import Request

from daemon.domain.body import ONE_LINE, Body
from daemon.domain.errors import FORM_EXPECTED, UNSUPPORTED_MEDIA_TYPE, DaemonError, invalid
from daemon.domain.pages import MAX_CURSOR, MAX_LIMIT, Page, decode_cursor
from daemon.domain.reading import problems_of
from daemon.domain.requests import Empty
from daemon.web.context import context
from daemon.web.limits import FORM

B = TypeVar("B", bound=Body)
AnyRequest = Request[Any, Any, Any]

_LINE = re.compile(ONE_LINE)
_DECODERS: dict[type[Body], msgspec.json.Decoder[Any]] = {}
_NOT_JSON = "the body is not valid JSON in UTF-8"
_MOST_FIELDS = 200
"""Fields of a form."""


def _none(_: Any) -> list[tuple[str, str]]:
    return []


async def body(request: AnyRequest, kind: type[B], more: Callable[[B], list[tuple[str, str]]] = _none) -> B:
    """Return the request's body as `kind`.

    An empty body means `{}` where no field is required, as RFC 9110 leaves to the resource.

    Args:
        request: whose body it is.
        kind: what it must be.
        more: returns problems that only the machine can see, to be told with the others.

    Raises:
        DaemonError: VALIDATION_ERROR with every problem, UNSUPPORTED_MEDIA_TYPE.
    """
    raw = await _received(request) if context(request.scope).has_body else b""
    if not raw:
        if any(field.required for field in msgspec.structs.fields(kind)):
            raise invalid(("", "a JSON body is required"))
        return kind()
    if _media_type(request) != b"application/json":
        if kind is Empty:
            raise invalid(("", "this route takes no body"))
        raise DaemonError(UNSUPPORTED_MEDIA_TYPE)
    made = _decode(raw, kind)
    if problems := [*made.problems(), *more(made)]:
        raise invalid(*problems)
    return made


async def form(request: AnyRequest, kind: type[B]) -> B:
    """Return the request's body, sent as a form (WHATWG URL, section 5), as `kind`.

    A field without a value is as one that was not sent, unknown ones are ignored, and none may be sent twice
    (RFC 6749, section 3.2).

    Args:
        request: whose body it is.
        kind: what it must be; its fields are texts.

    Raises:
        DaemonError: VALIDATION_ERROR with every problem, UNSUPPORTED_MEDIA_TYPE.
    """
    raw = await _received(request) if context(request.scope).has_body else b""
    if raw and _media_type(request) != FORM.encode():
        raise DaemonError(FORM_EXPECTED)
    try:
        fields = parse_qsl(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except UnicodeDecodeError:
        raise invalid(("", "the body is not a form in UTF-8")) from None
    except ValueError:
        raise invalid(("", f"the form has more than {_MOST_FIELDS} fields")) from None
    sent = {name: value for name, value in fields if value and name in kind.__struct_fields__}
    counted = Counter(name for name, _ in fields)
    repeated = [(name, "must be sent once") for name, count in counted.items() if count > 1]
    try:
        made = msgspec.convert(sent, kind)
    except msgspec.ValidationError:
        raise invalid(*repeated, *problems_of(sent, kind)) from None
    if repeated:
        raise invalid(*repeated)
    return made


async def no_body(request: AnyRequest) -> None:
    """Refuse a body other than `{}`: none is ever silently ignored.

    Raises:
        DaemonError: VALIDATION_ERROR.
    """
    if context(request.scope).has_body:
        await body(request, Empty)


async def _received(request: AnyRequest) -> bytes:
    """Return the whole body; the framework's own way there costs more than decoding it."""
    parts: list[bytes] = []
    more = True
    while more:
        message: Any = await request.receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _media_type(request: AnyRequest) -> bytes:
    content_type = next((value for name, value in request.scope["headers"] if name == b"content-type"), b"")
    return content_type.partition(b";")[0].strip().lower()


def _decode(raw: bytes, kind: type[B]) -> B:
    decoder = _DECODERS.get(kind) or _DECODERS.setdefault(kind, msgspec.json.Decoder(kind))
    try:
        made: B = decoder.decode(raw)
    except msgspec.ValidationError:
        raise _refused(raw, kind) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid(("", _NOT_JSON)) from None
    return made


def _refused(raw: bytes, kind: type[Body]) -> DaemonError:
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return invalid(("", _NOT_JSON))
    if not isinstance(value, dict):
        return invalid(("", "the body must be a JSON object"))
    return invalid(*(problems_of(value, kind) or [("", "the body is not valid")]))


class Query:
    """The query of a request, read name by name; `close` reports every problem at once.

    Args:
        request: whose query it is.
    """

    def __init__(self, request: AnyRequest) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in request.query_params.multi_items():
            self._values.setdefault(name, []).append(value)
        self._problems: list[tuple[str, str]] = []
        self._known: set[str] = set()
        try:
            unquote_to_bytes(request.scope["query_string"]).decode()
        except UnicodeDecodeError:
            self._problems.append(("", "the query must be percent-encoded UTF-8"))

    def text(self, name: str, longest: int = 100) -> str | None:
        """Return a parameter of 1 to `longest` characters on one line, None if it is absent."""
        self._known.add(name)
        values = self._values.get(name)
        if values is None:
            return None
        if len(values) > 1 or not 1 <= len(values[0]) <= longest or not _LINE.match(values[0]):
            self._problems.append((name, f"must be given once, with 1 to {longest} characters on one line"))
            return None
        return values[0]

    def choice(self, name: str, choices: Any) -> Any:
        """Return a parameter that is one of a Literal's values, None if it is absent."""
        return self.word(name, [str(option) for option in _options(choices)])

    def word(self, name: str, allowed: Sequence[str]) -> str | None:
        """Return a parameter that is one of some words, None if it is absent."""
        value = self.text(name)
        if value is None or value in allowed:
            return value
        self._problems.append((name, f"must be one of {', '.join(allowed)}"))
        return None

    def flag(self, name: str) -> bool:
        """Return a parameter that is `true` or `false`, false if it is absent."""
        return self.word(name, ("true", "false")) == "true"

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """Return a whole number within bounds, `default` if it is absent."""
        value = self.text(name)
        if value is None:
            return default
        if value.isascii() and value.isdecimal() and len(value) < 20 and low <= int(value) <= high:
            return int(value)
        self._problems.append((name, f"must be a whole number from {low} to {high}"))
        return default

    def page(self) -> Page:
        """Return `limit` and `cursor`."""
        limit = self.number("limit", 50, 1, MAX_LIMIT)
        cursor = self.text("cursor", MAX_CURSOR)
        if cursor is None:
            return Page(limit)
        try:
            return Page(limit, decode_cursor(cursor))
        except DaemonError:
            self._problems.append(("cursor", "must be a cursor from the Link header of a list"))
            return Page(limit)

    def problem(self, name: str, message: str) -> None:
        """Report a problem that only the route can see."""
        self._problems.append((name, message))

    def close(self) -> None:
        """Refuse the request if any parameter had a problem or is unknown.

        Raises:
            DaemonError: VALIDATION_ERROR.
        """
        unknown = [(name, "is not a known parameter") for name in self._values if name not in self._known]
        if self._problems or unknown:
            raise invalid(*self._problems, *unknown)


def _options(choices: Any) -> tuple[Any, ...]:
    if get_origin(choices) is Literal:
        return get_args(choices)
    return tuple(option for part in get_args(choices) for option in _options(part))

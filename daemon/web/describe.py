"""What a route says of itself, for the OpenAPI document and for the tests that hold it against the server."""

from typing import Any, Literal

import msgspec

from daemon.domain.body import Body
from daemon.domain.errors import ErrorKind

Group = Literal["public", "owner", "agent", "either", "link", "verifier"]


class Parameter(msgspec.Struct, frozen=True):
    """A query parameter or a header of a route.

    Args:
        name: as it is sent.
        meaning: one sentence.
        schema: JSON Schema of its value.
        place: where it is sent.
        required: whether it must be.
    """

    name: str
    meaning: str
    schema: dict[str, Any]
    place: Literal["query", "header"] = "query"
    required: bool = False


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one route.

    Args:
        summary: one line.
        answer: type of the body of a success; None where it has none.
        body: type of the request's body; None where only an empty one or `{}` is taken.
        form: type of a body that is sent as a form instead.
        parameters: beyond those of the path.
        errors: beyond those that every route of the group can answer.
        listed: whether the answer is a page of a list, with a Link header.
        also: further statuses that carry the same body.
        per_minute: requests that a session may send to this route in a minute; 0 is no limit but the general one.
        urgent: whether a lockout leaves the route open, at one attempt a second.
        html: whether the answer is a page for people.
        streams: whether the answer is a stream of Server-Sent Events, each with an `answer` as its data.
        lines: whether the answer is such a stream of lines, or plain text.
        metrics: whether the answer is metrics, for Prometheus.
    """

    summary: str
    answer: Any
    body: type[Body] | None = None
    form: type[Body] | None = None
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[ErrorKind, ...] = ()
    listed: bool = False
    also: tuple[int, ...] = ()
    per_minute: int = 0
    urgent: bool = False
    html: bool = False
    streams: bool = False
    lines: bool = False
    metrics: bool = False

    def __deepcopy__(self, _memo: object) -> "Operation":
        """Return this one, which nobody changes: Litestar copies every route, and would take longer for this alone."""
        return self


def described(summary: str, answer: Any, *, allows: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a route handler's `opt`: its description, and for agent routes the operation that it allows."""
    opt: dict[str, Any] = {"describes": Operation(summary=summary, answer=answer, **more)}
    return opt | ({"operation": allows} if allows else {})


def one_of(name: str, meaning: str, choices: tuple[str, ...]) -> Parameter:
    """Return a query parameter that is one of some words."""
    return Parameter(name, meaning, {"type": "string", "enum": list(choices)})


def an_id(name: str, meaning: str, *, required: bool = False) -> Parameter:
    """Return a query parameter that is a UUID."""
    return Parameter(name, meaning, {"type": "string", "format": "uuid"}, required=required)


def a_label(name: str, meaning: str, longest: int = 100) -> Parameter:
    """Return a query parameter that is free text of 1 to `longest` characters."""
    return Parameter(name, meaning, {"type": "string", "minLength": 1, "maxLength": longest})


PAGE = (
    Parameter("limit", "How many at most.", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}),
    Parameter("cursor", "From the Link header of the page before.", {"type": "string", "minLength": 1}),
)
"""The parameters of every list that is answered page by page."""

"""How many requests were answered, and how long that took: by the route's template, whatever paths were asked for."""

from typing import Any

import msgspec

from daemon.histogram import Histogram

UNROUTED = "unrouted"
"""Stands for the route of what reached none: unknown paths, wrong methods, and what was refused before."""
NO_ANSWER = "none"
"""Stands for the status where the client was gone before there was one."""
_OTHER = "other"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Answers(msgspec.Struct):
    """What became of the requests to one route with one method.

    Args:
        seconds: how long they took; None where an answer may be a stream, which takes as long as it is read.
        statuses: how many were answered with each HTTP status; 0 is none.
    """

    seconds: Histogram | None
    statuses: dict[int, int]


class RequestMeter:
    """Counts requests. There are as many numbers as there are routes, methods and statuses."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Answers] = {}
        """By route and method."""

    def count(self, scope: Any, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            scope: the ASGI scope, as the router left it.
            status: of the answer; 0 where there was none.
            seconds: that it took.
        """
        route = scope.get("path_template")
        key = (route, scope["method"]) if route is not None else _unrouted(scope["method"])
        answers = self.answers.get(key)
        if answers is None:
            answers = self.answers[key] = Answers(None if _may_stream(scope) else Histogram(), {})
        answers.statuses[status] = answers.statuses.get(status, 0) + 1
        if answers.seconds is not None:
            answers.seconds.observe(seconds)

    def count_malformed(self, status: int) -> None:
        """Count an answer to what was no request, and never reached a route."""
        answers = self.answers.setdefault(_unrouted(_OTHER), Answers(Histogram(), {}))
        answers.statuses[status] = answers.statuses.get(status, 0) + 1


def _unrouted(method: str) -> tuple[str, str]:
    """Return the key of what reached no route; there are more methods than anybody could want to see."""
    return UNROUTED, method if method in _METHODS else _OTHER


def _may_stream(scope: Any) -> bool:
    handler = scope.get("route_handler")
    described = handler.opt.get("describes") if handler is not None else None
    return described is not None and (described.streams or described.lines)

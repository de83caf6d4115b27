"""What may be published to an ntfy server, and its words of refusal."""

import json
import re
from collections.abc import Mapping
from typing import Any

from tests.support.services.base import Received

MAX_JSON = 8192  # bytes of a whole JSON publication, escapes included: twice the limit of a message
MAX_ACTIONS = 3
TOPIC = re.compile(r"[-_A-Za-z0-9]{1,64}")
PRIORITIES = {"min": 1, "low": 2, "default": 3, "high": 4, "max": 5, "urgent": 5}
TYPES: Mapping[str, type] = {
    "topic": str,
    "message": str,
    "title": str,
    "tags": list,
    "priority": int,
    "click": str,
    "actions": list,
}
HEADERS = {
    "message": ("x-message", "message", "m"),
    "title": ("x-title", "title", "ti", "t"),
    "tags": ("x-tags", "tags", "tag", "ta"),
    "priority": ("x-priority", "priority", "prio", "p"),
    "click": ("x-click", "click"),
    "actions": ("x-actions", "actions", "action"),
}
ERRORS = {
    40007: "invalid priority parameter",
    40008: "invalid since parameter",
    40009: "invalid request: topic invalid",
    40010: "invalid request: topic name is not allowed",
    40018: "invalid request: actions invalid",
    40024: "invalid request: request body must be valid JSON",
    40101: "unauthorized",
    40301: "forbidden",
    40401: "page not found",
    41303: "JSON body too large",
    42901: "limit reached: too many requests",
}


class ServerError(Exception):
    """The server answers with one of `ERRORS`."""

    def __init__(self, code: int, more: str = "") -> None:
        super().__init__(f"{ERRORS[code]}; {more}" if more else ERRORS[code])
        self.code = code


def from_json(body: bytes) -> dict[str, Any]:
    """Read a publication as JSON; its message becomes bytes.

    Raises:
        ServerError: it is too large, no JSON, or not acceptable.
    https://docs.ntfy.sh/publish/#publish-as-json
    """
    if len(body) > MAX_JSON:
        raise ServerError(41303)
    try:
        given = json.loads(body)
    except ValueError:
        raise ServerError(40024) from None
    if not isinstance(given, dict) or not all(
        isinstance(given.get(name, kind()), kind) for name, kind in TYPES.items()
    ):
        raise ServerError(40024)
    if not TOPIC.fullmatch(given.get("topic", "")):
        raise ServerError(40009)
    made = {name: given[name] for name in TYPES if name in given}
    return _checked({**made, "message": made.get("message", "").encode()})


def from_headers(request: Received) -> dict[str, Any]:
    """Read a publication from its headers, or its query, and its body; its message stays bytes.

    Raises:
        ServerError: it is not acceptable.
    https://docs.ntfy.sh/publish/
    """
    if not TOPIC.fullmatch(request.path[1:]):
        raise ServerError(40401)
    given: dict[str, Any] = {"topic": request.path[1:]}
    for name, aliases in HEADERS.items():
        values = [request.headers[alias] for alias in aliases if alias in request.headers]
        values += [request.query[alias] for alias in aliases if alias in request.query]
        if values:
            given[name] = values[0].encode("latin-1", "ignore").decode(errors="replace")
    if "priority" in given:
        number = PRIORITIES.get(given["priority"].lower(), given["priority"])
        given["priority"] = int(number) if str(number).isdigit() else -1
    if "tags" in given:
        given["tags"] = [tag.strip() for tag in given["tags"].split(",")]
    if "actions" in given:
        try:
            given["actions"] = json.loads(given["actions"])
        except ValueError:
            raise ServerError(40018, "only actions in JSON are understood here") from None
    given["message"] = given["message"].encode() if "message" in given else request.body
    return _checked(given)


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    if not 0 <= given.get("priority", 0) <= 5:
        raise ServerError(40007)
    actions = given.get("actions", [])
    if len(actions) > MAX_ACTIONS:
        raise ServerError(40018, f"only {MAX_ACTIONS} actions allowed")
    for action in actions:
        _check_action(action)
    return given


def _check_action(action: Any) -> None:
    """Check an action; https://docs.ntfy.sh/publish/#action-buttons."""
    if not isinstance(action, dict) or action.get("action") not in ("view", "broadcast", "http"):
        raise ServerError(40018, "parameter 'action' must be one of view, broadcast, http")
    if not action.get("label"):
        raise ServerError(40018, "parameter 'label' is required")
    if action["action"] != "broadcast" and not action.get("url"):
        raise ServerError(40018, f"parameter 'url' is required for action '{action['action']}'")
    if action.get("method", "").upper() in ("GET", "HEAD") and action.get("body"):
        raise ServerError(40018, f"parameter 'body' cannot be set if method is {action['method']}")
    headers = action.get("headers", {})
    if not isinstance(headers, dict) or not isinstance(action.get("clear", False), bool):
        raise ServerError(40018, "'headers' are an object and 'clear' is a boolean")

"""Constraints of a session: any JSON object, of which the known keys are enforced."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import msgspec

OPERATIONS = (
    "session.read",
    "session.end",
    "session.publish",
    "session.stream",
    "session.delegate",
    "sessions.renew",
    "conversations.bind",
    "conversations.read",
    "conversations.list",
    "conversations.touch",
    "conversations.rebind",
    "conversations.delete",
    "messages.send",
    "output.read",
)
"""What an agent can do; `allowedOperations` are glob patterns over these names."""

RANGES: dict[str, tuple[int, int]] = {
    "maxRenewals": (0, 100),
    "renewalRejectWindow": (300, 86_400),
    "idleTimeout": (60, 604_800),
    "maxRequests": (1, 2**53 - 1),
    "requestsPerMinute": (1, 10_000_000),
}
"""Known whole-number keys with their smallest and largest value (times in seconds)."""

MAX_BYTES = 16_384
MAX_DEPTH = 32
MAX_PATTERNS = 100
MAX_PATTERN_LENGTH = 100


class Limits(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The known keys of a session's constraints; None where absent."""

    max_renewals: int | None = None
    renewal_reject_window: int | None = None
    idle_timeout: int | None = None
    max_requests: int | None = None
    requests_per_minute: int | None = None
    allowed_operations: tuple[str, ...] | None = None


NO_LIMITS = Limits()
_decode_limits = msgspec.json.Decoder(Limits).decode


@lru_cache(maxsize=1024)
def limits(text: str | None) -> Limits:
    """Return the known keys of stored constraints.

    Rows that an older version wrote may hold anything; what does not decode constrains nothing but is kept.
    """
    if text is None:
        return NO_LIMITS
    try:
        return _decode_limits(text)
    except msgspec.MsgspecError:
        return NO_LIMITS


@lru_cache(maxsize=4096)
def allows(patterns: tuple[str, ...] | None, operation: str) -> bool:
    """Return whether any pattern matches the operation; no list of patterns allows everything."""
    return patterns is None or any(fnmatchcase(operation, pattern) for pattern in patterns)


def narrowed(asked: dict[str, Any], bound: str | None) -> dict[str, Any]:
    """Return what remains of constraints that are asked for under others that bound them.

    Of known keys the narrower value counts, and what is not asked for is taken over. An unknown key of the bound is
    handed down as it is: who reads it knows what is narrower, the daemon does not.

    Args:
        asked: valid constraints.
        bound: constraints as stored.
    """
    within, known = _object(bound), limits(bound)
    found = {**asked, **{key: value for key, value in within.items() if key not in _KNOWN}}
    for key in RANGES:
        values = [one for one in (asked.get(key), getattr(known, _KNOWN[key])) if one is not None]
        if values:
            found[key] = min(values)
    patterns = _both_allow(asked.get("allowedOperations"), known.allowed_operations)
    return found if patterns is None else {**found, "allowedOperations": patterns}


_KNOWN = dict(zip(Limits.__struct_encode_fields__, Limits.__struct_fields__, strict=True))


def _object(text: str | None) -> dict[str, Any]:
    """Return stored constraints; those of older versions may hold anything."""
    try:
        value = msgspec.json.decode(text) if text is not None else {}
    except msgspec.MsgspecError:
        return {}
    return value if isinstance(value, dict) else {}


def _both_allow(asked: list[str] | None, bound: tuple[str, ...] | None) -> list[str] | None:
    if bound is None:
        return asked
    return list(bound if asked is None else common(asked, bound))


def common(patterns: Sequence[str], bound: Sequence[str]) -> tuple[str, ...]:
    """Return patterns that match nothing but what both allow.

    Other services have operations that the daemon does not know: a pattern is kept only where it matches none that no
    pattern of the bound matches. What else both allow is told by the names of the daemon's own operations.
    """
    kept = tuple(one for one in patterns if any(_is_within(one, outer) for outer in bound))
    names = tuple(one for one in OPERATIONS if allows(tuple(patterns), one) and allows(tuple(bound), one))
    found = (*kept, *(one for one in names if not allows(kept, one)))
    return found if len(found) <= MAX_PATTERNS else names


def _is_within(pattern: str, outer: str) -> bool:
    """Return whether all that a pattern matches is seen to be matched by another one.

    Where that one has no wildcard but `*`, each wildcard of the first can only have been matched by a `*`. What is in
    brackets stands for one character: a pattern with such must begin with all that the other one asks for.
    """
    if pattern == outer:
        return True
    if set("?[") & set(outer):
        return False
    if "[" in pattern:
        return outer.find("*") == len(outer) - 1 and pattern.startswith(outer[:-1])
    return fnmatchcase(pattern, outer)


def problems(constraints: dict[str, Any], path: str = "constraints") -> list[tuple[str, str]]:
    """Return every problem of a constraints object as (dotted path, message)."""
    found = json_problems(constraints, path)
    for key, (low, high) in RANGES.items():
        if key in constraints and not _whole(constraints[key], low, high):
            found.append((f"{path}.{key}", f"must be a whole number from {low} to {high}"))
    if "allowedOperations" in constraints:
        found += _pattern_problems(constraints["allowedOperations"], f"{path}.allowedOperations")
    return found


def json_problems(value: dict[str, Any], path: str) -> list[tuple[str, str]]:
    """Return what keeps a JSON object from being stored: its size and its depth."""
    if _deeper_than(value, MAX_DEPTH):
        return [(path, f"must not nest deeper than {MAX_DEPTH} levels")]
    if len(msgspec.json.encode(value)) > MAX_BYTES:
        return [(path, f"must not be larger than {MAX_BYTES} bytes as JSON")]
    return []


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _pattern_problems(value: object, path: str) -> list[tuple[str, str]]:
    if not isinstance(value, list) or len(value) > MAX_PATTERNS:
        return [(path, f"must be a list of at most {MAX_PATTERNS} glob patterns")]
    return [
        (f"{path}.{index}", f"must be a glob pattern of 1 to {MAX_PATTERN_LENGTH} characters")
        for index, pattern in enumerate(value)
        if not isinstance(pattern, str) or not 1 <= len(pattern) <= MAX_PATTERN_LENGTH
    ]


def _deeper_than(value: object, levels: int) -> bool:
    """Walk level by level: recursion would be the very thing to protect from."""
    layer: list[object] = [value]
    for _ in range(levels):
        layer = [child for node in layer for child in _children(node)]
        if not layer:
            return False
    return True


def _children(node: object) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []

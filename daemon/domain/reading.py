"""Reads a JSON object as a body: strict, and every problem at once."""

from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec

from daemon.domain.body import Body, under
from daemon.domain.errors import invalid

B = TypeVar("B", bound=Body)

_MOST_PARTS = 200
"""Parts of a value that are each looked at."""


def read(value: dict[str, Any], kind: type[B]) -> B:
    """Return a JSON object as a body.

    Args:
        value: as decoded.
        kind: what it must be.

    Raises:
        DaemonError: VALIDATION_ERROR with every problem.
    """
    try:
        made = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise invalid(*(problems_of(value, kind) or [_placed("", str(error))])) from None
    if problems := made.problems():
        raise invalid(*problems)
    return made


def problems_of(value: dict[str, Any], kind: type[Body]) -> list[tuple[str, str]]:
    """Return every problem of a JSON object as (dotted path, message).

    Each field is looked at by itself: the decoder stops at the first problem.
    """
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    found = [(name, "is not a known field") for name in value if name not in fields]
    good: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in value:
            if field.required:
                found.append((name, "is required"))
            continue
        try:
            good[field.name] = msgspec.convert(value[name], field.type)
        except msgspec.ValidationError as problem:
            found += under(name, _problems_in(value[name], field.type)) or [_placed(name, str(problem))]
    missing = [field.name for field in fields.values() if field.required and field.name not in good]
    if not missing:
        found += kind(**good).problems()
    return found


def _problems_in(value: Any, kind: Any) -> list[tuple[str, str]]:
    """Look at each part of an object or a list by itself; nothing: what is wrong is not one of its parts."""
    part = _body_in(kind)
    if part is not None and isinstance(value, dict):
        return problems_of(value, part)
    if not _takes(kind, type(value)) or len(value) > _MOST_PARTS:
        return []
    parts: list[tuple[str, Any]]
    if isinstance(value, dict):
        parts = [(name, {name: one}) for name, one in value.items()]
    else:
        parts = [(str(number), [one]) for number, one in enumerate(value)]
    return [(name, refusal) for name, one in parts if (refusal := _refusal(one, kind)) is not None]


def _takes(kind: Any, container: type) -> bool:
    """Return whether a field of this type may hold such a container."""
    if get_origin(kind) in {Annotated, Union, UnionType}:
        return any(_takes(one, container) for one in get_args(kind))
    return get_origin(kind) is container


def _refusal(value: Any, kind: Any) -> str | None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as problem:
        return _placed("", str(problem))[1]
    return None


def _body_in(kind: Any) -> type[Body] | None:
    """Return the body that a field of this type holds, if it holds one."""
    options = [kind, *get_args(kind)]
    return next((one for one in options if isinstance(one, type) and issubclass(one, Body)), None)


def _placed(name: str, message: str) -> tuple[str, str]:
    """Return path and message of a msgspec problem such as `Expected int, got str - at $.a.b`."""
    text, _, where = message.partition(" - at `")
    inner = where.rstrip("`").removeprefix("$").lstrip(".")
    path = f"{name}.{inner}" if inner else name
    return path, text[:1].lower() + text[1:]

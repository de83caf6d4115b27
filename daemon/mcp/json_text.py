"""Changes one member of an object inside of a JSON text, and not a byte of anything else."""

import json
import re
from typing import Any, NamedTuple

_SPACE = re.compile(r"[ \t\n\r]*")
_decoder = json.JSONDecoder()


class TextError(Exception):
    """The text is not what it must be; the message is one sentence without a subject."""


class _Member(NamedTuple):
    """A member of an object: where its name begins, where its value does, and where that ends."""

    name: str
    start: int
    value: int
    end: int


class _Style(NamedTuple):
    """How a text is laid out: its line ends (none: on one line) and one step of its indentation."""

    newline: str
    step: str


def find(text: str, section: str, name: str) -> Any:
    """Return the value of a member of an object that is a member of the whole; None where there is none.

    Raises:
        TextError: this is no JSON, or not made of objects.
    """
    return _section(text, section).get(name)


def put(text: str, section: str, name: str, value: dict[str, Any]) -> str:
    """Return the text with such a member, in place of one of that name or else as the last one.

    Args:
        text: JSON, an object; nothing at all means an empty one.
        section: which member of the whole it belongs to; one that is missing is made.
        name: its name.
        value: its value.

    Raises:
        TextError: as `find`.
    """
    _section(text, section)
    text = text if text.strip() else "{}\n"
    root = _after_space(text, 0)
    style = _style(text, root)
    outer = _named(_members(text, root), section)
    if outer is None:
        return _appended(text, root, _member(section, {name: value}, style, 1), style, 1)
    inner = _named(_members(text, outer.value), name)
    if inner is None:
        return _appended(text, outer.value, _member(name, value, style, 2), style, 2)
    return text[: inner.value] + _rendered(value, style, 2) + text[inner.end :]


def remove(text: str, section: str, name: str) -> str:
    """Return the text without such a member; as it is where there is none.

    Raises:
        TextError: as `find`.
    """
    if name not in _section(text, section):
        return text
    outer = _named(_members(text, _after_space(text, 0)), section)
    at = outer.value if outer is not None else 0
    members = _members(text, at)
    while (gone := _named(members, name)) is not None:
        text = _without(text, at, members, gone)
        members = _members(text, at)
    return text


def _section(text: str, section: str) -> dict[str, Any]:
    try:
        whole = json.loads(text) if text.strip() else {}
    except json.JSONDecodeError as error:
        raise TextError(f"is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise TextError("is nested too deeply") from None
    if not isinstance(whole, dict):
        raise TextError("is not a JSON object")
    found = whole.get(section, {})
    if not isinstance(found, dict):
        raise TextError(f"has something else than a JSON object as {section}")
    return found


def _members(text: str, at: int) -> list[_Member]:
    """Return the members of the object that begins at a place of a valid text."""
    found: list[_Member] = []
    here = _after_space(text, at + 1)
    while text[here] != "}":
        name, after = _decoder.raw_decode(text, here)
        value = _after_space(text, _after_space(text, after) + 1)
        _, end = _decoder.raw_decode(text, value)
        found.append(_Member(name, here, value, end))
        here = _after_space(text, end)
        if text[here] == ",":
            here = _after_space(text, here + 1)
    return found


def _named(members: list[_Member], name: str) -> _Member | None:
    """Return the last member of a name: the one that counts where there are several (ECMA-262, `JSON.parse`)."""
    return next((member for member in reversed(members) if member.name == name), None)


def _style(text: str, root: int) -> _Style:
    members = _members(text, root)
    if not members:
        return _Style("\n", "  ")
    lead = text[root + 1 : members[0].start]
    newline = "\r\n" if "\r\n" in lead else "\n" if "\n" in lead else ""
    return _Style(newline, lead.rpartition("\n")[2] if newline else "")


def _rendered(value: Any, style: _Style, depth: int) -> str:
    if not style.newline:
        return json.dumps(value, ensure_ascii=False)
    made = json.dumps(value, ensure_ascii=False, indent=style.step)
    return made.replace("\n", style.newline + style.step * depth)


def _member(name: str, value: Any, style: _Style, depth: int) -> str:
    return f"{json.dumps(name, ensure_ascii=False)}: {_rendered(value, style, depth)}"


def _appended(text: str, at: int, member: str, style: _Style, depth: int) -> str:
    """Return the text with a last member more in the object at a place, which stands in `depth` - 1 others."""
    members = _members(text, at)
    if members:
        lead, last = text[at + 1 : members[0].start], members[-1].end
        return f"{text[:last]},{lead or ' '}{member}{text[last:]}"
    end = text.index("}", at)
    line = style.newline + style.step * depth if style.newline else ""
    closing = style.newline + style.step * (depth - 1) if style.newline else ""
    return f"{text[: at + 1]}{line}{member}{closing}{text[end:]}"


def _without(text: str, at: int, members: list[_Member], gone: _Member) -> str:
    place = members.index(gone)
    if place > 0:
        return text[: members[place - 1].end] + text[gone.end :]
    if len(members) > 1:
        return text[: gone.start] + text[members[1].start :]
    return text[: at + 1] + text[_after_space(text, gone.end) :]


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at

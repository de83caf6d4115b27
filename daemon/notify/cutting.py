"""What is too long is cut: before it is escaped, at no place inside a character, the longest values first."""

from collections.abc import Callable, Sequence
from unicodedata import category

from daemon.notify.text import BREAK

ELLIPSIS = "…"
_MARKS = 16
"""Combining characters that are kept with their base; what has more is not writing but decoration."""

Size = Callable[[str], int]
"""Measures text; that of two texts together is the sum of theirs."""


def utf16(text: str) -> int:
    """Return the number of UTF-16 code units."""
    return len(text) + sum(char > "\uffff" for char in text)


def utf8(text: str) -> int:
    """Return the number of bytes in UTF-8."""
    return len(text.encode())


def cut(text: str, limit: int, size: Size) -> str:
    """Return text within a limit; what was cut ends in an ellipsis and in no half of a combined character.

    Args:
        text: what may be too long.
        limit: in units of `size`, room for the ellipsis at least.
        size: measures it.
    """
    if size(text) <= limit:
        return text
    room = limit - size(ELLIPSIS)
    low, high = 0, min(len(text), max(room, 0))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(text[:middle]) <= room else (low, middle - 1)
    return text[: _whole(text, low)].rstrip(f" {BREAK}") + ELLIPSIS


def fit(values: Sequence[str], budget: int, size: Size) -> list[str]:
    """Return values that together keep within a budget: short ones whole, the longest cut to one length.

    Args:
        values: what may be too long together.
        budget: in units of `size`.
        size: measures them.
    """
    sizes = sorted(map(size, values))
    left, share = budget, budget
    for index, own in enumerate(sizes):
        share = left // (len(sizes) - index)
        if own > share:
            break
        left -= own
    return [cut(value, share, size) if size(value) > share else value for value in values]


def _whole(text: str, end: int) -> int:
    """Return the last place not after `end` that is not before a combining mark, variation selector or skin tone."""
    for place in range(end, max(0, end - _MARKS), -1):
        if not (category(text[place]).startswith("M") or "\U0001f3fb" <= text[place] <= "\U0001f3ff"):
            return place
    return end

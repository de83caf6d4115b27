"""Lines of a process's output."""

import msgspec


class Line(msgspec.Struct, frozen=True, gc=False):
    """A line of a stream, or a piece of one that is too long.

    Args:
        end: the byte offset after it, its newline included.
        data: its bytes without the newline; a carriage return stays.
        part: 0 is a whole line; the pieces of a long one count from 1, or from where the reader began.
        more: whether a further piece of the same line follows.
    """

    end: int
    data: bytes
    part: int = 0
    more: bool = False

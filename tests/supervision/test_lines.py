"""Laws of lines: whatever the bytes and however they arrive, nothing is lost and every offset is true."""

import time
from collections.abc import Iterator
from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.domain.lines import Line
from daemon.supervision.lines import LINE_LIMIT, Cutter

SMALL = 4
"""The limit in the laws, so that long lines are as frequent as short ones."""

streams = st.lists(
    st.sampled_from([b"\n", b"a", b"b\r\n", b"\x00", b"\xff\xfe", b"0123", b"01234\n", b"x" * 13]), max_size=30
).map(b"".join)
chunk_sizes = st.lists(st.integers(1, 12), min_size=1)


@pytest.fixture(scope="module", autouse=True)
def small_limit() -> Iterator[None]:
    """Lower the limit for the module; `LINE_LIMIT` of these tests is the real one."""
    with patch("daemon.supervision.lines.LINE_LIMIT", SMALL):
        yield


def cut(data: bytes, start: int = 0, sizes: list[int] | None = None) -> list[Line]:
    """Return the lines of a whole stream that arrives in chunks of these sizes, over and over."""
    cutter, found, at, turn = Cutter(start), list[Line](), 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)] if sizes else len(data)
        found += cutter.feed(data[at : at + size])
        at, turn = min(at + size, len(data)), turn + 1
        assert cutter.end + cutter.pending == start + at
    return found + cutter.flush()


def model(data: bytes, start: int) -> list[Line]:
    """Return the same in the plainest way."""
    found, end = list[Line](), start
    for line in _split(data):
        bare = line.removesuffix(b"\n")
        pieces = [bare[at : at + SMALL] for at in range(0, len(bare), SMALL)] or [b""]
        for number, piece in enumerate(pieces, 1):
            last = number == len(pieces)
            end += len(piece) + (last and line != bare)
            found.append(Line(end, piece, number if len(pieces) > 1 else 0, not last))
    return found


def _split(data: bytes) -> list[bytes]:
    """Cut behind newlines alone: a carriage return ends no line."""
    parts = [part + b"\n" for part in data.split(b"\n")]
    parts[-1] = parts[-1][:-1]
    return [part for part in parts if part]


def whole(found: list[Line], start: int) -> bytes:
    """Put lines together again, with the newlines that their offsets speak of."""
    made, at = b"", start
    for line in found:
        gap = line.end - at - len(line.data)
        assert gap in {0, 1}
        made, at = made + line.data + b"\n" * gap, line.end
    return made


@given(streams, st.integers(0, 1 << 40), chunk_sizes)
def test_any_division_gives_the_lines_of_the_model(data: bytes, start: int, sizes: list[int]) -> None:
    assert cut(data, start, sizes) == cut(data, start) == model(data, start)


@given(streams, st.integers(0, 1 << 40), chunk_sizes)
def test_the_pieces_together_are_the_stream_and_ends_strictly_increase(
    data: bytes, start: int, sizes: list[int]
) -> None:
    found = cut(data, start, sizes)
    assert whole(found, start) == data
    assert all(one.end < other.end for one, other in pairwise(found))
    assert all(len(line.data) <= SMALL for line in found)
    for one, other in pairwise([Line(start, b""), *found]):
        assert other.part == (one.part + 1 if one.more else 1 if other.more else 0)


@given(streams, chunk_sizes)
def test_a_reader_that_resumes_at_any_end_gets_exactly_the_rest(data: bytes, sizes: list[int]) -> None:
    found = cut(data)
    for number, line in enumerate(found, 1):
        rest = cut(data[line.end :], line.end, sizes)
        assert [(one.end, one.data, one.more) for one in rest] == [
            (one.end, one.data, one.more) for one in found[number:]
        ]
        if not line.more:
            assert rest == found[number:]


@given(streams, st.data())
def test_a_reader_that_begins_within_a_line_gets_its_rest_as_a_line(data: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data)))
    assert whole(cut(data[at:], at), at) == data[at:]
    assert cut(data[at:], at) == model(data[at:], at)


@given(streams, chunk_sizes)
def test_what_is_held_is_at_most_the_last_piece(data: bytes, sizes: list[int]) -> None:
    cutter = Cutter(0)
    for at in range(0, len(data), sizes[0]):
        cutter.feed(data[at : at + sizes[0]])
        assert cutter.pending <= SMALL
    assert len(cutter.flush()) <= 1
    assert (cutter.end, cutter.pending, cutter.flush()) == (len(data), 0, [])


@pytest.mark.parametrize("size", [LINE_LIMIT - 1, LINE_LIMIT, LINE_LIMIT + 1, 10 * LINE_LIMIT, 10_000_000])
@pytest.mark.parametrize("chunk", [65_536, 1 << 30])
def test_a_line_is_cut_at_a_mebibyte(size: int, chunk: int) -> None:
    with patch("daemon.supervision.lines.LINE_LIMIT", LINE_LIMIT):
        found = cut(b"a\n" + b"x" * size + b"\nb\n", sizes=[chunk])
    first, *pieces, last = found
    assert (first, last) == (Line(2, b"a"), Line(size + 5, b"b"))
    assert b"".join(piece.data for piece in pieces) == b"x" * size
    count = -(-size // LINE_LIMIT)
    assert [piece.part for piece in pieces] == ([0] if count == 1 else list(range(1, count + 1)))
    assert [piece.more for piece in pieces] == [True] * (count - 1) + [False]
    assert [piece.end for piece in pieces] == [2 + LINE_LIMIT * n for n in range(1, count)] + [size + 3]


def test_a_long_line_byte_by_byte_costs_no_copy_for_each() -> None:
    with patch("daemon.supervision.lines.LINE_LIMIT", LINE_LIMIT):
        cutter, started = Cutter(0), time.process_time()
        for _ in range(LINE_LIMIT // 4):
            assert not cutter.feed(b"x")
        assert cutter.pending == LINE_LIMIT // 4
    assert time.process_time() - started < 5


def test_lines_are_cut_much_faster_than_they_are_followed() -> None:
    data = (b"x" * 99 + b"\n") * 655
    with patch("daemon.supervision.lines.LINE_LIMIT", LINE_LIMIT):
        cutter, started = Cutter(0), time.process_time()
        for _ in range(500):
            cutter.feed(data)
        speed = 500 * len(data) / 1e6 / (time.process_time() - started)
    print(f"\ncutting lines of 100 bytes: {speed:.0f} MB/s")
    assert speed > 100

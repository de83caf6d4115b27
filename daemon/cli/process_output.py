"""`daemon session output`: what a session's process has written, and what it writes, across restarts of the daemon."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeVar

import msgspec
import rich_click as click

from daemon.cli import base
from daemon.cli.client import Client
from daemon.cli.credentials import Owner
from daemon.cli.failure import Failure
from daemon.cli.following import Frame, Stream
from daemon.cli.lookup import session_id
from daemon.cli.output import note
from daemon.cli.session_view import session_argument
from daemon.domain import lines
from daemon.domain.views import SessionDetail
from daemon.supervision.lines import Cutter

T = TypeVar("T")
Kind = Literal["json", "text", "piece", "last-piece"]

_ANSWER_BYTES = 4 << 20
"""What one answer with raw output has at most: a shorter one has reached the end."""


class Line(msgspec.Struct, frozen=True):
    """A line of output, or a piece of a long one, as `--json` prints it.

    Args:
        offset: after it; `--offset` goes on there.
        kind: what it is.
        line: its text.
    """

    offset: int
    kind: Kind
    line: str


class Source(msgspec.Struct, frozen=True):
    """One stream of what a session's process writes."""

    session: str
    stream: str = "stdout"

    @property
    def path(self) -> str:
        """Where it is followed."""
        return f"/v1/sessions/{self.session}/output?stream={self.stream}"

    def bytes_at(self, client: Client, offset: int) -> bytes:
        """Return what was written from an offset on, at most as much as one answer has.

        Raises:
            Failure: the API refused; `first_kept` tells whether this part of the output is gone.
        """
        path = f"/v1/sessions/{self.session}/output"
        return client.call("GET", path, stream=self.stream, offset=offset, follow="false").body

    def written(self, client: Client, offset: int, gone: Callable[[int], None]) -> Iterator[tuple[int, bytes]]:
        """Yield what is there by now, each part with its offset.

        Args:
            client: asks for it.
            offset: of the first byte.
            gone: is told where it goes on, if some of it is not kept any more.
        """
        more = True
        while more:
            try:
                found = self.bytes_at(client, offset)
            except Failure as refused:
                offset = _first_kept(refused)
                gone(offset)
                continue
            yield offset, found
            offset += len(found)
            more = len(found) >= _ANSWER_BYTES

    def end_of_lines(self, client: Client, offset: int = 0) -> int:
        """Return the offset after the last whole line that is there by now."""
        end = offset
        for at, found in self.written(client, offset, lambda _: None):
            end = at + found.rfind(b"\n") + 1 if b"\n" in found else max(end, at)
        return end


def _first_kept(refused: Failure) -> int:
    """Return where the output begins that is still kept; any other refusal is raised."""
    first = refused.details.get("firstOffset")
    if refused.refusal != "OUTPUT_GONE" or not isinstance(first, int):
        raise refused
    return first


def _tell_gone(first: int) -> None:
    note(f"the output before byte {first} is not kept any more; going on from there")


class _Output(Stream[T]):
    """Output for as long as there will be any.

    Args:
        source: of it.
        offset: at which it begins.
        owner: who reads.
    """

    def __init__(self, source: Source, offset: int, owner: Owner) -> None:
        super().__init__(source.path, offset, owner)
        self.source = source
        self.skipped: Callable[[int], None] = lambda _: None
        """Is told where it goes on, if some of it is not kept any more."""

    def is_over(self, client: Client) -> bool:
        """Return whether the session is over, and so its output."""
        return client.call("GET", f"/v1/sessions/{self.source.session}").read(SessionDetail).state == "CLOSED"

    def goes_on(self, refused: Failure) -> bool:
        """Go on with what is still kept."""
        self.position = _first_kept(refused)
        _tell_gone(self.position)
        self.skipped(self.position)
        return True


class Lines(_Output[Line]):
    """Output line by line."""

    def read(self, client: Client, frames: list[Frame]) -> Iterator[Line]:
        """Yield the lines of some frames."""
        for frame in frames:
            self.position = frame.id
            if frame.data is not None:
                kind = msgspec.convert(frame.event, Kind)
                yield Line(frame.id, kind, frame.data.decode(errors="replace"))


class _Bytes(_Output[bytes]):
    """Output exactly as it was written, which a stream of text cannot carry: it only tells that there is more."""

    def read(self, client: Client, frames: list[Frame]) -> Iterator[bytes]:
        """Yield the bytes up to the last frame, and those behind it that are there already."""
        at = self.position or 0
        while at < frames[-1].id and (found := self.source.bytes_at(client, at)):
            self.position = at = at + len(found)
            yield found


@click.command(cls=base.Command)
@session_argument
@click.option(
    "-f", "--follow", is_flag=True, help="Go on with what it writes, line by line, until the session is over."
)
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), default="stdout", show_default=True, help="Which.")
@click.option("--offset", type=click.IntRange(0), default=0, metavar="N", help="Leave out the first N bytes.")
@click.option("--json", "as_json", is_flag=True, help="Print {offset, kind, line} for each line, one object a line.")
def output(*, session_ref: str, follow: bool, stream: str, offset: int, as_json: bool) -> None:
    """Print what the process of a SESSION has written, exactly as it was written."""
    source, owner = Source(session_id(session_ref), stream), Owner()
    if as_json:
        for line in Lines(source, offset, owner) if follow else _cut(_parts(source, offset, owner)):
            click.echo(msgspec.json.encode(line))
    else:
        for part in _Bytes(source, offset, owner) if follow else (part for _, part in _parts(source, offset, owner)):
            click.echo(part, nl=False)


def _parts(source: Source, offset: int, owner: Owner) -> Iterator[tuple[int, bytes]]:
    return source.written(Client(owner=owner), offset, _tell_gone)


def _cut(parts: Iterable[tuple[int, bytes]]) -> Iterator[Line]:
    """Yield the lines of raw output, cut as the daemon cuts them; the last one may be unfinished."""
    cutter: Cutter | None = None
    for at, part in parts:
        if cutter is None or cutter.end + cutter.pending != at:
            cutter = Cutter(at)
        yield from map(_line, cutter.feed(part))
    if cutter is not None:
        yield from map(_line, cutter.flush())


def _line(line: lines.Line) -> Line:
    return Line(line.end, _kind(line), line.data.removesuffix(b"\r").decode(errors="replace"))


def _kind(line: lines.Line) -> Kind:
    """Return what a line is, as the daemon tells it of those that are followed."""
    if line.part:
        return "piece" if line.more else "last-piece"
    if line.data[:1] not in {b"{", b"["}:
        return "text"
    try:
        msgspec.json.decode(line.data, type=msgspec.Raw)
    except ValueError:
        return "text"
    return "json"

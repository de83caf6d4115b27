"""The `audit.checkpoint` lines of the log: anchors of the audit chain that lie outside the database."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec


class Checkpoint(msgspec.Struct):
    """A line that says which hash an event had; of other lines only the event's name counts."""

    event: str = ""
    seq: int = 0
    hash: str = ""


class Compared(msgspec.Struct, frozen=True):
    """How many checkpoints were held against a chain, and the first that does not agree."""

    count: int
    disagrees: Checkpoint | None


def compare(logs: Iterable[Path], first: int, hash_of: Callable[[int], str | None]) -> Compared:
    """Hold the checkpoints of logs against a chain.

    A restore begins the chain anew at its own event: what the log says of later ones before that is of the database
    that was replaced. Nobody who can write the database alone can write the log, so its word counts.

    Args:
        logs: oldest first.
        first: the oldest event that was not archived; what was before is not compared.
        hash_of: returns the hash that the chain has at an event, None where it has none.

    Raises:
        OSError: a log cannot be read.
    """
    return hold(kept(logs, first), hash_of)


def kept(logs: Iterable[Path], first: int) -> list[Checkpoint]:
    """Return the checkpoints of logs that a chain is held against, in its order.

    Args:
        logs, first: as of `compare`.

    Raises:
        OSError: a log cannot be read.
    """
    points: dict[int, Checkpoint] = {}
    for line in _lines(logs):
        if line.event == "backup.restored":
            points = {seq: point for seq, point in points.items() if seq < line.seq}
        else:
            points[line.seq] = line
    return [points[seq] for seq in sorted(points) if seq >= first]


def hold(points: Sequence[Checkpoint], hash_of: Callable[[int], str | None]) -> Compared:
    """Hold checkpoints against a chain; `hash_of` is as of `compare`."""
    return Compared(len(points), next((point for point in points if hash_of(point.seq) != point.hash), None))


def _lines(logs: Iterable[Path]) -> Iterator[Checkpoint]:
    for log in logs:
        with log.open("rb") as file:
            for line in file:
                if b"audit.checkpoint" in line or b"backup.restored" in line:
                    yield from _read(line)


def _read(line: bytes) -> Iterator[Checkpoint]:
    try:
        read = msgspec.json.decode(line, type=Checkpoint)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    if read.event in {"audit.checkpoint", "backup.restored"} and read.seq > 0:
        yield read

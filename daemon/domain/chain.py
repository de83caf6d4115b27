"""The hash chain of the audit log: how events are linked, and the one walk that proves a log whole."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from daemon.domain.facts.daemon import AuditArchived
from daemon.domain.views import ChainHead, Verification

GENESIS = "0" * 64
"""The `prev_hash` of the first event."""

Row = Sequence[Any]
"""A row of the audit log: the ten hashed columns, then prev_hash and hash."""


def chain_hash(prev_hash: str, row: Row) -> str:
    """Return the lower-case hex SHA-256 that chains an event to the one before it.

    Args:
        prev_hash: the hash of the event before, or `GENESIS`.
        row: id, timestamp, event_type, actor, agent_id, session_id, severity, details (text), request_id, ip_address.
    """
    return hashlib.sha256(prev_hash.encode() + b"\n" + _encode(row)).hexdigest()


_encode = msgspec.json.Encoder().encode
_BEGINNING = ChainHead(seq=0, hash=GENESIS)


class _Anchor(msgspec.Struct, rename="camel"):
    through_seq: int
    through_hash: str


class ChainWalk:
    """Recomputes a chain row by row, oldest first.

    A whole log begins at event 1, or right after what its newest AUDIT_ARCHIVED event says was archived.
    """

    def __init__(self) -> None:
        self.sound = True
        """Whether every row so far links to the one before it."""
        self.before = _BEGINNING
        """The event before the first row, by what that row says."""
        self.seq = 0
        """Of the newest row that fits."""
        self._hash = GENESIS
        self._events = 0
        self._archived = _BEGINNING

    def take(self, row: Row) -> bool:
        """Take the next row and return whether it fits; once one does not, the walk is over."""
        if not self._events:
            self.before = ChainHead(seq=row[0] - 1, hash=str(row[10]))
            self.seq, self._hash = self.before.seq, self.before.hash
        expected = chain_hash(self._hash, row[:10])
        if row[0] != self.seq + 1 or row[10] != self._hash or row[11] != expected:
            self.sound = False
            return False
        if row[2] == AuditArchived.type:
            self._archived = _archived_through(row[7])
        self.seq, self._hash = row[0], expected
        self._events += 1
        return True

    @property
    def head(self) -> ChainHead:
        """The newest event that fits."""
        return ChainHead(seq=self.seq, hash=self._hash)

    def verdict(self, head: ChainHead | None = None) -> Verification:
        """Return whether what was walked is a whole log.

        Args:
            head: the newest event as it is known from elsewhere; None where the rows are all that is known.
        """
        return Verification(
            valid=(bad := self._first_bad(head or self.head)) is None,
            events=self._events,
            head=head or self.head,
            first_bad=bad,
        )

    def _first_bad(self, head: ChainHead) -> int | None:
        if not self.sound or self.seq < head.seq:
            return self.seq + 1
        if self.before != self._archived:
            return self._archived.seq + 1
        return None if self.head == head else self.seq


def _archived_through(details: str) -> ChainHead:
    try:
        anchor = msgspec.json.decode(details, type=_Anchor)
    except msgspec.DecodeError:
        return _BEGINNING
    return ChainHead(seq=anchor.through_seq, hash=anchor.through_hash)


def verify(rows: Iterable[Row]) -> Verification:
    """Recompute a whole log."""
    walk = ChainWalk()
    for row in rows:
        if not walk.take(row):
            break
    return walk.verdict()


def first_kept(whole: Verification) -> int:
    """Return the sequence number of the oldest event of a valid log that was not archived."""
    return whole.head.seq - whole.events + 1

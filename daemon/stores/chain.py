"""The events of a transaction, as every engine writes them."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from daemon.domain.chain import chain_hash
from daemon.domain.events import Event, Fact, Origin, details_text
from daemon.domain.views import ChainHead


class Chain:
    """The events of one transaction, chained to the newest one before it.

    Args:
        head: the newest event before the transaction.
        now: the transaction's time, Unix seconds.
    """

    def __init__(self, head: ChainHead, now: int) -> None:
        self.head = head
        self._now = now
        self.rows: list[tuple[Any, ...]] = []
        self.events: list[Event] = []

    def append(self, facts: Iterable[Fact], origin: Origin) -> None:
        """Chain facts in their order."""
        for fact in facts:
            details = details_text(fact)
            row = (
                self.head.seq + 1,
                self._now,
                fact.type,
                origin.actor,
                fact.agent_id,
                fact.session_id,
                fact.severity,
                details,
                origin.request_id,
                origin.ip_address,
            )
            digest = chain_hash(self.head.hash, row)
            self.rows.append((*row, self.head.hash, digest))
            self.events.append(to_event(self.rows[-1]))
            self.head = ChainHead(seq=row[0], hash=digest)

    def mark(self) -> tuple[int, ChainHead]:
        """Return where the chain stands now, for `back_to`."""
        return len(self.rows), self.head

    def back_to(self, mark: tuple[int, ChainHead]) -> None:
        """Forget what was appended since the mark."""
        length, self.head = mark
        del self.rows[length:], self.events[length:]


def to_event(row: Sequence[Any]) -> Event:
    """Map a row of the audit log: the ten hashed columns, then prev_hash and hash."""
    seq, timestamp, kind, actor, agent_id, session_id, severity, details, request_id, ip_address, prev_hash, digest = (
        row
    )
    return Event(
        seq, timestamp, kind, severity, actor, agent_id, session_id, request_id, ip_address,
        msgspec.Raw(details), prev_hash, digest,
    )  # fmt: skip

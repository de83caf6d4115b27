"""The audit log: reading it and proving that it is whole."""

from daemon.domain.events import GENESIS, Event, chain_hash
from daemon.domain.filters import EventFilter
from daemon.domain.views import ChainHead, Verification
from daemon.stores.protocol import Store

BATCH = 1000


class Audit:
    """The owner's view of what happened.

    Args:
        store: the engine.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def find(self, which: EventFilter, limit: int) -> list[Event]:
        """Return events that match, oldest first."""
        return await self._store.events(which, limit)

    async def head(self) -> ChainHead:
        """Return the newest event's sequence number and hash."""
        return await self._store.head()

    async def verify(self) -> Verification:
        """Recompute the whole chain, in batches on a reader, up to the head as of now."""
        head, seq, digest = await self._store.head(), 0, GENESIS
        while seq < head.seq:
            rows = await self._store.event_rows(seq, min(BATCH, head.seq - seq))
            if not rows:
                return Verification(valid=False, events=seq, head=head, first_bad=seq + 1)
            for row in rows:
                expected = chain_hash(digest, row[:10])
                if row[0] != seq + 1 or row[10] != digest or row[11] != expected:
                    return Verification(valid=False, events=seq, head=head, first_bad=seq + 1)
                seq, digest = seq + 1, expected
        valid = digest == head.hash
        return Verification(valid=valid, events=seq, head=head, first_bad=None if valid else seq)

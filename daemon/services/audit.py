"""The audit log: reading it and proving that it is whole."""

from daemon.domain.chain import ChainWalk
from daemon.domain.events import Event
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
        head, walk = await self._store.head(), ChainWalk()
        while walk.seq < head.seq:
            rows = [row for row in await self._store.event_rows(walk.seq, BATCH) if row[0] <= head.seq]
            if not rows or not all(walk.take(row) for row in rows):
                break
        return walk.verdict(head)

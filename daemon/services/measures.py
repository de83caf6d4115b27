"""What the daemon knows of its own work: plain numbers, for whoever shows them."""

from daemon.domain.census import Census
from daemon.domain.clock import Clock
from daemon.domain.errors import DaemonError
from daemon.domain.events import Event
from daemon.domain.facts import kinds
from daemon.histogram import Histogram
from daemon.stores.commits import Commits
from daemon.stores.live import CacheUse
from daemon.stores.protocol import Store


class Measures:
    """Counts what nobody else counts, and hands on what the engine does.

    Args:
        store: the engine.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.events = dict.fromkeys((kind.type for kind in kinds()), 0)
        """Events by type, those of other daemons on the same database too."""
        self.loop_lag = Histogram()
        """Seconds by which the event loop was late."""

    @property
    def clock(self) -> Clock:
        """The domain clock."""
        return self._store.clock

    @property
    def commits(self) -> Commits:
        """What the engine's writer has done."""
        return self._store.commits

    @property
    def locked(self) -> bool:
        """Whether the kill switch is on."""
        return self._store.locked

    def notice(self, event: Event) -> None:
        """Count a committed event; a newer daemon on the same database may tell of what has no name here."""
        if event.type in self.events:
            self.events[event.type] += 1

    def cache_use(self) -> CacheUse:
        """Return what the sessions in memory are good for."""
        return self._store.cache_use()

    async def census(self) -> Census | None:
        """Return how many rows there are of what is counted; None while the database cannot be read."""
        try:
            return await self._store.census()
        except DaemonError:
            return None

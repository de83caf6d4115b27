"""What refuses agents from the moment the owner stops everything, whichever way he does it."""

from collections.abc import Iterator
from contextlib import contextmanager

from daemon.stores.protocol import Store


class Latch:
    """Closed while the kill switch is on, and while it is being switched on.

    With very many sessions that transaction takes seconds, in which no agent shall go on.

    Args:
        store: the engine.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._closing = 0

    @property
    def is_closed(self) -> bool:
        """Whether everything but the owner's way back is refused."""
        return self._store.locked or self._closing > 0

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Keep it closed meanwhile; afterwards it is what was committed."""
        self._closing += 1
        try:
            yield
        finally:
            self._closing -= 1

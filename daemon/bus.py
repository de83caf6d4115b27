"""After-commit wake-ups: rows are the truth, what the bus carries only says that there is something new."""

from collections.abc import Callable

from daemon.domain.events import Event

Listener = Callable[[Event], None]


class Bus:
    """Hands committed events to listeners, which are registered in `app.py` alone and must not block or fail."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Call `listener` with every event from now on."""
        self._listeners.append(listener)

    def announce(self, events: list[Event]) -> None:
        """Hand a commit's events to every listener, in order."""
        for event in events:
            for listener in self._listeners:
                listener(event)

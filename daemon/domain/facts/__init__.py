"""What can happen: one frozen struct a fact, by the noun that it is about."""

from collections.abc import Iterator

from daemon.domain.events import Fact
from daemon.domain.facts import agents, conversations, daemon, messages, sessions, verifiers

__all__ = ["agents", "conversations", "daemon", "kinds", "messages", "sessions", "verifiers"]


def kinds() -> Iterator[type[Fact]]:
    """Yield every kind of fact that can happen, in the order of their definition."""
    waiting: list[type[Fact]] = [Fact]
    while waiting:
        kind = waiting.pop(0)
        below = kind.__subclasses__()
        waiting[:0] = below
        if not below:
            yield kind

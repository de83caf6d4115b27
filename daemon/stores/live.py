"""Sessions in memory, as every engine keeps them in front of its rows."""

from collections.abc import Iterator

import msgspec

from daemon.domain.rows import Agent, Session
from daemon.domain.status import expiry


class LiveSession(msgspec.Struct, weakref=True):
    """A session in memory: its row as last committed, its agent, and the activity that is not flushed yet.

    Only the event loop's thread changes it. Whoever holds one sees every later commit.

    Args:
        session: the row; its activity columns may be stale, the ones here count.
        agent: shared by all sessions of the agent.
        counted: requests that are stored.
        requests: requests that are not.
        last_activity: Unix seconds, stored or not.
        used_generation: the newest generation whose token was used, stored or not.
        rotated_monotonic: when this process saw the current generation made; None if it did not.
        window_started: monotonic seconds; start of the minute in which `window_requests` is counted.
        window_requests: requests of that minute, for `requestsPerMinute`.
        stale: whether another daemon changed the row, and it has not been read since.
        parent: of a child, the session that its agent made it from.
    """

    session: Session
    agent: "LiveAgent"
    counted: int
    requests: int
    last_activity: int | None
    used_generation: int
    rotated_monotonic: float | None = None
    window_started: float = 0.0
    window_requests: int = 0
    stale: bool = False
    parent: "LiveSession | None" = None

    @property
    def doubtful(self) -> bool:
        """Whether its row, or one that its own depends on, may differ from what is stored."""
        one: LiveSession | None = self
        while one is not None:
            if one.stale or one.agent.stale:
                return True
            one = one.parent
        return False

    @property
    def orphaned(self) -> bool:
        """Whether it is a child whose parent is gone, so that it is over, whatever its own row says."""
        return self.parent is None and self.session.parent_id is not None

    def seems_idle(self, now: int) -> bool:
        """Return whether it was idle for too long at a moment (Unix seconds), as far as this daemon knows."""
        return self.session.idle_timeout is not None and now >= expiry(self.session, self.last_activity)[0]

    @property
    def lineage(self) -> "Iterator[LiveSession]":
        """It and the sessions above it."""
        one: LiveSession | None = self
        while one is not None:
            yield one
            one = one.parent


class LiveAgent(msgspec.Struct, weakref=True):
    """An agent in memory: its row as last committed; `stale` as of a session."""

    row: Agent
    stale: bool = False


class CacheUse(msgspec.Struct, frozen=True):
    """What the sessions in memory were good for, since the start.

    Args:
        sessions: that are there now.
        hits: tokens that were found there.
        misses: sessions that had to be read.
    """

    sessions: int
    hits: int
    misses: int


class SealedAnswer(msgspec.Struct, frozen=True):
    """What a holder of the previous token may read: the last renewal's answer, sealed under that token."""

    previous_token_hash: str | None
    box: bytes | None

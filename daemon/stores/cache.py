"""The bounded memory in front of the session table. Only the event loop's thread touches it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from weakref import WeakValueDictionary

from daemon.domain.clock import Clock
from daemon.domain.errors import DaemonError
from daemon.domain.rows import Agent, Session
from daemon.stores.live import CacheUse, LiveAgent, LiveSession

FLUSH_CHUNK = 1000
"""Sessions whose activity is stored in one unit, so that others need not wait long."""
_TOUCHED = 10_000
"""Changed rows that are told apart while others are being read; with more of them every reading is repeated."""


class SessionCache:
    """Live sessions by the hash of their current token and by id, the least recently used leaving first.

    What has activity that is not stored yet stays until it is, whatever the bound. What other daemons changed is stale:
    it is not served until it has been read again, into the same object.

    Args:
        size: sessions kept at most.
        clock: for the moment a new generation is seen.
    """

    def __init__(self, size: int, clock: Clock) -> None:
        self._size = size
        self._clock = clock
        self._by_token: dict[str, LiveSession] = {}
        self._by_id: WeakValueDictionary[str, LiveSession] = WeakValueDictionary()
        self._agents: WeakValueDictionary[str, LiveAgent] = WeakValueDictionary()
        self._dirty: dict[str, LiveSession] = {}
        self._loads = 0
        self._commits = 0
        self._touched: dict[str, int] = {}
        self._all_touched = 0
        self._hits = 0
        self._misses = 0

    def __len__(self) -> int:
        return len(self._by_token)

    def by_token(self, token_hash: str) -> LiveSession | None:
        """Return the session whose current token has this hash, and mark it as used."""
        live = self._by_token.pop(token_hash, None)
        if live is None:
            return None
        self._by_token[token_hash] = live
        if live.doubtful:
            return None
        self._hits += 1
        return live

    def by_id(self, session_id: str) -> LiveSession | None:
        """Return the session with this id."""
        live = self._by_id.get(session_id)
        return None if live is None or live.doubtful else live

    def missed(self) -> None:
        """Note that a session has to be read."""
        self._misses += 1

    def use(self) -> CacheUse:
        """Return what it did since it was made."""
        return CacheUse(len(self), self._hits, self._misses)

    def count(self, live: LiveSession, now: int, generation: int) -> None:
        """Count one request, to be stored later; one of a child counts for all that are above it."""
        live.used_generation = max(live.used_generation, generation)
        one: LiveSession | None = live
        while one is not None:
            one.requests += 1
            one.last_activity = now
            self._dirty[one.session.id] = one
            one = one.parent

    async def flush(self, store: Callable[[list[LiveSession]], Awaitable[object]]) -> None:
        """Store activity that is only in memory, in chunks; what cannot be stored is kept.

        Args:
            store: stores that of some sessions.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        dirty, self._dirty = list(self._dirty.values()), {}
        while dirty:
            chunk, dirty = dirty[:FLUSH_CHUNK], dirty[FLUSH_CHUNK:]
            try:
                await store(chunk)
            except DaemonError:
                self._keep_dirty([*chunk, *dirty])
                raise
            except asyncio.CancelledError:  # what was begun goes on
                self._keep_dirty(dirty)
                raise

    def _keep_dirty(self, lives: list[LiveSession]) -> None:
        for live in lives:
            self._dirty.setdefault(live.session.id, live)

    def flushed(self, live: LiveSession, requests: int) -> None:
        """Note that so many requests are stored now."""
        live.requests -= requests
        live.counted += requests
        self._note(live.session.id)

    def converge(self, live: LiveSession, counted: int, last_activity: int, used_generation: int) -> None:
        """Take over a session's stored activity, to which other daemons may have added."""
        live.counted = counted
        live.last_activity = max(live.last_activity or 0, last_activity) or None
        live.used_generation = max(live.used_generation, used_generation)

    def put(self, session: Session) -> None:
        """Take over a session's row after an own commit.

        What is stale stays so: another daemon's commit may have been later, and heard of before this one's answer.
        """
        live = self._by_id.get(session.id)
        if live is not None:
            self._replace(live, session, self._clock.monotonic())
        self._note(session.id)

    def _replace(self, live: LiveSession, session: Session, rotated_monotonic: float | None) -> None:
        before = live.session
        live.session = session
        live.counted = session.request_count
        if session.token_hash != before.token_hash:
            self._by_token.pop(before.token_hash, None)
            live.rotated_monotonic = rotated_monotonic
            self._enter(live)

    def put_agent(self, agent: Agent) -> None:
        """Take over an agent's row after an own commit; `stale` as in `put`."""
        live = self._agents.get(agent.id)
        if live is not None:
            live.row = agent
        self._note(agent.id)

    def add_new(self, session: Session, agent: Agent) -> None:
        """Take in a session that was just made; a child whose parent is not in memory is read when it is used."""
        parent = self._by_id.get(session.parent_id) if session.parent_id is not None else None
        if parent is not None or session.parent_id is None:
            self.add(session, agent, parent)

    def add(self, session: Session, agent: Agent, parent: LiveSession | None = None) -> LiveSession:
        """Take in a session that was read or made, and that no later commit has changed.

        Args:
            session: its row.
            agent: its agent's row.
            parent: of a child; None where that is gone, as its children then are.
        """
        holder = self._agents.get(agent.id)
        if holder is None:
            self._agents[agent.id] = holder = LiveAgent(agent)
        else:
            holder.row, holder.stale = agent, False
        known = self._by_id.get(session.id)
        if known is not None:
            # Who rotated it elsewhere did so at a moment that only the row tells.
            self._replace(known, session, None)
            self.converge(known, session.request_count, session.last_activity or 0, session.used_generation)
            known.stale, known.parent = False, parent
            self._enter(known)
            return known
        live = LiveSession(session, holder, session.request_count, 0, session.last_activity, session.used_generation)
        live.parent = parent
        self._by_id[session.id] = live
        self._enter(live)
        return live

    def doubt(self, session_ids: Iterable[str], agent_ids: Iterable[str]) -> None:
        """Note that another daemon changed rows: what is in memory of them is stale."""
        for ids, known in ((session_ids, self._by_id), (agent_ids, self._agents)):
            for key in ids:
                live = known.get(key)
                if live is not None:
                    live.stale = True
                self._note(key)

    def doubt_everything(self) -> None:
        """Note that every row may have changed."""
        for known in (self._by_id, self._agents):
            for live in known.values():
                live.stale = True
        self._note_all()

    def forget(self, ids: list[str]) -> None:
        """Drop sessions whose rows were deleted."""
        for session_id in ids:
            live = self._by_id.pop(session_id, None)
            if live is not None:
                self._by_token.pop(live.session.token_hash, None)
            self._dirty.pop(session_id, None)
            self._note(session_id)

    def clear(self) -> None:
        """Forget everything but activity that is not stored: what is in the file may differ."""
        self._by_token.clear()
        kept = list(self._dirty.values())
        for live in kept:
            live.stale = True
        self._by_id = WeakValueDictionary({live.session.id: live for live in kept})

    def begin_load(self) -> int:
        """Note that a reader is about to read, and return the number of commits seen so far."""
        self._loads += 1
        return self._commits

    def end_load(self, since: int, *ids: str) -> bool:
        """Return whether none of the rows with these ids changed since `begin_load`, so that what was read holds."""
        fresh = self.is_fresh(since, *ids)
        self._loads -= 1
        if self._loads == 0:
            self._touched.clear()
        return fresh

    def is_fresh(self, since: int, *ids: str) -> bool:
        """Return whether none of the rows with these ids changed since `begin_load`, which has not ended yet."""
        return self._all_touched <= since and all(self._touched.get(key, -1) <= since for key in ids)

    def _note(self, key: str) -> None:
        if self._loads:
            self._commits += 1
            self._touched[key] = self._commits
            if len(self._touched) > _TOUCHED:
                self._note_all()

    def _note_all(self) -> None:
        self._commits += 1
        self._all_touched = self._commits
        self._touched.clear()

    def _enter(self, live: LiveSession) -> None:
        self._by_token.pop(live.session.token_hash, None)
        self._by_token[live.session.token_hash] = live
        while len(self._by_token) > self._size:
            del self._by_token[next(iter(self._by_token))]

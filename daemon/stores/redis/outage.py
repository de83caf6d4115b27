"""Who answers, Redis or the engine: the one way out when Redis fails, and the one way back."""

import asyncio
from collections.abc import Callable
from functools import partial
from secrets import token_hex

from daemon.domain.errors import DaemonError
from daemon.domain.events import SYSTEM
from daemon.domain.rows import ConversationKey
from daemon.stores.conversations import EngineConversations
from daemon.stores.protocol import Store
from daemon.stores.redis.attachment import APART_SECONDS, KEY, SCOPE, SLACK, attach, detach, meet, read
from daemon.stores.redis.copying import Copying
from daemon.stores.redis.failures import AwayError, not_a_redis
from daemon.stores.redis.keys import Keys
from daemon.stores.redis.link import Link, Server
from daemon.stores.redis.mirror import Mirror
from daemon.stores.terms import Elsewhere, UnfitError

START_SECONDS = 10.0
"""How long a start waits for what Redis missed to be copied; the rest is copied while the engine answers."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0
"""Seconds between two looks whether Redis is back."""
ROUNDS, FEW = 5, 100
"""Copies of what changed during the one before, at most, until so little is left that agents may wait for it."""
TURN_SECONDS = 1.0
"""How long agents may wait for that."""


_APART = "another daemon cannot reach it"


class Outage:
    """Whether Redis serves; only the event loop's thread is in here.

    It serves all daemons on a database or none: what one of them leaves in the engine the others would not see.

    Args:
        store: the engine.
        engine: the conversations in it.
        link: the server.
        mirror: what the engine is still to be told.
        copying: brings Redis up to date.
        keys: the form of the keys, for one that nobody else uses.
        report: puts one line into the structured log.
    """

    def __init__(
        self,
        store: Store,
        engine: EngineConversations,
        *,
        link: Link,
        mirror: Mirror,
        copying: Copying,
        keys: Keys,
        report: Callable[..., None],
    ) -> None:
        self._store = store
        self._engine = engine
        self._link = link
        self._mirror = mirror
        self._copying = copying
        self._name = token_hex(8)
        self._probe_key = keys.session(f"probe-{self._name}")
        self._report = report
        self.serving = False
        """Whether Redis answers; the engine does otherwise."""
        self.reason = ""
        """Why it does not."""
        self.term = 0
        """How often it has begun to."""
        self._told = False
        self._cut_off = False
        self._renewal = 0.0
        self._since: int | None = None
        self._doubts = 0
        self._settled = 0
        self._followed = 0
        self._looking = asyncio.Lock()
        self._answering = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._open = asyncio.Event()
        self._open.set()
        self._preparing: asyncio.Future[None] | None = None
        self._pause = FIRST_PAUSE
        self._next_look = 0.0

    async def start(self) -> None:
        """Connect; a server that is away is waited for while the engine answers.

        Raises:
            UnfitError: it can never serve.
            DaemonError: STORAGE_UNAVAILABLE.
        """
        before = read(await self._store.value(KEY))
        try:
            server = await self._link.greet(self._probe_key)
            async with asyncio.timeout(START_SECONDS):
                await self._return(server)
        except AwayError as away:
            if away.silent and before is None:
                # One that served before is behind something that takes connections in its place.
                raise not_a_redis() from away
            self.begin(away)
        except TimeoutError:
            self.begin(AwayError("what it missed is still being copied"), cut_off=False)

    def begin(self, away: AwayError, *, cut_off: bool = True) -> None:
        """Let the engine answer from now on; whoever notices first is the one that tells.

        Args:
            away: why.
            cut_off: this daemon cannot reach Redis, so that no other one must let it answer.
        """
        if not self.serving and self._told:
            return
        self.serving, self._told, self._cut_off = False, True, cut_off and away.reason != _APART
        self.reason = away.reason
        self._link.away = away
        self._preparing = None
        self._pause, self._next_look = FIRST_PAUSE, self._store.clock.monotonic()
        self._report("conversations.degraded", reason=away.reason)

    def doubt(self) -> None:
        """Note that another daemon may have left Redis, or returned to it."""
        self._doubts += 1
        self._next_look = self._store.clock.monotonic()

    async def settle(self) -> None:
        """Follow a daemon that has left Redis for the engine, where one may have.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        certain = self._settled == self._doubts and self._store.is_current
        while not certain:
            doubts = self._doubts
            stored = read(await self._store.value(KEY))
            certain = doubts == self._doubts
            if certain:
                self._settled = doubts
                if self.serving and stored is not None and stored.since is not None:
                    self.begin(AwayError(_APART))

    async def enter(self) -> bool:
        """Wait until the engine may answer, and return True, to be followed by `exit`; False: Redis does again.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        while not self.serving:
            await self._open.wait()
            await self._follow()
            await self._prepared()
            if self._open.is_set() and not self.serving:
                self._answering += 1
                self._quiet.clear()
                return True
        return False

    def exit(self) -> None:
        """Tell that the engine has answered."""
        self._answering -= 1
        if not self._answering:
            self._quiet.set()

    def note(self, key: ConversationKey) -> None:
        """Tell that the engine changed a conversation."""
        self._copying.note(key)

    def note_deleted(self, key: ConversationKey) -> None:
        """Tell that the engine deleted a conversation."""
        self._copying.note_deleted(key)

    async def look(self) -> None:
        """Look whether Redis is back, if it is away and the time for it has come, and return to it."""
        async with self._looking:
            if self.serving or self._store.clock.monotonic() < self._next_look:
                return
            try:
                await self._prepared()
                await self._return(await self._greeted())
            except (AwayError, UnfitError, DaemonError) as error:
                self.reason = error.reason if isinstance(error, AwayError) else str(error)
                self._next_look = self._store.clock.monotonic() + self._pause
                self._pause = min(2 * self._pause, LONGEST_PAUSE)

    async def _follow(self) -> None:
        """Return at once where another daemon may have: the engine's answers are no longer all there is."""
        if self._followed == self._doubts or self._cut_off:
            return
        self._followed = self._doubts
        looking = asyncio.ensure_future(self.look())
        await asyncio.wait({looking}, timeout=TURN_SECONDS)

    async def _greeted(self) -> Server:
        """Return who answers; while nobody does the other daemons are told so again and again."""
        try:
            return await self._link.greet(self._probe_key)
        except (AwayError, UnfitError):
            if not self._cut_off or self._store.clock.monotonic() >= self._renewal:
                await self._detach()
            raise

    async def _detach(self) -> None:
        self._cut_off = True
        self._renewal = self._store.clock.monotonic() + APART_SECONDS / 3
        self._begun(await self._store.change(SCOPE, partial(detach, name=self._name), SYSTEM))

    def _begun(self, since: int) -> None:
        self._since = since if self._since is None else min(since, self._since)

    async def _prepared(self) -> None:
        """Wait until the outage is noted, where a crash cannot lose it, and the engine knows what Redis knew."""
        if self._preparing is None or (self._preparing.done() and self._preparing.exception() is not None):
            self._preparing = asyncio.ensure_future(self._prepare())
        await asyncio.shield(self._preparing)

    async def _prepare(self) -> None:
        if self._cut_off:
            await self._detach()
        else:  # noted by the daemon that is
            self._begun(self._store.clock.now() - SLACK)
        await self._mirror.flush_without_redis()
        self._engine.forget(Elsewhere(everything=True))

    async def _return(self, server: Server) -> None:
        """Copy what the server missed, and let it answer: not before it has everything."""
        self._link.server = server
        try:
            before = await self._store.change(SCOPE, partial(meet, name=self._name), SYSTEM)
            self._cut_off = False
            if before.apart:
                raise AwayError(_APART)
            # What this daemon left in the engine it copies itself: another one may have returned before.
            missed = [since for since in (before.since, self._since) if since is not None]
            if before.run_id != server.run_id:
                missed.append(0)
            copied = await self._copying.everything(min(missed)) if missed else 0
            for _ in range(ROUNDS):
                if self._copying.left > FEW:
                    copied += await self._copying.rest()
            copied += await self._turn(server)
        finally:
            self._copying.end()
        if self._told or before.since is not None or copied:
            self._report("conversations.recovered", copied=copied)
        self._told = False

    async def _turn(self, server: Server) -> int:
        """Copy the rest while nobody is answered, and let Redis answer; return how much changed there."""
        self._open.clear()
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._quiet.wait()
                copied = await self._copying.rest()
                if not await self._store.change(SCOPE, partial(attach, run_id=server.run_id), SYSTEM):
                    raise AwayError(_APART)
        except TimeoutError:
            raise AwayError("it was too slow to return to") from None
        finally:
            self._open.set()
        self._link.away = None
        self.serving, self.reason, self._since = True, "", None
        self.term += 1
        return copied

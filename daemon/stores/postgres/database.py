"""The PostgreSQL engine: rows that several daemons share, the session cache, activity written behind."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from daemon.domain.changes import Decide, Scope
from daemon.domain.clock import Clock
from daemon.domain.errors import STORAGE_UNAVAILABLE, DaemonError
from daemon.domain.events import Origin
from daemon.domain.facts.daemon import AuditArchived
from daemon.domain.filters import SessionFilter
from daemon.domain.kill_switch import KEY as KILL_SWITCH
from daemon.domain.kill_switch import is_on
from daemon.domain.pages import Page
from daemon.domain.rows import Conversation, Delivery, Session, TouchedConversation
from daemon.domain.views import EngineStatus
from daemon.stores.cache import SessionCache
from daemon.stores.live import LiveSession
from daemon.stores.postgres import answers, conversations, events, notifications, sessions, values, verifiers
from daemon.stores.postgres.backup import back_up
from daemon.stores.postgres.connection import Connection, Pool
from daemon.stores.postgres.reads import Reads
from daemon.stores.postgres.transaction import Change, Transaction, Written
from daemon.stores.postgres.watch import Watch
from daemon.stores.postgres.writer import Unit, Writer
from daemon.stores.terms import BackupFile, Elsewhere, Telling

T = TypeVar("T")


class PostgresStore(Reads):
    """The engine that several daemons may share. Open it with `open_store`.

    Args:
        pool: connections.
        clock: the domain clock.
        cache: sessions in memory.
        watch: hears what other daemons change.
        instance: this daemon's id among those that send messages.
        failed: called with what kept a batch from being committed.
    """

    def __init__(
        self,
        pool: Pool,
        clock: Clock,
        cache: SessionCache,
        watch: Watch,
        *,
        instance: str,
        failed: Callable[[BaseException], None],
    ) -> None:
        super().__init__(pool, clock)
        self._cache = cache
        self._instance = instance
        self._failed = failed
        self._writer = Writer(
            pool,
            clock,
            lambda: watch.instance,
            committed_events=watch.announcer.committed,
            on_message=self._messages_wait,
            failed=self._lost,
        )
        self._watch = watch
        self.is_shared = True
        self.on_message: Callable[[], None] = lambda: None
        self.on_elsewhere: Callable[[Elsewhere], None] = lambda _: None
        watch.on_message = self._messages_wait
        watch.on_elsewhere = self._changed_elsewhere
        self.touch = cache.count
        self.cache_use = cache.use
        self.commits = self._writer.commits
        self.leads = watch.leads
        self.follow = watch.announcer.follow
        self.chores = watch.chores

    @property
    def locked(self) -> bool:
        """Whether the kill switch is on."""
        return self._watch.locked

    @property
    def is_current(self) -> bool:
        """Whether what is in memory is known to be at most a second older than the rows."""
        return self._watch.is_current

    @property
    def telling(self) -> Telling:
        """Whether messages are written for facts, and what is a repetition."""
        return self._writer.telling

    @telling.setter
    def telling(self, telling: Telling) -> None:
        self._writer.telling = telling

    def _messages_wait(self) -> None:
        self.on_message()

    def _changed_elsewhere(self, elsewhere: Elsewhere) -> None:
        self.on_elsewhere(elsewhere)

    def _lost(self, cause: BaseException, perhaps_committed: bool) -> None:
        """Forget what may differ from what is stored."""
        if perhaps_committed:
            self._watch.rename()
        self._failed(cause)

    async def change(self, scope: Scope, decide: Decide[T], origin: Origin) -> T:
        """Run one change in the next batch."""
        since = self._cache.begin_load()
        try:
            change = Change(scope, decide, origin)
            written = await self._writer.run(Unit[Written](change, lambda written: self._committed(written, since)))
        finally:
            self._cache.end_load(since)
        answer: T = written.outcome.answer
        return answer

    def _committed(self, written: Written, since: int) -> None:
        outcome, rows = written.outcome, written.rows
        if outcome.values is not None and KILL_SWITCH in outcome.values:
            self._watch.switch(on=is_on(outcome.values[KILL_SWITCH]))
        if outcome.agent is not None:
            self._cache.put_agent(outcome.agent)
        for agent in outcome.agents:
            self._cache.put_agent(agent)
        for session in outcome.sessions:
            self._cache.put(session)
        if outcome.session is not None:
            self._cache.put(outcome.session)
        made, holder = outcome.new_session, rows.agent
        # Word of what another daemon did to them since may have come before the answer to this commit.
        if made is not None and holder is not None and self._cache.is_fresh(since, made.id, holder.id):
            self._cache.add_new(made, holder)

    def cached(self, token_hash: str) -> LiveSession | None:
        """Return the session whose current token has this hash if it is in memory and may be trusted."""
        return self._cache.by_token(token_hash) if self._watch.is_current else None

    async def live_by_token(self, token_hash: str) -> LiveSession | None:
        """Return the session whose current or previous token has this hash."""
        return self.cached(token_hash) or await self._load_live(lambda raw: sessions.live_by_token(raw, token_hash))

    async def live_by_id(self, session_id: str) -> LiveSession | None:
        """Return the session with this id."""
        known = self._cache.by_id(session_id) if self._watch.is_current else None
        return known or await self._load_live(lambda raw: sessions.live_by_id(raw, session_id))

    async def _load_live(self, read: Callable[[Connection], Awaitable[sessions.Live | None]]) -> LiveSession | None:
        """Read a session and its agent into the cache; again if a commit overtook the reading."""
        self._cache.missed()
        while True:
            since, switches = self._cache.begin_load(), self._watch.switches()
            ids: tuple[str, ...] = ()
            parent = None
            try:
                found = await self._pool.run(read)
                ids = (found[0].id, found[1].id) if found else ()
                if found is not None and found[0].parent_id is not None:
                    parent = await self.live_by_id(found[0].parent_id)
            finally:
                fresh = self._cache.end_load(since, *ids)
            if found is None:
                return None
            session, agent, locked = found
            self._watch.settle(switches, on=locked)
            if fresh:
                return self._cache.add(session, agent, parent)

    async def reread(self, live: LiveSession) -> LiveSession | None:
        """Return a session as it stands, whoever used it since."""
        return await self._load_live(lambda raw: sessions.live_by_id(raw, live.session.id))

    async def flush(self) -> None:
        """Store all activity that is only in memory, in chunks."""
        await self._cache.flush(lambda chunk: self._writer.run(self._flush_unit(chunk)))

    def _flush_unit(self, chunk: list[LiveSession]) -> Unit[dict[str, tuple[int, int, int]]]:
        counts = [live.requests for live in chunk]
        rows = [
            (count, live.last_activity or 0, live.used_generation, live.session.id)
            for live, count in zip(chunk, counts, strict=True)
        ]

        def committed(stored: dict[str, tuple[int, int, int]]) -> None:
            for live, count in zip(chunk, counts, strict=True):
                self._cache.flushed(live, count)
                if live.session.id in stored:
                    self._cache.converge(live, *stored[live.session.id])

        return Unit(lambda tx: sessions.add_activity(tx.raw, rows), committed)

    async def session(self, session_id: str) -> Session | None:
        """Return a session, its activity included."""
        await self._flush_for_reading()
        return await self._pool.run(lambda raw: sessions.get(raw, session_id))

    async def sessions(self, which: SessionFilter, page: Page) -> list[Session]:
        """Return sessions, newest first, their activity included."""
        await self._flush_for_reading()
        now = self.clock.now()
        return await self._pool.run(lambda raw: sessions.find(raw, which, page, now))

    async def living_below(self, top_ids: Sequence[str]) -> list[Session]:
        """Return what lives in the trees below sessions that owners made, their activity included."""
        await self._flush_for_reading()
        return await self._pool.run(lambda raw: sessions.living_below(raw, top_ids))

    async def _flush_for_reading(self) -> None:
        """Store activity first, so that what an owner reads includes it; a failure of that must not hide the rest."""
        try:
            await self.flush()
        except DaemonError:
            return

    async def due_deliveries(self, limit: int, without: Sequence[str]) -> list[Delivery]:
        """Return messages to be sent now, the most urgent and then the oldest first, and take them for a while."""
        now = self.clock.now()
        return await self._pool.run(lambda raw: notifications.take(raw, now, limit, without, self._instance))

    async def purge_sessions(self, ended_before: int, limit: int) -> int:
        """Delete at most `limit` sessions that ended before."""

        async def work(tx: Transaction) -> list[str]:
            tx.word.sessions = await sessions.purge(tx.raw, ended_before, limit)
            return tx.word.sessions

        ids: list[str] = await self._writer.run(Unit(work, self._cache.forget, long=True))
        return len(ids)

    async def purge_idempotency_keys(self, before: int) -> int:
        """Delete idempotency keys older than `before`."""
        return await self._writer.run(Unit(lambda tx: values.purge_keys(tx.raw, before), long=True))

    async def touch_conversations(self, rows: Sequence[TouchedConversation]) -> list[Conversation]:
        """Store uses of conversations that were counted in memory, and return the rows with those of every daemon."""
        return await self._writer.run(Unit(lambda tx: conversations.add_use(tx.raw, rows)))

    async def purge_conversations(self, before: int, limit: int) -> int:
        """Delete at most `limit` conversations that expired before."""
        return await self._writer.run(Unit(lambda tx: conversations.purge(tx.raw, before, limit), long=True))

    async def touch_verifiers(self, uses: Mapping[str, int]) -> None:
        """Store last uses of verifiers."""
        await self._writer.run(Unit(lambda tx: verifiers.touch(tx.raw, uses)))

    async def purge_notifications(self, done_before: int, logged_before: int) -> None:
        """Delete what was sent, what was logged, and answers that ended, before (Unix seconds)."""

        async def work(tx: Transaction) -> None:
            await notifications.purge(tx.raw, done_before, logged_before)
            await answers.purge(tx.raw, done_before)

        await self._writer.run(Unit(work, long=True))

    async def status(self) -> EngineStatus:
        """Return where rows live."""

        async def read(raw: Connection) -> EngineStatus:
            row = await raw.fetchrow(
                "SELECT pg_database_size(current_database()), (SELECT max(version) FROM schema_migrations)"
            )
            return EngineStatus(kind="postgresql", size_bytes=row[0], schema_version=row[1])

        return await self._pool.run(read)

    async def probe(self) -> None:
        """Prove that rows can be read, and written if the last write failed."""
        await self._pool.run(events.head)
        if self._writer.failure is not None:
            await self._writer.run(Unit(lambda tx: values.put(tx.raw, [("write_probe", str(tx.now))], tx.now)))

    async def pulse(self) -> None:
        """Return: no thread writes here, and whoever waits for the server waits on the event loop, within a limit."""

    async def backup(self, directory: Path, stem: str) -> BackupFile:
        """Write a checked SQLite file with all that is committed, which `daemon db copy` can bring back."""
        return await back_up(self._pool.url, directory, stem, self.clock.now())

    async def archive(self, fact: AuditArchived, origin: Origin) -> None:
        """Remove the events that `fact` says are in a file and record it, in one transaction."""

        async def work(tx: Transaction) -> None:
            if await events.remove_through(tx.raw, fact.through_seq) != fact.events:
                raise DaemonError(STORAGE_UNAVAILABLE, "Other events were there than those that are in the file.")
            await tx.record(fact, origin)

        await self._writer.run(Unit(work, long=True))

    async def close(self) -> None:
        """Wait for what is queued, then let go of every connection."""
        await self._writer.idle()
        await self._watch.close()
        await self._pool.close()

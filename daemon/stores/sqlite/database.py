"""The SQLite engine: one writer, a few readers, the session cache, activity written behind."""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from daemon.domain.changes import Decide, Outcome, Rows, Scope
from daemon.domain.clock import Clock
from daemon.domain.descent import with_descendants
from daemon.domain.errors import DaemonError
from daemon.domain.events import Origin
from daemon.domain.facts.daemon import AuditArchived
from daemon.domain.filters import SessionFilter
from daemon.domain.kill_switch import KEY as KILL_SWITCH
from daemon.domain.kill_switch import is_on
from daemon.domain.pages import Page
from daemon.domain.rows import Agent, Conversation, Session, TouchedConversation
from daemon.domain.views import ChainHead, EngineStatus
from daemon.stores.cache import SessionCache
from daemon.stores.live import LiveSession
from daemon.stores.migrate import schema_version
from daemon.stores.sqlite import answers, changes, conversations, events, notifications, sessions, values, verifiers
from daemon.stores.sqlite.backup import back_up, refusal
from daemon.stores.sqlite.connection import Connection, Readers, unavailable
from daemon.stores.sqlite.reads import Reads
from daemon.stores.sqlite.writer import Transaction, Unit, Writer
from daemon.stores.terms import BackupFile, Chore, Elsewhere, Telling

T = TypeVar("T")


class Written(msgspec.Struct):
    """What a change wrote, for the cache."""

    outcome: Outcome[Any]
    rows: Rows
    told: bool


class SQLiteStore(Reads):
    """The default engine. Open it with `open_store`.

    Args:
        path: the database file.
        connection, writer: the one that writes.
        readers: those that read.
        clock: the domain clock.
        cache: sessions in memory.
        checkpoint_seconds: between checkpoints of the write-ahead log.
    """

    def __init__(
        self,
        path: Path,
        *,
        connection: Connection,
        writer: Writer,
        readers: Readers,
        clock: Clock,
        cache: SessionCache,
        checkpoint_seconds: float,
    ) -> None:
        super().__init__(readers, clock)
        self.path = path
        self._connection = connection
        self._writer = writer
        self._cache = cache
        self._schema_version = schema_version(path)
        self.locked = False
        self.telling = Telling()
        self.on_message: Callable[[], None] = lambda: None
        self.on_elsewhere: Callable[[Elsewhere], None] = lambda _: None
        self.is_current = True
        self.is_shared = False
        self._checkpoint_seconds = checkpoint_seconds
        self.cached = cache.by_token
        self.touch = cache.count
        self.cache_use = cache.use
        self.commits = writer.commits

    async def change(self, scope: Scope, decide: Decide[T], origin: Origin) -> T:
        """Run one change in the next batch."""

        def work(tx: Transaction) -> Written:
            rows = changes.load(tx, scope)
            outcome = with_descendants(scope, rows, decide(rows, tx.now), tx.now)
            if outcome.answer_at is not None:
                outcome.answer = outcome.answer_at(tx.chain.head.seq + 1)
            told = changes.write(tx, rows, outcome, origin, self.telling)
            return Written(outcome, rows, told)

        written = await self._writer.run(Unit(work, self._committed))
        answer: T = written.outcome.answer
        return answer

    def _committed(self, written: Written) -> None:
        outcome, rows = written.outcome, written.rows
        if written.told:
            self.on_message()
        if outcome.values is not None and KILL_SWITCH in outcome.values:
            self.locked = is_on(outcome.values[KILL_SWITCH])
        if outcome.agent is not None:
            self._cache.put_agent(outcome.agent)
        for agent in outcome.agents:
            self._cache.put_agent(agent)
        for session in outcome.sessions:
            self._cache.put(session)
        if outcome.session is not None:
            self._cache.put(outcome.session)
        if outcome.new_session is not None and rows.agent is not None:
            self._cache.add_new(outcome.new_session, rows.agent)

    async def live_by_token(self, token_hash: str) -> LiveSession | None:
        """Return the session whose current or previous token has this hash."""
        return self._cache.by_token(token_hash) or await self._load_live(lambda raw: sessions.by_token(raw, token_hash))

    async def live_by_id(self, session_id: str) -> LiveSession | None:
        """Return the session with this id."""
        return self._cache.by_id(session_id) or await self._load_live(lambda raw: sessions.with_agent(raw, session_id))

    async def _load_live(
        self, read: Callable[[sqlite3.Connection], tuple[Session, Agent] | None]
    ) -> LiveSession | None:
        """Read a session and its agent into the cache; again if a commit overtook the reading."""
        self._cache.missed()
        while True:
            since = self._cache.begin_load()
            ids: tuple[str, ...] = ()
            parent = None
            try:
                found = await self._readers.run(read)
                ids = (found[0].id, found[1].id) if found else ()
                if found is not None and found[0].parent_id is not None:
                    parent = await self.live_by_id(found[0].parent_id)
            finally:
                fresh = self._cache.end_load(since, *ids)
            if found is None:
                return None
            if fresh:
                return self._cache.add(*found, parent)

    async def reread(self, live: LiveSession) -> LiveSession | None:
        """Return it: nobody else writes to this file."""
        return live

    async def flush(self) -> None:
        """Store all activity that is only in memory, in chunks."""
        await self._cache.flush(lambda chunk: self._writer.run(self._flush_unit(chunk)))

    def _flush_unit(self, chunk: list[LiveSession]) -> Unit[None]:
        counts = [live.requests for live in chunk]
        rows = [
            (count, live.last_activity or 0, live.used_generation, live.session.id)
            for live, count in zip(chunk, counts, strict=True)
        ]

        def committed(_: None) -> None:
            for live, count in zip(chunk, counts, strict=True):
                self._cache.flushed(live, count)

        return Unit(lambda tx: sessions.add_activity(tx.raw, rows), committed)

    async def session(self, session_id: str) -> Session | None:
        """Return a session, its activity included."""
        await self._flush_for_reading()
        return await self._readers.run(lambda raw: sessions.get(raw, session_id))

    async def sessions(self, which: SessionFilter, page: Page) -> list[Session]:
        """Return sessions, newest first, their activity included."""
        await self._flush_for_reading()
        now = self.clock.now()
        return await self._readers.run(lambda raw: sessions.find(raw, which, page, now))

    async def living_below(self, top_ids: Sequence[str]) -> list[Session]:
        """Return what lives in the trees below sessions that owners made, their activity included."""
        await self._flush_for_reading()
        return await self._readers.run(lambda raw: sessions.living_below(raw, top_ids))

    async def _flush_for_reading(self) -> None:
        """Store activity first, so that what an owner reads includes it; a disk that is full must not hide the rest."""
        try:
            await self.flush()
        except DaemonError:
            return

    async def head(self) -> ChainHead:
        """Return the newest event's sequence number and hash."""
        return self._writer.head

    async def purge_sessions(self, ended_before: int, limit: int) -> int:
        """Delete at most `limit` sessions that ended before."""
        ids = await self._writer.run(Unit(lambda tx: sessions.purge(tx.raw, ended_before, limit), self._cache.forget))
        return len(ids)

    async def purge_idempotency_keys(self, before: int) -> int:
        """Delete idempotency keys older than `before`."""
        return await self._writer.run(Unit(lambda tx: values.purge_keys(tx.raw, before)))

    async def touch_conversations(self, rows: Sequence[TouchedConversation]) -> list[Conversation]:
        """Store uses of conversations that were counted in memory; nobody else counts."""
        await self._writer.run(Unit(lambda tx: conversations.add_use(tx.raw, rows)))
        return []

    async def purge_conversations(self, before: int, limit: int) -> int:
        """Delete at most `limit` conversations that expired before."""
        return await self._writer.run(Unit(lambda tx: conversations.purge(tx.raw, before, limit)))

    async def touch_verifiers(self, uses: Mapping[str, int]) -> None:
        """Store last uses of verifiers."""
        await self._writer.run(Unit(lambda tx: verifiers.touch(tx.raw, uses)))

    async def purge_notifications(self, done_before: int, logged_before: int) -> None:
        """Delete what was sent, what was logged, and answers that ended, before (Unix seconds)."""

        def work(tx: Transaction) -> None:
            notifications.purge(tx.raw, done_before, logged_before)
            answers.purge(tx.raw, done_before)

        await self._writer.run(Unit(work))

    async def status(self) -> EngineStatus:
        """Return where rows live; the size includes the write-ahead log."""
        size = sum(_size(Path(f"{self.path}{suffix}")) for suffix in ("", "-wal"))
        return EngineStatus(kind="sqlite", size_bytes=size, schema_version=self._schema_version)

    async def probe(self) -> None:
        """Prove that rows can be read, and written if the last write failed."""
        await self._readers.run(lambda raw: raw.execute("SELECT max(version) FROM schema_migrations").fetchone())
        if self._writer.failure is not None:
            now = self.clock.now()
            await self._writer.run(Unit(lambda tx: values.put(tx.raw, "write_probe", str(now), now)))

    async def pulse(self) -> None:
        """Wait for the writer's thread: a statement or a disk that never ends would keep everybody waiting."""
        await self._connection.run(lambda _: None)

    async def backup(self, directory: Path, stem: str) -> BackupFile:
        """Write a checked copy on a connection and a thread of its own."""
        await self._flush_for_reading()
        try:
            return await asyncio.to_thread(back_up, self.path, directory, stem)
        except (OSError, sqlite3.Error) as error:
            raise refusal(error) from error

    async def archive(self, fact: AuditArchived, origin: Origin) -> None:
        """Remove the events that `fact` says are in a file and record it, in one transaction."""

        def work(tx: Transaction) -> None:
            events.remove_through(tx.raw, fact.through_seq)
            tx.chain.append((fact,), origin)

        await self._writer.run(Unit(work))

    def chores(self) -> list[Chore]:
        """Return the checkpoints of the write-ahead log."""
        return [Chore("wal-checkpoint", self._checkpoint_seconds, self.checkpoint)]

    def follow(self, after: int) -> None:
        """Do nothing: there are no other daemons."""

    async def leads(self, worker: str) -> bool:
        """Return True: one daemon has the file."""
        return True

    async def checkpoint(self) -> None:
        """Move the write-ahead log into the database file as far as readers allow."""
        try:
            await self._connection.run(lambda raw: raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone())
        except sqlite3.Error as error:
            raise unavailable(error) from error

    async def close(self) -> None:
        """Wait for what is queued, then close every connection; SQLite empties the write-ahead log with the last."""
        await self._writer.idle()
        await self._readers.close()
        await self._connection.close()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0

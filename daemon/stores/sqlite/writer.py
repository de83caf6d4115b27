"""The one writer: concurrent units of work share a transaction and its commit."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from daemon.domain.clock import Clock
from daemon.domain.errors import DaemonError
from daemon.domain.events import Event
from daemon.domain.rows import Channel
from daemon.domain.views import ChainHead
from daemon.stores.chain import Chain
from daemon.stores.commits import Commits
from daemon.stores.sqlite import events
from daemon.stores.sqlite.connection import Connection, unavailable

R = TypeVar("R")

MAX_BATCH = 256
"""Units that share one commit."""
ANNOUNCED = 2_000
"""Events that are announced at once: the kill switch may commit some hundred thousand."""
_BREATH = 0.04
"""Seconds between those: the log's thread writes some 100,000 lines a second, and its queue is bounded."""


class Transaction:
    """What a unit of work sees of the transaction it runs in.

    `locked` (is the kill switch on?) and `channels` are read once by the first unit that wants to know; None is unread.

    Args:
        raw: the connection.
        now: the one time of the transaction, Unix seconds.
        head: the newest event before it.
    """

    def __init__(self, raw: sqlite3.Connection, now: int, head: ChainHead) -> None:
        self.raw = raw
        self.now = now
        self.chain = Chain(head, now)
        self.locked: bool | None = None
        self.channels: list[Channel] | None = None


class Unit(Generic[R]):
    """One piece of work, what to do in memory once it is committed, and who waits for it.

    Args:
        work: runs on the writer's thread, perhaps twice; a DaemonError it raises has written nothing.
        committed: runs on the event loop after the commit and before anybody is answered.
    """

    __slots__ = ("committed", "future", "work")

    def __init__(self, work: Callable[[Transaction], R], committed: Callable[[R], None] | None = None) -> None:
        self.work = work
        self.committed = committed
        self.future: asyncio.Future[R] = asyncio.get_running_loop().create_future()


class Committed:
    """What a batch left behind: a result or an error for each unit, its events, the new head."""

    __slots__ = ("events", "head", "results")

    def __init__(self, results: list[Any], tx: Transaction) -> None:
        self.results = results
        self.events: list[Event] = tx.chain.events
        self.head = tx.chain.head


class Writer:
    """Queues units and runs them in batches, one transaction and one hop each.

    Args:
        connection: the only one that writes.
        clock: gives each transaction its time.
        head: the newest event.
        announce: called with a batch's events after its commit and after its waiters were answered.
        lost: called when a commit failed, so that what is kept in memory is read again.
    """

    def __init__(
        self,
        connection: Connection,
        clock: Clock,
        head: ChainHead,
        announce: Callable[[list[Event]], None],
        lost: Callable[[Exception], None],
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._announce = announce
        self._lost = lost
        self._queue: list[Unit[Any]] = []
        self._task: asyncio.Task[None] | None = None
        self.head = head
        self.commits = Commits()
        self.failure: Exception | None = None
        """What the last failed commit raised; None after one that succeeded."""

    async def run(self, unit: Unit[R]) -> R:
        """Run a unit in the next batch and return its result after the commit.

        Raises:
            DaemonError: what the unit refused with, or STORAGE_UNAVAILABLE.
        """
        self._queue.append(unit)
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        return await unit.future

    async def idle(self) -> None:
        """Wait until nothing is queued."""
        while self._task is not None:
            await asyncio.shield(self._task)

    async def _drain(self) -> None:
        try:
            while self._queue:
                batch, self._queue = self._queue[:MAX_BATCH], self._queue[MAX_BATCH:]
                await self._commit(batch)
        finally:
            self._task = None

    async def _commit(self, batch: list[Unit[Any]]) -> None:
        now, head, started = self._clock.now(), self.head, self._clock.monotonic()
        try:
            done = await self._connection.run(lambda raw: run_batch(raw, batch, now, head))
        except Exception as error:  # noqa: BLE001 - whatever it was, every waiter must hear of it
            await self._fail(batch, error)
            return
        self.commits.note(len(batch), self._clock.monotonic() - started)
        self.failure = None
        self.head = done.head
        for unit, result in zip(batch, done.results, strict=True):
            if unit.committed is not None and not isinstance(result, Exception):
                unit.committed(result)
        for unit, result in zip(batch, done.results, strict=True):
            _answer(unit, result)
        for start in range(0, len(done.events), ANNOUNCED):
            self._announce(done.events[start : start + ANNOUNCED])
            if start + ANNOUNCED < len(done.events):
                await asyncio.sleep(_BREATH)

    async def _fail(self, batch: list[Unit[Any]], error: Exception) -> None:
        self.failure = error
        self.commits.failed += 1
        answer = unavailable(error) if isinstance(error, sqlite3.Error) else error
        self._lost(error)
        with contextlib.suppress(sqlite3.Error):  # else the next batch fails likewise, and reads the head again
            self.head = await self._connection.run(events.head)
        for unit in batch:
            _answer(unit, answer)


def _answer(unit: Unit[Any], result: object) -> None:
    if unit.future.done():  # the waiter went away; its work stands
        return
    if isinstance(result, Exception):
        unit.future.set_exception(result)
    else:
        unit.future.set_result(result)


def run_batch(raw: sqlite3.Connection, batch: list[Unit[Any]], now: int, head: ChainHead) -> Committed:
    """Run a batch in one transaction: at first without savepoints, and with one each if a unit fails.

    Raises:
        sqlite3.Error: nothing of the batch was written.
    """
    try:
        return _attempt(raw, batch, Transaction(raw, now, head), _run_plain)
    except Exception:
        if len(batch) == 1:
            raise
    return _attempt(raw, batch, Transaction(raw, now, head), _run_saved)


def _attempt(
    raw: sqlite3.Connection,
    batch: list[Unit[Any]],
    tx: Transaction,
    run: Callable[[Transaction, Unit[Any]], object],
) -> Committed:
    raw.execute("BEGIN IMMEDIATE")
    try:
        results = [run(tx, unit) for unit in batch]
        events.append(raw, tx.chain.rows)
        raw.execute("COMMIT")
    except BaseException:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raise
    return Committed(results, tx)


def _run_plain(tx: Transaction, unit: Unit[Any]) -> object:
    try:
        return unit.work(tx)
    except DaemonError as refusal:
        return refusal


def _run_saved(tx: Transaction, unit: Unit[Any]) -> object:
    mark = tx.chain.mark()
    tx.raw.execute("SAVEPOINT unit")
    try:
        result = unit.work(tx)
    except DaemonError as refusal:
        result = refusal
    except Exception as error:
        if not tx.raw.in_transaction:  # SQLite itself rolled everything back: the batch is lost
            raise
        tx.raw.execute("ROLLBACK TO unit")
        tx.chain.back_to(mark)
        tx.locked = tx.channels = None
        result = unavailable(error) if isinstance(error, sqlite3.Error) else error
    tx.raw.execute("RELEASE unit")
    return result

"""The one writer: concurrent changes share a transaction and its commit, and so do the daemons share the log."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import asyncpg

from daemon.domain.clock import Clock
from daemon.domain.errors import DaemonError
from daemon.domain.events import Event
from daemon.stores.commits import Commits
from daemon.stores.postgres.changes import is_broad
from daemon.stores.postgres.connection import ANSWER_TIMEOUT, ERRORS, Connection, Pool, unavailable
from daemon.stores.postgres.transaction import Change, Transaction
from daemon.stores.terms import Telling

R = TypeVar("R")

MAX_BATCH = 256
"""Changes that share one commit."""
_ATTEMPTS = 4
"""How often a transaction is run that ran into another's."""
_SILENCES = 3
"""Questions in a row that the server leaves unanswered before a long transaction is given up."""
_LONGEST = 3_600.0
"""Seconds; a long transaction ends by itself or with the server's silence."""

_OVERTAKEN = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.UniqueViolationError)
"""What another daemon's commit caused: looked at again, it is decided on what that one stored."""


class Unit(Generic[R]):
    """A change, or a piece of work that decides nothing; what to do in memory once it is committed, and who waits.

    Args:
        task: runs inside a transaction, perhaps more than once; a DaemonError it raises has written nothing.
        committed: runs on the event loop after the commit and before anybody is answered.
        long: it may take its time, and is given up only when the server answers nobody.
    """

    __slots__ = ("committed", "future", "long", "task", "timer")

    def __init__(
        self,
        task: Change | Callable[[Transaction], Awaitable[R]],
        committed: Callable[[R], None] | None = None,
        *,
        long: bool = False,
    ) -> None:
        self.task = task
        self.committed = committed
        self.long = long or (isinstance(task, Change) and is_broad(task.scope))
        self.future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None

    @property
    def alone(self) -> bool:
        """Whether it gets a transaction of its own."""
        return self.long or not isinstance(self.task, Change)

    def begin(self) -> None:
        """Note that it does not wait for its turn any more."""
        if self.timer is not None:
            self.timer.cancel()

    def answer(self, result: object) -> None:
        """Answer who waits; who went away misses it, the work stands."""
        if self.future.done():
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)  # type: ignore[arg-type]


class _Attempt:
    """How far a transaction came; once COMMIT was sent nobody knows what became of it until its answer."""

    committing = False


class Writer:
    """Queues units and runs them in batches, one transaction each.

    Args:
        pool: connections.
        clock: gives each transaction its time.
        instance: returns this daemon's id.
        committed_events: called with a batch's events after its commit and after its waiters were answered.
        on_message: called after a commit that put something into the outbox.
        failed: called with what kept a batch from being committed, and whether it may have been all the same.
    """

    def __init__(
        self,
        pool: Pool,
        clock: Clock,
        instance: Callable[[], str],
        *,
        committed_events: Callable[[list[Event]], None],
        on_message: Callable[[], None],
        failed: Callable[[BaseException, bool], None],
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._instance = instance
        self._committed_events = committed_events
        self._on_message = on_message
        self._failed = failed
        self._queue: list[Unit[Any]] = []
        self._task: asyncio.Task[None] | None = None
        self.telling = Telling()
        self.commits = Commits()
        self.failure: BaseException | None = None
        """What kept the last batch from being committed; None after one that was."""

    async def run(self, unit: Unit[R]) -> R:
        """Run a unit in the next batch and return its result after the commit.

        Raises:
            DaemonError: what the unit refused with, or STORAGE_UNAVAILABLE.
        """
        self._queue.append(unit)
        if not unit.long:
            unit.timer = asyncio.get_running_loop().call_later(ANSWER_TIMEOUT, self._give_up, unit)
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        return await unit.future

    async def idle(self) -> None:
        """Wait until nothing is queued."""
        while self._task is not None:
            await asyncio.shield(self._task)

    def _give_up(self, unit: Unit[Any]) -> None:
        """Refuse what has waited too long for its turn: nothing of it was begun."""
        self._queue.remove(unit)
        unit.answer(unavailable(TimeoutError("what was asked for before takes too long")))

    async def _drain(self) -> None:
        try:
            while self._queue:
                batch = self._next()
                for unit in batch:
                    unit.begin()
                await self._commit(batch)
        finally:
            self._task = None

    def _next(self) -> list[Unit[Any]]:
        """Take units that may share a transaction off the queue, in their order."""
        most = min(len(self._queue), MAX_BATCH)
        count = next((number for number in range(most) if self._queue[number].alone), most) or 1
        batch, self._queue = self._queue[:count], self._queue[count:]
        return batch

    async def _commit(self, batch: list[Unit[Any]]) -> None:
        """Run a batch; if it fails without having been committed, each unit alone, so that none harms another."""
        attempt, started = _Attempt(), self._clock.monotonic()
        try:
            tx, results = await self._transact(batch, attempt)
        except Exception as error:  # noqa: BLE001 - whatever it was, every waiter must hear of it
            if len(batch) > 1 and not attempt.committing and not _is_silence(error):
                for unit in batch:
                    await self._commit([unit])
                return
            self._fail(batch, error, attempt)
            return
        self.commits.note(len(batch), self._clock.monotonic() - started)
        self.failure = None
        for unit, result in zip(batch, results, strict=True):
            if unit.committed is not None and not isinstance(result, Exception):
                unit.committed(result)
        if tx.told:
            self._on_message()
        for unit, result in zip(batch, results, strict=True):
            unit.answer(result)
        if tx.events:
            self._committed_events(tx.events)

    def _fail(self, batch: list[Unit[Any]], error: Exception, attempt: _Attempt) -> None:
        cause = error.__cause__ if isinstance(error, DaemonError) and error.__cause__ else error
        self.failure = cause
        self.commits.failed += 1
        self._failed(cause, attempt.committing)
        if _is_silence(error):  # who waited meanwhile has waited long enough
            batch, self._queue = [*batch, *self._queue], []
        for unit in batch:
            unit.begin()
            unit.answer(unavailable(error) if isinstance(error, ERRORS) else error)

    async def _transact(self, batch: list[Unit[Any]], attempt: _Attempt) -> tuple[Transaction, list[Any]]:
        async def on(raw: Connection) -> tuple[Transaction, list[Any]]:
            for _ in range(_ATTEMPTS - 1):
                with contextlib.suppress(*_OVERTAKEN):
                    return await self._once(raw, batch, attempt)
            return await self._once(raw, batch, attempt)

        if not batch[0].long:
            return await self._pool.run(on)
        return await self._patiently(self._pool.run(on, seconds=_LONGEST))

    async def _once(self, raw: Connection, batch: list[Unit[Any]], attempt: _Attempt) -> tuple[Transaction, list[Any]]:
        if attempt.committing:  # on a connection that was lost: what became of it nobody knows
            raise unavailable(asyncpg.ConnectionDoesNotExistError("connection was lost: the commit may have been done"))
        tx = Transaction(raw, self._clock.now(), self.telling, self._instance())
        try:
            results = await _work(tx, batch)
            await tx.send_word()
        except Exception:
            with contextlib.suppress(*ERRORS):
                await raw.execute("ROLLBACK")
            raise
        attempt.committing = True
        await raw.execute("COMMIT")
        return tx, results

    async def _patiently(self, work: Awaitable[R]) -> R:
        """Wait for what takes its time, for as long as the server answers others."""
        task, silences = asyncio.ensure_future(work), 0
        try:
            while not (await asyncio.wait({task}, timeout=0 if silences else 1))[0]:
                try:
                    await self._pool.run(_ask)
                    silences = 0
                except DaemonError:
                    silences += 1
                    if silences == _SILENCES:
                        raise
        finally:
            task.cancel()
        return task.result()


async def _ask(raw: Connection) -> None:
    await raw.execute("SELECT 1")


async def _work(tx: Transaction, batch: Sequence[Unit[Any]]) -> list[Any]:
    asked = [unit.task for unit in batch if isinstance(unit.task, Change)]
    if asked:
        return await tx.change(asked, long=batch[0].long)
    task = batch[0].task
    assert not isinstance(task, Change)  # noqa: S101 - else it was asked
    return await tx.work(task, long=batch[0].long)


def _is_silence(error: BaseException) -> bool:
    """Return whether the server is away or hangs, so that running again what failed would only take as long again."""
    cause = error.__cause__ or error
    if isinstance(cause, ValueError):  # what cannot be sent to the server is nobody's fault but the unit's
        return False
    return isinstance(cause, OSError | asyncpg.PostgresConnectionError | asyncpg.InterfaceError | TimeoutError)

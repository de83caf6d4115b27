"""Background tasks: each runs again and again, and a failure is told, not fatal."""

import asyncio
from collections.abc import Awaitable, Callable

from daemon.domain.clock import Clock
from daemon.domain.views import WorkerStatus
from daemon.log import Log

LOOK_SECONDS = 0.5
"""Between two looks at whether it is for this daemon to run an exclusive task."""


class Worker:
    """One task that runs at start, every `interval` seconds, and as soon as `woken` is set.

    Args:
        name: as `GET /v1/admin/status` shows it.
        interval: seconds between two runs.
        run: one run.
        exclusive: of all daemons that share an engine only one runs it.
        resign: ends what a run leaves behind, when it is for another daemon to run it.
    """

    def __init__(
        self,
        name: str,
        interval: float,
        run: Callable[[], Awaitable[object]],
        *,
        exclusive: bool = False,
        resign: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.name = name
        self.interval = interval
        self.exclusive = exclusive
        self._run = run
        self._resign = resign
        self.woken = asyncio.Event()
        self.last_run: int | None = None
        self.last_error: str | None = None

    async def once(self, clock: Clock, log: Log) -> None:
        """Run once; what goes wrong goes into the log, once for as long as it stays the same."""
        try:
            await self._run()
            self.last_error = None
        except Exception as error:  # noqa: BLE001 - a background task must go on, whatever happened
            text = f"{type(error).__name__}: {error}"
            if text != self.last_error:
                log.failure("worker.failed", error, worker=self.name)
            self.last_error = text
        self.last_run = clock.now()

    async def resign(self) -> None:
        """Leave it to another daemon; what it knows of the task is shown there."""
        if self._resign is not None:
            await self._resign()
        self.last_run = self.last_error = None

    async def rest(self) -> None:
        """Wait for the interval to pass, or for `woken` to be set."""
        try:
            async with asyncio.timeout(self.interval):
                await self.woken.wait()
        except TimeoutError:
            return

    def status(self) -> WorkerStatus:
        """Return how the task does."""
        return WorkerStatus(name=self.name, last_run=self.last_run, last_error=self.last_error)


class Workers:
    """All background tasks.

    Args:
        clock: for their `lastRun`.
        log: for their failures.
        leads: returns whether it is for this daemon to run an exclusive task now.
    """

    def __init__(self, clock: Clock, log: Log, leads: Callable[[str], Awaitable[bool]]) -> None:
        self._clock = clock
        self._leads = leads
        self._log = log
        self._workers: list[Worker] = []
        self._tasks: list[asyncio.Task[None]] = []

    def add(
        self,
        name: str,
        interval: float,
        run: Callable[[], Awaitable[object]],
        *,
        exclusive: bool = False,
        resign: Callable[[], Awaitable[object]] | None = None,
    ) -> Worker:
        """Add a task before `start` and return it; arguments as of `Worker`."""
        self._workers.append(Worker(name, interval, run, exclusive=exclusive, resign=resign))
        return self._workers[-1]

    def statuses(self) -> list[WorkerStatus]:
        """Return how every task does."""
        return [worker.status() for worker in self._workers]

    def start(self) -> None:
        """Begin running."""
        self._tasks = [
            asyncio.create_task(self._repeat_while_leading(worker) if worker.exclusive else self._repeat(worker))
            for worker in self._workers
        ]

    async def stop(self) -> None:
        """End every task; a run that has begun is cancelled, what it committed stands."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _repeat(self, worker: Worker) -> None:
        while True:
            worker.woken.clear()
            await worker.once(self._clock, self._log)
            await worker.rest()

    async def _repeat_while_leading(self, worker: Worker) -> None:
        while True:
            if await self._leads(worker.name):
                repeating = asyncio.create_task(self._repeat(worker))
                try:
                    while await self._leads(worker.name):
                        await asyncio.wait({repeating}, timeout=LOOK_SECONDS)
                finally:
                    repeating.cancel()
                    await asyncio.gather(repeating, return_exceptions=True)
                await worker.resign()
            await asyncio.sleep(LOOK_SECONDS)

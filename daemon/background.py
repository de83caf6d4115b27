"""What a running daemon does again and again: its background tasks."""

import time

from daemon.bus import Bus
from daemon.domain.facts.messages import ChannelAdded, ChannelDisabled, ChannelUpdated
from daemon.histogram import Histogram
from daemon.parts import Parts
from daemon.settings import Notifications
from daemon.stores.terms import Telling
from daemon.web.streams import TICK_SECONDS

FLUSH_SECONDS = 0.9
SWEEP_SECONDS = 60.0
CLOCK_SECONDS = 1.0
DELIVER_SECONDS = 1.0
LISTEN_SECONDS = 5.0
HEALTH_SECONDS = 300.0
SUMMARY_SECONDS = 20.0
RETENTION_SECONDS = 3600.0
CHECKPOINT_SECONDS = 3600.0
PROCESSES_SECONDS = 1.0
TIDY_SECONDS = 3600.0
LAG_SECONDS = 0.25
_OF_CHANNELS = frozenset({ChannelAdded.type, ChannelUpdated.type, ChannelDisabled.type})


def add_workers(parts: Parts, bus: Bus) -> None:
    """Add every task to the workers of a wired daemon."""
    admin_service, store, config = parts.services.admin, parts.store, parts.config
    services, messenger, workers = parts.services, parts.messenger, parts.workers
    idle_check = min(15.0, config.security.idle_after / 4)
    workers.add("activity", FLUSH_SECONDS, lambda: flush(parts))
    workers.add("sweeper", SWEEP_SECONDS, admin_service.sweep, exclusive=True)
    workers.add("idle", idle_check, admin_service.mark_idle, exclusive=True)
    workers.add("streams", TICK_SECONDS, services.streams.tick)
    workers.add("clock", CLOCK_SECONDS, ClockWatch(parts).look)
    deliver = workers.add("notifications", DELIVER_SECONDS, messenger.deliver, exclusive=True)
    listen = workers.add("answers", LISTEN_SECONDS, messenger.listen, exclusive=True, resign=messenger.stop_listening)
    store.on_message = deliver.woken.set
    bus.listen(lambda event: listen.woken.set() if event.type in _OF_CHANNELS else None)
    workers.add("channels", HEALTH_SECONDS, services.channels.check_all, exclusive=True)
    workers.add("daily-summary", SUMMARY_SECONDS, services.summary.tell, exclusive=True)
    workers.add("retention", RETENTION_SECONDS, services.notifications.purge, exclusive=True)
    workers.add("audit-checkpoint", CHECKPOINT_SECONDS, lambda: log_checkpoint(parts))
    workers.add("processes", PROCESSES_SECONDS, parts.supervisor.tick)
    workers.add("process-files", TIDY_SECONDS, parts.supervisor.tidy)
    if config.server.metrics:
        workers.add("loop-lag", LAG_SECONDS, LoopLag(services.measures.loop_lag).look)
    for chore in (*store.chores(), *parts.bindings.chores()):
        workers.add(chore.name, chore.seconds, chore.run)


async def flush(parts: Parts) -> None:
    """Store everything that is only in memory.

    Raises:
        DaemonError: STORAGE_UNAVAILABLE.
    """
    await parts.store.flush()
    await parts.bindings.flush()
    await parts.services.verifiers.flush()


async def log_checkpoint(parts: Parts) -> None:
    """Put the head of the audit chain into the log: an anchor outside the database."""
    head = await parts.services.audit.head()
    parts.log.emit("audit.checkpoint", seq=head.seq, hash=head.hash)


class ClockWatch:
    """Tells of a wall clock that stepped back, and follows a reset.

    Args:
        parts: the wired daemon.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._held = False

    async def look(self) -> None:
        """Look once."""
        clock, log = self._parts.clock, self._parts.log
        if clock.take_reset():
            log.emit("clock.reset", now=clock.now())
            await self._parts.services.admin.follow_clock_reset()
        held = clock.held_back()
        if held and not self._held:
            log.emit("clock.held", seconds=held)
        self._held = held > 0


class LoopLag:
    """Measures how late the event loop is: a worker that is due every `LAG_SECONDS` looks when it is let run.

    Args:
        late: gets the seconds.
    """

    def __init__(self, late: Histogram) -> None:
        self._late = late
        self._due: float | None = None

    async def look(self) -> None:
        """Look once."""
        now = time.monotonic()
        if self._due is not None:
            self._late.observe(max(0.0, now - self._due))
        self._due = now + LAG_SECONDS


def apply_notifications(parts: Parts, settings: Notifications) -> None:
    """Take new notification settings while running."""
    services = parts.services
    services.channels.settings = services.notifications.settings = services.summary.settings = settings
    parts.store.telling = Telling(settings.enabled, settings.dedup_ttl)

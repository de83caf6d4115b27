"""Draining the outbox: the most urgent first, through the channels by priority, again and again until it works."""

import asyncio
import random
from collections.abc import Sequence

from daemon.domain.clock import Clock
from daemon.domain.levels import Level
from daemon.domain.rows import Attempt, AttemptStatus, Delivery
from daemon.log import Log
from daemon.notify import channels
from daemon.notify.client import Http
from daemon.notify.failure import SendFailed
from daemon.notify.rates import Rates
from daemon.services.notifications import Notifications, Target

IN_FLIGHT = 8
"""Messages that are being sent at the same time; twice as many with CRITICAL ones, which wait for no other."""
LOOK_AHEAD = 256
"""Due messages of each level that are looked at, so that one slow channel does not hide another's messages."""
TICK = 0.5
"""Seconds after which new messages are looked for while others are still being sent."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 900.0
"""Seconds between two rounds of one message."""
_UNREADABLE = "its credentials cannot be read"


def backoff(rounds: int, rng: random.Random) -> float:
    """Return the seconds to wait after so many failed rounds: doubled each time, the upper half random.

    "Equal jitter" of https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """
    wait = min(LONGEST_WAIT, FIRST_WAIT * (1 << min(rounds, 20)))
    return max(FIRST_WAIT, wait / 2 + rng.uniform(0, wait / 2))


class Deliverer:
    """Sends what is due.

    Args:
        notifications: the outbox.
        http: the client.
        clock: for buckets and pauses.
        log: gets a line for each attempt.
    """

    def __init__(self, notifications: Notifications, http: Http, clock: Clock, log: Log) -> None:
        self._notifications = notifications
        self._http = http
        self._clock = clock
        self._log = log
        self._rates = Rates(clock.monotonic)
        self._rng = random.Random()  # noqa: S311 (spreads retries, protects nothing)
        self._running: dict[int, asyncio.Task[None]] = {}

    async def drain(self) -> None:
        """Send all that is due and can be sent now; returns when nothing is left to do or to wait for.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE; what was being sent is sent again later.
        """
        try:
            while await self._start_due() or self._running:
                done, _ = await asyncio.wait(self._running.values(), timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    self._running = {key: one for key, one in self._running.items() if one is not task}
                    task.result()
        finally:
            await self._abandon()

    async def _abandon(self) -> None:
        """End what is still being sent: it stays in the outbox."""
        tasks, self._running = list(self._running.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _start_due(self) -> bool:
        """Begin to send as much as may be sent at once; return whether anything was begun."""
        begun = False
        if not self._has_room("CRITICAL"):
            return begun
        targets = await self._notifications.targets()
        busy = [one.channel.id for one in targets if not self._rates.ready(one.channel.id, one.channel.type)]
        due = [one for one in await self._notifications.due(LOOK_AHEAD, busy) if one.id not in self._running]
        for delivery in due:
            if not self._has_room(delivery.level):
                break
            route = self._notifications.route(delivery, targets)
            if self._may_begin(route, busy):
                self._running[delivery.id] = asyncio.create_task(self._deliver(delivery, route))
                begun = True
        return begun

    def _has_room(self, level: Level) -> bool:
        return len(self._running) < (2 * IN_FLIGHT if level == "CRITICAL" else IN_FLIGHT)

    def _may_begin(self, route: Sequence[Target], busy: Sequence[str]) -> bool:
        """Return whether a round makes sense now: the first channel that is not paused has room.

        Channels that were busy a moment ago stay so: what is more urgent was left out on their account.
        """
        for target in route:
            if target.config is None:
                continue
            if self._rates.wait(target.channel.id) == 0:
                return target.channel.id not in busy and self._rates.take(target.channel.id, target.channel.type)
        # Without a readable channel the round only records that; with paused ones alone it waits.
        return all(target.config is None for target in route)

    async def _deliver(self, delivery: Delivery, route: Sequence[Target]) -> None:
        """Make one round for a message; its first channel's token is taken already."""
        attempts: list[Attempt] = []
        taken = False
        for target in route:
            if target.config is None:
                attempts.append(self._note(delivery, target, "FAILED", _UNREADABLE))
                continue
            if self._rates.wait(target.channel.id) > 0:
                continue
            if taken and not self._rates.take(target.channel.id, target.channel.type):
                continue
            taken = True
            attempt = await self._attempt(delivery, target)
            if attempt is not None:
                attempts.append(attempt)
            if attempt is None or attempt.status == "DELIVERED":
                await self._notifications.delivered(delivery, attempts)
                return
        if not route:
            await self._notifications.delivered(delivery, ())
            return
        await self._notifications.failed(delivery, attempts, self._wait(delivery, route))

    def _wait(self, delivery: Delivery, route: Sequence[Target]) -> float:
        paused = [self._rates.wait(target.channel.id) for target in route if target.config is not None]
        return max(backoff(delivery.attempts, self._rng), min(paused, default=0.0))

    async def _attempt(self, delivery: Delivery, target: Target) -> Attempt | None:
        """Send to one channel; None if there is nothing to send any more."""
        channel = target.channel
        notice = await self._notifications.compose(delivery, target)
        if notice is None:
            return None
        locale, now = self._notifications.settings.locale, self._clock.now()
        try:
            await channels.send(self._http, channel.type, target.config, notice, locale=locale, now=now)
        except SendFailed as failure:
            if failure.limited or failure.retry_after:
                self._rates.pause(channel.id, failure.retry_after or FIRST_WAIT)
            return self._note(delivery, target, "RATE_LIMITED" if failure.limited else "FAILED", failure.reason)
        except Exception as error:  # noqa: BLE001 - one message that cannot be made must not hold up the others
            self._log.failure("worker.failed", error, worker="notifications")
            return self._note(delivery, target, "FAILED", "the daemon made an error; see its log")
        return self._note(delivery, target, "DELIVERED", None)

    def _note(self, delivery: Delivery, target: Target, status: AttemptStatus, error: str | None) -> Attempt:
        self._log.emit(
            "delivery.attempted",
            level="info" if error is None else "warning",
            session_id=delivery.session_id,
            agent_id=delivery.agent_id,
            channelId=target.channel.id,
            eventType=delivery.event,
            eventSeq=delivery.seq,
            status=status,
            error=error,
        )
        return self._notifications.attempt(delivery, target.channel.id, status, error)

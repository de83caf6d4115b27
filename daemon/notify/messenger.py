"""The one door to the room: opened when the first channel is there, so that a daemon without one starts fast."""

from typing import TYPE_CHECKING

from daemon.domain.channels import ChannelConfig, ChannelType
from daemon.domain.clock import Clock
from daemon.domain.notifications import Notice
from daemon.log import Log
from daemon.services.answers import Answers
from daemon.services.notifications import Notifications

if TYPE_CHECKING:
    from daemon.notify.client import Http
    from daemon.notify.deliver import Deliverer
    from daemon.notify.listen import Listener


class Messenger:
    """Sends what is due and listens to what is answered.

    Args:
        notifications: the outbox.
        answers: does what was chosen.
        clock: the domain clock.
        log: the structured log.
    """

    def __init__(self, notifications: Notifications, answers: Answers, clock: Clock, log: Log) -> None:
        self._notifications = notifications
        self._answers = answers
        self._clock = clock
        self._log = log
        self._http: Http | None = None
        self._deliverer: Deliverer | None = None
        self._listener: Listener | None = None

    async def check(self, kind: ChannelType, config: ChannelConfig) -> str | None:
        """Ask a service whether a configuration is good; return why not, None if it is."""
        # Imported here, and below: httpx takes 120 ms and 10 MB, and without a channel nobody needs it.
        from daemon.notify import channels  # noqa: PLC0415
        from daemon.notify.failure import SendFailed  # noqa: PLC0415

        try:
            await channels.check(self._client(), kind, config, self._clock.now())
        except SendFailed as failure:
            return failure.reason
        return None

    async def send(self, kind: ChannelType, config: ChannelConfig, notice: Notice) -> str | None:
        """Send one message; return why it failed, None if it arrived."""
        from daemon.notify import channels  # noqa: PLC0415
        from daemon.notify.failure import SendFailed  # noqa: PLC0415

        locale, now = self._notifications.settings.locale, self._clock.now()
        try:
            await channels.send(self._client(), kind, config, notice, locale=locale, now=now)
        except SendFailed as failure:
            return failure.reason
        return None

    async def deliver(self) -> None:
        """Send what is due.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        if not self._notifications.settings.enabled or not await self._notifications.due(1):
            return
        if self._deliverer is None:
            from daemon.notify.deliver import Deliverer  # noqa: PLC0415

            self._deliverer = Deliverer(self._notifications, self._client(), self._clock, self._log)
        await self._deliverer.drain()

    async def listen(self) -> None:
        """See to it that every service is listened to.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        if self._listener is None:
            if not await self._notifications.targets():
                return
            from daemon.notify.listen import Listener  # noqa: PLC0415

            self._listener = Listener(self._notifications, self._answers, self._client(), self._log)
        await self._listener.reconcile()

    async def stop_listening(self) -> None:
        """Stop listening: a service that is asked by two daemons answers neither."""
        if self._listener is not None:
            await self._listener.close()

    async def close(self) -> None:
        """Stop listening and close every connection."""
        await self.stop_listening()
        if self._http is not None:
            await self._http.close()

    def _client(self) -> "Http":
        if self._http is None:
            from daemon.notify.client import Http  # noqa: PLC0415

            self._http = Http()
        return self._http

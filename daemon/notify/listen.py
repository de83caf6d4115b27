"""Waiting for the owner's answers: long polls and subscriptions, so that no port need be open."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import cast

import msgspec

from daemon.domain.channels import NtfyConfig, TelegramConfig
from daemon.domain.errors import DaemonError
from daemon.domain.notifications import Press
from daemon.log import Log
from daemon.notify import ntfy, telegram
from daemon.notify.client import Http
from daemon.notify.failure import SendFailed
from daemon.notify.templates import outcome_text
from daemon.services.answers import Answered, Answers
from daemon.services.notifications import Notifications, Target

POLL_SECONDS = 50
"""How long Telegram holds a poll that has nothing to tell."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds between two tries to reach a service."""
_SETTLED = frozenset({"kept", "rejected", "agent_suspended", "kill_switch_activated", "already_done"})
"""Outcomes that decide a message: it loses its buttons and says so."""


class Source(msgspec.Struct, frozen=True):
    """One thing to listen to: a bot with its channels, or one reply topic.

    Args:
        key: equal for what is the same; a change of it ends the old listening.
        targets: the channels.
    """

    key: str
    targets: tuple[Target, ...]

    def __repr__(self) -> str:
        return f"Source({len(self.targets)})"


def sources(targets: Sequence[Target]) -> dict[str, Source]:
    """Return what there is to listen to; channels of one bot share a poll, since a second one would end the first."""
    found: dict[str, list[Target]] = {}
    for target in targets:
        config = target.config
        if isinstance(config, TelegramConfig):
            found.setdefault(f"telegram {config.api_url.rstrip('/')} {config.bot_token}", []).append(target)
        elif isinstance(config, NtfyConfig) and config.reply_topic:
            found[f"ntfy {target.channel.id} {config.server_url} {config.reply_topic} {config.auth_token}"] = [target]
    return {key: Source(key, tuple(group)) for key, group in found.items()}


class Listener:
    """Keeps one task for each source.

    Args:
        notifications: knows the channels and the locale.
        answers: does what was chosen.
        http: the client.
        log: is told when a service cannot be reached.
    """

    def __init__(self, notifications: Notifications, answers: Answers, http: Http, log: Log) -> None:
        self._notifications = notifications
        self._answers = answers
        self._http = http
        self._log = log
        self._tasks: dict[str, tuple[Source, asyncio.Task[None]]] = {}

    async def reconcile(self) -> None:
        """Listen to what there is now, and to nothing else.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        wanted = sources(await self._notifications.targets()) if self._notifications.settings.enabled else {}
        for key, (source, task) in list(self._tasks.items()):
            if wanted.get(key) != source or task.done():
                del self._tasks[key]
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        for key, source in wanted.items():
            if key not in self._tasks:
                self._tasks[key] = (source, asyncio.create_task(self._listen(source)))

    async def close(self) -> None:
        """End all listening."""
        tasks = [task for _, task in self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, source: Source) -> None:
        """Listen until cancelled; what fails is tried again, ever more slowly."""
        listening = _Telegram(self, source) if source.key.startswith("telegram") else _Ntfy(self, source)
        wait, told = FIRST_WAIT, ""
        while True:
            try:
                await listening.once()
            except SendFailed as failure:
                if failure.reason != told:
                    told = failure.reason
                    channel = source.targets[0].channel
                    self._log.emit("answers.unreachable", channelId=channel.id, reason=failure.reason)
                await asyncio.sleep(max(wait, failure.retry_after or 0.0))
                wait = min(LONGEST_WAIT, wait * 2)
            except DaemonError:  # the press is not confirmed yet and comes again
                await asyncio.sleep(FIRST_WAIT)
            else:
                wait, told = FIRST_WAIT, ""

    async def answer(self, targets: Sequence[Target], press: Press) -> Answered:
        """Do what was chosen in a message of one of the channels.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        return await self._answers.press([target.channel for target in targets], press)

    def words(self, answered: Answered) -> str:
        """Return what is told of an outcome."""
        return outcome_text(answered.outcome, self._notifications.settings.locale, answered.action)

    @property
    def http(self) -> Http:
        """The client."""
        return self._http


class _Telegram:
    """Polls one bot."""

    def __init__(self, listener: Listener, source: Source) -> None:
        self._listener = listener
        self._targets = source.targets
        self._configs = [cast("TelegramConfig", target.config) for target in source.targets]
        self._offset = 0

    async def once(self) -> None:
        """Wait for presses and answer them; what was not answered is not confirmed."""
        http = self._listener.http
        found, following = await telegram.updates(http, self._configs[0], self._offset, POLL_SECONDS)
        for update in found:
            pressed = telegram.press_of(self._configs, update)
            if pressed is not None:
                await self._answer(*pressed)
        if following == self._offset:  # a server that does not hold a poll would be asked endlessly
            await asyncio.sleep(FIRST_WAIT)
        self._offset = following

    async def _answer(self, numbers: Sequence[int], press: Press) -> None:
        answered = await self._listener.answer([self._targets[number] for number in numbers], press)
        edit = answered.outcome in _SETTLED
        try:
            words = self._listener.words(answered)
            await telegram.tell(self._listener.http, self._configs[numbers[0]], press, words, edit=edit)
        except SendFailed:
            return  # it is done and recorded; only the phone does not show it


class _Ntfy:
    """Subscribes to one reply topic."""

    def __init__(self, listener: Listener, source: Source) -> None:
        self._listener = listener
        self._target = source.targets[0]
        self._config = cast("NtfyConfig", self._target.config)
        self._since = "all"

    async def once(self) -> None:
        """Read presses until the connection ends."""
        async with aclosing(ntfy.presses(self._listener.http, self._config, self._since)) as presses:
            async for number, press in presses:
                answered = await self._listener.answer([self._target], press)
                self._since = number
                # Anybody may write to the topic, and old presses come again after a restart: those stay without echo.
                if answered.outcome in _SETTLED:
                    await self._tell(press, answered)
        await asyncio.sleep(FIRST_WAIT)  # a server that ends every connection would be asked endlessly

    async def _tell(self, press: Press, answered: Answered) -> None:
        try:
            await ntfy.tell(self._listener.http, self._config, press, self._listener.words(answered))
        except SendFailed:
            return  # it is done and recorded; only the phone does not show it

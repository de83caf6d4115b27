"""Notification channels: where the owner wants to be told."""

import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from daemon.domain import channel_changes
from daemon.domain.changes import Outcome, Scope
from daemon.domain.channels import ChannelConfig, ChannelType, masked, read_config, unmasked
from daemon.domain.errors import CHANNEL_NOT_FOUND, INVALID_CHANNEL_CONFIG, DaemonError
from daemon.domain.events import SYSTEM, Origin
from daemon.domain.facts.messages import ChannelUnreachable
from daemon.domain.ids import new_id, uuid7
from daemon.domain.message_views import ChannelHealth, ChannelTest, ChannelView
from daemon.domain.notifications import Notice
from daemon.domain.requests import AddChannel, UpdateChannel
from daemon.domain.rows import Attempt, AttemptStatus, Channel
from daemon.services.channel_seals import ChannelSeals
from daemon.settings import Notifications as Settings
from daemon.stores.protocol import Store

UNREACHABLE_AFTER = 3
"""Failed health checks in a row after which the other channels are told."""

UNREADABLE = "its credentials cannot be read: the seal.key that sealed them is not in the home"


class Service(msgspec.Struct, frozen=True):
    """How to reach the services behind channels; both return None, or why it failed in one line without a secret.

    Args:
        check: asks whether a configuration is good, without showing a message to anybody.
        send: sends one message.
    """

    check: Callable[[ChannelType, ChannelConfig], Awaitable[str | None]]
    send: Callable[[ChannelType, ChannelConfig, Notice], Awaitable[str | None]]


class Channels:
    """The owner's channels.

    Args:
        store: the engine.
        settings: the notifications section; may be replaced at any time.
        seals: seals and opens configurations.
        service: reaches the services.
    """

    def __init__(self, store: Store, settings: Settings, seals: ChannelSeals, service: Service) -> None:
        self._store = store
        self.settings = settings
        self._seals = seals
        self._service = service
        self._health: dict[str, _Health] = {}

    async def add(self, body: AddChannel, origin: Origin) -> ChannelView:
        """Add a channel that passed its health check.

        Raises:
            DaemonError: INVALID_CHANNEL_CONFIG.
        """
        config = _readable(body.type, body.config)
        clock = self._store.clock
        channel_id = new_id(clock, os.urandom(10))
        await self._require_good(channel_id, body.type, config)
        channel = Channel(
            id=channel_id,
            type=body.type,
            name=body.name,
            config=self._seals.seal(config, channel_id),
            priority=body.priority,
            min_level=body.min_level,
            events=_words(body.events),
            agents=_words(body.agents),
            enabled=True,
            created_at=0,
            updated_at=0,
        )
        made = await self._store.change(Scope(), partial(channel_changes.add, channel=channel), origin)
        return self._view(made)

    async def find(self) -> list[ChannelView]:
        """Return every channel, the highest priority first."""
        return [self._view(channel) for channel in await self._store.channels()]

    async def update(self, channel_id: str, body: UpdateChannel, origin: Origin) -> ChannelView:
        """Change what the body names; a new configuration, and a channel that is enabled again, are checked first.

        Raises:
            DaemonError: CHANNEL_NOT_FOUND, INVALID_CHANNEL_CONFIG, MIN_CHANNELS_REQUIRED.
        """
        channel = await self._get(channel_id)
        changes = body.changes()
        given = changes.pop("config", None)
        old = self._seals.read(channel)
        if given is not None:
            config = _readable(channel.type, unmasked(channel.type, msgspec.json.decode(given), old))
            await self._require_good(channel_id, channel.type, config)
            if config != old:
                changes["config"] = self._seals.seal(config, channel_id)
        elif changes.get("enabled") and not channel.enabled:
            if old is None:
                raise DaemonError(INVALID_CHANNEL_CONFIG, f"The channel cannot be enabled: {UNREADABLE}.")
            await self._require_good(channel_id, channel.type, old)
        for name in ("events", "agents"):
            if name in changes:
                changes[name] = _words(changes[name])
        return await self._change(channel_id, changes, origin, force=False)

    async def disable(self, channel_id: str, origin: Origin, *, force: bool) -> ChannelView:
        """Use a channel no more; the delivery log keeps its reference.

        Args:
            channel_id: of the channel.
            origin: the owner.
            force: also if fewer than `min_channels` remain.

        Raises:
            DaemonError: CHANNEL_NOT_FOUND, MIN_CHANNELS_REQUIRED.
        """
        return await self._change(channel_id, {"enabled": False}, origin, force=force)

    async def test(self, channel_id: str) -> ChannelTest:
        """Send a test message and return what the service said.

        Raises:
            DaemonError: CHANNEL_NOT_FOUND, INVALID_CHANNEL_CONFIG.
        """
        channel = await self._get(channel_id)
        config = self._seals.read(channel)
        if config is None:
            raise DaemonError(INVALID_CHANNEL_CONFIG, f"The channel cannot be tested: {UNREADABLE}.")
        clock = self._store.clock
        now, number = clock.now(), uuid7(clock.now() * 1000, os.urandom(10))
        notice = Notice(id=f"test-{number}", event="TEST", level="INFO", at=now, context={"channel": channel.name})
        error = await self._service.send(channel.type, config, notice)
        status: AttemptStatus = "DELIVERED" if error is None else "FAILED"
        attempt = Attempt(number, channel.id, "TEST", "INFO", None, status, error, 0, now)
        await self._store.change(
            Scope(while_locked=True), lambda _rows, _now: Outcome(answer=None, attempts=(attempt,)), SYSTEM
        )
        return ChannelTest(status=status, error=error)

    async def check_all(self) -> None:
        """Ask every enabled channel's service whether it is well; one that is not, thrice in a row, is reported."""
        for channel in await self._store.channels():
            if channel.enabled:
                config = self._seals.read(channel)
                error = UNREADABLE if config is None else await self._service.check(channel.type, config)
                await self._note(channel, error)

    async def _note(self, channel: Channel, error: str | None) -> None:
        if error is None:
            self._health[channel.id] = _Health(0, None)
            return
        known = self._health.get(channel.id)
        failures = known.failures + 1 if known else 1
        self._health[channel.id] = _Health(failures, error)
        if failures == UNREACHABLE_AFTER:
            fact = ChannelUnreachable(channel_id=channel.id, channel=channel.name, reason=error)
            await self._store.change(
                Scope(while_locked=True), lambda _rows, _now: Outcome(answer=None, facts=(fact,)), SYSTEM
            )

    async def _get(self, channel_id: str) -> Channel:
        for channel in await self._store.channels():
            if channel.id == channel_id:
                return channel
        raise DaemonError(CHANNEL_NOT_FOUND)

    async def _require_good(self, channel_id: str, kind: ChannelType, config: ChannelConfig) -> None:
        error = await self._service.check(kind, config)
        if error is not None:
            raise DaemonError(INVALID_CHANNEL_CONFIG, f"The channel does not work: {error}.")
        self._health[channel_id] = _Health(0, None)

    async def _change(self, channel_id: str, changes: dict[str, Any], origin: Origin, *, force: bool) -> ChannelView:
        decide = partial(
            channel_changes.update,
            channel_id=channel_id,
            changes=changes,
            min_channels=self.settings.min_channels,
            force=force,
        )
        return self._view(await self._store.change(Scope(channels=True), decide, origin))

    def _view(self, channel: Channel) -> ChannelView:
        config = self._seals.read(channel)
        known = self._health.get(channel.id)
        health: ChannelHealth = "unknown"
        error = known.error if known else None
        if config is None:
            health, error = "unreadable", UNREADABLE
        elif known:
            health = "ok" if known.error is None else "failing"
        return ChannelView(
            id=channel.id,
            type=channel.type,
            name=channel.name,
            config=masked(channel.type, config) if config else None,
            priority=channel.priority,
            min_level=channel.min_level,
            events=msgspec.json.decode(channel.events) if channel.events else None,
            agents=msgspec.json.decode(channel.agents) if channel.agents else None,
            enabled=channel.enabled,
            health=health,
            last_error=error,
            created_at=channel.created_at,
            updated_at=channel.updated_at,
        )


class _Health(msgspec.Struct, frozen=True):
    failures: int
    error: str | None


def _readable(kind: ChannelType, given: dict[str, Any]) -> ChannelConfig:
    config, problems = read_config(kind, given)
    if config is None or problems:
        errors = [{"path": path, "message": message} for path, message in problems]
        summary = "; ".join(f"{path}: {message}" for path, message in problems)
        raise DaemonError(INVALID_CHANNEL_CONFIG, summary, errors=errors)
    return config


def _words(listed: list[str] | None) -> str | None:
    """Return a filter as it is stored; an empty one is none."""
    return msgspec.json.encode(sorted(set(listed))).decode() if listed else None

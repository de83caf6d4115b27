"""SIGHUP: the configuration is read again, and what may change while the daemon runs does."""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from daemon import background, config
from daemon.config import ConfigError, Loaded
from daemon.domain.facts.daemon import ConfigReloaded
from daemon.parts import Parts
from daemon.service_manager import ServiceManager
from daemon.web.envelope import Envelope


class Reloader:
    """Reads the configuration of a daemon that serves again.

    Args:
        home: the directory of `config.toml`.
        loaded: the configuration by now.
        flags: of the command line.
        parts, envelope: get what changes.
        foreground: whether the log goes to standard output too.
        manager: is told of it.
        status: what the manager shows of a daemon that serves.
    """

    def __init__(
        self,
        home: Path,
        loaded: Loaded,
        flags: Mapping[str, object],
        *,
        parts: Parts,
        envelope: Envelope,
        foreground: bool,
        manager: ServiceManager,
        status: str,
    ) -> None:
        self._home = home
        self._loaded = loaded
        self._flags = flags
        self._parts = parts
        self._envelope = envelope
        self._foreground = foreground
        self._manager = manager
        self._status = status
        self._tasks: set[asyncio.Task[None]] = set()

    def soon(self) -> None:
        """Reopen the log now, and read the configuration in a moment."""
        self._manager.reloading()
        self._parts.log.reopen()
        task = asyncio.create_task(self._reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload(self) -> None:
        remark = ""
        try:
            await self._take(config.load(self._home, os.environ, self._flags))
        except ConfigError as error:
            self._parts.log.emit("config.invalid", problems=error.problems)
            remark = "; the new configuration is invalid, see: daemon config check"
        finally:
            self._manager.ready(f"{self._status}{remark}")

    async def _take(self, fresh: Loaded) -> None:
        applied, ignored = config.changed(self._loaded.config, fresh.config)
        server, log = fresh.config.server, fresh.config.log
        self._parts.log.reconfigure(
            level=log.level,
            max_size=log.max_size_mb << 20,
            max_files=log.max_files,
            console=log.format == "console" or (self._foreground and sys.stdout.isatty()),
        )
        self._envelope.rate.limit = server.global_rpm
        self._parts.rates.limit = server.session_rpm
        background.apply_notifications(self._parts, fresh.config.notifications)
        self._loaded = Loaded(config.reloaded(self._loaded.config, fresh.config), fresh.origins)
        await self._parts.services.admin.record(ConfigReloaded(applied=tuple(applied), ignored=tuple(ignored)))

"""Opening a home: the lock, the log, the migrated database and the master password, in this order."""

import contextlib
import os
import sys
import time
from collections.abc import Awaitable
from typing import TypeVar

from daemon import __version__, app, config, engines, files
from daemon.bus import Bus
from daemon.config import Loaded
from daemon.crypto.passwords import PasswordHasher
from daemon.crypto.seal_key import SealKey
from daemon.domain.clock import DomainClock
from daemon.domain.errors import DaemonError
from daemon.home import Home, HomeError
from daemon.lock import HomeLock, write_private
from daemon.log import Log
from daemon.service_manager import ServiceManager
from daemon.services.shared_key import agree
from daemon.startup import EXIT_AUTH, EXIT_CONFIG, STEP_SECONDS, StartError, make_password, step, withdraw_password
from daemon.stores import sqlite_file
from daemon.stores.migrate import MigrationError
from daemon.stores.protocol import Engine

T = TypeVar("T")

MIGRATION_SECONDS = 600.0


class Opening:
    """What `daemon init` and `daemon start` do first.

    Args:
        home: where everything lives.
        loaded: the configuration.
        clock: the domain clock; it is set by the newest stored event.
        stack: gets what undoes each step.
        password: the master password to begin with, or to hold against an initialised home.
        foreground: also write the log to standard output.
        manager: is told of each step.
    """

    def __init__(
        self,
        home: Home,
        loaded: Loaded,
        *,
        clock: DomainClock,
        stack: contextlib.AsyncExitStack,
        password: str | None,
        foreground: bool,
        manager: ServiceManager,
    ) -> None:
        self.home = home
        self.loaded = loaded
        self.clock = clock
        self.lock = HomeLock(home)
        self.bus = Bus()
        self._stack = stack
        self._password = password
        self._foreground = foreground
        self._manager = manager
        self._logging = False
        self.log: Log
        self.store: Engine
        self.hasher: PasswordHasher

    async def open(self) -> bool:
        """Take every step; return whether the master password was set now.

        Raises:
            StartError: with the step's reason.
            AlreadyRunning: another daemon has the home.
        """
        self._take_home()
        self.log = self._open_log()
        self.log.emit("daemon.starting", version=__version__, pid=os.getpid(), home=str(self.home.root))
        await self.step("migrate the database", self._migrate(), MIGRATION_SECONDS)
        self.store = await self.step("open the database", self._open_store())
        self.hasher = app.make_hasher(self.loaded.config)
        self._stack.callback(self.hasher.close)
        if self.loaded.config.database.kind == "postgresql":
            await self.step("compare the seal.key", self._agree_on_key(self.store))
        return await self.step("set up the master password", self._settle_password(self.store, self.hasher))

    async def step(self, name: str, work: Awaitable[T], seconds: float = STEP_SECONDS) -> T:
        """Await one step of the start; a failure is told in the words of the engine.

        Raises:
            StartError: naming the step.
        """
        self._manager.step(name, seconds)
        return await step(name, work, seconds, explain=lambda cause: engines.explain(self.loaded.config, cause))

    def tell_failure(self, reason: str) -> None:
        """Put the reason of a failed start into the log, if it is open."""
        if self._logging:
            self.log.emit("daemon.failed", step="start", reason=reason)

    def _take_home(self) -> None:
        try:
            self.home.create()
            self.lock.acquire()
            self._stack.callback(self.lock.release)
            self.lock.leftovers()
            self._discard_partials()
            if not self.home.config_file.exists():
                write_private(self.home.config_file, config.example().encode())
        except HomeError as error:
            raise StartError(str(error)) from None
        self._stack.callback(self.lock.leftovers)

    def _discard_partials(self) -> None:
        """Remove what a backup or a restore left half-made when it was killed; a full disk must not keep it."""
        with contextlib.suppress(OSError):
            files.discard_partials(self.home.backups)
            files.discard(sqlite_file.staging(engines.database_path(self.home, self.loaded.config)))

    def _open_log(self) -> Log:
        settings = self.loaded.config.log
        file = self.home.log_file(settings.file)
        console = settings.format == "console" or (self._foreground and sys.stdout.isatty())
        try:
            log = Log(
                file,
                level=settings.level,
                max_size=settings.max_size_mb << 20,
                max_files=settings.max_files,
                stdout=1 if self._foreground else None,
                console=console,
            )
        except OSError as error:
            raise StartError(f"the log {file} cannot be opened: {error.strerror}") from None
        log.capture_libraries()
        self._logging = True
        self._stack.callback(log.close, 5.0)
        return log

    async def _migrate(self) -> None:
        started = time.monotonic()

        def applied(name: str) -> None:
            nonlocal started
            begun, started = started, time.monotonic()
            milliseconds = round((started - begun) * 1000)
            self.log.emit("migration.applied", number=int(name[:4]), name=name, durationMs=milliseconds)

        try:
            await engines.prepare(self.home, self.loaded.config, self.clock, applied)
        except MigrationError as error:
            raise StartError(str(error)) from None

    async def _open_store(self) -> Engine:
        store = await app.open_engine(self.home, self.loaded.config, self.clock, self.log, self.bus)
        self._stack.push_async_callback(store.close)
        return store

    async def _agree_on_key(self, store: Engine) -> None:
        """Refuse a home whose key is not that of the other daemons: it could not read their channels."""
        file = self.home.seal_key_file
        try:
            agreed = await agree(store, SealKey(file))
        except HomeError as error:
            raise StartError(str(error)) from None
        if not agreed:
            raise StartError(
                f"{file} is not the key of the other daemons on this database: copy {file.name} from the home of one",
                EXIT_CONFIG,
            )

    async def _settle_password(self, store: Engine, hasher: PasswordHasher) -> bool:
        given, self._password = self._password, None
        if not await app.is_initialised(store):
            password = given or make_password(self.home)
            try:
                begun = await app.initialise(store, hasher, password, "system")
            except DaemonError as error:
                raise StartError(error.detail, EXIT_CONFIG) from None
            if begun:
                self.log.emit("daemon.initialised", home=str(self.home.root))
                return True
            if given is None:
                withdraw_password(self.home)
        if given is not None and not await app.matches(store, hasher, given):
            raise StartError(
                "the given master password is not this home's: unset DAEMON_MASTER_PASSWORD, or correct it", EXIT_AUTH
            )
        return False

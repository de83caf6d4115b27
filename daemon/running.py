"""One running daemon: the steps of its start and of its stop, and what a crash leaves behind."""

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import Mapping

from daemon import __version__, app, config
from daemon.config import ConfigError, Loaded
from daemon.crypto.passwords import PasswordHasher
from daemon.domain.clock import DomainClock
from daemon.domain.errors import DaemonError
from daemon.domain.events import ConfigReloaded, DaemonStarted, DaemonStopped
from daemon.home import Home, HomeError
from daemon.lock import HomeLock, RunInfo, write_private
from daemon.log import Log
from daemon.startup import EXIT_AUTH, EXIT_CONFIG, StartError, log_again, make_password, notify, step
from daemon.stores.migrate import MigrationError, migrate
from daemon.stores.sqlite.database import SQLiteStore, newest_event_time
from daemon.web.envelope import Envelope
from daemon.web.server import Server, bind_tcp, bind_unix

MIGRATION_SECONDS = 600.0


class Daemon:
    """One running daemon.

    Args:
        home: where everything lives.
        loaded: the configuration.
        password: the master password to begin with, or to hold against an initialised home.
        foreground: also write the log to standard output.
        flags: of the command line, for a reload.
        clock: the domain clock.
    """

    def __init__(
        self,
        home: Home,
        loaded: Loaded,
        *,
        password: str | None = None,
        foreground: bool = False,
        flags: Mapping[str, object] | None = None,
        clock: DomainClock | None = None,
    ) -> None:
        self.home = home
        self.loaded = loaded
        self.clock = clock or DomainClock(time.time, time.monotonic)
        self._password = password
        self._foreground = foreground
        self._flags = flags or {}
        self._lock = HomeLock(home)
        self._stack = contextlib.AsyncExitStack()
        self._stopping = asyncio.Event()
        self._reason = ""
        self._ready = False
        self._serving: asyncio.Task[None] | None = None
        self._reloads: set[asyncio.Task[None]] = set()
        self.url = ""
        self.log: Log
        self.parts: app.Parts
        self.server: Server
        self.envelope: Envelope

    async def start(self) -> None:
        """Take every step up to the ready line; a step that fails undoes those before it.

        Raises:
            StartError: with the step's reason.
            AlreadyRunning: another daemon has the home.
        """
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def initialise(self) -> bool:
        """Make what is missing of the home, its database and its master password, and let go of it again.

        Returns:
            Whether the master password was set now.

        Raises:
            StartError: with the step's reason.
            AlreadyRunning: another daemon has the home.
        """
        async with self._stack:
            self._take_home()
            self.log = self._open_log()
            await step("migrate the database", self._migrate(), MIGRATION_SECONDS)
            store = await step("open the database", self._open_store())
            hasher = app.make_hasher(self.loaded.config)
            self._stack.callback(hasher.close)
            return await step("set up the master password", self._settle_password(store, hasher))

    async def _start(self) -> None:
        self._take_home()
        self.log = self._open_log()
        self.log.emit("daemon.starting", version=__version__, pid=os.getpid(), home=str(self.home.root))
        await step("migrate the database", self._migrate(), MIGRATION_SECONDS)
        store = await step("open the database", self._open_store())
        hasher = app.make_hasher(self.loaded.config)
        self._stack.callback(hasher.close)
        await step("set up the master password", self._settle_password(store, hasher))
        wiring = app.wire(self.home, self.loaded, self.log, store, hasher, stop=self.stop_soon)
        self.parts = await step("load the secrets", wiring)
        await step("recover", self._recover())
        sockets = self._listen()
        self._serving = asyncio.create_task(self.server.serve(sockets))
        await step("listen", self.server.started())
        self.parts.workers.start()
        self._announce()

    def _take_home(self) -> None:
        try:
            self.home.create()
            self._lock.acquire()
            self._stack.callback(self._lock.release)
            self._lock.leftovers()
            if not self.home.config_file.exists():
                write_private(self.home.config_file, config.example().encode())
        except HomeError as error:
            raise StartError(str(error)) from None
        self._stack.callback(self._lock.leftovers)

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
        self._stack.callback(log.close, 5.0)
        return log

    async def _migrate(self) -> None:
        database = app.database_path(self.home, self.loaded.config)
        started = time.monotonic()

        def applied(name: str) -> None:
            milliseconds = round((time.monotonic() - started) * 1000)
            self.log.emit("migration.applied", number=int(name[:4]), name=name, durationMs=milliseconds)

        try:
            await asyncio.to_thread(migrate, database, now=self.clock.now(), backups=self.home.backups, applied=applied)
            self.clock.start_from(await asyncio.to_thread(newest_event_time, database))
        except MigrationError as error:
            raise StartError(str(error)) from None

    async def _open_store(self) -> SQLiteStore:
        store = await app.open_engine(self.home, self.loaded.config, self.clock, self.log)
        self._stack.push_async_callback(store.close)
        return store

    async def _settle_password(self, store: SQLiteStore, hasher: PasswordHasher) -> bool:
        password, self._password = self._password, None
        if await app.is_initialised(store):
            if password is not None and not await app.matches(store, hasher, password):
                raise StartError(
                    "the given master password is not this home's: unset DAEMON_MASTER_PASSWORD, or correct it",
                    EXIT_AUTH,
                )
            return False
        if password is None:
            password = make_password(self.home)
        try:
            await app.initialise(store, hasher, password, "system")
        except DaemonError as error:
            raise StartError(error.detail, EXIT_CONFIG) from None
        self.log.emit("daemon.initialised", home=str(self.home.root))
        return True

    async def _recover(self) -> None:
        """Log again what a crash kept from the log, follow the clock, and end what expired meanwhile."""
        services = self.parts.services
        await log_again(services.audit, self.log, self.home.log_file(self.loaded.config.log.file))
        if self.clock.take_reset():
            self.log.emit("clock.reset", now=self.clock.now())
            await services.admin.follow_clock_reset()
        await services.admin.sweep()
        await services.admin.record(DaemonStarted(version=__version__, pid=os.getpid()))

    def _listen(self) -> list[socket.socket]:
        settings = self.loaded.config.server
        try:
            tcp = bind_tcp(settings.host, settings.port)
            self._stack.callback(tcp.close)
            sockets = [tcp]
            if settings.unix_socket:
                sockets.append(bind_unix(self.home.socket_path))
                self._stack.callback(sockets[-1].close)
        except OSError as error:
            hint = "; choose another port with --port, or --port 0 for a free one"
            raise StartError(f"{error.strerror or error}{hint if 'in use' in str(error) else ''}") from None
        port = tcp.getsockname()[1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = f"http://{host}:{port}"
        self.envelope = self.parts.envelope(port)
        self.server = Server(self.envelope, log=self.log, drain_seconds=settings.shutdown_timeout)
        return sockets

    def _announce(self) -> None:
        unix = str(self.home.socket_path) if self.loaded.config.server.unix_socket else None
        info = RunInfo(pid=os.getpid(), started_at=self.clock.now(), url=self.url, socket=unix, version=__version__)
        try:
            self._lock.announce(info)
        except HomeError as error:
            raise StartError(str(error)) from None
        self.log.emit(
            "daemon.ready",
            url=self.url,
            socket=unix,
            home=str(self.home.root),
            logFile=str(self.home.log_file(self.loaded.config.log.file)),
            pid=os.getpid(),
            version=__version__,
        )
        self._ready = True
        notify("READY=1")

    def stop_soon(self, reason: str) -> None:
        """Begin the ordinary stop; it goes on in `run_until_stopped`."""
        if not self._stopping.is_set():
            self._reason = reason
            self._stopping.set()

    async def run_until_stopped(self) -> None:
        """Serve until `stop_soon` was called, then stop."""
        await self._stopping.wait()
        await self.stop()

    async def stop(self) -> None:
        """Stop in good order: refuse, drain, flush, record, close; `shutdown_timeout` forces it."""
        notify("STOPPING=1")
        in_flight = self.envelope.in_flight
        self.log.emit("daemon.stopping", reason=self._reason or "asked to", inFlight=in_flight)
        self.envelope.begin_shutdown()
        limit = self.loaded.config.server.shutdown_timeout
        try:
            async with asyncio.timeout(limit + 2):
                await self._drain(limit)
                await self._settle()
        except TimeoutError:
            self.log.emit("daemon.failed", step="stop", reason=f"not done within {limit} s")
        await self._stack.aclose()

    async def _drain(self, limit: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self.envelope.drained()
        self.server.begin_shutdown()
        if self._serving is not None:
            await self._serving

    async def _settle(self) -> None:
        """Store what is only in memory; a disk that refuses it must not keep the daemon from stopping."""
        admin = self.parts.services.admin
        await self.parts.workers.stop()
        try:
            await self.parts.store.flush()
            await admin.record(DaemonStopped(uptime=admin.uptime()))
            await app.log_checkpoint(self.parts)
            await self.parts.store.checkpoint()
        except DaemonError as error:
            self.log.emit("storage.failed", operation="stop", reason=str(error.__cause__ or error))

    def reload_soon(self) -> None:
        """Read the configuration again and reopen the log (SIGHUP); before the daemon is ready there is no need."""
        if not self._ready:
            return
        self.log.reopen()
        task = asyncio.create_task(self._reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload(self) -> None:
        try:
            fresh = config.load(self.home.root, os.environ, self._flags)
        except ConfigError as error:
            self.log.emit("config.invalid", problems=error.problems)
            return
        applied, ignored = config.changed(self.loaded.config, fresh.config)
        server, log = fresh.config.server, fresh.config.log
        self.log.reconfigure(
            level=log.level,
            max_size=log.max_size_mb << 20,
            max_files=log.max_files,
            console=log.format == "console" or (self._foreground and sys.stdout.isatty()),
        )
        self.envelope.rate.limit = server.global_rpm
        self.parts.rates.limit = server.session_rpm
        self.loaded = Loaded(config.reloaded(self.loaded.config, fresh.config), fresh.origins)
        await self.parts.services.admin.record(ConfigReloaded(applied=tuple(applied), ignored=tuple(ignored)))

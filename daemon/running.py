"""One running daemon: the steps of its start and of its stop, and what a crash leaves behind."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Mapping

from daemon import __version__, app, background, engines
from daemon.config import Loaded
from daemon.domain.clock import DomainClock
from daemon.domain.errors import DaemonError
from daemon.domain.facts.daemon import DaemonStarted, DaemonStopped
from daemon.home import Home, HomeError
from daemon.log import Log
from daemon.opening import Opening
from daemon.parts import Parts
from daemon.reloading import Reloader
from daemon.run_info import RunInfo
from daemon.services.ports import KILL_SECONDS
from daemon.startup import EXIT_CONFIG, StartError, log_again
from daemon.stores.conversation_store import ConversationStore
from daemon.stores.terms import UnfitError
from daemon.supervising import Surroundings
from daemon.web.envelope import Envelope
from daemon.web.server import Server, bind_tcp, bind_unix


class Daemon:
    """One running daemon.

    Args:
        home: where everything lives.
        loaded: the configuration.
        password: the master password to begin with, or to hold against an initialised home.
        foreground: also write the log to standard output.
        flags: of the command line, for a reload.
        clock: the domain clock.
        surroundings: what it is started in.
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
        surroundings: Surroundings | None = None,
    ) -> None:
        self.home = home
        self.loaded = loaded
        self.clock = clock or DomainClock(time.time, time.monotonic)
        self._foreground = foreground
        self._flags = flags or {}
        self._surroundings = surroundings or Surroundings()
        self._manager = self._surroundings.manager
        self._stack = contextlib.AsyncExitStack()
        self._opening = Opening(
            home,
            loaded,
            clock=self.clock,
            stack=self._stack,
            password=password,
            foreground=foreground,
            manager=self._manager,
        )
        self._stopping = asyncio.Event()
        self._reason = ""
        self._kills_processes = False
        self._reloader: Reloader | None = None
        self._serving: asyncio.Task[None] | None = None
        self.url = ""
        self.parts: Parts
        self.server: Server
        self.envelope: Envelope

    @property
    def log(self) -> Log:
        """The structured log, once the home is open."""
        return self._opening.log

    async def start(self) -> None:
        """Take every step up to the ready line; a step that fails undoes those before it.

        Raises:
            StartError: with the step's reason.
            AlreadyRunning: another daemon has the home.
        """
        try:
            await self._start()
        except BaseException as error:
            if isinstance(error, StartError):
                self._opening.tell_failure(error.message)
            await self._undo()
            raise

    async def _undo(self) -> None:
        """Leave nothing behind of a start that failed."""
        if self._serving is not None:
            self.server.begin_shutdown()
            await asyncio.gather(self._serving, return_exceptions=True)
        await self._stack.aclose()

    async def initialise(self) -> bool:
        """Make what is missing of the home, its database and its master password, and let go of it again.

        Returns:
            Whether the master password was set now.

        Raises:
            StartError: with the step's reason.
            AlreadyRunning: another daemon has the home.
        """
        async with self._stack:
            return await self._opening.open()

    async def _start(self) -> None:
        await self._opening.open()
        step = self._opening.step
        bindings = await step("open the conversations", self._open_conversations())
        wiring = app.wire(
            self.home,
            self.loaded,
            self.log,
            self._opening.store,
            bindings,
            hasher=self._opening.hasher,
            bus=self._opening.bus,
            surroundings=self._surroundings,
            stop=self.stop_soon,
        )
        self.parts = await step("load the secrets", wiring)
        await step("recover", self._recover())
        sockets = self._listen()
        self._serving = asyncio.create_task(self.server.serve(sockets))
        await step("listen", self.server.started())
        started = DaemonStarted(version=__version__, pid=os.getpid())
        await step("record the start", self.parts.services.admin.record(started))
        if (seconds := self._manager.watchdog_seconds) is not None:
            self.parts.workers.add("watchdog", seconds / 2, self._prove_life)
        self.parts.workers.start()
        self.parts.supervisor.begin(self.url)
        self._announce()

    async def _open_conversations(self) -> ConversationStore:
        try:
            bindings = await engines.open_conversations(self._opening.store, self.loaded.config, self.log.emit)
        except UnfitError as error:
            raise StartError(error.message, EXIT_CONFIG) from None
        self._stack.push_async_callback(bindings.close)
        return bindings

    async def _recover(self) -> None:
        """Log again what a crash kept from the log, follow the clock, and end what expired meanwhile."""
        services = self.parts.services
        logged = await log_again(services.audit, self.log, self.home.log_file(self.loaded.config.log.file))
        self.parts.store.follow(logged)
        if self.clock.take_reset():
            self.log.emit("clock.reset", now=self.clock.now())
        await services.admin.follow_clock_reset()
        await services.admin.sweep_sessions()
        await self.parts.supervisor.attach()

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
        drain, meter = settings.shutdown_timeout, self.parts.meter
        self.server = Server(self.envelope, log=self.log, drain_seconds=drain, meter=meter)
        return sockets

    def _announce(self) -> None:
        unix = str(self.home.socket_path) if self.loaded.config.server.unix_socket else None
        info = RunInfo(pid=os.getpid(), started_at=self.clock.now(), url=self.url, socket=unix, version=__version__)
        try:
            self._opening.lock.announce(info)
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
        status = f"Serving at {self.url}"
        self._reloader = Reloader(
            self.home.root,
            self.loaded,
            self._flags,
            parts=self.parts,
            envelope=self.envelope,
            foreground=self._foreground,
            manager=self._manager,
            status=status,
        )
        self._manager.ready(status)

    async def _prove_life(self) -> None:
        """Tell the service manager that our loop turns and our writer works; without it, it starts us anew.

        A database that refuses is no reason for that: a new start would not help it, and agents get an answer.
        """
        await self.parts.store.pulse()
        self._manager.alive()

    def stop_soon(self, reason: str, *, kill_processes: bool = False) -> None:
        """Begin the ordinary stop; it goes on in `run_until_stopped`.

        Args:
            reason: as the log tells it.
            kill_processes: whether the processes of sessions are ended too, whatever the configuration says.
        """
        self._kills_processes = self._kills_processes or kill_processes
        if not self._stopping.is_set():
            self._reason = reason
            self._stopping.set()

    async def run_until_stopped(self) -> None:
        """Serve until `stop_soon` was called, then stop."""
        await self._stopping.wait()
        await self.stop()

    async def stop(self) -> None:
        """Stop in good order: refuse, drain, flush, record, close; `shutdown_timeout` forces it."""
        limit = self.loaded.config.server.shutdown_timeout
        self._manager.stopping(limit)
        in_flight = self.envelope.in_flight
        self.log.emit("daemon.stopping", reason=self._reason or "asked to", inFlight=in_flight)
        self.envelope.begin_shutdown()
        self.parts.services.streams.shut_down()
        try:
            async with asyncio.timeout(limit + 2):
                await self._drain(limit)
                await self._settle()
        except TimeoutError:
            self.log.emit("daemon.failed", step="stop", reason=f"not done within {limit} s")
        finally:  # whatever failed, a daemon that refuses everything must not stay
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
        await self._leave_processes()
        await self.parts.messenger.close()
        try:
            await background.flush(self.parts)
            await admin.record(DaemonStopped(uptime=admin.uptime()))
            await background.log_checkpoint(self.parts)
        except DaemonError as error:
            self.log.emit("storage.failed", operation="stop", reason=str(error.__cause__ or error))

    async def _leave_processes(self) -> None:
        """Let processes go on without us, or end them if that is asked for."""
        supervisor = self.parts.supervisor
        if self._kills_processes or self.loaded.config.processes.shutdown_processes == "kill":
            proof = await supervisor.end_everything(KILL_SECONDS)
            self.log.emit("process.shutdown", killed=proof.killed, left=proof.left)
        await supervisor.stop()

    def reload_soon(self) -> None:
        """Read the configuration again and reopen the log (SIGHUP); before the daemon is ready there is no need."""
        if self._reloader is not None:
            self._reloader.soon()

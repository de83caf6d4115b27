"""The only wiring: configuration, engine, services, the Litestar app and its envelope, background tasks."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
from litestar import Litestar, Router
from litestar.middleware import DefineMiddleware

from daemon import __version__
from daemon.bus import Bus
from daemon.config import Loaded
from daemon.crypto.passwords import PasswordHasher
from daemon.crypto.tokens import TokenSigner
from daemon.domain.clock import Clock
from daemon.domain.events import Event, Origin
from daemon.home import Home
from daemon.log import Log
from daemon.services.admin import About, Admin, load_secrets
from daemon.services.agents import Agents
from daemon.services.audit import Audit
from daemon.services.auth import SessionAuth
from daemon.services.backups import Backups
from daemon.services.owner import PASSWORD_KEY, OwnerAuth, set_initial_password
from daemon.services.sessions import Sessions
from daemon.settings import Config
from daemon.stores.sqlite.database import SQLiteStore, open_store
from daemon.web.context import Services
from daemon.web.envelope import Envelope
from daemon.web.hosts import HostPolicy
from daemon.web.middleware.guards import OwnerGuard, SessionGuard
from daemon.web.middleware.rate import SessionRates
from daemon.web.options import NoAutomaticOptions
from daemon.web.problems import handle_exception
from daemon.web.routes import admin, agents, own, public, sessions
from daemon.workers import Workers

FLUSH_SECONDS = 0.9
SWEEP_SECONDS = 60.0
CLOCK_SECONDS = 1.0
CHECKPOINT_SECONDS = 3600.0
CHECKPOINT_EVENTS = 1000


class Parts(msgspec.Struct):
    """A wired daemon that does not listen yet."""

    config: Config
    log: Log
    clock: Clock
    store: SQLiteStore
    hasher: PasswordHasher
    services: Services
    workers: Workers
    rates: SessionRates
    app: Litestar

    def envelope(self, port: int | None) -> Envelope:
        """Return the ASGI application for a listener on this TCP port."""
        server = self.config.server
        hosts = HostPolicy.of(port, server.allowed_hosts, server.public_url)
        return Envelope(
            self.app,
            services=self.services,
            log=self.log,
            clock=self.clock,
            hosts=hosts,
            global_rpm=server.global_rpm,
        )


def database_path(home: Home, config: Config) -> Path:
    """Return where the SQLite file is."""
    return config.database.path or home.database


async def open_engine(home: Home, config: Config, clock: Clock, log: Log) -> SQLiteStore:
    """Open the migrated database; events go to the log after their commit.

    Raises:
        DaemonError: STORAGE_UNAVAILABLE.
    """
    bus = Bus()
    bus.listen(log.audit)
    bus.listen(lambda event: _checkpoint_by_count(log, event))
    return await open_store(
        database_path(home, config),
        clock,
        synchronous=config.database.synchronous,
        cache_sessions=config.database.cache_sessions,
        announce=bus.announce,
        failed=lambda error: log.emit("storage.failed", operation="commit", reason=str(error)),
    )


def _checkpoint_by_count(log: Log, event: Event) -> None:
    if event.seq % CHECKPOINT_EVENTS == 0:
        log.emit("audit.checkpoint", seq=event.seq, hash=event.hash)


def make_hasher(config: Config) -> PasswordHasher:
    """Return the password hasher that the configuration asks for."""
    security = config.security
    return PasswordHasher(security.argon2_memory_kib, security.argon2_time, security.argon2_parallelism)


async def is_initialised(store: SQLiteStore) -> bool:
    """Return whether there is a master password."""
    return await store.value(PASSWORD_KEY) is not None


async def initialise(store: SQLiteStore, hasher: PasswordHasher, password: str, actor: str) -> bool:
    """Set the master password unless there is one; return whether it was set.

    Raises:
        DaemonError: VALIDATION_ERROR, STORAGE_UNAVAILABLE.
    """
    return await set_initial_password(store, hasher, password, Origin(actor))


async def matches(store: SQLiteStore, hasher: PasswordHasher, password: str) -> bool:
    """Return whether this is the master password."""
    stored = await store.value(PASSWORD_KEY)
    return stored is not None and await hasher.verify(stored, password)


async def wire(
    home: Home, loaded: Loaded, log: Log, store: SQLiteStore, hasher: PasswordHasher, *, stop: Callable[[str], None]
) -> Parts:
    """Connect everything around an open engine.

    Args:
        home: for the initial password's file and the backups.
        loaded: the configuration.
        log: the structured log.
        store: the engine; it is initialised.
        hasher: verifies passwords.
        stop: begins the ordinary stop; gets its reason.

    Raises:
        DaemonError: STORAGE_UNAVAILABLE.
    """
    config, clock = loaded.config, store.clock
    workers = Workers(clock, log)
    signer = TokenSigner(await load_secrets(store))
    security = config.security
    about = About(__version__, os.getpid(), clock.monotonic(), workers.statuses)
    stored = await store.value(PASSWORD_KEY)
    initial = home.initial_password_file
    owner = OwnerAuth(store, hasher, security, stored or "", lambda: initial.unlink(missing_ok=True))
    services = Services(
        owner=owner,
        auth=SessionAuth(store, signer, security),
        agents=Agents(store),
        sessions=Sessions(store, signer, security),
        audit=Audit(store),
        admin=Admin(store, signer, security, about),
        backups=Backups(store, home.backups),
        stop=stop,
    )
    rates = SessionRates(config.server.session_rpm, clock)
    parts = Parts(config, log, clock, store, hasher, services, workers, rates, make_app(rates))
    _add_workers(parts)
    return parts


def make_app(rates: SessionRates) -> Litestar:
    """Return the Litestar app: one router a group, each with its guard."""
    return Litestar(
        route_handlers=[
            Router("/", route_handlers=public.HANDLERS, opt={"group": "public"}),
            Router(
                "/",
                route_handlers=[*agents.HANDLERS, *sessions.HANDLERS, *admin.HANDLERS],
                middleware=[OwnerGuard],
                opt={"group": "owner"},
            ),
            Router(
                "/",
                route_handlers=own.HANDLERS,
                middleware=[DefineMiddleware(SessionGuard, rates=rates)],
                opt={"group": "agent"},
            ),
        ],
        exception_handlers={Exception: handle_exception},
        plugins=[NoAutomaticOptions()],
        openapi_config=None,
        logging_config=None,
    )


def _add_workers(parts: Parts) -> None:
    admin_service, store, config = parts.services.admin, parts.store, parts.config
    idle_check = min(15.0, config.security.idle_after / 4)
    parts.workers.add("activity", FLUSH_SECONDS, store.flush)
    parts.workers.add("sweeper", SWEEP_SECONDS, admin_service.sweep)
    parts.workers.add("idle", idle_check, admin_service.mark_idle)
    parts.workers.add("clock", CLOCK_SECONDS, ClockWatch(parts).look)
    parts.workers.add("audit-checkpoint", CHECKPOINT_SECONDS, lambda: log_checkpoint(parts))
    parts.workers.add("wal-checkpoint", config.database.checkpoint_interval, store.checkpoint)


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

"""The only wiring: configuration, engine, services, the Litestar app and its envelope, background tasks."""

import os
from collections.abc import Callable

import msgspec
from litestar import Litestar

from daemon import __version__, engines
from daemon.bus import Bus
from daemon.config import Loaded
from daemon.crypto.passwords import PasswordHasher
from daemon.crypto.seal_key import SealKey
from daemon.crypto.tokens import TokenSigner
from daemon.domain.clock import Clock
from daemon.domain.events import Event, Origin
from daemon.domain.facts.daemon import KillSwitchActivated, PasswordChanged
from daemon.domain.facts.messages import ChannelAdded, ChannelDisabled, ChannelUpdated
from daemon.home import Home
from daemon.log import Log
from daemon.notify.messenger import Messenger
from daemon.services.admin import About, Admin
from daemon.services.agents import Agents
from daemon.services.answers import Answers
from daemon.services.audit import Audit
from daemon.services.auth import SessionAuth
from daemon.services.backups import Backups
from daemon.services.channel_seals import ChannelSeals
from daemon.services.channels import Channels, Service
from daemon.services.conversations import Conversations
from daemon.services.kill_switch import KillSwitch
from daemon.services.latch import Latch
from daemon.services.notifications import Notifications as Outbox
from daemon.services.owner import PASSWORD_KEY, OwnerAuth, set_initial_password
from daemon.services.sessions import Sessions
from daemon.services.signing import SECRETS_KEY, Signing, load_secrets
from daemon.services.summary import DailySummary
from daemon.settings import Config, Notifications, Security
from daemon.stores.conversation_store import ConversationStore
from daemon.stores.protocol import Engine
from daemon.stores.terms import Elsewhere, Telling
from daemon.web.application import make_app
from daemon.web.context import Services
from daemon.web.envelope import Envelope
from daemon.web.hosts import HostPolicy
from daemon.web.middleware.rate import SessionRates
from daemon.web.streams import TICK_SECONDS, StreamLimits, Streams
from daemon.workers import Workers

FLUSH_SECONDS = 0.9
SWEEP_SECONDS = 60.0
CLOCK_SECONDS = 1.0
DELIVER_SECONDS = 1.0
LISTEN_SECONDS = 5.0
HEALTH_SECONDS = 300.0
SUMMARY_SECONDS = 20.0
RETENTION_SECONDS = 3600.0
CHECKPOINT_SECONDS = 3600.0
CHECKPOINT_EVENTS = 1000
_OF_CHANNELS = frozenset({ChannelAdded.type, ChannelUpdated.type, ChannelDisabled.type})


class Parts(msgspec.Struct):
    """A wired daemon that does not listen yet."""

    config: Config
    log: Log
    clock: Clock
    store: Engine
    bindings: ConversationStore
    hasher: PasswordHasher
    services: Services
    workers: Workers
    rates: SessionRates
    messenger: Messenger
    latch: Latch
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
            locked=lambda: self.latch.is_closed,
        )


async def open_engine(home: Home, config: Config, clock: Clock, log: Log, bus: Bus) -> Engine:
    """Open the migrated database; events go to the log after their commit.

    Raises:
        DaemonError: STORAGE_UNAVAILABLE.
    """
    bus.listen(log.audit)
    bus.listen(lambda event: _checkpoint_by_count(log, event))
    store = await engines.open_engine(home, config, clock, announce=bus.announce, report=log.emit)
    store.telling = Telling(config.notifications.enabled, config.notifications.dedup_ttl)
    return store


def _checkpoint_by_count(log: Log, event: Event) -> None:
    if event.seq % CHECKPOINT_EVENTS == 0:
        log.emit("audit.checkpoint", seq=event.seq, hash=event.hash)


def make_hasher(config: Config) -> PasswordHasher:
    """Return the password hasher that the configuration asks for."""
    security = config.security
    return PasswordHasher(security.argon2_memory_kib, security.argon2_time, security.argon2_parallelism)


async def is_initialised(store: Engine) -> bool:
    """Return whether there is a master password."""
    return await store.value(PASSWORD_KEY) is not None


async def initialise(store: Engine, hasher: PasswordHasher, password: str, actor: str) -> bool:
    """Set the master password unless there is one; return whether it was set.

    Raises:
        DaemonError: VALIDATION_ERROR, STORAGE_UNAVAILABLE.
    """
    return await set_initial_password(store, hasher, password, Origin(actor))


async def matches(store: Engine, hasher: PasswordHasher, password: str) -> bool:
    """Return whether this is the master password."""
    stored = await store.value(PASSWORD_KEY)
    return stored is not None and await hasher.verify(stored, password)


async def wire(
    home: Home,
    loaded: Loaded,
    log: Log,
    store: Engine,
    bindings: ConversationStore,
    *,
    hasher: PasswordHasher,
    bus: Bus,
    stream_limits: StreamLimits,
    stop: Callable[[str], None],
) -> Parts:
    """Connect everything around an open engine.

    Args:
        home: for the initial password's file and the backups.
        loaded: the configuration.
        log: the structured log.
        store: the engine; it is initialised.
        bindings: holds the conversations.
        hasher: verifies passwords.
        bus: wakes whoever waits for events.
        stream_limits: what live streams may take.
        stop: begins the ordinary stop; gets its reason.

    Raises:
        DaemonError: STORAGE_UNAVAILABLE.
    """
    config, clock = loaded.config, store.clock
    workers = Workers(clock, log, store.leads)
    signing = Signing(store, TokenSigner(await load_secrets(store)))
    security = config.security
    about = About(__version__, os.getpid(), clock.monotonic(), workers.statuses)
    audit = Audit(store)
    streams = Streams(audit, (await store.head()).seq, stream_limits)
    bus.listen(streams.publish)
    bus.listen(lambda event: _end_streams(event, streams))
    latch = Latch(store)
    messages = _messages(home, config, store, log, latch)
    owner = await _owner(home, store, hasher, security)
    store.on_elsewhere = lambda changed: _doubt(changed, owner, signing, bindings)
    services = Services(
        owner=owner,
        auth=SessionAuth(store, signing, security),
        agents=Agents(store),
        sessions=Sessions(store, signing, security),
        conversations=Conversations(store, bindings),
        audit=audit,
        admin=Admin(store, bindings, signing, security, about),
        backups=Backups(store, home.backups),
        kill_switch=KillSwitch(store, security, latch),
        channels=messages.channels,
        notifications=messages.notifications,
        answers=messages.answers,
        summary=DailySummary(store, config.notifications),
        streams=streams,
        stop=stop,
    )
    rates = SessionRates(config.server.session_rpm, clock)
    app, messenger = make_app(rates), messages.messenger
    parts = Parts(config, log, clock, store, bindings, hasher, services, workers, rates, messenger, latch, app)
    _add_workers(parts, bus)
    return parts


def _end_streams(event: Event, streams: Streams) -> None:
    """End, at once, what an event makes unfit to be seen; what else ends a stream is found at the next look."""
    if event.type == KillSwitchActivated.type:
        streams.end_sessions()
    elif event.type == PasswordChanged.type:
        streams.end_owners()


def _doubt(changed: Elsewhere, owner: OwnerAuth, signing: Signing, bindings: ConversationStore) -> None:
    """Let whoever remembers what another daemon changed read it again."""
    if changed.everything or PASSWORD_KEY in changed.values:
        owner.doubt()
    if changed.everything or SECRETS_KEY in changed.values:
        signing.doubt()
    bindings.forget(changed)


async def _owner(home: Home, store: Engine, hasher: PasswordHasher, security: Security) -> OwnerAuth:
    stored = await store.value(PASSWORD_KEY)
    initial = home.initial_password_file
    return OwnerAuth(store, hasher, security, stored or "", lambda: initial.unlink(missing_ok=True))


class _Messages(msgspec.Struct):
    """What telling the owner takes."""

    channels: Channels
    notifications: Outbox
    answers: Answers
    messenger: Messenger


def _messages(home: Home, config: Config, store: Engine, log: Log, latch: Latch) -> _Messages:
    settings = config.notifications
    seals = ChannelSeals(SealKey(home.seal_key_file))
    outbox = Outbox(store, settings, seals, config.server.public_url)
    answers = Answers(store, latch)
    messenger = Messenger(outbox, answers, store.clock, log)
    service = Service(messenger.check, messenger.send)
    return _Messages(Channels(store, settings, seals, service), outbox, answers, messenger)


def apply_notifications(parts: Parts, settings: Notifications) -> None:
    """Take new notification settings while running."""
    services = parts.services
    services.channels.settings = services.notifications.settings = services.summary.settings = settings
    parts.store.telling = Telling(settings.enabled, settings.dedup_ttl)


def _add_workers(parts: Parts, bus: Bus) -> None:
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
    for chore in (*store.chores(), *parts.bindings.chores()):
        workers.add(chore.name, chore.seconds, chore.run)


async def flush(parts: Parts) -> None:
    """Store everything that is only in memory.

    Raises:
        DaemonError: STORAGE_UNAVAILABLE.
    """
    await parts.store.flush()
    await parts.bindings.flush()


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

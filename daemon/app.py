"""The only wiring: configuration, engine, services, the Litestar app and its envelope, background tasks."""

import os
from collections.abc import Callable

import msgspec

from daemon import __version__, engines
from daemon.background import add_workers
from daemon.bus import Bus
from daemon.config import Loaded
from daemon.crypto.passwords import PasswordHasher
from daemon.crypto.seal_key import SealKey
from daemon.crypto.tokens import TokenSigner
from daemon.domain.clock import Clock
from daemon.domain.events import Event, Origin
from daemon.domain.facts.daemon import KillSwitchActivated, PasswordChanged
from daemon.home import Home
from daemon.log import Log
from daemon.notify.messenger import Messenger
from daemon.parts import Parts
from daemon.services.admin import About, Admin
from daemon.services.agents import Agents
from daemon.services.answers import Answers
from daemon.services.audit import Audit
from daemon.services.auth import SessionAuth
from daemon.services.backups import Backups
from daemon.services.channel_seals import ChannelSeals
from daemon.services.channels import Channels, Service
from daemon.services.conversations import Conversations
from daemon.services.delegation import Delegation
from daemon.services.kill_switch import KillSwitch
from daemon.services.latch import Latch
from daemon.services.measures import Measures
from daemon.services.notifications import Notifications as Outbox
from daemon.services.oauth import OAuth
from daemon.services.owner import PASSWORD_KEY, OwnerAuth, set_initial_password
from daemon.services.processes import Processes
from daemon.services.sessions import Sessions
from daemon.services.signing import SECRETS_KEY, Signing, load_secrets
from daemon.services.summary import DailySummary
from daemon.services.verifiers import Verifiers
from daemon.settings import Config, Security
from daemon.stores.conversation_store import ConversationStore
from daemon.stores.protocol import Engine
from daemon.stores.terms import Elsewhere, Telling
from daemon.supervising import Surroundings, supervise
from daemon.web.application import make_app
from daemon.web.context import Services
from daemon.web.meter import RequestMeter
from daemon.web.middleware.rate import SessionRates
from daemon.web.streams import Streams
from daemon.workers import Workers

CHECKPOINT_EVENTS = 1000


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
    surroundings: Surroundings,
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
        surroundings: what the daemon was started in.
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
    streams = Streams(audit, (await store.head()).seq, surroundings.stream_limits)
    bus.listen(streams.publish)
    bus.listen(lambda event: _end_streams(event, streams))
    measures, latch = Measures(store), Latch(store)
    bus.listen(measures.notice)
    messages = _messages(home, config, store, log, latch)
    owner = await _owner(home, store, hasher, security)
    running = supervise(home, config, store, log, signing=signing, surroundings=surroundings)
    bus.listen(running.supervisor.notice)
    verifiers = Verifiers(store)
    store.on_elsewhere = lambda changed: _doubt(changed, owner, signing, verifiers, bindings)
    services = Services(
        owner=owner,
        auth=SessionAuth(store, signing, security),
        agents=Agents(store),
        sessions=Sessions(store, signing, security, running.supervision),
        tokens=running.tokens,
        processes=Processes(store, running.supervisor, running.supervision),
        conversations=Conversations(store, bindings),
        delegation=Delegation(store, signing, security),
        audit=audit,
        admin=Admin(store, bindings, signing, security, about),
        backups=Backups(store, home.backups),
        kill_switch=KillSwitch(store, security, latch, running.supervisor),
        channels=messages.channels,
        notifications=messages.notifications,
        answers=messages.answers,
        verifiers=verifiers,
        oauth=OAuth(store),
        summary=DailySummary(store, config.notifications),
        streams=streams,
        measures=measures,
        meter=RequestMeter(),
        stop=stop,
    )
    rates = SessionRates(config.server.session_rpm, clock)
    app, messenger = make_app(rates, metrics=config.server.metrics), messages.messenger
    parts = Parts(
        config, log, clock, store, bindings, hasher, services, workers, rates, messenger, running.supervisor, latch, app
    )
    add_workers(parts, bus)
    return parts


def _end_streams(event: Event, streams: Streams) -> None:
    """End, at once, what an event makes unfit to be seen; what else ends a stream is found at the next look."""
    if event.type == KillSwitchActivated.type:
        streams.end_sessions()
    elif event.type == PasswordChanged.type:
        streams.end_owners()


def _doubt(
    changed: Elsewhere, owner: OwnerAuth, signing: Signing, verifiers: Verifiers, bindings: ConversationStore
) -> None:
    """Let whoever remembers what another daemon changed read it again."""
    if changed.everything or PASSWORD_KEY in changed.values:
        owner.doubt()
    if changed.everything or SECRETS_KEY in changed.values:
        signing.doubt()
    if changed.everything or changed.verifiers:
        verifiers.doubt()
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

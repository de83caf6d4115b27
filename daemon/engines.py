"""The engines: here alone is decided which one holds the rows."""

import asyncio
import importlib.util
from collections.abc import Callable
from pathlib import Path

from daemon.domain.clock import Clock, DomainClock
from daemon.domain.events import Event
from daemon.home import Home
from daemon.settings import Config
from daemon.stores.conversation_store import ConversationStore
from daemon.stores.conversations import EngineConversations
from daemon.stores.migrate import MigrationError, migrate
from daemon.stores.protocol import Engine
from daemon.stores.redis.attachment import leave
from daemon.stores.sqlite.opening import newest_event_time, open_store
from daemon.stores.terms import UnfitError

Report = Callable[..., None]
"""Puts one line into the structured log: the event's name and its fields."""


def database_path(home: Home, config: Config) -> Path:
    """Return where the SQLite file is."""
    return config.database.path or home.database


async def prepare(home: Home, config: Config, clock: DomainClock, applied: Callable[[str], None]) -> None:
    """Bring the schema up to date, and the clock past the newest event.

    Args:
        home: gets a copy of a database with rows before its first migration.
        config: says which engine.
        clock: the domain clock.
        applied: called with the name of each migration after its commit.

    Raises:
        MigrationError: in one line.
    """
    if config.database.kind == "postgresql":
        await _prepare_postgres(config.database.url, clock, applied)
        return
    database = database_path(home, config)
    await asyncio.to_thread(migrate, database, now=clock.now(), backups=home.backups, applied=applied)
    clock.start_from(await asyncio.to_thread(newest_event_time, database))


async def _prepare_postgres(url: str, clock: DomainClock, applied: Callable[[str], None]) -> None:
    require_asyncpg()
    # Imported here: what nobody uses need not be installed.
    from daemon.stores.postgres import inspection  # noqa: PLC0415
    from daemon.stores.postgres.migrate import migrate as migrate_postgres  # noqa: PLC0415

    await migrate_postgres(url, now=clock.now(), applied=applied)
    ahead, newest = await inspection.times(url)
    clock.adjust(ahead)
    clock.start_from(newest)


async def server_schema(url: str) -> int:
    """Return the schema's version of a PostgreSQL database that is not open, if this program may work with it.

    Raises:
        MigrationError: it cannot be asked, or is not for this program.
    """
    require_asyncpg()
    # Imported here: what nobody uses need not be installed.
    from daemon.stores.postgres.migrate import accepted_version  # noqa: PLC0415

    return await accepted_version(url)


async def has_password(url: str) -> bool:
    """Return whether a PostgreSQL database that is not open has a master password.

    Raises:
        MigrationError: it cannot be asked.
    """
    require_asyncpg()
    # Imported here: what nobody uses need not be installed.
    from daemon.stores.postgres import inspection  # noqa: PLC0415

    return await inspection.has_password(url)


def explain(config: Config, cause: BaseException) -> str:
    """Return in one line what an error of the engine means.

    Args:
        config: says which engine.
        cause: what was raised, while the engine's package is loaded.
    """
    if config.database.kind == "sqlite":
        return str(cause)
    # Imported here: what nobody uses need not be installed.
    from daemon.stores.postgres.reasons import reason  # noqa: PLC0415

    return reason(cause, config.database.url)


def require_asyncpg() -> None:
    """Say what is to be installed where PostgreSQL cannot be used.

    Raises:
        MigrationError: in one line.
    """
    if importlib.util.find_spec("asyncpg") is None:
        raise MigrationError("PostgreSQL needs asyncpg; run: pip install 'agent-session-daemon[postgres]'")


async def open_engine(
    home: Home, config: Config, clock: Clock, *, announce: Callable[[list[Event]], None], report: Report
) -> Engine:
    """Open the migrated database.

    Args:
        home: where the SQLite file is, unless the configuration says otherwise.
        config: says which engine.
        clock: the domain clock.
        announce: called with events after their commit.
        report: tells what goes wrong with storage.

    Raises:
        DaemonError: STORAGE_UNAVAILABLE.
    """
    settings = config.database
    if settings.kind == "postgresql":
        # Imported here: what nobody uses need not be installed.
        from daemon.stores.postgres.opening import open_store as open_postgres  # noqa: PLC0415

        return await open_postgres(
            settings.url,
            clock,
            synchronous=settings.synchronous,
            cache_sessions=settings.cache_sessions,
            announce=announce,
            report=report,
        )
    return await open_store(
        database_path(home, config),
        clock,
        synchronous=settings.synchronous,
        cache_sessions=settings.cache_sessions,
        checkpoint_seconds=settings.checkpoint_interval,
        announce=announce,
        failed=lambda error: report("storage.failed", operation="commit", reason=str(error)),
    )


async def open_conversations(store: Engine, config: Config, report: Report) -> ConversationStore:
    """Open what holds the conversations: the engine, or Redis with the engine behind it.

    Args:
        store: the engine.
        config: says which.
        report: puts one line into the structured log.

    Raises:
        UnfitError: what is configured can never serve; in one line.
        DaemonError: STORAGE_UNAVAILABLE.
    """
    settings = config.conversations
    rows = EngineConversations(store, settings.conversation_ttl)
    if not settings.url:
        await leave(store)
        return rows
    try:
        # The package is optional, and takes longer to load than everything else of the start.
        from daemon.stores.redis.opening import open_conversations as open_redis  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        install = "pip install 'agent-session-daemon[redis]'"
        raise UnfitError(f"conversations.url needs the redis package: {install}") from None
    return await open_redis(
        store,
        rows,
        url=settings.url,
        key_prefix=settings.key_prefix,
        ttl=settings.conversation_ttl,
        report=report,
    )

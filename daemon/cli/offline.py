"""What the CLI reads of the database itself before a start; whole looks are in `daemon.maintenance`."""

import sqlite3
from contextlib import closing
from pathlib import Path

from daemon.cli.failure import NOT_RUNNING, Failure
from daemon.config import Loaded
from daemon.home import Home

_ASK_SECONDS = 3.0


def is_initialised(home: Home, loaded: Loaded) -> bool | None:
    """Return whether the database has a master password; None where it cannot be asked: the start itself says why."""
    settings = loaded.config.database
    if settings.kind == "postgresql":
        return _ask_postgres(settings.url)
    return _read_file(settings.path or home.database)


def must_start_again(home: Home, loaded: Loaded) -> None:
    """Refuse to stop what this program could not start again.

    Raises:
        Failure: there is nothing, or the database is not for this program.
    """
    initialised = is_initialised(home, loaded)
    if initialised is None:
        raise Failure("The database cannot be read, and a new start would fail", hint="run: daemon doctor")
    if not initialised:
        raise Failure("There is nothing to restart", NOT_RUNNING, hint="run: daemon start")
    # Imported here: `stop` does without it.
    from daemon.maintenance.pending import pending  # noqa: PLC0415

    if (problem := pending(home, loaded.config).problem) is not None:
        raise Failure(f"A new start would be refused: {problem}", hint="see: daemon upgrade")


def _read_file(database: Path) -> bool | None:
    if not database.exists():
        return False
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'key_value_store'").fetchone()
            if tables is None:
                return False
            found = connection.execute("SELECT 1 FROM key_value_store WHERE key = 'master_password'").fetchone()
    except sqlite3.Error:
        return None
    return found is not None


def _ask_postgres(url: str) -> bool | None:
    # Imported here: the engines, and asyncio, take longer than most commands run.
    import asyncio  # noqa: PLC0415

    from daemon.engines import has_password  # noqa: PLC0415
    from daemon.stores.migration_files import MigrationError  # noqa: PLC0415

    async def ask() -> bool:
        async with asyncio.timeout(_ASK_SECONDS):
            return await has_password(url)

    try:
        return asyncio.run(ask())
    except (MigrationError, TimeoutError):
        return None

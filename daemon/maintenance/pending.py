"""What the next start of this program would do to the database; nothing is changed by looking."""

import asyncio
import re

import msgspec

from daemon.engines import database_path, server_schema
from daemon.home import Home
from daemon.settings import Config
from daemon.stores.migrate import MigrationError, schema_version
from daemon.stores.migration_files import data_file, load

_SECONDS = 10.0


class Pending(msgspec.Struct, frozen=True, rename="camel"):
    """The database as this program finds it.

    Args:
        schema_version: of the database; 0 where there is none yet, None where it cannot be told.
        program_version: of the schema that this program works with.
        migrations: names of the files that its next start applies.
        copied_to: the directory that gets a copy of the database first; None where none is made.
        problem: why the start would be refused, in one line.
        older_copy: where this program is too old for the database: the newest copy that it can restore.
    """

    schema_version: int | None
    program_version: int
    migrations: list[str]
    copied_to: str | None = None
    problem: str | None = None
    older_copy: str | None = None


def pending(home: Home, config: Config) -> Pending:
    """Look at the database of a home, whether a daemon runs or not.

    Raises:
        MigrationError: the program's own files are incomplete.
    """
    on_server = config.database.kind == "postgresql"
    names = [file.name for file in load(data_file("migrations") / ("postgres" if on_server else "."))]
    try:
        found = _on_server(config) if on_server else schema_version(database_path(home, config))
    except MigrationError as error:
        return Pending(None, len(names), [], problem=str(error))
    if found > len(names):
        problem = f"its schema has version {found}, this program knows {len(names)}"
        return Pending(found, len(names), [], problem=problem, older_copy=_older_copy(home, config, len(names)))
    copied = bool(0 < found < len(names)) and not on_server
    return Pending(found, len(names), names[found:], copied_to=str(home.backups) if copied else None)


def _on_server(config: Config) -> int:
    async def ask() -> int:
        try:
            async with asyncio.timeout(_SECONDS):
                return await server_schema(config.database.url)
        except TimeoutError:
            raise MigrationError(f"the database's server did not answer within {_SECONDS:g} s") from None

    return asyncio.run(ask())


def _older_copy(home: Home, config: Config, latest: int) -> str | None:
    """Return the newest of the copies that migrations have left, of a schema that this program knows."""
    form = re.compile(rf"{re.escape(database_path(home, config).stem)}-v(\d{{4}})-.*\.db")
    known = [
        path for path in home.backups.glob("*.db") if (match := form.fullmatch(path.name)) and int(match[1]) <= latest
    ]
    newest = max(known, key=lambda path: path.stat().st_mtime, default=None)
    return None if newest is None else str(newest)

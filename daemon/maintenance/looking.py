"""Every row of a database for reading alone, whichever engine holds it and whether the daemon runs or not."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection

from daemon.engines import database_path, require_asyncpg
from daemon.home import Home
from daemon.maintenance.exclusive import Refused, named, reading
from daemon.settings import Config
from daemon.stores import inspection
from daemon.stores.migrate import MigrationError


@contextmanager
def rows(home: Home, config: Config) -> Iterator[Connection]:
    """Open the file with all rows; those of PostgreSQL are read into one that is there for so long.

    Raises:
        Refused: there are none, or they cannot be read.
    """
    if config.database.kind == "sqlite":
        with reading(database_path(home, config)) as connection:
            yield connection
        return
    with tempfile.TemporaryDirectory(prefix="agent-daemon-") as directory:
        file = Path(directory) / "rows.db"
        _read(config.database.url, file)
        with named(file), inspection.look(file) as connection:
            yield connection


def _read(url: str, file: Path) -> None:
    try:
        require_asyncpg()
        # Imported here: what nobody uses need not be installed.
        from daemon.maintenance.postgres_place import mirror  # noqa: PLC0415

        with named(file):
            asyncio.run(mirror(url, file))
    except MigrationError as error:
        raise Refused(str(error)) from error

"""Homes whose SQLite database is there already: what migrating one costs is paid once in a process."""

import functools
import tempfile
from pathlib import Path

from daemon.stores.migrate import migrate


def prepare(root: Path) -> None:
    """Put a migrated database without a row into a home that is still to be made."""
    if not root.exists():
        root.mkdir(mode=0o700, parents=True)
        database = root / "daemon.db"
        database.touch(mode=0o600)
        database.write_bytes(_migrated())


@functools.cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "daemon.db"
        migrate(database, now=1_750_000_000, backups=None)
        return database.read_bytes()

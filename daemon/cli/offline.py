"""What the CLI reads of the database file itself before a start; whole looks are in `daemon.maintenance`."""

import sqlite3
from contextlib import closing
from pathlib import Path


def is_initialised(database: Path) -> bool:
    """Return whether the database has a master password."""
    if not database.exists():
        return False
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute("SELECT 1 FROM key_value_store WHERE key = 'master_password'").fetchone()
    except sqlite3.Error:
        return False  # the start itself says what is wrong with the file
    return found is not None

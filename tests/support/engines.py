"""Which engines a test runs on: SQLite alone, unless its file says `pytestmark = both_engines`."""

import contextlib
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.support import postgres

both_engines = pytest.mark.both_engines
"""Every test of the file that starts a daemon runs on SQLite and on PostgreSQL."""

of_file = pytest.mark.of_file
"""But for this one, which is about the file itself."""


class Databases:
    """Where the daemons of one test have their rows: each home a database of its own.

    Args:
        engine: `sqlite` or `postgresql`.
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._urls: dict[Path, str] = {}
        self._made = contextlib.ExitStack()

    def settings(self, home: Path) -> dict[str, str]:
        """Return the environment of the daemon of a home."""
        if self._engine == "sqlite":
            return {}
        if home not in self._urls:
            self._urls[home] = self._made.enter_context(postgres.fresh_database())
        return {"DAEMON_DATABASE_URL": self._urls[home]}

    def close(self) -> None:
        """Drop what was made."""
        self._made.close()


def ask(database: Path | str, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Read or change rows past the daemon and return what was selected.

    Args:
        database: the file, or the address on a server.
        sql: one statement that both engines understand, with `?` for values.
        values: times are Unix seconds.
    """
    if isinstance(database, str):
        numbers = iter(range(1, sql.count("?") + 1))
        return postgres.ask(database, re.sub(r"\?", lambda _: f"${next(numbers)}", sql), *values)
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True)) as connection, connection:
        return connection.execute(sql, values).fetchall()

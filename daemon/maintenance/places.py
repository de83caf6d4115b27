"""What a copy asks of a database, whichever engine holds it."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import msgspec

from daemon.domain.chain import GENESIS
from daemon.domain.views import ChainHead
from daemon.maintenance.exclusive import Refused
from daemon.stores.migrate import latest_version
from daemon.stores.tables import Sums

BEGINNING = ChainHead(seq=0, hash=GENESIS)


class Progress(Protocol):
    """Is told how far a copy is."""

    def begin(self, what: str, rows: int) -> None:
        """Say what is done now, and with how many rows."""
        ...

    def advance(self, rows: int) -> None:
        """Say how many more of them are done."""
        ...


class Standing(msgspec.Struct, frozen=True):
    """How far a database is.

    Args:
        version: of its schema; 0 is none.
        head: its newest event.
        rows: how many there are in all tables.
    """

    version: int = 0
    head: ChainHead = msgspec.field(default_factory=lambda: BEGINNING)
    rows: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nobody misses anything if it is replaced."""
        return self.rows == 0 and self.head == BEGINNING


class Place(Protocol):
    """A database at rest; every method raises Refused or MigrationError in one line."""

    @property
    def name(self) -> str:
        """As messages show it, without a password."""
        ...

    async def identity(self) -> tuple[object, ...]:
        """Return what is the same for two places that are one database."""
        ...

    async def check_alone(self) -> None:
        """Refuse a database that a daemon works with."""
        ...

    async def standing(self) -> Standing:
        """Return how far it is."""
        ...

    async def hash_of(self, seq: int) -> str | None:
        """Return the hash of an event; None where it is not known."""
        ...

    async def sums(self, progress: Progress) -> Sums:
        """Return what it holds at one moment."""
        ...

    async def save(self, backups: Path, stem: str, progress: Progress) -> tuple[Path, Sums]:
        """Write a checked SQLite file of one moment, and return it with what it holds."""
        ...

    async def take(
        self, file: Path, expected: Sums, was: Standing, confirm: Callable[[], Awaitable[None]], progress: Progress
    ) -> None:
        """Put the rows of a file in the place of all that is there, in one step or not at all.

        Args:
            file: of this program's schema.
            expected: what the file holds, and the database is proved to hold before the last step.
            was: how far the database is; refused where it has moved on.
            confirm: called before the last step, and may refuse it.
            progress: is told.
        """
        ...


def check_current(name: str, version: int) -> None:
    """Refuse a database that is not at this program's schema.

    Args:
        name: of the database.
        version: of its schema; 0 is none.

    Raises:
        Refused: with what to do first.
    """
    latest = latest_version()
    if version == 0:
        raise Refused(f"{name}: there is no database of this program", "look at the address; or run: daemon init")
    if version < latest:
        raise Refused(
            f"{name}: its schema has version {version}, this program's is {latest}",
            "start the daemon on it once, which migrates it",
        )


def check_sums(name: str, found: Sums, expected: Sums) -> None:
    """Refuse a copy that is not what was to be copied.

    Raises:
        Refused: naming the first table that differs.
    """
    for made, wanted in zip(found.tables, expected.tables, strict=True):
        if made != wanted:
            raise Refused(f"{name}: its {made.table} would not be those of the source", "nothing was changed")
    if not found.chain.valid or found.chain != expected.chain:
        raise Refused(f"{name}: its audit log would not be that of the source", "nothing was changed")

"""A PostgreSQL database as a place to copy from or to."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path

import msgspec

from daemon.maintenance.exclusive import Refused
from daemon.maintenance.places import Progress, Standing, check_current, check_sums
from daemon.stores import inspection, sqlite_file
from daemon.stores.postgres import copying
from daemon.stores.postgres.backup import write_file
from daemon.stores.postgres.connection import Connection
from daemon.stores.postgres.migrate import accepted_version, connected, in_one_line, migrate
from daemon.stores.postgres.reasons import place
from daemon.stores.tables import Advance, Sums
from daemon.stores.terms import BackupFile


class PostgresPlace(msgspec.Struct, frozen=True):
    """A database that no daemon works with.

    Args:
        url: of the database.
        connection: to it, not in a transaction.
    """

    url: str
    connection: Connection

    @property
    def name(self) -> str:
        """As messages show it."""
        return place(self.url)

    async def identity(self) -> tuple[object, ...]:
        """Return what is the same for two places that are one database."""
        with in_one_line(self.url):
            return await copying.identity(self.connection)

    async def check_alone(self) -> None:
        """Refuse a database that a daemon is connected to."""
        with in_one_line(self.url):
            hosts = await copying.daemons(self.connection)
        if hosts:
            raise Refused(
                f"{self.name}: a daemon works with it ({', '.join(sorted(hosts))})", "stop every daemon that does"
            )

    async def standing(self) -> Standing:
        """Return how far it is."""
        version = await accepted_version(self.url)
        if version == 0:
            return Standing()
        with in_one_line(self.url):
            return Standing(version, await copying.head(self.connection), await copying.count(self.connection))

    async def hash_of(self, seq: int) -> str | None:
        """Return the hash of an event; None where it is not known."""
        with in_one_line(self.url):
            return await copying.hash_of(self.connection, seq)

    async def sums(self, progress: Progress) -> Sums:
        """Return what it holds at one moment."""
        with in_one_line(self.url):
            async with self.connection.transaction(isolation="repeatable_read", readonly=True):
                return await copying.sums(self.connection, progress.advance)

    async def save(self, backups: Path, stem: str, progress: Progress) -> tuple[Path, Sums]:
        """Write a SQLite file with all that is there."""
        made, found = await self.write(backups, stem, progress.advance)
        return made.path, found

    async def write(self, backups: Path, stem: str, advance: Advance) -> tuple[BackupFile, Sums]:
        """Do what `save` does, and say more of the file."""
        try:
            with in_one_line(self.url):
                return await write_file(self.connection, backups, stem, int(time.time()), advance)
        except sqlite_file.DamagedError as error:
            raise Refused(f"{self.name}: {error}") from error

    async def take(
        self, file: Path, expected: Sums, was: Standing, confirm: Callable[[], Awaitable[None]], progress: Progress
    ) -> None:
        """Put the rows of a file in the place of all that is there, in one transaction."""
        await migrate(self.url, now=int(time.time()))
        with closing(sqlite_file.connect(file, "ro")) as read, _fitting(self.name), in_one_line(self.url):
            async with self.connection.transaction():
                await copying.lock(self.connection)
                if await copying.head(self.connection) != was.head:
                    raise Refused(f"{self.name}: it changed meanwhile", "stop every daemon that works with it")
                progress.begin("copying to the target", expected.rows)
                await copying.replace(self.connection, read, expected.chain.head, progress.advance)
                progress.begin("checking the target", expected.rows)
                check_sums(self.name, await copying.sums(self.connection, progress.advance), expected)
                await confirm()


@contextmanager
def _fitting(name: str) -> Iterator[None]:
    try:
        yield
    except copying.UnfitError as error:
        raise Refused(f"{name}: {error}", "change that row where it comes from; nothing was changed here") from error


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresPlace]:
    """Connect to a database.

    Raises:
        MigrationError: it cannot be reached, or is too old.
    """
    async with AsyncExitStack() as stack:
        with in_one_line(url):
            connection = await stack.enter_async_context(connected(url, command_timeout=copying.STATEMENT_SECONDS))
        yield PostgresPlace(url, connection)


async def mirror(url: str, file: Path) -> None:
    """Write all rows into a SQLite file, broken ones too.

    Args:
        url: of a database at this program's schema; daemons may run.
        file: not there yet.

    Raises:
        Refused: there are no rows, or the audit log was cut off, which the file could not tell.
        MigrationError: they cannot be read.
    """
    async with opened(url) as found:
        check_current(found.name, await accepted_version(url))
        sqlite_file.create(file)
        with in_one_line(url):
            async with found.connection.transaction(isolation="repeatable_read", readonly=True):
                await copying.into_file(found.connection, file, int(time.time()), lambda _: None)
                head = await copying.head(found.connection)
        with inspection.look(file) as read:
            newest = inspection.head(read)
        if newest != head:
            raise Refused(f"{found.name}: the audit log ends at event {newest.seq}, and its head names {head.seq}")


async def save(url: str, backups: Path, stem: str) -> BackupFile:
    """Write a checked SQLite file with all that is there; daemons may run.

    Raises:
        Refused: there are no rows, or they are not whole.
        MigrationError: they cannot be read.
    """
    async with opened(url) as found:
        check_current(found.name, await accepted_version(url))
        made, _ = await found.write(backups, stem, lambda _: None)
    return made

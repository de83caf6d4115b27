"""Copying everything from one database to another, of the same engine or not, so that no session is lost."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from daemon.domain.clock import stamp
from daemon.domain.views import ChainHead
from daemon.engines import require_asyncpg
from daemon.home import Home
from daemon.maintenance.exclusive import Refused, held, named
from daemon.maintenance.places import BEGINNING, Place, Progress, Standing, check_current
from daemon.maintenance.sqlite_place import SQLitePlace
from daemon.settings import Database
from daemon.stores.migrate import MigrationError
from daemon.stores.tables import Sum, Sums


class Copied(msgspec.Struct, frozen=True, rename="camel"):
    """What a copy did.

    Args:
        source, target: the databases, without passwords.
        changed: whether anything was copied; false where the target held it all already.
        backup: the SQLite file with what the source held; None where nothing was copied.
        head: the newest event of both.
        tables: what both hold, proved on the target.
        channels: how many notification channels are among that, sealed with the home's key.
    """

    source: str
    target: str
    changed: bool
    backup: str | None
    head: ChainHead
    tables: tuple[Sum, ...]
    channels: int


def copy(home: Home, source: str, target: str, progress: Progress) -> Copied:
    """Make a database the same as another: rows, credentials and audit log.

    What the target holds is replaced in one step, and only if it is nothing, or an older state of the source. The
    source is read alone, and a SQLite file of it stays in the home's backups.

    Args:
        home: whose daemon does not run; made where it is missing.
        source, target: valid values of `database.url` that are not empty.
        progress: is told how far it is.

    Raises:
        Refused: the target has a history of its own, a daemon works with one of them, or one cannot be used.
        AlreadyRunning: a daemon has the home, or that of one of the files.
        HomeError: the home cannot be used.
    """
    home.create()
    with ExitStack() as locks:
        for one in _homes(home, source, target):
            locks.enter_context(held(one))
        try:
            with named(home.backups):
                return asyncio.run(_copy(home, source, target, progress))
        except MigrationError as error:
            raise Refused(str(error)) from error


def _homes(home: Home, *urls: str) -> list[Home]:
    """Return the home and those that the files belong to, each once."""
    found = {home.root.resolve(): home}
    for path in (Database(url=url).path for url in urls):
        if path is not None and (other := Home.resolve(path.resolve().parent, {})).lock_file.exists():
            found.setdefault(other.root.resolve(), other)
    return list(found.values())


class _Side(msgspec.Struct, frozen=True):
    place: Place
    standing: Standing

    @property
    def name(self) -> str:
        return self.place.name


async def _copy(home: Home, source: str, target: str, progress: Progress) -> Copied:
    async with AsyncExitStack() as stack:
        places = [await stack.enter_async_context(_opened(url, home)) for url in (source, target)]
        if await places[0].identity() == await places[1].identity():
            raise Refused("Both addresses name the same database", "name another after --to")
        for place in places:
            await place.check_alone()
        origin, goal = [_Side(place, await place.standing()) for place in places]
        check_current(origin.name, origin.standing.version)
        await _refuse_other_history(origin, goal)
        if (equal := await _equal(origin, goal, progress)) is not None:
            return _copied(origin, goal, equal, None)
        return await _replace(home, origin, goal, progress)


@asynccontextmanager
async def _opened(url: str, home: Home) -> AsyncIterator[Place]:
    path = Database(url=url).path
    if path is not None:
        yield SQLitePlace(path.resolve(), home.backups)
        return
    require_asyncpg()
    # Imported here: what nobody uses need not be installed.
    from daemon.maintenance import postgres_place  # noqa: PLC0415

    async with postgres_place.opened(url) as found:
        yield found


async def _refuse_other_history(source: _Side, target: _Side) -> None:
    head = target.standing.head
    if target.standing.is_empty:
        return
    if head == BEGINNING or await source.place.hash_of(head.seq) != head.hash:
        raise Refused(
            f"{target.name}: it has a history of its own, {head.seq} events, and is no older state of {source.name}",
            "nothing was changed; copy into an empty database, or look at --from and --to",
        )


async def _equal(source: _Side, target: _Side, progress: Progress) -> Sums | None:
    """Return what both hold where that is the same."""
    if source.standing != target.standing:
        return None
    progress.begin("comparing both", source.standing.rows + target.standing.rows)
    found = await source.place.sums(progress)
    return found if found.chain.valid and found == await target.place.sums(progress) else None


async def _replace(home: Home, source: _Side, target: _Side, progress: Progress) -> Copied:
    progress.begin("backing up the source", source.standing.rows)
    file, found = await source.place.save(home.backups, f"daemon-copied-{stamp(int(time.time()))}", progress)

    async def unmoved() -> None:
        await source.place.check_alone()
        if await source.place.hash_of(found.chain.head.seq + 1) is not None:
            raise Refused(f"{source.name}: it changed meanwhile", "stop every daemon that works with it")

    try:
        await target.place.take(file, found, target.standing, unmoved, progress)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return _copied(source, target, found, file)


def _copied(source: _Side, target: _Side, found: Sums, backup: Path | None) -> Copied:
    return Copied(
        source=source.name,
        target=target.name,
        changed=backup is not None,
        backup=str(backup) if backup else None,
        head=found.chain.head,
        tables=found.tables,
        channels=found.count("notification_channels"),
    )

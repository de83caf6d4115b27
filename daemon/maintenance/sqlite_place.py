"""A SQLite file as a place to copy from or to."""

import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from daemon import files
from daemon.domain.clock import stamp
from daemon.maintenance.exclusive import Refused, named
from daemon.maintenance.places import Progress, Standing, check_sums
from daemon.maintenance.replacing import copy_as_it_is, fold, put_in_place, staged
from daemon.stores import inspection, sqlite_file
from daemon.stores.migrate import accepted_version
from daemon.stores.sqlite import copying
from daemon.stores.sqlite.backup import back_up
from daemon.stores.tables import Sums


class SQLitePlace(msgspec.Struct, frozen=True):
    """A file at rest.

    Args:
        path: absolute and without symlinks; need not be there yet. The lock of its home is held.
        backups: receives the file that is replaced.
    """

    path: Path
    backups: Path

    @property
    def name(self) -> str:
        """As messages show it."""
        return f"sqlite://{self.path}"

    async def identity(self) -> tuple[object, ...]:
        """Return what is the same for two places that are one database."""
        return (self.path,)

    async def check_alone(self) -> None:
        """Refuse a file that another program has open, whichever home it serves."""
        with named(self.path):
            if self.path.exists() and sqlite_file.is_open_elsewhere(self.path):
                raise Refused(f"{self.name}: another program has it open", "stop the daemon that works with it")

    async def standing(self) -> Standing:
        """Return how far it is."""
        with named(self.path):
            if not self.path.exists() or (version := accepted_version(self.path)) == 0:
                return Standing()
            with inspection.look(self.path) as read:
                return Standing(version, copying.head(read), copying.count(read))

    async def hash_of(self, seq: int) -> str | None:
        """Return the hash of an event; None where it is not known."""
        with named(self.path), inspection.look(self.path) as read:
            return copying.hash_of(read, seq)

    async def sums(self, progress: Progress) -> Sums:
        """Return what it holds."""
        return self._sums(self.path, progress)

    def _sums(self, path: Path, progress: Progress) -> Sums:
        with named(path), inspection.look(path) as read:
            return copying.sums(read, progress.advance)

    async def save(self, backups: Path, stem: str, progress: Progress) -> tuple[Path, Sums]:
        """Write a checked copy of the file."""
        with named(self.path):
            if (orphan := self._orphan()) is not None:
                raise Refused(f"{self.path}: {orphan}", "restore a backup: daemon restore FILE")
            made = back_up(self.path, backups, stem)
        return made.path, self._sums(made.path, progress)

    def _orphan(self) -> str | None:
        with inspection.look(self.path) as read:
            return inspection.orphan(read)

    async def take(
        self, file: Path, expected: Sums, was: Standing, confirm: Callable[[], Awaitable[None]], progress: Progress
    ) -> None:
        """Put a file in the place of this one, which is kept in the backups if anything was in it."""
        if not self.path.parent.is_dir():
            raise Refused(f"There is no directory {self.path.parent}", "make it, or choose another place")
        with staged(self.path) as staging, named(self.path):
            progress.begin("copying to the target", expected.rows)
            shutil.copyfile(file, staging)
            progress.advance(expected.rows)
            progress.begin("checking the target", expected.rows)
            check_sums(self.name, self._sums(staging, progress), expected)
            await confirm()
            self._set_aside(was)
            put_in_place(staging, self.path)

    def _set_aside(self, was: Standing) -> None:
        if not self.path.exists():
            return
        if not was.is_empty:
            copy_as_it_is(self.path, files.unused(self.backups, f"daemon-before-copy-{stamp(int(time.time()))}", ".db"))
        fold(self.path)

"""Files that appear whole or not at all, 0600: new ones never in place of another, replaced ones never torn."""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial"
"""How the name of a file ends that is still being made."""

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


def partial_of(target: Path) -> Path:
    """Return where `partial` makes a file."""
    return target.with_name(f".{target.name}{PARTIAL}")


@contextlib.contextmanager
def partial(target: Path) -> Iterator[Path]:
    """Yield an empty file beside `target`, to be filled and published; what is left of it goes at the end.

    Raises:
        OSError: it cannot be made.
    """
    made = partial_of(target)
    discard(made)
    os.close(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        yield made
    finally:
        discard(made)


def publish(made: Path, target: Path) -> None:
    """Give a finished file its name, and make both survive a power cut.

    Raises:
        FileExistsError: the name is taken; nothing is overwritten.
        OSError: it cannot be stored.
    """
    sync(made)
    try:
        target.hardlink_to(made)  # a rename would replace what is there
        made.unlink()
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        made.replace(target)
    sync(target.parent)


def reserve(made: Path, size: int) -> None:
    """Take the room of a file that is still to be written, in bytes, so that it does not find the disk full.

    Raises:
        OSError: there is none.
    """
    _fill(made, b"\n" * size)


def replace(made: Path, target: Path, data: bytes) -> None:
    """Write a file that was being made and put it in the place of another: whole, and so that it survives a power cut.

    Raises:
        OSError: it cannot be stored; what was in its place is as it was.
    """
    _fill(made, data)
    made.replace(target)
    sync(target.parent)


def write_private(target: Path, data: bytes) -> None:
    """Replace a file, 0600 whatever it was; raises as `partial` and `replace`."""
    with partial(target) as made:
        replace(made, target, data)


def _fill(made: Path, data: bytes) -> None:
    with made.open("r+b") as file:
        file.write(data)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def copy_new(source: Path, target: Path) -> None:
    """Copy a file byte by byte to a name that is free.

    Raises:
        FileExistsError: it is not.
        OSError: the copy could not be made.
    """
    with partial(target) as made:
        shutil.copyfile(source, made)
        publish(made, target)


def unused(directory: Path, stem: str, suffix: str) -> Path:
    """Return a path of the directory that is free: `STEM.SUFFIX`, else `STEM-2.SUFFIX` and so on."""
    candidate, number = directory / f"{stem}{suffix}", 1
    while candidate.exists():
        number += 1
        candidate = directory / f"{stem}-{number}{suffix}"
    return candidate


def discard(database: Path) -> None:
    """Remove a file and what SQLite keeps beside it."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)


def discard_partials(directory: Path) -> None:
    """Remove what a crash left half-made; the caller holds the lock of the home that the directory belongs to."""
    for pattern in (f".*{PARTIAL}", f".*{PARTIAL}-*"):
        for path in directory.glob(pattern):
            path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the lower-case hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Make a file's content, or a directory's names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

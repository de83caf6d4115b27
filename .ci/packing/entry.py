"""What `launcher.sh` becomes: the program, once what was unpacked has proved itself whole and has settled in its place.

Times are Unix seconds. Nothing but the standard library is imported before the command line is.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import sys
import time
from pathlib import Path

MANIFEST = "MANIFEST"
"""One line a file: its SHA-256, two spaces, its path (the form of sha256sum)."""

_OURS = re.compile(r"[0-9a-f]{64}|\.unpacking\..+")
_UNUSED_FOR = 7 * 86_400
_BROKEN_OFF_FOR = 3_600


def restore_environment() -> None:
    """Make the environment what the caller gave again, for our children: the launcher and PyInstaller have changed it.

    The dynamic linker has read LD_LIBRARY_PATH when the process began; nothing of this process needs it any more.
    """
    for name in ("LD_LIBRARY_PATH", "VIRTUAL_ENV"):
        os.environ[name] = os.environ.pop(f"DAEMON_GIVEN_{name}", "")
        if not os.environ[name]:
            del os.environ[name]
    for name in list(os.environ):
        if name == "LD_LIBRARY_PATH_ORIG" or name.startswith("_PYI_"):
            del os.environ[name]


def settle(work: Path, place: Path) -> None:
    """Put what was unpacked where every later start finds it, and remove versions that nobody uses any more.

    Whoever is first puts it there in one step, so that nobody ever finds half of it; the others leave theirs to the
    launcher, which removes it.

    Args:
        work: where it was unpacked.
        place: where it belongs, on the same file system; its name is the SHA-256 of the manifest.

    Raises:
        SystemExit: a file is damaged or missing.
        OSError: it cannot be put there.
    """
    verify(work, place.name)
    os.sync()  # a power cut must not leave empty files under a name that says they are whole
    try:
        work.rename(place)
    except OSError:
        if not (place / "daemon").is_file():
            raise
    with contextlib.suppress(OSError):
        sweep(place.parent, keep=place, now=time.time())


def verify(work: Path, expected: str) -> None:
    """Hold every file against the manifest, and the manifest against its hash.

    Raises:
        SystemExit: naming the first that differs.
    """
    manifest = (work / MANIFEST).read_bytes()
    if hashlib.sha256(manifest).hexdigest() != expected:
        sys.exit(f"{MANIFEST} is damaged")
    for line in manifest.decode().splitlines():
        digest, _, name = line.partition("  ")
        try:
            with (work / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            found = ""
        if found != digest:
            sys.exit(f"{name} is damaged or missing")


def sweep(places: Path, *, keep: Path, now: float) -> None:
    """Remove versions that no process runs and none has started for a week, and what a killed start left half unpacked.

    Args:
        places: the directory of all versions; what else is in it stays.
        keep: the version that was just put there.
        now: the time.
    """
    for found in places.iterdir():
        if found == keep or not _OURS.fullmatch(found.name) or found.is_symlink():
            continue
        with contextlib.suppress(OSError):
            if now - found.stat().st_mtime > (_BROKEN_OFF_FOR if found.name[0] == "." else _UNUSED_FOR):
                _remove(found)


def _remove(version: Path) -> None:
    held = hold(version, fcntl.LOCK_EX)
    try:
        gone = version.with_name(f".unpacking.{version.name}.{os.getpid()}")
        version.rename(gone)  # in one step, so that a start finds all of it or nothing
        shutil.rmtree(gone)
    finally:
        os.close(held)


def hold(version: Path, how: int) -> int:
    """Lock a version's directory without waiting, and return the descriptor that holds the lock.

    Raises:
        OSError: another process holds it, or it is not there.
    """
    held = os.open(version, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, how | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise
    return held


def in_use(version: Path) -> None:
    """Keep this process's version from being swept, for as long as it runs and a week longer."""
    with contextlib.suppress(OSError):
        hold(version, fcntl.LOCK_SH)  # for the rest of the process: nobody closes it
        os.utime(version)


def main() -> None:
    """Settle if the launcher asks for it, else run the command line."""
    restore_environment()
    version = Path(sys.executable).parent
    settle_at = os.environ.pop("DAEMON_SETTLE_AT", None)
    if settle_at is not None:
        try:
            settle(version, Path(settle_at))
        except OSError as error:
            sys.exit(f"{error.filename2 or error.filename}: {error.strerror}")
        return
    in_use(version)
    # As for every script: how the program was called, and not where its code is.
    sys.argv[0] = os.environ.pop("DAEMON_STARTED_AS", sys.argv[0])
    from daemon.__main__ import main as run  # noqa: PLC0415 (the above must cost next to nothing)

    run()


if __name__ == "__main__":
    main()

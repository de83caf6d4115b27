"""Checks of the home's files: modes, owners, configuration, disk, log, backups."""

import os
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from daemon.addresses import masked
from daemon.home import HomeError
from daemon.log_events import log_files
from daemon.maintenance.findings import Finding, Patient, failed, ok, warning
from daemon.run_info import read_info

FREE_WARNING = 100 << 20
FREE_FAILED = 10 << 20
"""Bytes."""
BACKUP_DAYS = 7
"""A backup older than that is told of."""
_TAIL = 65_536
"""Bytes of the log in which its newest line must be."""


def check_home(patient: Patient) -> Iterator[Finding]:
    """Is the home there, and ours alone?"""
    home, root = patient.home, patient.home.root
    try:
        home.check()
    except HomeError as error:
        yield failed("home", error.problem, error.mend)
        return
    blocked = [path for path in (home.logs, home.backups) if os.path.lexists(path) and not path.is_dir()]
    for path in blocked:
        quoted = shlex.quote(str(path))
        yield failed("home", f"{path} is not a directory: nothing starts", f"run: mv {quoted} {quoted}.away")
    if blocked:
        return
    if root.stat().st_mode & 0o077:
        yield warning("home", f"others can look into {root}", f"run: chmod 700 {shlex.quote(str(root))}")
    else:
        yield ok("home", f"{root}, which leads to {root.resolve()}" if root.is_symlink() else str(root))


def check_permissions(patient: Patient) -> Iterator[Finding]:
    """Are the home's files ours alone?"""
    secret = [path for path in _secret_files(patient) if _is_open(path)]
    others = (patient.home.config_file, *log_files(patient.log_file))
    plain = [path for path in others if path not in secret and _is_open(path)]
    if not secret and not plain:
        yield ok("permissions", "every file is private")
        return
    paths = [*secret, *plain]
    cure = f"run: chmod go= {' '.join(shlex.quote(str(path)) for path in paths)}"
    detail = f"others may use {', '.join(path.name for path in paths)}"
    yield (failed if secret else warning)("permissions", detail, cure)


def _secret_files(patient: Patient) -> Iterator[Path]:
    home = patient.home
    yield from (Path(f"{patient.database}{suffix}") for suffix in ("", "-wal", "-shm"))
    yield from (home.root / "seal.key", home.root / "daemon.sock", home.initial_password_file)
    if (info := read_info(home)) and info.socket:
        yield Path(info.socket)
    yield from sorted(home.backups.glob("*"))
    if _has_password(patient):
        yield home.config_file


def _has_password(patient: Patient) -> bool:
    """Return whether the configuration file has the password of a server."""
    config, origins = patient.config, patient.loaded.origins if patient.loaded else {}
    urls = {"database.url": config.database.url, "conversations.url": config.conversations.url}
    file = str(patient.home.config_file)
    return any(origins.get(key) == file and masked(url) != url for key, url in urls.items())


def _is_open(path: Path) -> bool:
    try:
        found = path.lstat().st_mode
    except OSError:
        return False
    return not stat.S_ISLNK(found) and bool(found & 0o077)


def check_owner(patient: Patient) -> Iterator[Finding]:
    """Does every file belong to us?"""
    home, us = patient.home, os.geteuid()
    paths = [path for directory in (home.root, home.logs, home.backups) for path in sorted(directory.glob("*"))]
    foreign = [path.name for path in paths if path.lstat().st_uid != us]
    if foreign:
        cure = f"run: sudo chown -R {us} {shlex.quote(str(home.root))}"
        yield failed("owner", f"another user owns {', '.join(foreign)}", cure)
    else:
        yield ok("owner", "every file is yours")


def check_initial_password(patient: Patient) -> Iterator[Finding]:
    """Does a generated password still wait?"""
    file = patient.home.initial_password_file
    if file.exists():
        use = f"run: DAEMON_MASTER_PASSWORD_FILE={shlex.quote(str(file))} daemon agent list (its first use removes it)"
        yield warning("initial-password", f"the first password still stands in {file}", use)
    else:
        yield ok("initial-password", "none is waiting")


def check_configuration(patient: Patient) -> Iterator[Finding]:
    """Is the configuration valid?"""
    for problem in patient.problems:
        yield failed("configuration", problem, "correct it, then run: daemon config check")
    if not patient.problems:
        file = patient.home.config_file
        yield ok("configuration", str(file) if file.exists() else "all defaults")


def check_disk(patient: Patient) -> Iterator[Finding]:
    """Is there room?"""
    place = min(_places(patient), key=lambda path: shutil.disk_usage(path).free)
    free = shutil.disk_usage(place).free
    detail, cure = f"{free >> 20} MiB free at {place}", f"free some space on the disk of {place}"
    if free < FREE_FAILED:
        yield failed("disk", detail, cure)
    elif free < FREE_WARNING:
        yield warning("disk", detail, cure)
    else:
        yield ok("disk", detail)


def _places(patient: Patient) -> list[Path]:
    places = {patient.home.root, patient.database.parent, patient.log_file.parent}
    return sorted(place for place in places if place.is_dir())


def check_writable(patient: Patient) -> Iterator[Finding]:
    """Can a file be written and made to last?"""
    for place in _places(patient):
        try:
            with tempfile.TemporaryFile(dir=place) as file:
                file.write(bytes(4096))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            cure = f"free some space, or mend the disk or the permissions of {place}"
            yield failed("writable", f"{place} cannot be written: {error.strerror}", cure)
            return
    yield ok("writable", "files can be written")


def check_log(patient: Patient) -> Iterator[Finding]:
    """Can the log be written, and is its newest line whole?"""
    file = patient.log_file
    quoted = shlex.quote(str(file))
    if not file.exists():
        yield warning("log", f"there is no log at {file} yet", "run: daemon start")
        return
    try:
        with file.open("r+b") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL))
            lines = log.read().split(b"\n")
    except OSError as error:
        yield failed("log", f"{file} cannot be written: {error.strerror}", f"run: mv {quoted} {quoted}.away")
        return
    # What follows the last line end is being written just now, or was when the daemon was killed.
    newest = next((line for line in reversed(lines[:-1] if patient.holder else lines) if line), b"{}")
    try:
        msgspec.json.decode(newest, type=dict[str, object])
    except msgspec.DecodeError:
        yield warning("log", f"the newest line of {file} is not JSON", f"run: mv {quoted} {quoted}.away")
    else:
        yield ok("log", str(file))


def check_backups(patient: Patient) -> Iterator[Finding]:
    """Is there a backup, and of when?"""
    made = [path.stat().st_mtime for path in patient.home.backups.glob("daemon-[0-9]*.db")]
    if not made:
        yield warning("backups", "there is no backup yet", "run: daemon backup")
        return
    days = max(0, patient.now - int(max(made))) // 86_400
    if days > BACKUP_DAYS:
        yield warning("backups", f"the newest backup is {days} days old", "run: daemon backup")
    else:
        yield ok("backups", f"the newest of {len(made)} is {days} days old")

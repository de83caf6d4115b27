"""The home: where everything the daemon keeps lies, and who may touch it."""

import hashlib
import os
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec
import platformdirs

SOCKET_PATH_LIMIT = 100
"""Bytes: a socket's path may have 107 on Linux and 103 on macOS (unix(7), `sockaddr_un`)."""


class HomeError(Exception):
    """The home cannot be used.

    Args:
        problem: what is wrong, in one line.
        mend: the command, or the step, that mends it.
    """

    def __init__(self, problem: str, mend: str) -> None:
        super().__init__(f"{problem}; {mend}")
        self.problem = problem
        self.mend = mend


class Home(msgspec.Struct, frozen=True):
    """The paths of one daemon.

    Args:
        root: the absolute path of the home.
        runtime_dir: the user's own runtime directory, if there is one.
        temp_dir: where a socket goes that fits nowhere else.
    """

    root: Path
    runtime_dir: Path | None = None
    temp_dir: Path = Path("/tmp")  # noqa: S108 (only a directory of our own in it is used, and only if nobody else's)

    @classmethod
    def resolve(cls, explicit: Path | None, environ: Mapping[str, str]) -> "Home":
        """Find the home: `--home`, else `DAEMON_HOME`, else the user's data directory for `agent-daemon`."""
        chosen = explicit or environ.get("DAEMON_HOME") or platformdirs.user_data_dir("agent-daemon", appauthor=False)
        runtime = Path(environ.get("XDG_RUNTIME_DIR", ""))
        return cls(
            Path(os.path.abspath(os.path.expanduser(chosen))),  # noqa: PTH100, PTH111 (pathlib follows symlinks, or raises)
            runtime if runtime.is_absolute() and _is_private(runtime) else None,
            Path(os.path.abspath(environ.get("TMPDIR") or "/tmp")),  # noqa: PTH100, S108
        )

    @property
    def config_file(self) -> Path:
        """The configuration."""
        return self.root / "config.toml"

    @property
    def database(self) -> Path:
        """The database, unless `database.url` names another."""
        return self.root / "daemon.db"

    @property
    def lock_file(self) -> Path:
        """The file whose lock a running daemon holds; it is never removed, since that would free its name."""
        return self.root / "daemon.lock"

    @property
    def pid_file(self) -> Path:
        """The running daemon's pid: decimal, newline."""
        return self.root / "daemon.pid"

    @property
    def json_file(self) -> Path:
        """The running daemon's pid, address, socket and version."""
        return self.root / "daemon.json"

    @property
    def seal_key_file(self) -> Path:
        """The key that seals channel credentials; made with the first channel, and never in a backup."""
        return self.root / "seal.key"

    @property
    def backups(self) -> Path:
        """The directory of copies of the database."""
        return self.root / "backups"

    @property
    def processes(self) -> Path:
        """The directories of sessions with a process."""
        return self.root / "processes"

    @property
    def logs(self) -> Path:
        """The directory of the log."""
        return self.root / "logs"

    @property
    def initial_password_file(self) -> Path:
        """Where a generated master password waits for its first use."""
        return self.root / "initial-password"

    def log_file(self, configured: str) -> Path:
        """Return the path of the log that `log.file` means."""
        return self.root / configured

    @property
    def socket_name(self) -> str:
        """The name of the socket where it cannot lie in the home: no two homes share it."""
        return f"agent-daemon-{hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]}.sock"

    @property
    def socket_path(self) -> Path:
        """The unix socket: in the home, or where that path is too long, in a short directory under a hash of the home.

        Only a daemon that is about to listen may ask; others read `daemon.json`, since their environment may differ.
        """
        name = self.socket_name
        places = [self.root / "daemon.sock"]
        places += [self.runtime_dir / name] if self.runtime_dir else []
        places += [self.temp_dir / f"agent-daemon-{os.geteuid()}" / name]
        fallback = Path("/tmp") / f"agent-daemon-{os.geteuid()}" / name  # noqa: S108 (see temp_dir)
        return next((path for path in places if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT), fallback)

    def create(self) -> None:
        """Create whatever is missing of the home and of the socket's directory, all 0700, and check both.

        Idempotent; what exists keeps its mode.

        Raises:
            HomeError: as `check`, or if something cannot be created.
        """
        _make_private(self.root)
        self.check()
        _make_private(self.logs)
        _make_private(self.backups)
        _make_private(self.processes)
        directory = self.socket_path.parent
        if directory not in {self.root, self.runtime_dir}:
            _make_private(directory)
            if not _is_private(directory):
                # Whoever owns a directory in a shared /tmp can put a socket of their own in it.
                raise HomeError(
                    f"{directory} is not a directory that only you can use", "remove it, or choose a shorter --home"
                )

    def check(self) -> None:
        """Refuse a home that others can change or that we cannot, judged by what a symlink leads to.

        Raises:
            HomeError: with the command that mends it.
        """
        path = shlex.quote(str(self.root))
        try:
            found = self.root.stat()
        except FileNotFoundError:
            raise HomeError(f"There is no home at {self.root}", f"run: daemon --home {path} init") from None
        except OSError as error:
            raise HomeError(f"The home {self.root} cannot be used: {error.strerror}", "choose another --home") from None
        if not stat.S_ISDIR(found.st_mode):
            raise HomeError(f"The home {self.root} is not a directory", "move it away, or choose another --home")
        if found.st_uid != os.geteuid():
            raise HomeError(
                f"The home {self.root} belongs to another user", f"run: sudo chown -R {os.geteuid()} {path}"
            )
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise HomeError(f"Others can write to the home {self.root}", f"run: chmod go-w {path}")
        if found.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            raise HomeError(f"The home {self.root} is not writable", f"run: chmod u+rwx {path}")
        if not os.access(self.root, os.W_OK):
            raise HomeError(f"The home {self.root} is on a read-only file system", "choose another --home")


def _is_private(directory: Path) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _make_private(directory: Path) -> None:
    """Create a directory and its parents 0700, whatever the umask would leave to others."""
    missing = [path for path in (directory, *directory.parents) if not os.path.lexists(path)]
    try:
        for path in reversed(missing):
            path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise HomeError(f"{directory} cannot be created: {error.strerror}", "choose another --home") from None
    if not directory.is_dir():
        raise HomeError(f"{directory} is not a directory", "move it away, or choose another --home")

"""The directories of sessions with a process: where each finds its token, and writes its output."""

import contextlib
import os
import shutil
import uuid
from pathlib import Path

from daemon.domain.ids import is_id
from daemon.domain.tokens import token_hash
from daemon.files import write_private
from daemon.services.ports import StreamName

_TOKEN = "token"  # noqa: S105 (the name of a file)
_NEXT = "token.next"
_ID = "home-id"
_READ_LIMIT = 8_192


class Files:
    """The room `processes/` of a home; every method may wait for a disk.

    Args:
        root: that directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._staged: set[str] = set()

    def directory(self, session_id: str) -> Path:
        """Return a session's own directory."""
        return self.root / session_id

    def token_file(self, session_id: str) -> Path:
        """Return where a session's process finds its token."""
        return self.directory(session_id) / _TOKEN

    def output_file(self, session_id: str, stream: StreamName) -> Path:
        """Return where a session's process writes."""
        return self.directory(session_id) / stream

    def home_id(self) -> str:
        """Return what tells this home from others on the same database; made when it is first asked for."""
        self.root.mkdir(mode=0o700, exist_ok=True)
        known = _read(self.root / _ID)
        if known is None or not is_id(known):
            known = str(uuid.uuid4())
            write_private(self.root / _ID, f"{known}\n".encode())
        return known

    def stage(self, session_id: str, token: str) -> None:
        """Write the token that is about to be made the current one beside the file."""
        self._staged.add(session_id)
        for directory in (self.root, self.directory(session_id)):
            directory.mkdir(mode=0o700, exist_ok=True)
        write_private(self.directory(session_id) / _NEXT, f"{token}\n".encode())

    def unstage(self, session_id: str) -> None:
        """Forget a token that was staged and has not become the current one, and a directory that had nothing else."""
        directory = self.directory(session_id)
        with contextlib.suppress(OSError):
            (directory / _NEXT).unlink(missing_ok=True)
            directory.rmdir()
        self._staged.discard(session_id)

    def current(self, session_id: str) -> str | None:
        """Return the token in the file, if there is one."""
        return _read(self.token_file(session_id))

    def settle(self, session_id: str, current_hash: str) -> bool:
        """Make the token with this hash the one in the file, if it is there or staged; return whether it is."""
        self._staged.discard(session_id)
        directory = self.directory(session_id)
        staged = _read(directory / _NEXT)
        if staged is not None and token_hash(staged) == current_hash:
            with contextlib.suppress(FileNotFoundError):  # somebody else has just done it
                (directory / _NEXT).replace(directory / _TOKEN)
        known = _read(directory / _TOKEN)
        return known is not None and token_hash(known) == current_hash

    def forget_token(self, session_id: str) -> None:
        """Remove the token of a session that is over."""
        for name in (_TOKEN, _NEXT):
            (self.directory(session_id) / name).unlink(missing_ok=True)

    def sessions(self) -> list[str]:
        """Return the sessions that have a directory, but for those that are just being made."""
        with contextlib.suppress(FileNotFoundError):
            found = [path.name for path in self.root.iterdir() if is_id(path.name) and path.is_dir()]
            return [name for name in found if name not in self._staged]
        return []

    def remove(self, session_id: str) -> None:
        """Remove a session's directory."""
        shutil.rmtree(self.directory(session_id), ignore_errors=True)


def _read(path: Path) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.read(descriptor, _READ_LIMIT).decode(errors="replace").strip()
        finally:
            os.close(descriptor)
    except OSError:
        return None

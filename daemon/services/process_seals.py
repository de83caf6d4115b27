"""The secrets of processes as they are stored: sealed whole."""

import msgspec

from daemon.crypto.seal_key import SealKey
from daemon.domain.errors import STORAGE_UNAVAILABLE, DaemonError
from daemon.domain.process_config import Secrets
from daemon.domain.process_rows import Process
from daemon.home import HomeError


class ProcessSeals:
    """Seals and opens the secrets of processes.

    Args:
        key: the home's own.
    """

    def __init__(self, key: SealKey) -> None:
        self._key = key

    def seal(self, secrets: Secrets | None, session_id: str) -> str | None:
        """Return secrets as they are stored.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        if secrets is None:
            return None
        try:
            return self._key.seal(msgspec.json.encode(secrets), session_id)
        except HomeError as error:
            raise DaemonError(STORAGE_UNAVAILABLE, f"The secrets cannot be sealed: {error}.") from error

    def read(self, process: Process) -> Secrets | None:
        """Return a process's secrets, none of them where it has none; None where its key is not there."""
        if process.secrets is None:
            return Secrets()
        text = self._key.unseal(process.secrets, process.session_id)
        return None if text is None else msgspec.json.decode(text, type=Secrets)

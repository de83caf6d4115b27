"""The terms in which an engine and its callers speak of what is no row."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from daemon.domain.rows import ConversationKey


class BackupFile(msgspec.Struct, frozen=True):
    """A copy of the database that was checked; `sha256` is of the whole file."""

    path: Path
    size_bytes: int
    sha256: str


class Telling(msgspec.Struct):
    """Whether messages are written for facts, and for how long their like is a repetition (seconds)."""

    enabled: bool = True
    dedup_ttl: int = 300


class Elsewhere(msgspec.Struct, frozen=True):
    """What other daemons on the same engine changed, and this one may remember otherwise.

    Args:
        values: keys of the key-value store.
        conversations: agent id and conversation id of each.
        verifiers: whether any was added or revoked.
        everything: what was missed is not known; nothing that is remembered may be trusted.
    """

    values: tuple[str, ...] = ()
    conversations: tuple[ConversationKey, ...] = ()
    verifiers: bool = False
    everything: bool = False


class UnfitError(Exception):
    """What is configured can never serve.

    Args:
        message: one line that says what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Chore(msgspec.Struct, frozen=True):
    """What an engine wants done again and again.

    Args:
        name: as `GET /v1/admin/status` shows it.
        seconds: between two runs.
        run: one run.
    """

    name: str
    seconds: float
    run: Callable[[], Awaitable[object]]

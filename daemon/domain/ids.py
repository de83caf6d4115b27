"""Identifiers: UUID v7 (RFC 9562, section 5.7)."""

import re
import uuid

from daemon.domain.clock import Clock
from daemon.domain.errors import DaemonError, invalid

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")


def uuid7(unix_ms: int, random: bytes) -> str:
    """Build a UUID v7.

    Args:
        unix_ms: milliseconds since 1970.
        random: ten random bytes.
    """
    tail = int.from_bytes(random, "big")
    value = (unix_ms & 0xFFFF_FFFF_FFFF) << 80 | 7 << 76 | (tail >> 68 & 0xFFF) << 64 | 2 << 62 | tail & (1 << 62) - 1
    return str(uuid.UUID(int=value))


def new_id(clock: Clock, random: bytes) -> str:
    """Build a UUID v7 of this moment.

    Args:
        clock: the domain clock, which counts seconds; the monotonic clock tells those within one apart.
        random: ten random bytes.
    """
    return uuid7(clock.now() * 1000 + int(clock.monotonic() * 1000) % 1000, random)


def parse_id(text: str, path: str = "id") -> str:
    """Return `text` in canonical form if it is a UUID.

    Raises:
        DaemonError: VALIDATION_ERROR naming `path`.
    """
    lowered = text.lower()
    if not _UUID.match(lowered):
        raise _malformed(path)
    return lowered


def is_id(text: str) -> bool:
    """Return whether `text` is a UUID in canonical form."""
    return _UUID.match(text) is not None


def _malformed(path: str) -> DaemonError:
    return invalid((path, "must be a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057"))

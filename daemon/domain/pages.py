"""Lists in parts: newest first, a cursor names the last row that was shown."""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from daemon.domain.errors import invalid

T = TypeVar("T")

MAX_LIMIT = 200
MAX_CURSOR = 1500
"""Characters of a cursor: one that names a conversation carries its id."""
_CURSOR = re.compile(r"([0-9]{1,12}):([0-9a-f-]{36}(?::[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,256})?)\Z")


class Page(msgspec.Struct, frozen=True):
    """Which part of a list: at most `limit` rows, older than the row (created_at, id) if that is given.

    A conversation's `id` here is `<agent id>:<conversation id>`.
    """

    limit: int = 50
    before: tuple[int, str] | None = None


class Listing(msgspec.Struct, Generic[T]):
    """A part of a list, and the cursor of the next one if there may be more."""

    items: list[T]
    cursor: str | None


class Listed(Protocol):
    """A row of a list."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def created_at(self) -> int:
        """Unix seconds."""
        ...


def next_cursor(rows: Sequence[Listed], page: Page) -> str | None:
    """Return the cursor of the part after these rows; None where they end the list."""
    return encode_cursor(rows[-1].created_at, rows[-1].id) if len(rows) == page.limit else None


def encode_cursor(created_at: int, row_id: str) -> str:
    """Return the cursor that continues after a row."""
    return base64.urlsafe_b64encode(f"{created_at}:{row_id}".encode()).decode().rstrip("=")


def decode_cursor(text: str) -> tuple[int, str]:
    """Return the row that a cursor continues after.

    Raises:
        DaemonError: VALIDATION_ERROR naming `cursor`.
    """
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        plain = ""
    match = _CURSOR.match(plain)
    if match is None:
        raise invalid(("cursor", "must be a cursor from the Link header of a list"))
    return int(match[1]), match[2]

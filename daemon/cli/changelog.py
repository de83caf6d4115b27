"""The changelog that is delivered with the program: what changed between two of its versions."""

import re
from pathlib import Path

import msgspec

_HEADING = re.compile(r"^## \[([^\]]+)\](?: - (\S+))?$", re.MULTILINE)
UNRELEASED = "Unreleased"


class Entry(msgspec.Struct, frozen=True):
    """What one version changed.

    Args:
        version: such as 0.2.0, or Unreleased.
        date: of its release, 2026-01-31; None where it was not released yet.
        text: as it was written (Markdown).
    """

    version: str
    date: str | None
    text: str


def read(file: Path) -> list[Entry]:
    """Return the entries of a changelog as keepachangelog.com has it, newest first; none without a file."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        return []
    parts = _HEADING.split(text)[1:]
    return [
        Entry(version, date, body.partition("\n[")[0].strip())
        for version, date, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    ]


def between(entries: list[Entry], older: str, newer: str) -> list[Entry]:
    """Return what changed after one version up to another, newest first; nothing if the first is not the older one.

    What was not released yet belongs to a version that has no entry of its own. A version knows all that are older: one
    that is not known is none of them.
    """
    names = [entry.version for entry in entries]
    if older == newer or older not in names:
        return []
    return entries[names.index(newer) if newer in names else 0 : names.index(older)]

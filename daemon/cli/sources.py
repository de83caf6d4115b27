"""What a command is given in a file or on standard input, so that it stands in no argument."""

import os
import stat
import sys
from pathlib import Path

from daemon.cli import base
from daemon.cli.credentials import ask
from daemon.cli.failure import USAGE, Failure
from daemon.cli.output import note, one_line

STDIN = "-"
_OTHERS = 0o077
_CLAIMED = "daemon.stdin"


def read(source: str, what: str, limit: int, *, secret: bool = False) -> str:
    """Return the text of a file, or of standard input where the source is `-`.

    Args:
        source: the file's name, or `-`.
        what: is read.
        limit: bytes at most.
        secret: whether to say so where others can read the file.

    Raises:
        Failure: 2, if it cannot be read, is too large or is no text.
    """
    if source == STDIN:
        return read_stdin(what, limit)
    try:
        with Path(source).open("rb") as file:
            if secret and _is_open(file.fileno()):
                note(f"others can read {source}; run: chmod 600 {source}")
            data = file.read(limit + 1)
    except OSError as error:
        raise Failure(f"The {what} cannot be read from {one_line(source)}: {error.strerror}", USAGE) from None
    except ValueError:  # a NUL character in the name
        raise Failure(f"The {what} is in no file of this name", USAGE) from None
    return _text(data, what, limit)


def read_stdin(what: str, limit: int) -> str:
    """Return the text on standard input, which can be asked for once; raises as `read`."""
    claimed = base.root().meta.setdefault(_CLAIMED, what)
    if claimed != what:
        raise Failure(f"Standard input cannot be both the {claimed} and the {what}", USAGE)
    if sys.stdin is None:
        raise Failure(f"There is no standard input to read the {what} from", USAGE)
    return _text(sys.stdin.buffer.read(limit + 1), what, limit)


def read_secret(source: str, what: str, limit: int) -> str:
    """Return the secret in a file, or on standard input, without the line's end; at a terminal it is asked for.

    Raises:
        Failure: as `read`, or nothing was typed.
    """
    if source == STDIN and sys.stdin is not None and sys.stdin.isatty():
        return ask(f"{what[0].upper()}{what[1:]}: ", what, USAGE)
    return read(source, what, limit, secret=True).removesuffix("\n").removesuffix("\r")


def _is_open(fd: int) -> bool:
    """Return whether others can read a file; what is no file, such as a shell's pipe, is nobody else's."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISREG(mode) and bool(mode & _OTHERS)


def _text(data: bytes, what: str, limit: int) -> str:
    if len(data) > limit:
        raise Failure(f"The {what} is larger than {limit} bytes", USAGE)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Failure(f"The {what} is not UTF-8", USAGE) from None

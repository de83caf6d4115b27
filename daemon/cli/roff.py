"""Manual pages in the language of man(7): what groff, mandoc and so man(1) read."""

import re
import textwrap
from collections.abc import Iterable

_ESCAPED = {
    "\\": r"\e",
    "-": r"\-",
    "'": r"\(aq",
    "`": r"\(ga",
    "^": r"\(ha",
    "~": r"\(ti",
    '"': r"\(dq",
}
"""What roff would take for itself, or print as a look-alike that a shell does not know (groff_char(7))."""
_WIDTH = 78
"""Columns of a line of the source (mandoc(1), `-T lint`)."""
_CODE = re.compile(r"`([^`]+)`|(?<![\w-])(--?[a-z][a-z-]*)")


def text(plain: str) -> str:
    """Return text that is shown as it is, on one line of the source."""
    line = "".join(_character(character) for character in " ".join(plain.split()))
    return rf"\&{line}" if line.startswith(".") else line


def prose(plain: str) -> str:
    """Return text with what stands in backticks, and every option, in bold."""
    parts, end = [], 0
    for match in _CODE.finditer(plain):
        parts += [_piece(plain[end : match.start()]), bold(match[1] or match[2])]
        end = match.end()
    line = "".join([*parts, _piece(plain[end:])])
    filled = textwrap.wrap(line, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(rf"\&{one}" if one.startswith(".") else one for one in filled)


def bold(plain: str) -> str:
    """Return what is typed as it stands."""
    return rf"\fB{text(plain)}\fR"


def italic(plain: str) -> str:
    """Return what stands for something else."""
    return rf"\fI{text(plain)}\fR"


def header(name: str, date: str, source: str, manual: str) -> str:
    """Return the beginning of a page of section 1.

    Args:
        name: of the page.
        date: 2026-01-31.
        source: the program and its version.
        manual: the title at the top.
    """
    fields = (text(name.upper()), "1", date, text(source), text(manual))
    # No hyphens and no stretched blanks: most of a page is commands and options.
    return ".TH " + " ".join(f'"{field}"' for field in fields) + "\n.nh\n.ad l\n"


def section(title: str, body: str) -> str:
    """Return a section; nothing where it has nothing to say."""
    return f".SH {text(title)}\n{body}" if body else ""


def paragraphs(written: Iterable[str]) -> str:
    """Return paragraphs that are roff already."""
    return ".PP\n".join(f"{one}\n" for one in written)


def tagged(items: Iterable[tuple[str, str]]) -> str:
    """Return a list of terms, each with what is said of it; both are roff already."""
    return "".join(f".TP\n{term}\n{said}\n" for term, said in items)


def example(lines: Iterable[str]) -> str:
    """Return lines that are shown as they stand."""
    return ".EX\n" + "".join(f"{text(line)}\n" for line in lines) + ".EE\n"


def _piece(plain: str) -> str:
    return "".join(_character(character) for character in re.sub(r"\s+", " ", plain))


def _character(character: str) -> str:
    if character in _ESCAPED:
        return _ESCAPED[character]
    return character if character.isascii() else rf"\[u{ord(character):04X}]"

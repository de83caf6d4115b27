"""What is printed for people and for programs: plain text without colour, and the API's own JSON."""

import os
import shlex
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence

import rich_click as click

_STEPS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def json_out(body: bytes) -> None:
    """Print an answer of the API unchanged."""
    click.echo(body)


def note(message: str) -> None:
    """Tell the person something that is neither the answer nor an error."""
    click.echo(f"note: {one_line(message)}", err=True)


def one_line(text: str) -> str:
    """Return text that stays on its line and cannot steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in text).strip()


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print columns; the headers only where there are rows or a person looks."""
    cells = [[one_line(_shown(cell)) for cell in row] for row in rows]
    if not cells and not sys.stdout.isatty():
        return
    lines = [list(headers), *cells]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(headers))]
    for line in lines:
        padded = (cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Print one `name  value` a line; absent values are left out."""
    present = [(name, one_line(_shown(value))) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in present), default=0)
    for name, value in present:
        click.echo(f"{name:<{width}}  {value}")


def relative(moment: int | None) -> str | None:
    """Return a time (Unix seconds) as seen from now: `in 23h`, `5m ago`, `now`."""
    if moment is None:
        return None
    distance = moment - int(time.time())
    if distance == 0:
        return "now"
    return f"in {span(distance)}" if distance > 0 else f"{span(-distance)} ago"


def span(seconds: int) -> str:
    """Return a duration in its two largest units: `1d 3h`, `4m 10s`."""
    parts = []
    for size, unit in _STEPS:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
        if len(parts) == 2 or (parts and not count):
            break
    return " ".join(parts) or "0s"


def size(count: int) -> str:
    """Return a number of bytes in the largest unit that leaves it at least 1: `512 B`, `1.5 MiB`."""
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"


def usd(amount: float) -> str:
    """Return an amount of dollars: to the cent, or as small as it is."""
    return f"${amount:.2f}" if amount == 0 or amount >= 1 else f"${amount:.4f}"


def shell_of(choice: str | None) -> str:
    """Return `fish` or `sh`: the one asked for, else what $SHELL speaks."""
    return choice or ("fish" if os.path.basename(os.environ.get("SHELL", "")) == "fish" else "sh")  # noqa: PTH119 (text)


def export_line(name: str, value: str, shell: str) -> str:
    """Return the line that exports a variable, safe to eval."""
    if shell == "fish":
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"set -gx {name} '{quoted}';"
    return f"export {name}={shlex.quote(value)};"


def unset_line(name: str, shell: str) -> str:
    """Return the line that removes a variable, safe to eval."""
    return f"set -e {name};" if shell == "fish" else f"unset {name};"


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _width(text: str) -> int:
    """Count terminal cells: East Asian wide characters take two (UAX 11), combining ones none."""
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )

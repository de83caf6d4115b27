"""`daemon man`: the manual, made from the commands themselves."""

import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path

import rich_click as click
from click.shell_completion import CompletionItem

from daemon.cli import base, manual
from daemon.cli.failure import OK, USAGE, Failure


def _commands(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Offer the commands below those that are typed already."""
    at = manual.find(manual.top(ctx.find_root().command), ctx.params.get(str(param.name)) or ())
    return [] if at is None else at.command.shell_complete(at, incomplete)


@click.command(cls=base.Command)
@click.argument("path", metavar="[COMMAND…]", nargs=-1, shell_complete=_commands)
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write every page there, such as ~/.local/share/man/man1.",
)
def man(path: tuple[str, ...], output: Path | None) -> int:
    """Show the manual page of daemon, or of a COMMAND; where the output is no terminal, print its source.

    daemon man

    daemon man session create

    daemon man --output ~/.local/share/man/man1
    """
    top = manual.top(base.root().command)
    if output is not None:
        if path:
            raise Failure("--output writes every page: give no COMMAND", USAGE)
        return _write(output, list(manual.walk(top)))
    found = manual.find(top, path)
    if found is None:
        raise Failure(f"There is no command {' '.join(path)}", USAGE, hint="see: daemon --help")
    if sys.stdout.isatty() and (reader := shutil.which("man")) is not None:
        return _show(reader, found)
    click.echo(manual.page(found, _today()), nl=False)
    return OK


def _write(directory: Path, pages: list[click.Context]) -> int:
    directory.mkdir(parents=True, exist_ok=True)
    for context in pages:
        (directory / manual.file_name(context)).write_text(manual.page(context, _today()))
    click.echo(f"{len(pages)} pages are in {directory}")
    return OK


def _show(reader: str, context: click.Context) -> int:
    with tempfile.TemporaryDirectory(prefix="agent-daemon-") as directory:
        file = Path(directory) / manual.file_name(context)
        file.write_text(manual.page(context, _today()))
        # Of man-db and of mandoc: a name with a slash is a file.
        return subprocess.run([reader, str(file)], check=False).returncode  # noqa: S603 (the reader of this machine)


def _today() -> date:
    """Return the date on the pages; who builds packages may set it (reproducible-builds.org, SOURCE_DATE_EPOCH)."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(given), UTC).date() if given.isdecimal() else datetime.now(UTC).date()

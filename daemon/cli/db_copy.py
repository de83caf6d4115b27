"""`daemon db copy`: everything from one database into another."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import rich_click as click

from daemon.cli import base
from daemon.cli.exclusive import maintaining
from daemon.cli.output import json_out, note, table
from daemon.settings import KEYS


class _Address(click.ParamType[str]):
    """An address as `database.url` has it."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        key = KEYS["database.url"]
        if not text or not key.accepts(text):  # not repeated in the message: it may have a password
            self.fail(f"must be {key.allowed.removeprefix('empty, ')}", param, ctx)
        return text


@click.command("copy", cls=base.Command)
@click.option("--from", "source", type=_Address(), required=True, metavar="URL", help="What is copied; only read.")
@click.option("--to", "target", type=_Address(), required=True, metavar="URL", help="Empty, or an older copy of it.")
@base.json_option
def copy(source: str, target: str, as_json: bool) -> None:
    """Copy everything from one database to another, and prove both equal; no daemon may run on either.

    URL is sqlite:///ABSOLUTE/PATH or postgresql://[USER@]HOST[:PORT]/NAME. A password in it can be seen by others on
    this machine while the command runs: put it into PGPASSWORD or ~/.pgpass instead. It may be repeated after whatever
    stopped it; then, and where both are equal already, nothing is done twice.
    """
    # Imported here: the engines take longer than most commands run.
    from daemon.maintenance import copy as maintenance  # noqa: PLC0415

    home = base.home()
    with maintaining(home), _progress() as progress:
        done = maintenance.copy(home, source, target, progress)
    if as_json:
        json_out(msgspec.json.encode(done))
    else:
        table(("TABLE", "ROWS", "SHA-256"), ((one.table, one.rows, one.sha256) for one in done.tables))
        proved = f"{done.target} holds what {done.source} does, up to event {done.head.seq} ({done.head.hash})"
        click.echo(proved if done.changed else f"nothing to do: {proved}")
    if not done.changed:
        return
    note(f"{done.source} is as it was, and {done.backup} holds the same")
    note("start the daemon on the new database alone: set database.url, or DAEMON_DATABASE_URL")
    if done.channels:
        note(
            f"notification channels ({done.channels}) are sealed: daemons of other homes need {home.seal_key_file} too"
        )


class _Lines:
    """Tells what is done, one line each."""

    def begin(self, what: str, rows: int) -> None:
        note(f"{what} ({rows} rows)")

    def advance(self, rows: int) -> None:
        pass


class _Bar:
    """Shows how far it is, on a terminal."""

    def __init__(self, shown: Any) -> None:
        self._shown = shown
        self._task: Any = None

    def begin(self, what: str, rows: int) -> None:
        self._end()
        self._task = self._shown.add_task(what, total=max(rows, 1))

    def advance(self, rows: int) -> None:
        self._shown.advance(self._task, rows)

    def _end(self) -> None:
        if self._task is not None:
            self._shown.update(self._task, completed=self._shown.tasks[self._task].total)


@contextmanager
def _progress() -> Iterator[_Lines | _Bar]:
    if not sys.stderr.isatty():
        yield _Lines()
        return
    # Imported here: only a terminal needs it.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        yield _Bar(shown)

"""`daemon db`: looks at the database that change nothing, running or not, and its way to another."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import rich_click as click

from daemon.cli import base
from daemon.cli.candidates import one_of
from daemon.cli.db_copy import copy
from daemon.cli.exclusive import maintaining
from daemon.cli.failure import USAGE, Failure


@click.group(cls=base.Group)
def db() -> None:
    """Look at the database, or copy it to another."""


db.add_command(copy)


@contextmanager
def _reading() -> Iterator[sqlite3.Connection]:
    # Imported here: the engine takes longer than most commands run.
    from daemon.maintenance import looking  # noqa: PLC0415

    home = base.home()
    with maintaining(home), looking.rows(home, base.configuration(home).config) as connection:
        yield connection


@db.command()
def schema() -> None:
    """Print the statements that make the schema."""
    # Imported here: the engine takes longer than most commands run.
    from daemon.maintenance import tables  # noqa: PLC0415
    from daemon.maintenance.exclusive import reading  # noqa: PLC0415

    home = base.home()
    with maintaining(home), reading(base.database(home, base.configuration(home))) as connection:
        for statement in tables.statements(connection):
            click.echo(statement)


@db.command()
def check() -> None:
    """Check pages, foreign keys and the chain of the audit log (exit 1: something is broken)."""
    # Imported here: the engine takes longer than most commands run.
    from daemon.stores import inspection  # noqa: PLC0415

    with _reading() as connection:
        inspection.check_whole(connection)
        if (orphan := inspection.orphan(connection)) is not None:
            raise Failure(f"The database is broken: {orphan}", hint="restore a backup: daemon restore FILE")
    click.echo("the database is whole")


def _tables() -> Iterable[str]:
    # Imported here: only who completes one needs them.
    from daemon.stores.tables import TABLES  # noqa: PLC0415

    return (table.name for table in TABLES)


@db.command()
@click.argument("table", shell_complete=one_of(_tables))
@click.option("--format", "kind", type=click.Choice(["csv", "json"]), default="csv", show_default=True, help="Which.")
def export(table: str, kind: Literal["csv", "json"]) -> None:
    """Print the rows of TABLE; what is secret is shown as *** (exit 2: no such table)."""
    # Imported here: the engine takes longer than most commands run.
    from daemon.maintenance import tables  # noqa: PLC0415

    with _reading() as connection:
        if table not in (known := tables.names(connection)):
            raise Failure(f"There is no table of this name; there are {', '.join(known)}", USAGE)
        tables.export(connection, table, kind, lambda text: click.echo(text, nl=False))

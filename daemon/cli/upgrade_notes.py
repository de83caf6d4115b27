"""What `daemon upgrade` tells: how this installation is upgraded, and what will happen then."""

import shlex

import msgspec
import rich_click as click

from daemon import __version__
from daemon.cli import base, changelog
from daemon.cli.changelog import Entry
from daemon.cli.client import Client
from daemon.cli.failure import Failure, NotRunning
from daemon.cli.output import fields, one_line
from daemon.cli.provenance import NEW_FILE, Provenance, provenance
from daemon.lock import lock_holder
from daemon.maintenance.pending import Pending, pending
from daemon.run_info import read_info
from daemon.stores.migration_files import MigrationError, data_file

_KINDS = {
    "binary": "a single file",
    "venv": "pip",
    "pipx": "pipx",
    "uv-tool": "uv tool",
    "package": "a package of this system",
    "source": "a checkout",
}
_SURVIVES = "Processes of sessions go on meanwhile, and tokens stay valid; clients whose requests fail try again."


class Running(msgspec.Struct, frozen=True):
    """The daemon that runs; its pid and version are unknown while it starts or stops."""

    version: str | None
    pid: int | None
    url: str | None


class Notes(msgspec.Struct, frozen=True, rename="camel"):
    """All that is told.

    Args:
        installed: the version of this program.
        running: what runs now.
        restart: whether what runs is another version than the installed one.
        installation: how the program was installed.
        steps: the commands that come next, in order.
        database: what the next start does to it; None where the daemon is elsewhere.
        changes: between the running and the installed version, newest first.
    """

    installed: str
    running: Running | None
    restart: bool
    installation: Provenance
    steps: list[str]
    database: Pending | None
    changes: list[Entry]


def gather() -> Notes:
    """Look at everything; nothing is changed, and nobody but this machine's daemon is asked.

    Raises:
        Failure: the configuration is invalid, or what answers is no daemon.
    """
    running, database, installation = _running(), _database(), provenance()
    version = running.version if running is not None else None
    return Notes(
        installed=__version__,
        running=running,
        restart=version not in {None, __version__},
        installation=installation,
        steps=_steps(running, database, installation),
        database=database,
        changes=changelog.between(changelog.read(data_file("CHANGELOG.md")), version or __version__, __version__),
    )


class _Health(msgspec.Struct):
    """What every version's `/health` has."""

    version: str
    pid: int


def _running() -> Running | None:
    if (url := base.url()) is not None:
        try:
            health = Client(timeout=2).send("GET", "/health", None, {}).read(_Health)
        except NotRunning:
            return None
        return Running(health.version, health.pid, url)
    home = base.home()
    holder = lock_holder(home)
    if holder is None:
        return None
    info = read_info(home)
    return (
        Running(info.version, holder, info.url)
        if info is not None and info.pid == holder
        else Running(None, holder, None)
    )


def _database() -> Pending | None:
    if base.url() is not None:
        return None
    home = base.home()
    try:
        return pending(home, base.configuration(home).config)
    except MigrationError as error:
        raise Failure(str(error)) from None


def _steps(running: Running | None, database: Pending | None, installation: Provenance) -> list[str]:
    """Return the commands that come next: to start what is installed already, to go back, or to upgrade."""
    start = "daemon start --detach" if running is None else "daemon restart"
    if database is not None and database.older_copy is not None:
        stop = ["daemon stop"] if running is not None else []
        return [*stop, f"daemon restore {shlex.quote(database.older_copy)}", "daemon start --detach"]
    if running is not None and running.version not in {None, __version__}:
        return [start] if database is None or database.problem is None else []
    kept = ["daemon backup"] if database is None or database.schema_version else []
    return [*kept, *installation.commands, start]


def show(notes: Notes) -> None:
    """Print the notes for people."""
    kind = _KINDS[notes.installation.kind]
    fields(
        [
            ("installed", f"{notes.installed} ({kind}, {notes.installation.path})"),
            ("running", _said_of(notes.running)),
            ("database", None if notes.database is None else _said_of_rows(notes.database)),
        ]
    )
    click.echo(f"\n{_purpose(notes)}")
    if notes.steps:
        click.echo("\n" + "\n".join(f"    {step}" for step in notes.steps))
    if any(NEW_FILE in step for step in notes.steps):
        click.echo(f"\n{NEW_FILE} is the file of the new version, which you have fetched.")
    click.echo(f"\n{_SURVIVES}")
    for entry in notes.changes:
        click.echo(f"\n{entry.version}{f' ({entry.date})' if entry.date else ''}\n\n{entry.text}")


def _said_of(running: Running | None) -> str:
    if running is None:
        return "no"
    return f"{running.version or 'it starts or stops'} (pid {running.pid})"


def _said_of_rows(database: Pending) -> str:
    if database.problem is not None:
        return f"this version will not start on it: {one_line(database.problem)}"
    if database.schema_version == 0:
        return "none yet; the first start makes it"
    if not database.migrations:
        return f"schema {database.schema_version}, which this version works with"
    copy = f"after a copy in {database.copied_to}" if database.copied_to else "without a copy: make one (pg_dump) first"
    names = ", ".join(database.migrations)
    return f"schema {database.schema_version}; the next start applies {names}, {copy}"


def _purpose(notes: Notes) -> str:
    if notes.database is not None and notes.database.older_copy is not None:
        return "Install the newer version again; or go back to this copy, without what has happened since:"
    if notes.restart and not notes.steps:
        return "Do not restart it: install the version that runs again, or mend what is wrong (see: daemon doctor)."
    if notes.restart:
        return "What is installed is not what runs. To run it:"
    if not notes.installation.commands:
        return "Let the package manager that installed it upgrade it; before and after:"
    return "To upgrade:"

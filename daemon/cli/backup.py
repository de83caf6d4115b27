"""`daemon backup` and `daemon restore`."""

import shlex
import sys
from pathlib import Path

import msgspec
import rich_click as click

from daemon.cli import base
from daemon.cli.client import Client
from daemon.cli.exclusive import maintaining
from daemon.cli.failure import USAGE, Failure
from daemon.cli.output import fields, json_out, note
from daemon.domain.views import Backup
from daemon.lock import AlreadyRunning, lock_holder

_BACKUP_SECONDS = 600.0
"""For the daemon's answer: a large database takes its time."""


@click.command(cls=base.Command)
@click.argument("path", required=False, type=click.Path(path_type=Path))
@base.json_option
def backup(path: Path | None, as_json: bool) -> None:
    """Make a checked copy of the database, running or not, and another at PATH (a new file, or a directory)."""
    # Imported here: the engine takes longer than most commands run.
    from daemon.maintenance.backup import deliver, destination  # noqa: PLC0415

    home = base.home()
    with maintaining(home):
        to = destination(path) if path else None
        made = _make()
        if to is not None:
            made = deliver(made, to)
    if as_json:
        json_out(msgspec.json.encode(made))
        return
    fields([("path", made.path), ("size", f"{made.size_bytes} bytes"), ("sha256", made.sha256)])


def _make() -> Backup:
    home = base.home()
    if base.url() is not None or lock_holder(home) is not None:
        return Client(timeout=_BACKUP_SECONDS).call("POST", "/v1/admin/backup").read(Backup)
    # Imported here: the engine takes longer than most commands run.
    from daemon.maintenance.backup import make  # noqa: PLC0415

    return make(home, base.configuration(home).config)


@click.command(cls=base.Command)
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--keep-sessions", is_flag=True, help="Do not revoke its sessions and verifiers, unless the kill switch is on."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@base.json_option
def restore(path: Path, keep_sessions: bool, yes: bool, as_json: bool) -> None:
    """Put the backup at PATH in the place of the database; the daemon must be stopped (exit 5: it runs)."""
    # Imported here: the engine takes longer than most commands run.
    from daemon.maintenance import restore as maintenance  # noqa: PLC0415

    home = base.home()
    loaded = base.configuration(home)
    if loaded.config.database.kind == "postgresql":
        raise Failure(
            "A restore replaces a database file, and database.url names PostgreSQL",
            USAGE,
            hint=f"make an empty database there, and run: daemon db copy --from {_address(path)} --to postgresql://…",
        )
    database = base.database(home, loaded)
    with maintaining(home):
        if (holder := lock_holder(home)) is not None:
            raise AlreadyRunning(holder)
        if not yes:
            _confirm(path, database)
        done = maintenance.restore(
            home, database, path.expanduser().absolute(), loaded.config.log, keep_sessions=keep_sessions
        )
    kept = keep_sessions and not done.kill_switch_kept
    if as_json:
        json_out(msgspec.json.encode(done))
    else:
        fields(
            [
                ("restored", done.database),
                ("from", f"{path} (sha256 {done.backup_sha256})"),
                ("kept", done.kept),
                ("sessions", "kept" if kept else f"{done.sessions_revoked} revoked"),
                ("verifiers", "kept" if kept else f"{done.verifiers_revoked} revoked"),
                ("kill switch", "still on" if done.kill_switch_kept else None),
            ]
        )
    note("the master password is now the one of the backup")
    if kept:
        note("tokens renewed after the backup was made will be refused, or look reused")


def _address(path: Path) -> str:
    return shlex.quote(f"sqlite://{path.expanduser().absolute()}")


def _confirm(path: Path, database: Path) -> None:
    if not sys.stdin.isatty():
        raise Failure("A restore replaces the database, and there is no terminal to ask at", USAGE, hint="add --yes")
    click.confirm(f"Replace {database} by {path}?", abort=True, err=True)

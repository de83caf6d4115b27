"""What every command shares: the global options, which stand before or after the command, and where they lead."""

import os
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click
from click.shell_completion import CompletionItem

from daemon.cli.failure import USAGE, Failure
from daemon.cli.shells import directories
from daemon.config import ConfigError, Loaded, load
from daemon.home import Home
from daemon.run_info import read_info


class Chosen(msgspec.Struct):
    """The global options of this call."""

    home: Path | None = None
    url: str | None = None


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value is not None:
        setattr(ctx.find_root().ensure_object(Chosen), str(param.name), value)


def _running(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Offer the address of the daemon of the home."""
    with ctx.scope(cleanup=False):
        info = read_info(home())
    return [CompletionItem(info.url)] if info is not None and info.url.startswith(incomplete) else []


def _global_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--home"],
            type=click.Path(path_type=Path),
            metavar="DIR",
            shell_complete=directories,
            expose_value=False,
            callback=_remember,
            help="Home of the daemon (else DAEMON_HOME, else the user's data directory).",
        ),
        click.Option(
            ["--url"],
            metavar="URL",
            shell_complete=_running,
            expose_value=False,
            callback=_remember,
            help="Address of a running daemon (else DAEMON_URL, else the daemon of the home).",
        ),
    ]


class Command(click.RichCommand):
    """A command that takes the global options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _global_options()


class Group(click.RichGroup):
    """A group of commands that takes the global options too."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _global_options()


def root() -> click.Context:
    """Return the context of the whole call."""
    current: Any = click.get_current_context()
    found: click.Context = current.find_root()
    return found


def chosen() -> Chosen:
    """Return the global options of this call."""
    return root().ensure_object(Chosen)


def home() -> Home:
    """Return the home that this call is about."""
    return Home.resolve(chosen().home, os.environ)


def url() -> str | None:
    """Return the address that was asked for instead of the home's own daemon, without a trailing slash."""
    return (chosen().url or os.environ.get("DAEMON_URL", "")).rstrip("/") or None


def configuration(of: Home, **flags: object) -> Loaded:
    """Return the effective configuration of a home.

    Args:
        of: the home.
        flags: by dotted key, with `_` for the dot (`server_port`); None is a flag not given.

    Raises:
        Failure: 2, with every problem.
    """
    try:
        return load(of.root, os.environ, {name.replace("_", ".", 1): value for name, value in flags.items()})
    except ConfigError as error:
        raise Failure("\n".join(error.problems), USAGE) from None


def database(of: Home, loaded: Loaded) -> Path:
    """Return where the database file of a home is.

    Raises:
        Failure: 2, the rows are not in a file.
    """
    if loaded.config.database.kind != "sqlite":
        raise Failure(
            "This command works on a database file, and database.url names PostgreSQL",
            USAGE,
            hint="use the server's own tools, such as pg_dump and psql",
        )
    return loaded.config.database.path or of.database


json_option = click.option("--json", "as_json", is_flag=True, help="Print the API's answer unchanged.")

"""`daemon mcp`: the tools of an agent's session for MCP clients, and the entry with which a client starts them."""

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, get_args

import rich_click as click

from daemon.cli import base
from daemon.cli.failure import FAILED, USAGE, Failure
from daemon.cli.output import note
from daemon.cli.program import program
from daemon.mcp import clients
from daemon.mcp.clients import NAME, SECTION, Client, Place, Scope
from daemon.mcp.config_file import ConfigError

P = ParamSpec("P")


@click.group(cls=base.Group, invoke_without_command=True)
@click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE", help="The session's token file.")
@click.pass_context
def mcp(ctx: click.Context, token_file: Path | None) -> None:
    """Serve an agent's session to its MCP client on standard input and output.

    The session is that of --token-file, else DAEMON_TOKEN_FILE, else DAEMON_SESSION_TOKEN.
    """
    if ctx.invoked_subcommand is None:
        _serve(token_file)
    elif token_file is not None:
        raise click.UsageError(f"--token-file stands after {ctx.invoked_subcommand}", ctx)


def _serve(token_file: Path | None) -> None:
    _require_extra()
    if sys.stdin is None or sys.stdout is None:
        raise Failure("MCP is spoken on standard input and output, and one of them is closed", USAGE)
    # Here and not above: the SDK takes a second to import, and no other command needs it.
    from daemon.mcp.server import run  # noqa: PLC0415
    from daemon.mcp.sessions import Sessions  # noqa: PLC0415

    if sys.stdin.isatty():
        note("this speaks MCP with a program, not with you: `daemon mcp install` lets Claude start it")
    chosen = base.chosen()
    run(Sessions(token_file=token_file, url=chosen.url, home=None if chosen.url else chosen.home))


def _require_extra() -> None:
    if importlib.util.find_spec("mcp") is None:
        raise Failure("The MCP server needs the MCP SDK", USAGE, hint="run: pip install 'agent-session-daemon[mcp]'")


def _name(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if not NAME.fullmatch(value):
        raise click.BadParameter("1 to 64 letters, digits, hyphens and underscores are needed")
    return value


def _which(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which entry of which client is meant."""
    for option in (
        click.option("--name", default="daemon", show_default=True, callback=_name, help="The server's name."),
        click.option(
            "--scope",
            type=click.Choice(get_args(Scope)),
            default="user",
            show_default=True,
            help="For Claude Code: of you everywhere, or of the project in this directory (.mcp.json).",
        ),
        click.option(
            "--client",
            type=click.Choice([*get_args(Client), "all"]),
            default="all",
            show_default=True,
            help="Whose configuration; all: of those that are found here.",
        ),
    ):
        command = option(command)
    return command


@mcp.command()
@_which
@click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE", help="The token file that it shall use.")
@click.option("--print", "only_print", is_flag=True, help="Print what would be written, and write nothing.")
def install(client: str, scope: Scope, name: str, token_file: Path | None, only_print: bool) -> None:
    """Let Claude Code and Claude Desktop start this server; what else they are told stays as it is.

    The entry holds no token. Claude Code hands on the environment of `daemon run` and of supervised sessions; where
    there is none, as in Claude Desktop, name a token file.
    """
    _require_extra()
    command = _command(token_file)
    for at in _places(client, scope):
        if only_print:
            click.echo(json.dumps({SECTION: {name: clients.entry(at, command)}}, indent=2, ensure_ascii=False))
            note(f"for {at.client}, in {at.path}")
            continue
        added = _edited(clients.install, at, name, command)
        click.echo(f"{name} {'was added to' if added else 'is already in'} {at.client}: {at.path}")
        if not at.hands_on and token_file is None:
            note(f"{at.client} starts it without a session; name one with --token-file")
    if token_file is not None and not token_file.exists():
        note(f"{token_file} is not there yet; put a token into it: daemon session create --output token")


@mcp.command()
@_which
def uninstall(client: str, scope: Scope, name: str) -> None:
    """Remove the entry that `install` wrote, and nothing else."""
    for at in _places(client, scope):
        removed = _edited(clients.uninstall, at, name)
        click.echo(f"{name} {'was removed from' if removed else 'is not in'} {at.client}: {at.path}")


def _command(token_file: Path | None) -> list[str]:
    """Return what a client shall start, with what was said of where the daemon and the session are."""
    made = program()
    chosen = base.chosen()
    if chosen.url is not None:
        made += ["--url", chosen.url]
    elif chosen.home is not None or "DAEMON_HOME" in os.environ:
        made += ["--home", str(base.home().root)]
    made.append("mcp")
    if token_file is not None:
        made += ["--token-file", os.path.abspath(token_file)]  # noqa: PTH100 (a token file is no symbolic link)
    return made


def _places(client: str, scope: Scope) -> list[Place]:
    if client == "claude-desktop" and scope == "project":
        raise Failure("Claude Desktop knows no projects", USAGE, hint="leave out --scope")
    named: list[Client] = [one for one in get_args(Client) if client in {one, "all"}]
    home = Path.home()
    if scope == "project":
        named = ["claude-code"]
    elif client == "all":
        named = [one for one in named if clients.is_here(one, os.environ, home)]
        if not named:
            raise Failure(
                "Neither Claude Code nor Claude Desktop is found here", FAILED, hint="name one: --client claude-code"
            )
    return [clients.place(one, scope, os.environ, home, Path.cwd()) for one in named]


def _edited(edit: Callable[P, bool], *args: P.args, **kwargs: P.kwargs) -> bool:
    try:
        return edit(*args, **kwargs)
    except ConfigError as error:
        raise Failure(str(error)) from None

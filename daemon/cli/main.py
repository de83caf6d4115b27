"""The root of the command line: which module has which command, and how a failure is told."""

import contextlib
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import rich_click as click

from daemon import __version__
from daemon.cli import base
from daemon.cli.completion import VARIABLE, answer
from daemon.cli.failure import FAILED, INTERRUPTED, OK, USAGE, Failure
from daemon.cli.output import one_line
from daemon.home import HomeError

COMMANDS = {
    "init": "daemon.cli.server:init",
    "start": "daemon.cli.server:start",
    "stop": "daemon.cli.server:stop",
    "restart": "daemon.cli.server:restart",
    "status": "daemon.cli.status:status",
    "service": "daemon.cli.service:service",
    "login": "daemon.cli.login:login",
    "logout": "daemon.cli.login:logout",
    "agent": "daemon.cli.agent:agent",
    "session": "daemon.cli.session:session",
    "ps": "daemon.cli.process:ps",
    "run": "daemon.cli.run:run",
    "mcp": "daemon.cli.mcp:mcp",
    "channel": "daemon.cli.channel:channel",
    "verifier": "daemon.cli.verifier:verifier",
    "kill-switch": "daemon.cli.kill_switch:kill_switch",
    "secret": "daemon.cli.secret:secret",
    "password": "daemon.cli.secret:password",
    "logs": "daemon.cli.logs:logs",
    "events": "daemon.cli.events:events",
    "metrics": "daemon.cli.metrics:metrics",
    "audit": "daemon.cli.audit:audit",
    "backup": "daemon.cli.backup:backup",
    "restore": "daemon.cli.backup:restore",
    "doctor": "daemon.cli.doctor:doctor",
    "db": "daemon.cli.db:db",
    "config": "daemon.cli.configuration:config",
    "upgrade": "daemon.cli.upgrade:upgrade",
    "completion": "daemon.cli.completion:completion",
    "man": "daemon.cli.man:man",
}
"""Each command and where it is; only the one that is called is imported, so that `status` stays quick."""


class Root(base.Group):
    """Imports a command when it is called or listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name."""
        where = COMMANDS.get(cmd_name)
        if where is None:
            return None
        module, _, name = where.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; end in peace where nobody reads its output any more (click would make it a failure)."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _forget_stdout()
            return OK


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="daemon", message="%(prog)s %(version)s")
def root() -> None:
    """The session authority for the AI agents on this machine.

    It gives agents short-lived tokens that they renew by themselves, runs their processes, tells you what happens, and
    stops all of it when you say so. Begin with `daemon start`.
    """


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code; a failure is one line on standard error, never a traceback."""
    if VARIABLE in os.environ:
        return answer(root)
    try:
        code = root.main(list(arguments), prog_name="daemon", standalone_mode=False)
    except Failure as failure:
        return _tell(str(failure), failure.code)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "daemon"
        return _tell(f"{' '.join(error.format_message().split())} (see: {where} --help)", USAGE)
    except click.ClickException as error:
        return _tell(error.format_message(), USAGE)
    except HomeError as error:
        return _tell(str(error), FAILED)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except OSError as error:
        return _tell(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", FAILED)
    return code if isinstance(code, int) else OK


def _tell(message: str, code: int) -> int:
    for line in message.splitlines() or [""]:
        click.echo(f"error: {one_line(line)}", err=True)
    return code


def _forget_stdout() -> None:
    """Keep the interpreter from flushing into a pipe that nobody reads any more."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

"""What the manual pages say: daemon(1), and one page for each command, made from the commands themselves."""

import inspect
import re
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path

import platformdirs
import rich_click as click

from daemon import __version__
from daemon.cli import roff
from daemon.cli.credentials import PASSWORD, PASSWORD_FILE, TICKET
from daemon.cli.failure import EXIT_CODES
from daemon.home import Home

_GLOBAL = {"home", "url", "help"}
"""Options that every command has."""
_SUMMARY = re.compile(r"^(.+?)(?:[;:]| \(|\.(?:\s|$)|$)", re.DOTALL)

ENVIRONMENT = {
    "DAEMON_HOME": "The home, where `--home` does not name one.",
    "DAEMON_URL": "The address of a running daemon, where `--url` does not name one.",
    TICKET: 'An owner ticket, as eval "$(daemon login)" sets it.',
    PASSWORD: "The master password.",
    PASSWORD_FILE: "A file that holds the master password.",
    "DAEMON_TOKEN_FILE": "The file with a session's token, for `daemon mcp`; the COMMAND of `daemon run` and the "
    "processes of sessions get it, with `DAEMON_URL`, `DAEMON_SESSION_ID` and `DAEMON_AGENT_ID`.",
    "DAEMON_SESSION_TOKEN": "A session's token, where there is no file with it; it is never renewed.",
    "DAEMON_<SECTION>_<KEY>": "A key of the configuration, such as `DAEMON_SERVER_PORT`; it wins over the file.",
    "SESSION_TTL_SECONDS": "As `DAEMON_CONVERSATIONS_CONVERSATION_TTL`, which wins over it.",
}
"""The variables that the program obeys."""


def page(context: click.Context, today: date) -> str:
    """Return the manual page of a command.

    Args:
        context: of the command, made by `walk`.
        today: the date on the page.
    """
    command, name = context.command, _name(context)
    above = context.parent
    own = [one for one in _options(context) if above is None or one.name not in _GLOBAL]
    shared = [one for one in _options(context) if one not in own]
    said, examples = _said(command)
    parts = [
        roff.header(name, today.isoformat(), f"daemon {__version__}", "The daemon manual"),
        roff.section("NAME", f"{roff.text(name)} \\- {roff.text(_summary(command))}\n"),
        roff.section("SYNOPSIS", _synopsis(context)),
        roff.section("DESCRIPTION", roff.paragraphs(roff.prose(one) for one in said)),
        roff.section("OPTIONS", _tagged_options(context, own)),
        roff.section("COMMANDS", _commands(context)),
        roff.section("OPTIONS OF EVERY COMMAND", _tagged_options(context, shared)),
        *(_whole_program() if above is None else ()),
        roff.section("EXAMPLES", roff.example(examples) if examples else ""),
        roff.section("SEE ALSO", "" if above is None else f"{roff.bold(_name(above))}(1)\n"),
    ]
    return "".join(parts)


def top(command: click.Command) -> click.Context:
    """Return the context of the whole program."""
    return _context(command, "daemon", None)


def find(context: click.Context, path: Iterable[str]) -> click.Context | None:
    """Return the context of a command below another; None where there is none of this name."""
    for name in path:
        command = dict(_below(context)).get(name)
        if command is None:
            return None
        context = _context(command, name, context)
    return context


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return click.Context(command, info_name=name, parent=parent, **command.context_settings)


def walk(context: click.Context) -> Iterator[click.Context]:
    """Yield a command's context, and those of all commands below it that are not hidden."""
    yield context
    for name, command in _below(context):
        yield from walk(_context(command, name, context))


def _below(context: click.Context) -> Iterator[tuple[str, click.Command]]:
    group = context.command
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if command is not None and not command.hidden:
                yield name, command


def _name(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")


def file_name(context: click.Context) -> str:
    """Return the name of a page's file, such as `daemon-session-create.1`."""
    return f"{_name(context)}.1"


def _said(command: click.Command) -> tuple[list[str], list[str]]:
    """Return a command's paragraphs, and those of them that are a command line."""
    written = [" ".join(one.split()) for one in re.split(r"\n\s*\n", inspect.cleandoc(command.help or ""))]
    examples = [one for one in written if one.startswith("daemon ")]
    return [one for one in written if one not in examples], examples


def _summary(command: click.Command) -> str:
    found = _SUMMARY.match(_said(command)[0][0])
    return found[1] if found else ""


def _options(context: click.Context) -> list[click.Option]:
    return [one for one in context.command.get_params(context) if isinstance(one, click.Option) and not one.hidden]


def _synopsis(context: click.Context) -> str:
    required = [
        f"{roff.bold(one.opts[0])} {roff.italic(_metavar(one, context))}" for one in _options(context) if one.required
    ]
    pieces = context.command.collect_usage_pieces(context)
    arguments = [roff.text(piece) for piece in pieces if piece != "[OPTIONS]"]
    parts = [roff.bold(context.command_path), f"[{roff.italic('OPTION')}...]", *required, *arguments]
    return " ".join(parts) + "\n"


def _tagged_options(context: click.Context, options: list[click.Option]) -> str:
    return roff.tagged((_switches(one, context), _option_help(one)) for one in options)


def _switches(option: click.Option, context: click.Context) -> str:
    names = ", ".join(roff.bold(one) for one in sorted([*option.opts, *option.secondary_opts], key=len))
    return names if option.is_flag else f"{names} {roff.italic(_metavar(option, context))}"


def _metavar(option: click.Option, context: click.Context) -> str:
    if option.metavar is None and isinstance(option.type, click.Choice):
        return "|".join(map(str, option.type.choices))
    if option.metavar is None and isinstance(option.type, type(click.INT)):
        return "N"
    return option.make_metavar(context)


def _option_help(option: click.Option) -> str:
    said = [option.help or ""]
    if isinstance(option.type, click.IntRange):
        least, most = option.type.min, option.type.max
        said += [f"{least} to {most}."] if most is not None else [f"At least {least}."] if least else []
    if option.show_default:
        said.append(f"Default: {option.default}.")
    if option.required:
        said.append("Required.")
    return roff.prose(" ".join(said))


def _commands(context: click.Context) -> str:
    """Return every command below this one with what it does in short."""
    return roff.tagged(
        (f"{roff.bold(_name(one))}(1)", roff.prose(f"{_summary(one.command)}.")) for one in list(walk(context))[1:]
    )


def _whole_program() -> Iterator[str]:
    yield roff.section(
        "EXIT STATUS", roff.tagged((roff.bold(str(code)), roff.prose(why)) for code, why in EXIT_CODES.items())
    )
    yield roff.section(
        "ENVIRONMENT", roff.tagged((roff.bold(name), roff.prose(said)) for name, said in ENVIRONMENT.items())
    )
    yield roff.section("FILES", roff.tagged((roff.bold(path), roff.prose(said)) for path, said in _files()))


def _files() -> Iterator[tuple[str, str]]:
    """Yield what a home has, by the paths of a home where nobody has chosen another."""
    user = Path.home()
    root = Path(platformdirs.user_data_dir("agent-daemon", appauthor=False))
    shown = Path("~") / root.relative_to(user) if root.is_relative_to(user) else root
    yield str(shown), "The home, unless `--home` or `DAEMON_HOME` names another."
    home = Home(shown)
    for name, found in vars(Home).items():
        if isinstance(found, property) and isinstance(path := getattr(home, name), Path):
            yield str(path), " ".join((found.__doc__ or "").partition("\n\n")[0].split())

"""The options that say what the daemon shall run for a session, and the `process` object that they make."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec
import rich_click as click

from daemon.cli import sources
from daemon.cli.candidates import one_of, variables
from daemon.cli.failure import USAGE, Failure
from daemon.cli.output import one_line
from daemon.cli.parameters import AMOUNT, DURATION, SIZE
from daemon.cli.shells import directories, files, program
from daemon.domain.process_config import CLAUDE, MAX_ENVIRONMENT, MAX_PROMPT, Restart

F = TypeVar("F", bound=Callable[..., Any])

_MAX_TOKEN = 4096
_MAX_JSON = 1 << 20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Wanted(msgspec.Struct, frozen=True):
    """What the options say; None, or nothing: they say nothing of it."""

    process: str | None
    workdir: str | None
    model: str | None
    max_turns: int | None
    system_prompt: str | None
    allow_tool: tuple[str, ...]
    env: tuple[str, ...]
    env_file: tuple[str, ...]
    oauth_token_stdin: bool
    oauth_token_file: str | None
    max_memory: int | None
    max_cpu: float | None
    max_duration: int | None
    process_idle_timeout: int | None
    budget_usd: float | None
    budget_tokens: int | None
    restart: str | None
    tool_timeout: int | None
    quiet_after: int | None
    process_json: str | None
    command: tuple[str, ...]

    @classmethod
    def taken_from(cls, given: dict[str, Any]) -> "Wanted":
        """Take these options out of all that a command was given."""
        return cls(**{name: given.pop(name) for name in cls.__struct_fields__})


_OPTIONS = (
    click.option(
        "--process",
        metavar=CLAUDE,
        shell_complete=one_of(lambda: [CLAUDE]),
        help="Run Claude Code for it; any other command stands after --.",
    ),
    click.option(
        "--workdir",
        metavar="DIR",
        shell_complete=directories,
        help="Where it works; for a new session, else the current directory.",
    ),
    click.option("--model", help="The model that it uses."),
    click.option("--max-turns", type=int, metavar="N", help="Of its own turns with the model, for each message."),
    click.option("--system-prompt", metavar="TEXT|@FILE", help="Appended to its own; @- is standard input."),
    click.option("--allow-tool", multiple=True, metavar="TOOL", help="A tool that it may use; may be repeated."),
    click.option(
        "--env",
        multiple=True,
        metavar="NAME[=VALUE]",
        shell_complete=variables,
        help="A variable for it; NAME alone takes this shell's own. A VALUE that stands here can be seen by every "
        "program on this machine while the command runs (ps): for secrets use NAME alone, or --env-file.",
    ),
    click.option(
        "--env-file",
        multiple=True,
        metavar="FILE",
        shell_complete=files,
        help="Lines NAME=VALUE or NAME; # begins a comment.",
    ),
    click.option(
        "--oauth-token-file", metavar="FILE", shell_complete=files, help="File with its CLAUDE_CODE_OAUTH_TOKEN."
    ),
    click.option("--oauth-token-stdin", is_flag=True, help="Read that token from standard input."),
    click.option("--max-memory", type=SIZE, metavar="SIZE", help="Of the whole tree: 512m, 2g; 0 is no bound."),
    click.option("--max-cpu", type=AMOUNT, metavar="CORES", help="That the whole tree may keep busy; 0 is no bound."),
    click.option("--max-duration", type=DURATION, metavar="TIME", help="How long it may run: 2h; 0 is no bound."),
    click.option(
        "--process-idle-timeout", type=DURATION, metavar="TIME", help="Without a turn, until suspended; 0 is never."
    ),
    click.option("--budget-usd", type=AMOUNT, metavar="USD", help="What the session may cost."),
    click.option("--budget-tokens", type=int, metavar="N", help="Tokens that the session may use."),
    click.option("--restart", type=click.Choice(get_args(Restart)), help="Whether to start it again after a failure."),
    click.option("--tool-timeout", type=DURATION, metavar="TIME", help="A tool's, until the turn is interrupted."),
    click.option("--quiet-after", type=int, metavar="MS", help="Silence that ends a turn of any other command."),
    click.option(
        "--process-json",
        metavar="FILE|-|JSON",
        shell_complete=files,
        help="The whole `process` object of the API, without a secret if it stands here; an option wins over it.",
    ),
)
_COMMAND = click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND…]", shell_complete=program)


def process_options(command: F) -> F:
    """Let a command take these options, and a COMMAND."""
    for option in reversed((*_OPTIONS, _COMMAND)):
        command = option(command)
    return command


def new_process(wanted: Wanted) -> dict[str, Any] | None:
    """Return the process of a new session; None where none is asked for.

    Raises:
        Failure: 2, if the options contradict each other, or what they name cannot be read.
    """
    made = changed_process(wanted)
    if wanted.process is None and not wanted.command and wanted.process_json is None:
        if made:
            raise Failure("Options of a process are given, but no process", USAGE, hint="add --process claude")
        return None
    return made if "workingDir" in made else {**made, "workingDir": str(Path.cwd())}


def changed_process(wanted: Wanted) -> dict[str, Any]:
    """Return what the options say of a process; raises as `new_process`."""
    command = _command(wanted)
    fields = {
        "command": command,
        "workingDir": None if wanted.workdir is None else os.path.abspath(wanted.workdir),  # noqa: PTH100 - as cd(1)
        "model": wanted.model,
        "maxTurns": wanted.max_turns,
        "systemPrompt": _prompt(wanted.system_prompt),
        "allowedTools": wanted.allow_tool or None,
        "environment": _environment(wanted) or None,
        "oauthToken": _token(wanted),
        "maxMemory": wanted.max_memory,
        "maxCpu": wanted.max_cpu,
        "maxDuration": wanted.max_duration,
        "idleTimeout": wanted.process_idle_timeout,
        "budget": _present({"maxCostUsd": wanted.budget_usd, "maxTokens": wanted.budget_tokens}) or None,
        "restart": wanted.restart,
        "toolTimeout": wanted.tool_timeout,
        "quietAfter": wanted.quiet_after,
    }
    return _merged(_whole(wanted.process_json), _present(fields))


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _merged(whole: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return an object with what the options say instead; variables, and bounds of a budget, one by one."""
    for name in ("environment", "budget"):
        if name in options and isinstance(whole.get(name), dict):
            options[name] = {**whole[name], **options[name]}
    return {**whole, **options}


def _command(wanted: Wanted) -> str | list[str] | None:
    if wanted.process is None:
        if wanted.command == (CLAUDE,):
            raise Failure("Claude Code is no plain command", USAGE, hint=f"write --process {CLAUDE}")
        return list(wanted.command) or None
    if wanted.process != CLAUDE:
        raise Failure(f"--process takes {CLAUDE} alone", USAGE, hint="write any other command after --, as: -- cat -u")
    if wanted.command:
        raise Failure(f"Give --process {CLAUDE} or a COMMAND, not both", USAGE)
    return CLAUDE


def _whole(given: str | None) -> dict[str, Any]:
    if given is None:
        return {}
    inline = given.lstrip().startswith("{")
    text = given if inline else sources.read(given, "process object", _MAX_JSON, secret=True)
    try:
        found = msgspec.json.decode(text, type=dict[str, Any])
    except (ValueError, RecursionError):
        raise Failure(
            "The process object is no JSON object", USAGE, hint='write such as {"command": "claude"}'
        ) from None
    if inline and found.get("oauthToken") is not None:
        hint = "put the object into a file, or use --oauth-token-file"
        raise Failure(
            "Every program on this machine can read an oauthToken that stands in an argument", USAGE, hint=hint
        )
    return found


def _prompt(given: str | None) -> str | None:
    if given is None or not given.startswith("@"):
        return given
    return sources.read(given[1:], "system prompt", MAX_PROMPT)


def _token(wanted: Wanted) -> str | None:
    if wanted.oauth_token_stdin and wanted.oauth_token_file is not None:
        raise Failure("Give --oauth-token-file or --oauth-token-stdin, not both", USAGE)
    source = sources.STDIN if wanted.oauth_token_stdin else wanted.oauth_token_file
    return None if source is None else sources.read_secret(source, "OAuth token", _MAX_TOKEN)


def _environment(wanted: Wanted) -> dict[str, str]:
    """Return the variables of the files, then those of the options, which win."""
    made: dict[str, str] = {}
    for file in wanted.env_file:
        text = sources.read(file, "environment", 2 * MAX_ENVIRONMENT, secret=True)
        made |= _variables(_lines(text, one_line(file)))
    return made | _variables((one, "--env") for one in wanted.env)


def _lines(text: str, file: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.removesuffix("\r").lstrip()
        if bare and not bare.startswith("#"):
            yield bare, f"line {number} of {file}"


def _variables(given: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return variables by name; what is none is not shown, for it may be a piece of a secret."""
    made = {}
    for one, where in given:
        name, equals, value = one.partition("=")
        if not _NAME.fullmatch(name):
            raise Failure(f"There is no variable in {where}", USAGE, hint="write NAME=VALUE, or NAME alone")
        if not equals and name not in os.environ:
            raise Failure(f"The variable in {where} is not set here", USAGE, hint="export it, or write NAME=VALUE")
        made[name] = value if equals else os.environ[name]
    return made

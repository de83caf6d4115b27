"""The configuration of a supervised process: what the owner may ask for, and what is wrong with it."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from daemon.domain.body import MAX_MODEL, NO_NUL, Body

MAX_PROMPT = 100_000
"""Bytes of a system prompt."""
MAX_ENVIRONMENT = 65_536
"""Bytes of names and values: the system bounds arguments and environment together (execve(2))."""
MAX_ARGUMENT = 65_536
MAX_ARGUMENTS = 200
MIN_MEMORY = 16 << 20
"""Bytes: less than this no program starts with."""
CLAUDE = "claude"

OF_SHELLS = frozenset(
    {
        *("PWD", "OLDPWD", "SHLVL", "_", "BASH_ENV", "BASHOPTS", "CDPATH", "ENV", "EUID", "IFS", "LINENO", "OPTIND"),
        *("PPID", "PS1", "PS2", "PS4", "RANDOM", "SECONDS", "SHELLOPTS", "UID"),
    }
)
"""Variables that the shells between the daemon and a command set or obey themselves."""

_REFUSED = ("LD_", "DYLD_", "DAEMON_")
_END = r"(?![\s\S])"
"""The end of the text, for Python and ECMA alike: Python's `$` matches before a last line end too."""

Argument = Annotated[str, Meta(max_length=MAX_ARGUMENT, pattern=NO_NUL)]
Command = Literal["claude"] | Annotated[list[Argument], Meta(min_length=1, max_length=MAX_ARGUMENTS)]
Directory = Annotated[str, Meta(min_length=2, max_length=4096, pattern=r"^/[^\x00]*$", description="Absolute.")]
Prompt = Annotated[str, Meta(min_length=1, max_length=MAX_PROMPT, pattern=NO_NUL)]
Tool = Annotated[str, Meta(min_length=1, max_length=200, pattern=rf"^[^\x00-\x1f\x7f,-][^\x00-\x1f\x7f]*{_END}")]
Variable = Annotated[str, Meta(pattern=rf"^[A-Za-z_][A-Za-z0-9_]*{_END}", min_length=1, max_length=200)]
Value = Annotated[str, Meta(max_length=32_768, pattern=NO_NUL)]
Secret = Annotated[str, Meta(min_length=1, max_length=4096, pattern=f"^[!-~]+{_END}")]
ModelName = Annotated[
    str, Meta(min_length=1, max_length=MAX_MODEL, pattern=rf"^[^-\x00-\x1f\x7f][^\x00-\x1f\x7f]*{_END}")
]

MaxTurns = Annotated[int, Meta(ge=1, le=1000)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Tools = Annotated[list[Tool], Meta(max_length=100)]
ToolTimeout = Annotated[int, Meta(ge=0, le=300)]
Environment = Annotated[dict[Variable, Value], Meta(max_length=200)]
Bytes = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Cores = Annotated[float, Meta(ge=0, le=4096)]
Duration = Annotated[int, Meta(ge=0, le=86_400)]
Idleness = Annotated[int, Meta(ge=0, le=604_800)]
Milliseconds = Annotated[int, Meta(ge=50, le=60_000)]
Cost = Annotated[float, Meta(gt=0, le=1_000_000)]
Tokens = Annotated[int, Meta(ge=1, le=2**53 - 1)]
Restart = Literal["never", "on-failure"]


class Budget(Body, frozen=True):
    """What a session may use up; None: no bound."""

    max_cost_usd: Cost | None = None
    max_tokens: Tokens | None = None


class ProcessConfig(Body, frozen=True):
    """What the daemon shall run for a session. Absent or null is the default.

    Args:
        command: `claude`, or the arguments of any command that reads and writes lines.
        working_dir: absolute; inside one of `processes.workspace_roots`.
        system_prompt: appended to the command's own.
        max_turns: of the command's own turns with the model, within one of the session's.
        temperature: for commands that take one.
        allowed_tools: names or patterns.
        tool_timeout: seconds that a tool may take until the turn is interrupted; 0: no bound.
        environment: more variables for the command; sealed at rest.
        oauth_token: reaches the command as `CLAUDE_CODE_OAUTH_TOKEN`; sealed at rest.
        model: for commands that take one.
        max_memory: bytes of the whole tree; 0: no bound.
        max_cpu: cores that the whole tree may keep busy; 0: no bound.
        max_duration: seconds of a run; 0: no bound but the session's own.
        idle_timeout: seconds without a turn until it is suspended; 0: never.
        quiet_after: milliseconds without output after which a turn of any command but `claude` is over.
        budget: what the session may use up.
        restart: whether it is started again after a failure.
    """

    command: Command
    working_dir: Directory
    system_prompt: Prompt | None = None
    max_turns: MaxTurns | None = None
    temperature: Temperature | None = None
    allowed_tools: Tools | None = None
    tool_timeout: ToolTimeout | None = None
    environment: Environment | None = None
    oauth_token: Secret | None = None
    model: ModelName | None = None
    max_memory: Bytes | None = None
    max_cpu: Cores | None = None
    max_duration: Duration | None = None
    idle_timeout: Idleness | None = None
    quiet_after: Milliseconds | None = None
    budget: Budget | None = None
    restart: Restart | None = None

    def __repr__(self) -> str:
        return "ProcessConfig(***)"

    def problems(self) -> list[tuple[str, str]]:
        """Return what the types cannot say."""
        return _problems(self)


class PatchBudget(Body, frozen=True):
    """Changes to a budget; null: no bound."""

    max_cost_usd: Cost | UnsetType | None = UNSET
    max_tokens: Tokens | UnsetType | None = UNSET


class PatchProcess(Body, frozen=True):
    """Changes to a process's configuration, field by field; null is the default."""

    command: Command | UnsetType = UNSET
    working_dir: Directory | UnsetType = UNSET
    system_prompt: Prompt | UnsetType | None = UNSET
    max_turns: MaxTurns | UnsetType | None = UNSET
    temperature: Temperature | UnsetType | None = UNSET
    allowed_tools: Tools | UnsetType | None = UNSET
    tool_timeout: ToolTimeout | UnsetType | None = UNSET
    environment: Environment | UnsetType | None = UNSET
    oauth_token: Secret | UnsetType | None = UNSET
    model: ModelName | UnsetType | None = UNSET
    max_memory: Bytes | UnsetType | None = UNSET
    max_cpu: Cores | UnsetType | None = UNSET
    max_duration: Duration | UnsetType | None = UNSET
    idle_timeout: Idleness | UnsetType | None = UNSET
    quiet_after: Milliseconds | UnsetType | None = UNSET
    budget: PatchBudget | UnsetType | None = UNSET
    restart: Restart | UnsetType | None = UNSET

    def __repr__(self) -> str:
        return "PatchProcess(***)"

    def applied_to(self, config: ProcessConfig) -> ProcessConfig:
        """Return the configuration with these changes."""
        changes = _sent(self)
        if isinstance(self.budget, PatchBudget):
            changes["budget"] = msgspec.structs.replace(config.budget or Budget(), **_sent(self.budget))
        return msgspec.structs.replace(config, **changes)


def _sent(patch: Body) -> dict[str, Any]:
    fields = {name: getattr(patch, name) for name in patch.__struct_fields__}
    return {name: value for name, value in fields.items() if value is not UNSET}


def _problems(config: ProcessConfig) -> list[tuple[str, str]]:
    found = [*_bounds(config), *_environment(config)]
    if config.system_prompt is not None and len(config.system_prompt.encode()) > MAX_PROMPT:
        found.append(("systemPrompt", f"must not be larger than {MAX_PROMPT} bytes"))
    if isinstance(config.command, list) and not config.command[0].strip():
        found.append(("command.0", "must name a program"))
    known = SUPPORTED[adapter_of(config)]
    for field in msgspec.structs.fields(ProcessConfig):
        if field.name in _OF_ADAPTERS and field.name not in known and getattr(config, field.name) is not None:
            found.append((field.encode_name, f"the {adapter_of(config)} adapter has none"))
    return found


def _bounds(config: ProcessConfig) -> list[tuple[str, str]]:
    found = []
    if config.max_memory and config.max_memory < MIN_MEMORY:
        found.append(("maxMemory", f"must be 0, or at least {MIN_MEMORY} bytes"))
    if config.max_cpu and config.max_cpu < 0.05:
        found.append(("maxCpu", "must be 0, or at least 0.05 cores"))
    for name, value in (("maxDuration", config.max_duration), ("idleTimeout", config.idle_timeout)):
        if value and value < 60:
            found.append((name, "must be 0, or at least 60 seconds"))
    return found


def _environment(config: ProcessConfig) -> list[tuple[str, str]]:
    variables = config.environment or {}
    found = [
        (f"environment.{name}", "is not for the owner to set")
        for name in variables
        if name == "PATH" or name in OF_SHELLS or name.startswith(_REFUSED)
    ]
    if sum(len(name.encode()) + len(value.encode()) for name, value in variables.items()) > MAX_ENVIRONMENT:
        found.append(("environment", f"must not be larger than {MAX_ENVIRONMENT} bytes"))
    return found


Adapter = Literal["claude", "generic"]

_OF_ADAPTERS = frozenset(
    {"system_prompt", "max_turns", "temperature", "allowed_tools", "tool_timeout", "model", "budget", "quiet_after"}
)
SUPPORTED: dict[Adapter, frozenset[str]] = {
    "claude": frozenset({"system_prompt", "max_turns", "allowed_tools", "tool_timeout", "model", "budget"}),
    "generic": frozenset({"quiet_after"}),
}
"""What each adapter can do of what not every command can: asking for the rest is an error, not silently ignored."""


def adapter_of(config: ProcessConfig) -> Adapter:
    """Return which adapter speaks with the command."""
    return "claude" if config.command == CLAUDE else "generic"


class Secrets(msgspec.Struct, frozen=True):
    """What is sealed of a configuration."""

    environment: dict[str, str] = {}
    oauth_token: str | None = None

    def __repr__(self) -> str:
        return "Secrets(***)"


def split(config: ProcessConfig) -> tuple[str, Secrets | None]:
    """Return a configuration as it is stored, and its secrets, if it has any."""
    secrets = Secrets(config.environment or {}, config.oauth_token)
    public = msgspec.structs.replace(config, environment=None, oauth_token=None)
    told = {name: value for name, value in msgspec.to_builtins(public).items() if value is not None}
    return msgspec.json.encode(told).decode(), secrets if secrets != Secrets() else None


def join(text: str, secrets: Secrets | None) -> ProcessConfig:
    """Return a configuration as the owner sent it."""
    config = read(text)
    if secrets is None:
        return config
    return msgspec.structs.replace(config, environment=secrets.environment or None, oauth_token=secrets.oauth_token)


_decode = msgspec.json.Decoder(ProcessConfig).decode


def read(text: str) -> ProcessConfig:
    """Return a stored configuration, without its secrets."""
    return _decode(text)


_OF_THE_DAEMON = frozenset(
    {"tool_timeout", "max_memory", "max_cpu", "max_duration", "idle_timeout", "quiet_after", "restart", "budget"}
)
"""What the daemon minds itself, without telling the command."""


def must_restart(before: ProcessConfig, after: ProcessConfig) -> bool:
    """Return whether a process must begin again to obey a new configuration."""
    told = [name for name in ProcessConfig.__struct_fields__ if name not in _OF_THE_DAEMON]
    costs = [config.budget and config.budget.max_cost_usd for config in (before, after)]
    return costs[0] != costs[1] or any(getattr(before, name) != getattr(after, name) for name in told)

"""The settings: every key once, with its type, range, meaning and default.

`config.py` makes everything else from these structs: validation, `config.example.toml` and the README's table.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from daemon import addresses


def _rule(
    meaning: str, allowed: str, test: Callable[[Any], bool], shown: Callable[[Any], Any] = lambda value: value
) -> Meta:
    return Meta(description=meaning, extra={"allowed": allowed, "test": test, "shown": shown})


class Server(Struct, frozen=True):
    """Where the daemon listens and how much it takes."""

    host: Annotated[
        str,
        _rule(
            "Address of the TCP listener.",
            "a loopback address (127.0.0.0/8, ::1, localhost), or any address if server.allow_remote is true",
            addresses.is_host,
        ),
    ] = "127.0.0.1"
    allow_remote: Annotated[bool, Meta(description="Whether server.host may be reachable from other machines.")] = False
    port: Annotated[
        int,
        _rule(
            "TCP port; 0 picks a free one.",
            "0 or a whole number 1024-65535",
            lambda port: port == 0 or 1024 <= port <= 65535,
        ),
    ] = 3100
    unix_socket: Annotated[bool, Meta(description="Whether to listen on `daemon.sock` in the home too.")] = True
    allowed_hosts: Annotated[
        tuple[str, ...],
        _rule(
            "Further names accepted in the Host header; an entry without port matches any port.",
            "a list of HOST or HOST:PORT",
            lambda hosts: all(map(addresses.is_named, hosts)),
        ),
    ] = ()
    public_url: Annotated[
        str,
        _rule(
            "Address under which clients reach the daemon, if another; its host is accepted in the Host header.",
            "empty or http(s)://HOST[:PORT]",
            addresses.is_origin,
        ),
    ] = ""
    metrics: Annotated[bool, Meta(description="Whether `GET /metrics` answers, for Prometheus.")] = False
    shutdown_timeout: Annotated[int, Meta(ge=5, le=300, description="Seconds a stop may take.")] = 30
    global_rpm: Annotated[
        int,
        Meta(ge=0, le=10_000_000, description="Requests a minute, all agents and verifiers together; 0 is no limit."),
    ] = 60_000
    session_rpm: Annotated[
        int,
        Meta(ge=0, le=10_000_000, description="Requests a minute for each session and each verifier; 0 is no limit."),
    ] = 6_000


class Security(Struct, frozen=True):
    """How long credentials live and what protects the master password."""

    session_ttl: Annotated[
        int, Meta(ge=300, le=604_800, description="Seconds a session lasts from creation or renewal.")
    ] = 86_400
    session_absolute_lifetime: Annotated[
        int, Meta(ge=86_400, le=7_776_000, description="Seconds after which no renewal helps; fixed at creation.")
    ] = 2_592_000
    max_sessions_per_agent: Annotated[int, Meta(ge=1, le=1000, description="Active sessions an agent may have.")] = 5
    default_max_renewals: Annotated[
        int, Meta(ge=0, le=100, description="Renewals of a session whose constraints name no number.")
    ] = 30
    default_renewal_reject_window: Annotated[
        int, Meta(ge=300, le=86_400, description="Seconds after a renewal in which revoking counts as rejecting it.")
    ] = 3_600
    renewal_retry_window: Annotated[
        int, Meta(ge=0, le=300, description="Seconds in which a repeated renewal gets the same answer.")
    ] = 30
    token_reuse_action: Annotated[
        Literal["revoke", "notify"],
        Meta(description="What happens to a session whose superseded token is used: revoke it, or only report it."),
    ] = "revoke"  # noqa: S105 (an action, not a password)
    idle_after: Annotated[
        int, Meta(ge=30, le=86_400, description="Seconds without a request until a session is idle.")
    ] = 300
    session_retention: Annotated[
        int, Meta(ge=3_600, le=31_536_000, description="Seconds that ended sessions are kept.")
    ] = 86_400
    master_lockout_attempts: Annotated[
        int, Meta(ge=3, le=1000, description="Wrong master passwords until the owner is locked out.")
    ] = 5
    master_lockout_seconds: Annotated[int, Meta(ge=30, le=86_400, description="Seconds a lockout lasts.")] = 1_800
    master_cache_ttl: Annotated[
        int, Meta(ge=0, le=3_600, description="Seconds a verified password is remembered; 0 is never.")
    ] = 300
    kill_switch_recovery_wait: Annotated[
        int,
        Meta(ge=0, le=86_400, description="Seconds between asking for recovery from the kill switch and getting it."),
    ] = 0
    auto_stop_threshold: Annotated[
        int,
        Meta(
            ge=0,
            le=100,
            description="Minutes of an hour with a security incident that suspend the agent; 0 is never.",
        ),
    ] = 5
    argon2_memory_kib: Annotated[
        int, Meta(ge=19_456, le=1_048_576, description="Memory of the password hash in KiB.")
    ] = 65_536
    argon2_time: Annotated[int, Meta(ge=1, le=10, description="Passes of the password hash.")] = 3
    argon2_parallelism: Annotated[int, Meta(ge=1, le=16, description="Lanes of the password hash.")] = 1


class Database(Struct, frozen=True):
    """Where rows live."""

    url: Annotated[
        str,
        _rule(
            "The database; empty is `daemon.db` in the home.",
            "empty, sqlite:///ABSOLUTE/PATH without ?, # and %, or postgresql://[USER[:PASSWORD]@][HOST][:PORT]/NAME "
            "with %XX for special characters",
            addresses.is_database,
            addresses.masked,
        ),
    ] = ""
    synchronous: Annotated[
        Literal["full", "normal"],
        Meta(
            description="full: what was acknowledged survives a power cut, or a crash of the database's server; "
            "normal may lose the last of it."
        ),
    ] = "full"
    checkpoint_interval: Annotated[
        int, Meta(ge=10, le=3_600, description="Seconds between checkpoints of the write-ahead log.")
    ] = 300
    cache_sessions: Annotated[
        int, Meta(ge=100, le=1_000_000, description="Sessions held in memory, about 800 bytes each.")
    ] = 20_000

    @property
    def kind(self) -> Literal["sqlite", "postgresql"]:
        """The engine that `url` names."""
        return "postgresql" if self.url.startswith("postgres") else "sqlite"

    @property
    def path(self) -> Path | None:
        """The absolute path of the file that `url` names; None for the home's own and where there is no file."""
        return addresses.sqlite_path(self.url)


class Conversations(Struct, frozen=True):
    """Where conversations live, and how long."""

    url: Annotated[
        str,
        _rule(
            "Where conversations are shared by proxies on many hosts; empty is the database.",
            "empty, redis://[USER[:PASSWORD]@]HOST[:PORT][/NUMBER][?OPTIONS], or the same with rediss:// for TLS",
            addresses.is_redis,
            addresses.masked,
        ),
    ] = ""
    conversation_ttl: Annotated[
        int, Meta(ge=60, le=604_800, description="Seconds without a bind or touch after which a conversation is over.")
    ] = 86_400
    key_prefix: Annotated[
        str,
        _rule(
            "What the keys of conversations begin with in Redis.",
            "1 to 100 printable ASCII characters without blanks",
            lambda text: re.fullmatch(r"[!-~]{1,100}", text) is not None,
        ),
    ] = "sentinel:session:"


class Notifications(Struct, frozen=True):
    """How the owner is told."""

    enabled: Annotated[bool, Meta(description="Whether messages are sent at all.")] = True
    min_channels: Annotated[int, Meta(ge=0, le=10, description="Enabled channels that must remain.")] = 0
    locale: Annotated[Literal["en", "ko"], Meta(description="Language of the messages.")] = "en"
    dedup_ttl: Annotated[
        int, Meta(ge=0, le=86_400, description="Seconds in which an equal message is not sent again.")
    ] = 300
    retention_days: Annotated[int, Meta(ge=1, le=3_650, description="Days that the delivery log is kept.")] = 30
    daily_summary: Annotated[
        str,
        _rule(
            "Local time of the daily summary; empty is none.",
            "empty or HH:MM",
            lambda text: not text or re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", text) is not None,
        ),
    ] = ""


class Processes(Struct, frozen=True):
    """What the daemon runs for sessions."""

    enabled: Annotated[bool, Meta(description="Whether sessions may have a process.")] = True
    workspace_roots: Annotated[
        tuple[str, ...],
        _rule(
            "Directories inside of which processes may be started; none: nothing may start.",
            "a list of absolute paths",
            lambda roots: all(root.startswith("/") and root.isprintable() for root in roots),
        ),
    ] = ()
    max_processes: Annotated[int, Meta(ge=1, le=1000, description="Processes that may run at the same time.")] = 10
    max_per_agent: Annotated[int, Meta(ge=1, le=1000, description="Processes of one agent, likewise.")] = 5
    default_idle_timeout: Annotated[
        int,
        Meta(ge=0, le=604_800, description="Seconds without a turn after which a session is suspended; 0 is never."),
    ] = 1_800
    default_max_duration: Annotated[
        int, Meta(ge=0, le=86_400, description="Seconds that a process may run; 0 is no limit but the session's.")
    ] = 14_400
    output_max_mb: Annotated[
        int, Meta(ge=1, le=65_536, description="MiB (1048576 bytes) of output kept for each session and stream.")
    ] = 256
    shutdown_processes: Annotated[
        Literal["keep", "kill"], Meta(description="What becomes of processes when the daemon stops.")
    ] = "keep"


class LogSettings(Struct, frozen=True):
    """What the structured log says and how it is kept."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least level that is written.")
    ] = "info"
    format: Annotated[
        Literal["json", "console"], Meta(description="Format of the lines on stdout; the file is always JSON.")
    ] = "json"
    file: Annotated[
        str,
        _rule(
            "The log file; a relative path starts at the home.",
            "a path that ends in .log",
            # The suffix is what keeps the log out of the home's other files.
            lambda path: path.isprintable() and path.endswith(".log"),
        ),
    ] = "logs/daemon.log"
    max_size_mb: Annotated[
        int, Meta(ge=1, le=1_024, description="Size in MiB (1048576 bytes) at which the log is rotated.")
    ] = 50
    max_files: Annotated[int, Meta(ge=1, le=100, description="Rotated files that are kept.")] = 5


class Config(Struct, frozen=True):
    """Every setting."""

    server: Server = Server()
    security: Security = Security()
    database: Database = Database()
    conversations: Conversations = Conversations()
    notifications: Notifications = Notifications()
    processes: Processes = Processes()
    log: LogSettings = LogSettings()


class Key(Struct, frozen=True):
    """One key: its dotted name, and what its annotation says."""

    name: str
    type: Any
    default: Any

    @property
    def section(self) -> str:
        """The part before the dot."""
        return self.name.partition(".")[0]

    @property
    def bare(self) -> str:
        """The name within its section."""
        return self.name.partition(".")[2]

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"DAEMON_{self.section}_{self.bare}".upper()

    @property
    def base(self) -> Any:
        """The type without its bounds."""
        return get_args(self.type)[0]

    @property
    def meta(self) -> Meta:
        """Bounds and meaning."""
        found: Meta = get_args(self.type)[1]
        return found

    @property
    def choices(self) -> tuple[str, ...]:
        """The words it may be; empty unless it is a choice."""
        return get_args(self.base) if get_origin(self.base) is Literal else ()

    @property
    def allowed(self) -> str:
        """What the value must be, in words."""
        if self.meta.extra:
            return str(self.meta.extra["allowed"])
        if self.choices:
            return " or ".join(f'"{choice}"' for choice in self.choices)
        return "true or false" if self.base is bool else f"a whole number {self.meta.ge}-{self.meta.le}"

    def accepts(self, value: Any) -> bool:
        """Return whether a value of the right type and bounds passes what bounds cannot say."""
        return self.meta.extra is None or bool(self.meta.extra["test"](value))

    def shown(self, value: Any) -> Any:
        """Return a value as anybody may see it: without its secrets."""
        return self.meta.extra["shown"](value) if self.meta.extra else value

    def literal(self) -> str:
        """Return the default as TOML spells it, which for our types is how JSON does."""
        return msgspec.json.encode(self.default).decode()


SECTIONS: dict[str, Any] = {field.name: field.type for field in msgspec.structs.fields(Config)}
KEYS: dict[str, Key] = {
    f"{section}.{field.name}": Key(f"{section}.{field.name}", field.type, field.default)
    for section, struct in SECTIONS.items()
    for field in msgspec.structs.fields(struct)
}
"""Every key by its dotted name, in the order of the structs."""

"""The configuration: precedence, strictness, and the texts that are made from it."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, get_origin

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.config import (
    RELOADABLE,
    Config,
    ConfigError,
    Database,
    LogSettings,
    Server,
    changed,
    example,
    flat,
    load,
    shown,
    table,
)
from daemon.settings import KEYS, SECTIONS, Key
from tests.support.daemon_process import cli

ROOT = Path(__file__).parent.parent
RANGES = {
    "server.shutdown_timeout": (5, 300),
    "server.global_rpm": (0, 10_000_000),
    "server.session_rpm": (0, 10_000_000),
    "security.session_ttl": (300, 604_800),
    "security.session_absolute_lifetime": (86_400, 7_776_000),
    "security.max_sessions_per_agent": (1, 1000),
    "security.default_max_renewals": (0, 100),
    "security.default_renewal_reject_window": (300, 86_400),
    "security.renewal_retry_window": (0, 300),
    "security.idle_after": (30, 86_400),
    "security.session_retention": (3_600, 31_536_000),
    "security.master_lockout_attempts": (3, 1000),
    "security.master_lockout_seconds": (30, 86_400),
    "security.master_cache_ttl": (0, 3_600),
    "security.argon2_memory_kib": (19_456, 1_048_576),
    "security.argon2_time": (1, 10),
    "security.argon2_parallelism": (1, 16),
    "security.kill_switch_recovery_wait": (0, 86_400),
    "security.auto_stop_threshold": (0, 100),
    "database.checkpoint_interval": (10, 3_600),
    "database.cache_sessions": (100, 1_000_000),
    "conversations.conversation_ttl": (60, 604_800),
    "notifications.min_channels": (0, 10),
    "notifications.dedup_ttl": (0, 86_400),
    "notifications.retention_days": (1, 3_650),
    "processes.max_processes": (1, 1_000),
    "processes.max_per_agent": (1, 1_000),
    "processes.default_idle_timeout": (0, 604_800),
    "processes.default_max_duration": (0, 86_400),
    "processes.output_max_mb": (1, 65_536),
    "log.max_size_mb": (1, 1_024),
    "log.max_files": (1, 100),
}
DEFAULTS = {
    "server.host": "127.0.0.1",
    "server.allow_remote": False,
    "server.port": 3100,
    "server.unix_socket": True,
    "server.allowed_hosts": (),
    "server.public_url": "",
    "server.metrics": False,
    "server.shutdown_timeout": 30,
    "server.global_rpm": 60_000,
    "server.session_rpm": 6_000,
    "security.session_ttl": 86_400,
    "security.session_absolute_lifetime": 2_592_000,
    "security.max_sessions_per_agent": 5,
    "security.default_max_renewals": 30,
    "security.default_renewal_reject_window": 3_600,
    "security.renewal_retry_window": 30,
    "security.token_reuse_action": "revoke",
    "security.idle_after": 300,
    "security.session_retention": 86_400,
    "security.master_lockout_attempts": 5,
    "security.master_lockout_seconds": 1_800,
    "security.master_cache_ttl": 300,
    "security.kill_switch_recovery_wait": 0,
    "security.auto_stop_threshold": 5,
    "security.argon2_memory_kib": 65_536,
    "security.argon2_time": 3,
    "security.argon2_parallelism": 1,
    "database.url": "",
    "database.synchronous": "full",
    "database.checkpoint_interval": 300,
    "database.cache_sessions": 20_000,
    "conversations.url": "",
    "conversations.conversation_ttl": 86_400,
    "conversations.key_prefix": "sentinel:session:",
    "notifications.enabled": True,
    "notifications.min_channels": 0,
    "notifications.locale": "en",
    "notifications.dedup_ttl": 300,
    "notifications.retention_days": 30,
    "notifications.daily_summary": "",
    "processes.enabled": True,
    "processes.workspace_roots": (),
    "processes.max_processes": 10,
    "processes.max_per_agent": 5,
    "processes.default_idle_timeout": 1_800,
    "processes.default_max_duration": 14_400,
    "processes.output_max_mb": 256,
    "processes.shutdown_processes": "keep",
    "log.level": "info",
    "log.format": "json",
    "log.file": "logs/daemon.log",
    "log.max_size_mb": 50,
    "log.max_files": 5,
}


def read(home: Path, text: str = "", environ: dict[str, str] | None = None, **flags: object) -> dict[str, Any]:
    """Load with a config.toml of `text`; flags are dotted keys with __ for the dot."""
    (home / "config.toml").write_text(text)
    dotted = {name.replace("__", "."): value for name, value in flags.items()}
    return flat(load(home, environ or {}, dotted).config)


def problems(home: Path, text: str = "", environ: dict[str, str] | None = None, **flags: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(home, text, environ, **flags)
    return caught.value.problems


def only_problem(home: Path, text: str = "", environ: dict[str, str] | None = None, **flags: object) -> str:
    found = problems(home, text, environ, **flags)
    assert len(found) == 1, found
    assert "\n" not in found[0]
    return found[0]


def outcome(
    home: Path, text: str | None = None, environ: dict[str, str] | None = None
) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the values, or None and the problems."""
    if text is not None:
        (home / "config.toml").write_text(text)
    try:
        return flat(load(home, environ or {}, {}).config), []
    except ConfigError as error:
        return None, error.problems


def toml(values: dict[str, Any]) -> str:
    lines = []
    for section in SECTIONS:
        lines.append(f"[{section}]")
        lines += [
            f"{KEYS[name].bare} = {msgspec.json.encode(value).decode()}"
            for name, value in values.items()
            if KEYS[name].section == section
        ]
    return "\n".join(lines)


def as_variable(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def test_the_keys_and_their_defaults_are_the_documented_ones(tmp_path: Path) -> None:
    loaded = load(tmp_path, {}, {})
    assert flat(loaded.config) == DEFAULTS
    assert loaded.config == Config()
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.origins.keys() == DEFAULTS.keys()


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("source", ["file", "environment"])
def test_a_number_is_accepted_up_to_its_bounds_and_refused_beyond(tmp_path: Path, name: str, source: str) -> None:
    low, high = RANGES[name]
    key = KEYS[name]
    # The two security keys that bound each other get room, so that only the range is at work.
    room = {"security.session_ttl": 300, "security.session_absolute_lifetime": 7_776_000}

    def attempt(value: int) -> dict[str, Any]:
        values = {other: bound for other, bound in room.items() if other != name}
        if source == "file":
            return read(tmp_path, toml({**values, name: value}))
        return read(tmp_path, toml(values), {key.variable: str(value)})

    assert attempt(low)[name] == low
    assert attempt(high)[name] == high
    for beyond in (low - 1, high + 1):
        with pytest.raises(ConfigError) as caught:
            attempt(beyond)
        origin = str(tmp_path / "config.toml") if source == "file" else key.variable
        assert caught.value.problems == [f"{origin}: {name} must be a whole number {low}-{high}, not {beyond}"]


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    text = "[server]\nport = 4001\nsession_rpm = 7\nglobal_rpm = 8\n"
    (tmp_path / "config.toml").write_text(text)
    environ = {"DAEMON_SERVER_PORT": "4002", "DAEMON_SERVER_SESSION_RPM": "9"}
    loaded = load(tmp_path, environ, {"server.port": 4003, "log.level": None})
    assert loaded.config.server.port == 4003
    assert loaded.origins["server.port"] == "--port"
    assert loaded.config.server.session_rpm == 9
    assert loaded.origins["server.session_rpm"] == "DAEMON_SERVER_SESSION_RPM"
    assert loaded.config.server.global_rpm == 8
    assert loaded.origins["server.global_rpm"] == str(tmp_path / "config.toml")
    assert loaded.config.log.level == "info"
    assert loaded.origins["log.level"] == "default"


def test_only_variables_of_a_section_are_configuration(tmp_path: Path) -> None:
    others = {
        "DAEMON_HOME": "/x",
        "DAEMON_MASTER_PASSWORD": "port",
        "DAEMON_URL": "http://127.0.0.1:1",
        "DAEMON_OWNER_TICKET": "t",
        "DAEMON_SESSION_TOKEN": "t",
        "DAEMON_SESSION_ID": "i",
        "DAEMON_SERVERS_PORT": "80",
        "SERVER_PORT": "80",
        "XDAEMON_SERVER_PORT": "80",
        "daemon_server_port": "80",
        "DAEMON_server_PORT": "80",
        "DAEMON": "1",
    }
    assert read(tmp_path, environ=others) == DEFAULTS


def test_lists_are_json_arrays_and_booleans_true_or_false_in_the_environment(tmp_path: Path) -> None:
    environ = {"DAEMON_SERVER_ALLOWED_HOSTS": '["box.lan", "[::1]:8080"]', "DAEMON_SERVER_UNIX_SOCKET": "false"}
    values = read(tmp_path, environ=environ)
    assert values["server.allowed_hosts"] == ("box.lan", "[::1]:8080")
    assert values["server.unix_socket"] is False
    refused = {"DAEMON_SERVER_ALLOWED_HOSTS": "box.lan", "DAEMON_SERVER_UNIX_SOCKET": "yes"}
    assert problems(tmp_path, environ=refused) == [
        "DAEMON_SERVER_ALLOWED_HOSTS: server.allowed_hosts must be a list of HOST or HOST:PORT, "
        'as a JSON array such as ["a", "b"]',
        "DAEMON_SERVER_UNIX_SOCKET: server.unix_socket must be true or false, not text",
    ]


@pytest.mark.parametrize("text", ["", " 1", "1 ", "1_000", "0x10", "1e3", "10.0", "٣", "9" * 5000, "--1", "true"])
def test_a_number_in_the_environment_is_plain_decimal(tmp_path: Path, text: str) -> None:
    assert "server.global_rpm must be a whole number" in only_problem(
        tmp_path, environ={"DAEMON_SERVER_GLOBAL_RPM": text}
    )


@pytest.mark.parametrize("value", ["true", "300.0", '"300"', "[300]", "2024-01-01", "{a = 1}", "0x" + "f" * 6000])
def test_a_number_in_the_file_is_not_converted_from_another_type(tmp_path: Path, value: str) -> None:
    found = only_problem(tmp_path, f"[security]\nsession_ttl = {value}")
    assert found.startswith(f"{tmp_path}/config.toml: security.session_ttl must be a whole number 300-604800")


def test_all_problems_of_all_sources_are_listed_at_once(tmp_path: Path) -> None:
    text = '[server]\nport = 80\nprot = 1\nunix_socket = "no"\n[log]\nlevel = "warn"\n[lgo]\nlevel = "info"\n'
    environ = {"DAEMON_SECURITY_IDLE_AFTR": "30", "DAEMON_DATABASE_SYNCHRONOUS": "off"}
    file = tmp_path / "config.toml"
    assert problems(tmp_path, text, environ, server__port=1, log__level="loud") == [
        f"{file}: server.port must be 0 or a whole number 1024-65535, not 80",
        f"{file}: server.prot is not a known key; did you mean server.port?",
        f"{file}: server.unix_socket must be true or false, not text",
        f'{file}: log.level must be "debug" or "info" or "warning" or "error"; did you mean "warning"?',
        f"{file}: lgo is not a section; did you mean [log]?",
        'DAEMON_DATABASE_SYNCHRONOUS: database.synchronous must be "full" or "normal"',
        "DAEMON_SECURITY_IDLE_AFTR is not a known variable; did you mean DAEMON_SECURITY_IDLE_AFTER?",
        "--port: server.port must be 0 or a whole number 1024-65535, not 1",
        '--log-level: log.level must be "debug" or "info" or "warning" or "error"',
    ]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[server]\nsession_ttl = 400", "did you mean security.session_ttl?"),
        ("port = 3100", "did you mean server.port?"),
        ("[server]\nzzz = 1", "known are host, allow_remote, port,"),
        ("[qqq]\nx = 1", "known are server, security, database, conversations, notifications, processes, log"),
        ("server = 3", "server must be a section: write [server]"),
        ("[[server]]\nport = 3100", "server must be a section: write [server]"),
        ("[server]\nmetric = true", "did you mean server.metrics?"),
        ("[agents]\nenabled = true", "agents is not a section"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_known_one(tmp_path: Path, text: str, hint: str) -> None:
    assert hint in only_problem(tmp_path, text)


def test_a_variable_of_a_section_without_a_key_is_unknown(tmp_path: Path) -> None:
    assert only_problem(tmp_path, environ={"DAEMON_LOG": "x"}).startswith("DAEMON_LOG is not a known variable; known")


def test_an_unprintable_name_cannot_forge_the_message(tmp_path: Path) -> None:
    assert "\x1b" not in only_problem(tmp_path, '[server]\n"a\\u001b[31m\\nport" = 1')


def test_a_value_in_the_file_is_checked_even_where_the_environment_replaces_it(tmp_path: Path) -> None:
    assert "not 80" in only_problem(tmp_path, "[server]\nport = 80", {"DAEMON_SERVER_PORT": "3200"})


@pytest.mark.parametrize(
    "content",
    [b"[server\n", b"port = \n", b"a = 1\na = 2\n", b"\xff\xfe", b"x = " + b"[" * 3000, b"x = " + b"9" * 5000, b"\0"],
)
def test_a_file_that_is_not_toml_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {}, {})
    (line,) = caught.value.problems
    assert line.startswith(f"{tmp_path}/config.toml: is not ")
    assert "\n" not in line
    assert len(line) < 300 + len(str(tmp_path))


def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(ConfigError, match=r"config\.toml: cannot be read: Is a directory"):
        load(tmp_path, {}, {})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_a_loopback_host_needs_no_permission(tmp_path: Path, host: str) -> None:
    assert read(tmp_path, toml({"server.host": host}))["server.host"] == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "box.lan", "127.1", "2130706433", "localhost.evil"])
def test_a_host_that_others_reach_needs_allow_remote(tmp_path: Path, host: str) -> None:
    assert "server.allow_remote" in only_problem(tmp_path, environ={"DAEMON_SERVER_HOST": host})
    assert read(tmp_path, toml({"server.host": host, "server.allow_remote": True}))["server.host"] == host


@pytest.mark.parametrize("host", ["", "*", "a b", "http://x", "127.0.0.1:80", "[::1]", "-x", "x\ny"])
def test_a_host_that_is_no_address_is_refused_even_with_allow_remote(tmp_path: Path, host: str) -> None:
    text = toml({"server.host": host, "server.allow_remote": True})
    assert "server.host must be" in only_problem(tmp_path, text)


@pytest.mark.parametrize(("port", "valid"), [(0, True), (1, False), (1023, False), (1024, True), (65535, True)])
def test_a_port_is_zero_or_unprivileged(tmp_path: Path, port: int, valid: bool) -> None:
    if valid:
        assert read(tmp_path, server__port=port)["server.port"] == port
    else:
        assert only_problem(tmp_path, server__port=port).startswith("--port: server.port must be 0 or")


@pytest.mark.parametrize("hosts", [["a b"], ["http://x"], [""], ["x:0"], ["x:"], ["*"], ["user@x"], [1], "x", ["x/y"]])
def test_an_allowed_host_is_a_host_with_or_without_port(tmp_path: Path, hosts: Any) -> None:
    assert "a list of HOST or HOST:PORT" in only_problem(tmp_path, toml({"server.allowed_hosts": hosts}))


@pytest.mark.parametrize("roots", [["code"], ["~/code"], [""], ["/a\nb"], ["/a\u2028"], [1], "/code", ["/ok", "./x"]])
def test_a_workspace_root_is_an_absolute_path(tmp_path: Path, roots: Any) -> None:
    assert "a list of absolute paths" in only_problem(tmp_path, toml({"processes.workspace_roots": roots}))


@pytest.mark.parametrize("url", ["https://box.lan", "http://box:8080/", "http://[::1]:80", ""])
def test_a_public_url_is_scheme_and_host(tmp_path: Path, url: str) -> None:
    assert read(tmp_path, toml({"server.public_url": url}))["server.public_url"] == url


@pytest.mark.parametrize(
    "url", ["box.lan", "ftp://x", "http://", "http://me:hunter2@box", "http://x/path", "http://x?q"]
)
def test_another_public_url_is_refused_without_repeating_it(tmp_path: Path, url: str) -> None:
    found = only_problem(tmp_path, toml({"server.public_url": url}))
    assert "http(s)://HOST[:PORT]" in found
    assert "hunter2" not in found


@pytest.mark.parametrize(
    ("url", "path"),
    [("", None), ("sqlite:///var/lib/d.db", "/var/lib/d.db"), ("sqlite:////var/lib/한글 d.db", "/var/lib/한글 d.db")],
)
def test_a_database_url_names_an_absolute_path(tmp_path: Path, url: str, path: str | None) -> None:
    read(tmp_path, toml({"database.url": url}))
    assert Database(url=url).path == (Path(path) if path else None)
    assert Database(url=url).kind == "sqlite"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:hunter2@db/x",
        "postgresql://me:hunter2@db",
        "postgresql://me:hunter2@db/",
        "postgresql://me:hunter2@db:99999/x",
        "postgresql://me:hunter2@db:port/x",
        "postgresql://me:hunter2@[::1/x",
        "postgresql://me:hunter2/@db/x",
        "postgresql://me:hunter2#@db/x",
        "postgresql://me:hunter2@db/x y",
        "postgresql://me:hunter2@db/x/y",
        "postgresql:x",
        "sqlite://d.db",
        "sqlite:///",
        "sqlite:////",
        "sqlite:///a/",
        "sqlite:///a?mode=ro",
        "sqlite:///a%20b",
        "/a.db",
        "sqlite:///a\u0000",
        "redis://",
    ],
)
def test_another_database_url_is_refused_without_repeating_it(tmp_path: Path, url: str) -> None:
    found = only_problem(tmp_path, toml({"database.url": url}))
    assert "database.url must be empty, sqlite:///ABSOLUTE/PATH" in found
    assert "or postgresql://[USER[:PASSWORD]@][HOST][:PORT]/NAME" in found
    assert "hunter2" not in found


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("postgresql://me:hunter2@db:5432/x", "postgresql://me:***@db:5432/x"),
        ("postgres://me:hunter2@[::1]/x?sslmode=require", "postgres://me:***@[::1]/x?sslmode=require"),
        ("postgresql://me:@@:hunter2@db/x", "postgresql://me:***@db/x"),
        ("postgresql://me@db/x", "postgresql://me@db/x"),
        ("postgresql:///x", "postgresql:///x"),
        ("postgresql:///x?host=/tmp&password=hunter2", "postgresql:///x?host=/tmp&password=***"),
        (
            "postgresql://db/x?p%61ssword=hunter2&sslpassword=hunter2",
            "postgresql://db/x?p%61ssword=***&sslpassword=***",
        ),
    ],
)
def test_a_postgresql_address_is_taken_and_shown_without_its_passwords(tmp_path: Path, url: str, seen: str) -> None:
    read(tmp_path, toml({"database.url": url}))
    loaded = load(tmp_path, {}, {})
    assert (loaded.config.database.kind, loaded.config.database.path) == ("postgresql", None)
    assert loaded.config.database.url == url
    assert shown(loaded.config)["database.url"] == seen
    assert shown(loaded.config) == {**flat(loaded.config), "database.url": seen}


def test_config_show_tells_no_password(tmp_path: Path) -> None:
    for arguments in ([], ["--json"]):
        ended = cli(tmp_path, "config", "show", *arguments, DAEMON_DATABASE_URL="postgresql://me:hunter2@db/x")
        assert ended.code == 0
        assert "postgresql://me:***@db/x" in ended.out
        assert "hunter2" not in ended.out + ended.err


@pytest.mark.parametrize("file", ["", "logs/", "daemon.db", "daemon.lock", "a\nb.log", ".log/"])
def test_a_log_file_cannot_take_the_place_of_another_file_of_the_home(tmp_path: Path, file: str) -> None:
    assert "log.file must be a path that ends in .log" in only_problem(tmp_path, toml({"log.file": file}))


def test_database_and_log_cannot_be_one_file(tmp_path: Path) -> None:
    text = toml({"log.file": "x/../same.log", "database.url": f"sqlite://{tmp_path}/same.log"})
    assert "must not name the same file" in only_problem(tmp_path, text)


def test_a_session_cannot_last_longer_than_its_absolute_lifetime(tmp_path: Path) -> None:
    found = only_problem(
        tmp_path, "[security]\nsession_ttl = 90000", {"DAEMON_SECURITY_SESSION_ABSOLUTE_LIFETIME": "86400"}
    )
    origins = f"{tmp_path}/config.toml, DAEMON_SECURITY_SESSION_ABSOLUTE_LIFETIME: "
    assert found.startswith(origins + "security.session_ttl must not exceed security.session_absolute_lifetime (86400)")


def test_a_refused_key_is_not_blamed_a_second_time_for_a_conflict(tmp_path: Path) -> None:
    found = only_problem(tmp_path, '[server]\nhost = "0.0.0.0"\nallow_remote = "yes"')
    assert "server.allow_remote must be true or false, not text" in found


def valid_value(key: Key) -> st.SearchStrategy[Any]:
    """Values that the key takes together with every other key's values."""
    fixed: dict[str, st.SearchStrategy[Any]] = {
        "server.host": st.sampled_from(["127.0.0.1", "::1", "localhost"]),
        "server.port": st.just(0) | st.integers(1024, 65535),
        "server.allowed_hosts": st.lists(st.from_regex(r"\A[a-z]{1,9}(:[1-9][0-9]{0,3})?\Z"), max_size=3).map(tuple),
        "server.public_url": st.from_regex(r"\A(https?://[a-z]{1,9})?\Z"),
        "security.session_ttl": st.integers(300, 86_400),
        "database.url": st.from_regex(r"\A(sqlite:///[a-z]{1,9}/d\.db|postgresql://[a-z]{1,9}/d)?\Z"),
        "conversations.url": st.from_regex(
            r"\A(rediss?://([a-z]{1,9}:[a-z]{1,9}@)?[a-z]{1,9}(:63[0-9]{2})?(/[0-9])?)?\Z"
        ),
        "conversations.key_prefix": st.from_regex(r"\A[a-z:]{1,30}\Z"),
        "notifications.daily_summary": st.from_regex(r"\A(|[01][0-9]:[0-5][0-9])\Z"),
        "processes.workspace_roots": st.lists(st.from_regex(r"\A/[a-z한글 ]{0,9}\Z"), max_size=3).map(tuple),
        "log.file": st.from_regex(r"\A[a-z]{1,9}/[a-z]{1,9}\.log\Z"),
    }
    if key.name in fixed:
        return fixed[key.name]
    if key.name in RANGES:
        return st.integers(*RANGES[key.name])
    return st.booleans() if key.base is bool else st.sampled_from(key.choices)


VALID = st.fixed_dictionaries({}, optional={name: valid_value(key) for name, key in KEYS.items()})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=VALID)
def test_every_valid_configuration_reads_back_the_same_from_file_and_environment(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    expected = {**DEFAULTS, **values}
    assert read(tmp_path, toml(values)) == expected
    assert (
        read(tmp_path, environ={KEYS[name].variable: as_variable(value) for name, value in values.items()}) == expected
    )


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(KEYS)), text=st.text(max_size=30).filter(lambda text: "\0" not in text))
def test_any_text_in_a_variable_is_a_valid_value_or_a_named_problem(tmp_path: Path, name: str, text: str) -> None:
    variable, base = KEYS[name].variable, KEYS[name].base
    values, refused = outcome(tmp_path, environ={variable: text})
    if values is None:
        assert len(refused) == 1
        assert refused[0].startswith(f"{variable}: {name} must be ") or "must not exceed" in refused[0]
    elif base is int:
        assert values[name] == int(text)
    elif get_origin(base) is tuple:
        assert values[name] == tuple(msgspec.json.decode(text))
    else:
        assert as_variable(values[name]) == text


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(KEYS)), value=ANYTHING)
def test_any_value_of_a_flag_or_file_is_taken_as_it_is_or_refused(tmp_path: Path, name: str, value: Any) -> None:
    values, refused = outcome(tmp_path, toml({name: value}))
    if values is None:
        assert all(line.startswith(f"{tmp_path}/config.toml: ") and "\n" not in line for line in refused)
    else:
        assert values[name] == (tuple(value) if isinstance(value, list) else value)
        assert type(values[name]) is type(DEFAULTS[name])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | st.text(alphabet='[]=".\n ab1{}#', max_size=60).map(str.encode))
def test_any_file_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.toml").write_bytes(content)
    values, refused = outcome(tmp_path)
    assert values == DEFAULTS or refused


def test_reload_applies_what_may_change_and_names_what_may_not() -> None:
    old = Config()
    new = Config(server=Server(port=4000, session_rpm=1), log=LogSettings(level="debug", file="x.log"))
    assert changed(old, new) == (["server.session_rpm", "log.level"], ["server.port", "log.file"])
    assert changed(old, old) == ([], [])
    assert KEYS.keys() >= RELOADABLE


def test_the_example_file_is_what_the_code_says() -> None:
    assert (ROOT / "config.example.toml").read_text() == example()


def test_the_example_changes_nothing_as_it_is_and_shows_every_default_when_uncommented(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(example())
    assert set(load(tmp_path, {}, {}).origins.values()) == {"default"}
    lines = [line[1:] if line.startswith("#") and line[1] != " " else line for line in example().splitlines()]
    uncommented = "\n".join(lines)
    assert read(tmp_path, uncommented) == DEFAULTS
    shown = {f"{section}.{bare}" for section, keys in tomllib.loads(uncommented).items() for bare in keys}
    assert shown == DEFAULTS.keys()


@pytest.mark.parametrize("name", sorted(KEYS))
def test_example_and_table_show_range_and_meaning_of_every_key(name: str) -> None:
    key = KEYS[name]
    assert key.meta.description
    assert f"# {key.meta.description} Allowed: {key.allowed}.\n#{key.bare} = {key.literal()}\n" in example()
    (row,) = [line for line in table().splitlines() if line.startswith(f"| `{name}` ")]
    assert row == f"| `{name}` | `{key.literal()}` | {key.allowed} | {key.meta.description} |"
    assert row.count("|") == 5
    if name in RANGES:
        assert f"{RANGES[name][0]}-{RANGES[name][1]}" in row


def test_reading_the_configuration_loads_nothing_but_the_standard_library_and_msgspec() -> None:
    code = "import sys; before = set(sys.modules); import daemon.config; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    packages = {name.partition(".")[0] for name in done.stdout.split()}
    assert packages - sys.stdlib_module_names <= {"daemon", "msgspec", "typing_extensions"}

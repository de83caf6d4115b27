"""The configuration: defaults < `config.toml` < environment < flags; nothing else reads it."""

import os.path
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_origin

import msgspec
from msgspec import Struct

from daemon import addresses
from daemon.settings import (
    KEYS,
    SECTIONS,
    Config,
    Conversations,
    Database,
    Key,
    LogSettings,
    Notifications,
    Security,
    Server,
)

__all__ = [
    "RELOADABLE",
    "Config",
    "ConfigError",
    "Conversations",
    "Database",
    "Loaded",
    "LogSettings",
    "Notifications",
    "Security",
    "Server",
    "changed",
    "example",
    "flat",
    "load",
    "shown",
    "table",
]


class Loaded(Struct, frozen=True):
    """The effective configuration.

    `origins` names for each dotted key where its value came from: `default`, the path of `config.toml`, a variable
    such as `DAEMON_SERVER_PORT`, or a flag such as `--port`.
    """

    config: Config
    origins: dict[str, str]


class ConfigError(Exception):
    """The configuration is not valid.

    Args:
        problems: every problem, one line each, naming file, variable or flag, the key, and what is allowed. Text
            that was set is never repeated, since it may hold a credential.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


SECRET_VARIABLES = ("DAEMON_MASTER_PASSWORD", "DAEMON_MASTER_PASSWORD_FILE", "DAEMON_OWNER_TICKET")
"""Variables that lead to the owner's credentials: never configuration, and no child process gets them."""

STORAGE_VARIABLES = (KEYS["database.url"].variable, KEYS["conversations.url"].variable)
"""Variables that may lead to the rows themselves: configuration, but not for the processes of agents."""

VERIFIER_VARIABLE = "DAEMON_VERIFIER_CREDENTIAL"
"""Where `daemon verifier add --output env` puts a credential: for another service, not for the processes of agents."""

_PLAIN_VARIABLES = {"SESSION_TTL_SECONDS": "conversations.conversation_ttl"}
"""Variables by which backends know a key; the key's own variable overrides them."""

_FLAGS = {"server.port": "--port", "log.level": "--log-level"}

RELOADABLE: frozenset[str] = frozenset(
    {"log.level", "log.format", "log.max_size_mb", "log.max_files", "server.global_rpm", "server.session_rpm"}
    | {name for name in KEYS if name.startswith("notifications.")}
)
"""The dotted keys that SIGHUP may change while the daemon runs."""


def load(home: Path, environ: Mapping[str, str], flags: Mapping[str, object]) -> Loaded:
    """Read the effective configuration.

    Args:
        home: the directory of `config.toml`, which may be missing.
        environ: the environment; `DAEMON_<SECTION>_<KEY>` and SESSION_TTL_SECONDS are configuration, all else is not.
        flags: values of the command line by dotted key (`server.port`, `log.level`); None is a flag not given.

    Raises:
        ConfigError: with every problem of every source.
    """
    reader = _Reader()
    reader.read_file(home / "config.toml")
    reader.read_environment(environ)
    reader.read_flags(flags)
    config = reader.config()
    reader.cross_check(_conflicts(config, home))
    if reader.problems:
        raise ConfigError(reader.problems)
    return Loaded(config, reader.origins)


class _Reader:
    """Collects values, where they came from, and what is wrong with them; a later source wins."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {name: key.default for name, key in KEYS.items()}
        self.origins = dict.fromkeys(KEYS, "default")
        self.problems: list[str] = []
        self._refused: set[str] = set()

    def read_file(self, path: Path) -> None:
        for section, table in _parse(path, self.problems).items():
            if section not in SECTIONS:
                self.problems.append(f"{path}: {_shown(section)} is not a section{_nearest(section[:80])}")
            elif not isinstance(table, dict):
                self.problems.append(f"{path}: {section} must be a section: write [{section}] and its keys below")
            else:
                self._read_section(str(path), section, table)

    def _read_section(self, origin: str, section: str, table: dict[str, Any]) -> None:
        for bare, value in table.items():
            if key := KEYS.get(f"{section}.{bare}"):
                self._take(key, value, origin)
            else:
                self.problems.append(
                    f"{origin}: {section}.{_shown(bare)} is not a known key{_nearest(bare[:80], section)}"
                )

    def read_environment(self, environ: Mapping[str, str]) -> None:
        for variable, name in _PLAIN_VARIABLES.items():
            if variable in environ:
                self._take(KEYS[name], _from_text(KEYS[name], environ[variable]), variable)
        known = {key.variable: key for key in KEYS.values()}
        for variable in sorted(environ):
            prefix, _, rest = variable.partition("_")
            section, _, bare = rest.partition("_")
            if prefix != "DAEMON" or section.lower() not in SECTIONS or not section.isupper():
                continue
            if key := known.get(variable):
                self._take(key, _from_text(key, environ[variable]), variable)
            else:
                hint = _nearest(bare[:80].lower(), section.lower(), variables=True)
                self.problems.append(f"{_shown(variable)} is not a known variable{hint}")

    def read_flags(self, flags: Mapping[str, object]) -> None:
        for name, value in flags.items():
            if value is not None:
                self._take(KEYS[name], value, _FLAGS[name])

    def _take(self, key: Key, value: object, origin: str) -> None:
        """Validate one value; it counts even when a later source replaces it, so that no mistake lies in wait."""
        try:
            checked = msgspec.convert(value, key.type)
            valid = key.accepts(checked)
        except msgspec.ValidationError:
            valid = False
        if valid:
            self.values[key.name], self.origins[key.name] = checked, origin
        else:
            self._refused.add(key.name)
            self.problems.append(f"{origin}: {key.name} must be {key.allowed}{_instead(key, value, origin)}")

    def config(self) -> Config:
        """Build the configuration; a refused value leaves what an earlier source said."""
        tables: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
        for name, key in KEYS.items():
            tables[key.section][key.bare] = self.values[name]
        return Config(**{section: SECTIONS[section](**table) for section, table in tables.items()})

    def cross_check(self, conflicts: Iterable[tuple[tuple[str, ...], str]]) -> None:
        """Report conflicts between keys, unless one of them was refused already."""
        for names, message in conflicts:
            if self._refused.isdisjoint(names):
                origins = dict.fromkeys(self.origins[name] for name in names if self.origins[name] != "default")
                self.problems.append(f"{', '.join(origins)}: {message}")


def _parse(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        return {}
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        problems.append(f"{path}: is not UTF-8 (at byte {error.start + 1})")
    except ValueError as error:
        problems.append(f"{path}: is not valid TOML: {' '.join(str(error).split())}")
    except RecursionError:
        problems.append(f"{path}: is not valid TOML: nested too deeply")
    return {}


def _from_text(key: Key, text: str) -> object:
    """Return what a variable's text means for the key's type, or the text itself where it means nothing."""
    if key.base is int and re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    if key.base is bool:
        return {"true": True, "false": False}.get(text, text)
    if get_origin(key.base) is tuple:
        try:
            return msgspec.json.decode(text, type=list[str])
        except (ValueError, RecursionError):
            return text
    return text


def _instead(key: Key, value: object, origin: str) -> str:
    """Say what stands in place of an allowed value, without repeating text."""
    if type(value) is int:
        return f", not {value}" if abs(value) < 10**18 else ""
    if key.choices and isinstance(value, str):
        close = get_close_matches(value, key.choices, n=1)
        return f'; did you mean "{close[0]}"?' if close else ""
    if get_origin(key.base) is tuple and origin == key.variable and isinstance(value, str):
        return ', as a JSON array such as ["a", "b"]'
    if type(value) is key.base or (get_origin(key.base) is tuple and isinstance(value, list)):
        return ""
    kinds = {bool: "a boolean", str: "text", float: "a number with a point", list: "a list", dict: "a section"}
    return f", not {kinds[type(value)]}" if type(value) in kinds else ""


def _nearest(name: str, section: str | None = None, *, variables: bool = False) -> str:
    """Name the known key most like an unknown one: the same in another section, else one of its own, else of any."""
    own = {key.bare: key for key in KEYS.values() if key.section == section}
    every = {key.bare: key for key in KEYS.values()}
    for keys, cutoff in ((every, 1.0), (own, 0.6), (every, 0.6)):
        if close := get_close_matches(name, keys, n=1, cutoff=cutoff):
            key = keys[close[0]]
            return f"; did you mean {key.variable if variables else key.name}?"
    if close := get_close_matches(name, SECTIONS, n=1):
        return f"; did you mean [{close[0]}]?"
    return f"; known are {', '.join(own or SECTIONS)}"


def _shown(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]{1,80}", name) else ascii(name[:80])


def _conflicts(config: Config, home: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what is wrong between keys that are valid by themselves, with the keys' names."""
    if not config.server.allow_remote and not addresses.is_loopback(config.server.host):
        names = ("server.host", "server.allow_remote")
        yield names, f"server.host must be {KEYS['server.host'].allowed}"
    if config.security.session_ttl > config.security.session_absolute_lifetime:
        names = ("security.session_ttl", "security.session_absolute_lifetime")
        yield names, f"security.session_ttl must not exceed {names[1]} ({config.security.session_absolute_lifetime})"
    if config.database.path and os.path.normpath(home / config.log.file) == os.path.normpath(config.database.path):
        yield ("database.url", "log.file"), "database.url and log.file must not name the same file"


def flat(config: Config) -> dict[str, Any]:
    """Return every value by its dotted key, in the order of `config.example.toml`."""
    return {name: getattr(getattr(config, key.section), key.bare) for name, key in KEYS.items()}


def shown(config: Config) -> dict[str, Any]:
    """Return what `flat` does, without secrets."""
    return {name: KEYS[name].shown(value) for name, value in flat(config).items()}


def changed(old: Config, new: Config) -> tuple[list[str], list[str]]:
    """Compare two configurations.

    Returns:
        The dotted keys that differ: those that may change while the daemon runs (`RELOADABLE`), and those that need
        a restart.
    """
    after = flat(new)
    different = [name for name, value in flat(old).items() if after[name] != value]
    return [name for name in different if name in RELOADABLE], [name for name in different if name not in RELOADABLE]


def reloaded(old: Config, new: Config) -> Config:
    """Return the old configuration with the new values of the keys that may change while the daemon runs."""
    sections = {
        section: msgspec.structs.replace(
            getattr(old, section),
            **{key.bare: getattr(getattr(new, section), key.bare) for key in _reloadable_of(section)},
        )
        for section in SECTIONS
    }
    return Config(**sections)


def _reloadable_of(section: str) -> list[Key]:
    return [key for name, key in KEYS.items() if key.section == section and name in RELOADABLE]


def example() -> str:
    """Return the text of `config.example.toml`: every key commented out, with its default, range and meaning."""
    lines = [
        "# Configuration of the daemon. Every key is shown with its default; remove the # in front of a key to set it.",
        "# A variable DAEMON_<SECTION>_<KEY>, such as DAEMON_SERVER_PORT, overrides this file; a flag overrides both.",
    ]
    for section in SECTIONS:
        lines += ["", f"[{section}]"]
        for key in KEYS.values():
            if key.section == section:
                lines += [f"# {key.meta.description} Allowed: {key.allowed}.", f"#{key.bare} = {key.literal()}"]
    return "\n".join(lines) + "\n"


def table() -> str:
    """Return the README's reference table of every key, as Markdown."""
    rows = [f"| `{name}` | `{key.literal()}` | {key.allowed} | {key.meta.description} |" for name, key in KEYS.items()]
    return "\n".join(["| key | default | allowed | meaning |", "|---|---|---|---|", *rows]) + "\n"

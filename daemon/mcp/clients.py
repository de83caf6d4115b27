"""MCP clients: where each keeps its servers, and the entry with which it starts this one."""

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

from daemon.mcp import json_text
from daemon.mcp.config_file import ConfigError, edit

Client = Literal["claude-code", "claude-desktop"]
Scope = Literal["user", "project"]

SECTION = "mcpServers"
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What Claude Code takes as the name of a server."""


class Place(NamedTuple):
    """A file in which a client looks for servers.

    Args:
        client: whose it is, in words.
        path: the file.
        mode: permissions that the client gives it.
        typed: whether its entries name their transport.
        hands_on: whether it hands its own environment on to servers.
    """

    client: str
    path: Path
    mode: int
    typed: bool
    hands_on: bool


def place(client: Client, scope: Scope, environ: Mapping[str, str], home: Path, project: Path) -> Place:
    """Return where a client looks for servers.

    Args:
        client: which.
        scope: Claude Code has servers of the user's and of a project's; Claude Desktop knows no projects.
        environ: the environment; CLAUDE_CONFIG_DIR and XDG_CONFIG_HOME are obeyed as the clients obey them.
        home: the user's home.
        project: the project's directory.
    """
    if client == "claude-desktop":
        file = _desktop(environ, home) / "claude_desktop_config.json"
        return Place("Claude Desktop", file, 0o600, typed=False, hands_on=False)
    if scope == "project":
        return Place("Claude Code (this project)", project / ".mcp.json", 0o666, typed=True, hands_on=True)
    return Place("Claude Code", _claude_code(environ, home), 0o600, typed=True, hands_on=True)


def is_here(client: Client, environ: Mapping[str, str], home: Path) -> bool:
    """Return whether there is a trace of a client on this machine."""
    if client == "claude-desktop":
        return _desktop(environ, home).is_dir()
    on_path = shutil.which("claude", path=environ.get("PATH"))
    return on_path is not None or (home / ".claude").is_dir() or _claude_code(environ, home).is_file()


def _claude_code(environ: Mapping[str, str], home: Path) -> Path:
    directory = environ.get("CLAUDE_CONFIG_DIR")
    older = (Path(directory) if directory else home / ".claude") / ".config.json"
    return older if older.exists() else (Path(directory) if directory else home) / ".claude.json"


def _desktop(environ: Mapping[str, str], home: Path) -> Path:
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "Claude"
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "Claude"


def entry(at: Place, command: Sequence[str]) -> dict[str, Any]:
    """Return the entry with which a client starts the server."""
    made = {"command": command[0], "args": list(command[1:])}
    return {"type": "stdio", **made} if at.typed else made


def install(at: Place, name: str, command: Sequence[str]) -> bool:
    """Write the entry and return whether that changed anything; all else in the file stays byte for byte.

    Args:
        at: the file.
        name: of the server.
        command: with which the client starts it.

    Raises:
        ConfigError: another server has that name, or the file cannot be used; nothing was changed.
        OSError: it cannot be read or written.
    """
    wanted = entry(at, command)

    def change(text: str) -> str:
        known = json_text.find(text, SECTION, name)
        _require_ours(at, name, known)
        return text if known == wanted else json_text.put(text, SECTION, name, wanted)

    return edit(at.path, change, mode=at.mode)


def uninstall(at: Place, name: str) -> bool:
    """Remove the entry and return whether there was one.

    Args:
        at: the file.
        name: of the server.

    Raises:
        ConfigError: as `install`.
        OSError: it cannot be read or written.
    """

    def change(text: str) -> str:
        _require_ours(at, name, json_text.find(text, SECTION, name))
        return json_text.remove(text, SECTION, name)

    return edit(at.path, change, mode=at.mode)


def _require_ours(at: Place, name: str, known: Any) -> None:
    """Refuse to touch an entry that starts something else than this program, wherever that is installed.

    Raises:
        ConfigError: it does.
    """
    if known is not None and not _starts_this_program(known):
        raise ConfigError(f"{at.path} has another server named {name}; nothing was changed: choose a name with --name")


def _starts_this_program(known: Any) -> bool:
    if not isinstance(known, dict) or not isinstance(known.get("args"), list):
        return False
    words = [str(known.get("command")), *map(str, known["args"])]
    called = "daemon" if ("-m", "daemon") in pairwise(words) else Path(words[0]).name
    return called.startswith("daemon") and "mcp" in words[1:]

"""`daemon mcp install` and `uninstall`: the entry in each client's own file, and nothing else of it touched."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.cli.main import run
from daemon.mcp import clients
from daemon.mcp.clients import place
from daemon.mcp.config_file import PATIENCE, STALE, ConfigError
from tests.support.daemon_process import REPOSITORY, UNTRACED, Ended, environment

Daemon = Callable[..., Ended]
COMMAND = ["/opt/daemon", "mcp"]
CODE = {"type": "stdio", "command": "/opt/daemon", "args": ["mcp"]}
SECRETS = '{\n  "oauthAccount": {"x": 1.0},\n  "projects": {"/a": {"mcpServers": {}}},\n  "mcpServers": {}\n}'


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """An empty home of a user."""
    made = tmp_path / "user"
    made.mkdir()
    return made


@pytest.fixture
def daemon(user: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Daemon:
    """Run `daemon mcp` as a user who has nothing but an empty PATH."""
    monkeypatch.setattr(sys, "argv", [str(REPOSITORY / "daemon" / "__main__.py")])
    for name in ("DAEMON_HOME", "DAEMON_URL", "XDG_CONFIG_HOME", "CLAUDE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "PATH"):
        monkeypatch.setenv(name, str(user))

    def call(*arguments: str, **env: str) -> Ended:
        with monkeypatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            return Ended(run(["mcp", *arguments]), *capsys.readouterr())

    return call


def entry_in(path: Path, name: str = "daemon") -> Any:
    """Return the entry of a server."""
    return json.loads(path.read_text())["mcpServers"].get(name)


def test_an_entry_is_written_once_and_removed_again(user: Path, daemon: Daemon) -> None:
    config = user / ".claude.json"
    config.write_text(SECRETS)
    config.chmod(0o640)
    first = daemon("install")
    assert (first.code, first.out, first.err) == (0, f"daemon was added to Claude Code: {config}\n", "")
    assert entry_in(config) == {"type": "stdio", "command": sys.executable, "args": ["-P", "-m", "daemon", "mcp"]}
    assert config.stat().st_mode & 0o777 == 0o640
    written, inode = config.read_bytes(), config.stat().st_ino
    assert daemon("install").out == f"daemon is already in Claude Code: {config}\n"
    assert (config.read_bytes(), config.stat().st_ino) == (written, inode)
    assert daemon("uninstall").out == f"daemon was removed from Claude Code: {config}\n"
    assert config.read_text() == SECRETS
    again = daemon("uninstall")
    assert (again.code, again.out) == (0, f"daemon is not in Claude Code: {config}\n")
    assert [path.name for path in user.iterdir()] == [".claude.json"]


def test_what_was_said_goes_into_the_entry_and_no_token(user: Path, daemon: Daemon) -> None:
    secrets = {"DAEMON_SESSION_TOKEN": "wai_sess_secret", "DAEMON_TOKEN_FILE": "/run/secret", "DAEMON_URL": "http://x"}
    daemon("install", "--client", "claude-code", "--home", "h", "--token-file", "t", **secrets)
    config = user / ".claude.json"
    here = os.getcwd()
    assert entry_in(config)["args"][3:] == ["--home", f"{here}/h", "mcp", "--token-file", f"{here}/t"]
    assert "secret" not in config.read_text()
    assert config.stat().st_mode & 0o777 == 0o600
    daemon("install", "--url", "http://127.0.0.1:3100")
    assert entry_in(config)["args"][3:] == ["--url", "http://127.0.0.1:3100", "mcp"]
    daemon("install", DAEMON_HOME="/srv/agents")
    assert entry_in(config)["args"][3:] == ["--home", "/srv/agents", "mcp"]


def test_each_client_that_is_here_gets_an_entry(user: Path, daemon: Daemon) -> None:
    nobody = daemon("install")
    assert (nobody.code, nobody.out, nobody.err.count("\n")) == (1, "", 1)
    assert "--client claude-code" in nobody.err
    assert list(user.iterdir()) == []
    desktop = user / ".config" / "Claude" / "claude_desktop_config.json"
    if sys.platform == "darwin":
        desktop = user / "Library" / "Application Support" / "Claude" / desktop.name
    desktop.parent.mkdir(parents=True)
    only = daemon("install")
    assert only.out == f"daemon was added to Claude Desktop: {desktop}\n"
    assert "--token-file" in only.err
    (user / ".claude").mkdir()
    both = daemon("install", "--token-file", "/no/token")
    assert (both.code, both.out.count("daemon was added to")) == (0, 2)
    assert both.err.startswith("note: /no/token is not there yet")
    assert "type" not in entry_in(desktop)
    assert entry_in(desktop)["args"] == entry_in(user / ".claude.json")["args"]
    assert daemon("uninstall", "--client", "claude-desktop").code == 0
    assert (entry_in(desktop), entry_in(user / ".claude.json") is None) == (None, False)


def test_a_project_gets_a_file_of_its_own(
    tmp_path: Path, user: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    assert daemon("install", "--scope", "project", "--name", "work").code == 0
    assert entry_in(project / ".mcp.json", "work")["args"][-1] == "mcp"
    assert daemon("uninstall", "--scope", "project", "--name", "work").code == 0
    assert json.loads((project / ".mcp.json").read_text()) == {"mcpServers": {}}
    refused = daemon("install", "--scope", "project", "--client", "claude-desktop")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert daemon("install", "--name", "not a name").code == 2
    assert daemon("--token-file", "t", "install").code == 2
    assert list(user.iterdir()) == []


def test_print_writes_nothing(user: Path, daemon: Daemon) -> None:
    shown = daemon("install", "--client", "claude-code", "--print")
    assert shown.json()["mcpServers"]["daemon"]["args"] == ["-P", "-m", "daemon", "mcp"]
    assert str(user / ".claude.json") in shown.err
    assert list(user.iterdir()) == []


def test_a_broken_file_is_refused_with_one_line_and_not_touched(user: Path, daemon: Daemon) -> None:
    config = user / ".claude.json"
    for broken in (b'{"a": 1,}', b"[]", b'{"mcpServers": 7}', b"\xff{}"):
        config.write_bytes(broken)
        for command in ("install", "uninstall"):
            ended = daemon(command)
            assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
            assert f"{config} " in ended.err
            assert "nothing was changed" in ended.err
            assert config.read_bytes() == broken
    assert [path.name for path in user.iterdir()] == [".claude.json"]


def test_another_server_of_the_same_name_is_left_alone(user: Path, daemon: Daemon) -> None:
    config = user / ".claude.json"
    theirs = '{"mcpServers": {"daemon": {"command": "npx", "args": ["-y", "daemon", "mcp"]}}}'
    config.write_text(theirs)
    for command in ("install", "uninstall"):
        ended = daemon(command)
        assert (ended.code, ended.err.count("\n")) == (1, 1)
        assert "--name" in ended.err
        assert config.read_text() == theirs
    assert daemon("install", "--name", "sessions").code == 0
    assert entry_in(config)["command"] == "npx"


def test_an_entry_of_an_older_installation_is_replaced(user: Path, daemon: Daemon) -> None:
    config = user / ".claude.json"
    for older in (
        {"command": "/old/bin/daemon", "args": ["--home", "/h", "mcp"]},
        {"command": "/old/bin/daemon-linux-x86_64", "args": ["mcp"], "env": {}},
        {"command": "/old/python3", "args": ["-m", "daemon", "--url", "http://x", "mcp"]},
    ):
        config.write_text(json.dumps({"mcpServers": {"first": {}, "daemon": older, "last": {}}}))
        assert daemon("install").code == 0
        assert entry_in(config)["command"] == sys.executable
        assert list(json.loads(config.read_text())["mcpServers"]) == ["first", "daemon", "last"]


def test_the_places_are_those_of_the_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, project = tmp_path / "home", tmp_path / "project"

    def path(client: clients.Client, scope: clients.Scope = "user", **environ: str) -> Path:
        return place(client, scope, environ, home, project).path

    assert path("claude-code") == home / ".claude.json"
    assert path("claude-code", CLAUDE_CONFIG_DIR="/c") == Path("/c/.claude.json")
    assert path("claude-code", "project") == project / ".mcp.json"
    (home / ".claude").mkdir(parents=True)
    (home / ".claude" / ".config.json").touch()
    assert path("claude-code") == home / ".claude" / ".config.json"
    monkeypatch.setattr(sys, "platform", "linux")
    assert path("claude-desktop") == home / ".config" / "Claude" / "claude_desktop_config.json"
    assert path("claude-desktop", XDG_CONFIG_HOME="/x") == Path("/x/Claude/claude_desktop_config.json")
    monkeypatch.setattr(sys, "platform", "darwin")
    library = home / "Library" / "Application Support"
    assert path("claude-desktop") == library / "Claude" / "claude_desktop_config.json"


def code_at(home: Path) -> clients.Place:
    """Return where Claude Code looks in a home."""
    return place("claude-code", "user", {}, home, home)


def test_a_link_stays_a_link(user: Path, tmp_path: Path) -> None:
    kept = tmp_path / "dotfiles.json"
    kept.write_text("{}")
    (user / ".claude.json").symlink_to(kept)
    assert clients.install(code_at(user), "daemon", COMMAND)
    assert (user / ".claude.json").is_symlink()
    assert entry_in(kept) == CODE


def test_writers_at_once_lose_nothing_and_nobody_reads_half_a_file(user: Path) -> None:
    at, names = code_at(user), [f"server-{number}" for number in range(8)]
    at.path.write_text(json.dumps({"history": ["x" * 1000] * 200}))
    done = threading.Event()
    torn: list[str] = []

    def read() -> None:
        while not done.is_set():
            try:
                json.loads(at.path.read_text())
            except ValueError as error:
                torn.append(str(error))

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=clients.install, args=(at, name, COMMAND)) for name in names]
    reader.start()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    done.set()
    reader.join()
    assert torn == []
    assert json.loads(at.path.read_text())["mcpServers"].keys() == set(names)


def test_the_lock_of_claude_code_is_waited_for_and_a_dead_one_taken_over(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, lock = code_at(user), user / ".claude.json.lock"
    at.path.write_text("{}")
    lock.mkdir()
    monkeypatch.setattr("daemon.mcp.config_file.PATIENCE", 0.1)
    with pytest.raises(ConfigError, match="another program is writing"):
        clients.install(at, "daemon", COMMAND)
    assert (at.path.read_text(), lock.is_dir()) == ("{}", True)
    monkeypatch.setattr("daemon.mcp.config_file.PATIENCE", PATIENCE)
    timer = threading.Timer(0.1, lock.rmdir)
    timer.start()
    assert clients.install(at, "daemon", COMMAND)
    timer.join()
    lock.mkdir()
    dead = time.time() - STALE - 1
    os.utime(lock, (dead, dead))
    assert clients.uninstall(at, "daemon")
    assert not lock.exists()


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(user: Path) -> None:
    (user / ".claude.json").write_text("{}")
    command = f'ulimit -f 0; exec "{sys.executable}" -m daemon mcp install'
    env = environment(user / "unused", HOME=str(user), PYTHONDONTWRITEBYTECODE="1", **UNTRACED)
    done = subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: File too large")
    assert (user / ".claude.json").read_text() == "{}"
    assert [path.name for path in user.iterdir()] == [".claude.json"]

"""The MCP server and the real Claude Code CLI; `test_claude.py` runs this where there is nothing but loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.claude.world import World
from tests.support.claude_cli import QUIET
from tests.support.daemon_process import cli, environment
from tests.support.services.messages_api import FakeMessagesApi, ToolUse

pytestmark = pytest.mark.timeout(280)

PATIENT = {"MCP_TIMEOUT": "60000", "MCP_CONNECT_TIMEOUT_MS": "60000", "MCP_CONNECTION_NONBLOCKING": "0"}
"""Variables with which Claude Code waits for a server that starts slowly, before it asks the model."""
ASKED = "mcp__daemon__publish_report"


@pytest.fixture
def user(tmp_path: Path) -> dict[str, str]:
    """The environment of a user who has Claude Code, and has never used it."""
    home = tmp_path / "newcomer"
    home.mkdir()
    path = f"{os.environ['DAEMON_TEST_CLAUDE']}:{os.environ['PATH']}"
    return environment(tmp_path / "none", HOME=str(home), PATH=path, **QUIET, **PATIENT)


def claude(user: dict[str, str], *arguments: str) -> str:
    """Return what Claude Code says to a command."""
    done = subprocess.run(
        ["claude", *arguments], env=user, cwd=user["HOME"], capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr


def daemon(user: dict[str, str], *arguments: str) -> str:
    """Return what a command of the daemon's says; it succeeds."""
    done = subprocess.run(
        [sys.executable, "-m", "daemon", "mcp", *arguments],
        env=user, cwd=user["HOME"], capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_claude_code_shows_the_server_as_connected(user: dict[str, str]) -> None:
    assert "was added to Claude Code" in daemon(user, "install")
    (line,) = [line for line in claude(user, "mcp", "list").splitlines() if line.startswith("daemon:")]
    assert line.endswith("✔ Connected"), line
    assert "already exists" in claude(user, "mcp", "add", "--scope", "user", "daemon", "--", "/bin/false")
    known = json.loads((Path(user["HOME"]) / ".claude.json").read_text())
    assert known.keys() > {"mcpServers"}  # Claude Code has written there, too
    assert "was removed from Claude Code" in daemon(user, "uninstall")
    assert "daemon" not in claude(user, "mcp", "list")
    after = json.loads((Path(user["HOME"]) / ".claude.json").read_text())
    assert {**after, "mcpServers": known["mcpServers"]} == known


def test_claude_code_that_the_daemon_runs_uses_the_tools_with_its_own_session(tmp_path: Path) -> None:
    with FakeMessagesApi() as api:
        world = World(api, tmp_path, os.environ["DAEMON_TEST_CLAUDE"])
        try:
            installed = cli(world.home, "mcp", "install", "--client", "claude-code", HOME=str(world.user_home))
            assert installed.code == 0, installed.err
            api.reply_with(ToolUse(ASKED, {"title": "Report ready", "referenceId": "job-42"}))
            session = world.session(allowedTools=[ASKED], environment=world.variables(**PATIENT))
            assert session.turn("tell the owner") == "done"
            (event,) = session.events("AGENT_REPORT")
            assert event["details"] == {"referenceId": "job-42", "title": "Report ready", "details": {}}
            (result,) = [part for part in _parts(session.newest()) if part["type"] == "tool_result"]
            assert str(event["seq"]) in json.dumps(result["content"])
        finally:
            world.close()


def _parts(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the parts of the messages of a request to the API."""
    for message in request["messages"]:
        yield from (part for part in message["content"] if isinstance(part, dict))

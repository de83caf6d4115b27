"""The command that others shall start is the one that was called."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.daemon_process import environment

SCRIPT = Path(sys.executable).with_name("daemon")


def told(command: list[str], tmp_path: Path) -> list[str]:
    """Return the command that a program, called so, says it is."""
    env = environment(tmp_path / "home", HOME=str(tmp_path), DAEMON_HOME=None)
    shown = [*command, "mcp", "install", "--client", "claude-code", "--print"]
    done = subprocess.run(shown, env=env, cwd=tmp_path, capture_output=True, check=True)
    entry = json.loads(done.stdout)["mcpServers"]["daemon"]
    assert entry["args"][-1] == "mcp"
    return [entry["command"], *entry["args"][:-1]]


def test_a_script_is_named_by_the_path_by_which_it_was_called_even_a_link(tmp_path: Path) -> None:
    link = tmp_path / "daemon"
    link.symlink_to(SCRIPT)
    assert told([str(SCRIPT)], tmp_path) == [str(SCRIPT)]
    assert told(["./daemon"], tmp_path) == [str(link)]


def test_a_module_is_named_with_its_interpreter(tmp_path: Path) -> None:
    assert told([sys.executable, "-m", "daemon"], tmp_path) == [sys.executable, "-P", "-m", "daemon"]

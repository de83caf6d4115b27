"""Every command of the README's section about MCP works, and prints what is shown."""

import json
import re
import subprocess
import sys
from pathlib import Path

from mcp import Client, StdioServerParameters

from tests.mcp.conftest import Caller
from tests.support.daemon_process import cli
from tests.test_readme import blocks, section, with_agent


async def test_every_command_runs_and_what_is_installed_has_the_session(tmp_path: Path) -> None:
    text, home, user = section("Claude and other MCP clients"), tmp_path / "home", tmp_path / "user"
    user.mkdir()
    *install, uninstall = blocks(text)
    shown = "".join(blocks(re.sub(r"```sh\n.*?```", "", text, flags=re.DOTALL), "")).replace("/home/me", str(user))
    if sys.platform == "darwin":
        shown = shown.replace("/.config/", "/Library/Application Support/")
    try:
        env = {**with_agent(home, tmp_path), "HOME": str(user)}
        env.pop("XDG_CONFIG_HOME", None)
        env.pop("CLAUDE_CONFIG_DIR", None)

        def run(script: str) -> str:
            done = subprocess.run(
                ["bash", "-c", f"set -eu\n{script}"], env=env, cwd=user, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        said = run("\n".join(install))
        (config,) = user.rglob("claude_desktop_config.json")
        entry = json.loads(config.read_text())["mcpServers"]["daemon"]
        desktop = StdioServerParameters(command=entry["command"], args=entry["args"], env={"HOME": str(user)})
        async with Client(desktop, mode="legacy") as client:
            assert (await Caller(client)("session_status"))["agentName"] == "researcher"
        assert said + run(uninstall) == shown
    finally:
        cli(home, "stop", "--force", "--timeout", "5")

"""What the README's section about Claude Code says, and a machine as it supposes one."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.daemon_process import PASSWORD, REPOSITORY, cli, environment

ASKED = {"Greet the world.": "Hello, world!", "And the moon.": "Hello, moon!", "Whom did you greet?": "The world."}
"""What the section asks Claude Code, and the answers that it shows."""
TOKEN = "sk-ant-oat01-THE-TOKEN-OF-THE-README"


def section() -> str:
    """Return its text."""
    text = (REPOSITORY / "README.md").read_text()
    found = text.partition("\n## Run Claude Code under the daemon\n")[2].partition("\n## ")[0]
    assert found, "the README has no such section"
    return found


def blocks(language: str) -> list[str]:
    """Return the section's blocks of a language; of none: what its commands print, and what is not run."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", section(), re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def shown() -> str:
    """Return what the section's commands print."""
    return "".join(block for block in blocks("") if not block.startswith("curl"))


def run(root: Path, claude: Path) -> "subprocess.CompletedProcess[str]":
    """Run the section's commands on a machine with a daemon, a token, and this `claude`.

    Args:
        root: an empty directory.
        claude: the directory of the command.
    """
    home, user, programs = root / "daemon", root / "user", root / "programs"
    for directory in (user, programs):
        directory.mkdir()
    daemon = programs / "daemon"
    daemon.write_text(f'#!/bin/sh\nexec {sys.executable} -m daemon "$@"\n')
    daemon.chmod(0o755)
    token = user / "claude-token"
    token.write_text(f"{TOKEN}\n")
    token.chmod(0o600)
    path = f"{programs}:{claude}:{os.environ['PATH']}"
    env = environment(home, HOME=str(user), PATH=path, DAEMON_MASTER_PASSWORD=PASSWORD)
    assert cli(home, "init").code == 0
    (configuration,) = blocks("toml")
    (home / "config.toml").write_text(configuration.replace("/home/me", str(user)))
    script = "set -eu\n" + "\n".join(blocks("sh"))
    try:
        return subprocess.run(
            ["bash", "-c", script], env=env, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, text=True, timeout=200, check=False,
        )  # fmt: skip
    finally:
        cli(home, "stop", "--kill-processes", "--timeout", "20")


def comparable(text: str) -> list[str]:
    """Return lines without what differs from time to time: ids, numbers, times, the width of columns, the order.

    What is said and what became of it are told by two streams, of which neither waits for the other.
    """
    for pattern, instead in {
        r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b": "ID",
        r"https?://\S+": "URL",
        r"\bnow\b|\b([0-9]+[smhd] )+ago\b": "AGO",
        r"[0-9]+([.,][0-9]+)*": "N",
    }.items():
        text = re.sub(pattern, instead, text)
    return sorted(" ".join(line.split()) for line in text.splitlines())

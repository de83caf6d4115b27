"""The real Claude Code CLI, where it is installed, and what it needs so that it speaks with nobody but a fake."""

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.support import netns
from tests.support.postgres import unavailable

QUIET: Final = {
    "DISABLE_TELEMETRY": "1",
    "DISABLE_AUTOUPDATER": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_MAX_RETRIES": "0",
}
"""Variables with which it asks nobody but the API, and that once."""


def require() -> Path:
    """Return the directory with the executable `claude`; skip the test where it, or a namespace for it, is missing.

    The directory is named by DAEMON_TEST_CLAUDE, or `claude` is in the PATH. What DAEMON_TEST_REQUIRE names of `netns`
    and `claude` may not be missing.
    """
    if (problem := netns.why_not()) is not None:
        unavailable("netns", problem)
    found = _found()
    if isinstance(found, str):
        unavailable("claude", found)
    return Path(found)


@functools.cache
def _found() -> Path | str:
    """Return its directory, or why there is none."""
    named = os.environ.get("DAEMON_TEST_CLAUDE")
    path = shutil.which("claude", path=named)
    if path is None:
        return f"there is no Claude Code CLI to test with: no `claude` in {named or 'the PATH'} (DAEMON_TEST_CLAUDE)"
    command = [*netns.loopback_only(), path, "--version"]
    try:
        done = subprocess.run(command, env=os.environ | QUIET, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return f"{path} does not run: `--version` takes more than a minute"
    if "Claude Code" not in done.stdout:
        return f"{path} is no Claude Code CLI that runs: {(done.stdout + done.stderr).strip()[-200:]}"
    return Path(path).absolute().parent

"""The real Claude Code CLI under the daemon, where both it and a network namespace without a way out can be had."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import netns
from tests.support.claude_cli import require
from tests.support.daemon_process import REPOSITORY

INSIDE = Path(__file__).with_name("inside.py")
NAMES = re.findall(r"^def (test_\w+)", INSIDE.read_text(), re.MULTILINE)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NAMES)
def test_in_a_namespace(name: str, tmp_path: Path) -> None:
    directory = require()
    options = ["--noconftest", "-p", "pytest_timeout", "--tb", "short", "--basetemp", str(tmp_path / "inside")]
    done = subprocess.run(
        [*netns.loopback_only(), sys.executable, "-m", "pytest", *options, f"{INSIDE}::{name}"],
        env={**os.environ, "DAEMON_TEST_CLAUDE": str(directory), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if (skipped := re.search(r"1 (skipped|xfailed)", done.stdout)) is not None:
        (pytest.xfail if skipped[1] == "xfailed" else pytest.skip)(skipped[0])
    assert "1 passed" in done.stdout

"""Runs tests of `inside.py` in network namespaces without a way out, each in one of its own."""

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
PARTS = 3
"""Files among which they are divided, so that several workers share them."""


def part(number: int) -> list[str]:
    """Return the tests of one file."""
    return NAMES[number::PARTS]


def run_inside(name: str, tmp_path: Path, inside: Path = INSIDE) -> None:
    """Run one of them, or of another file."""
    directory = require()
    options = ["--noconftest", "-p", "pytest_timeout", "--tb", "short", "--basetemp", str(tmp_path / "inside")]
    done = subprocess.run(
        [*netns.loopback_only(), sys.executable, "-m", "pytest", *options, f"{inside}::{name}"],
        env={**os.environ, "DAEMON_TEST_CLAUDE": str(directory), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if (skipped := re.search(r"1 skipped", done.stdout)) is not None:
        pytest.skip(skipped[0])
    assert "1 passed" in done.stdout

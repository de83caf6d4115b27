"""The README says what is true, and every command in it works."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon_process import cli, environment
from tests.support.readme import README, rewritten


def test_the_generated_tables_are_those_of_the_code() -> None:
    """`python -m tests.support.readme` writes them anew."""
    assert README.read_text() == rewritten(README.read_text())


def test_the_tour_runs_and_says_what_the_readme_says(tmp_path: Path) -> None:
    if shutil.which("jq") is None or shutil.which("curl") is None:
        pytest.skip("the tour needs curl and jq")
    tour = README.read_text().partition("## Five minutes")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", tour, re.DOTALL)
    assert len(blocks) >= 8
    binary = tmp_path / "bin" / "daemon"
    binary.parent.mkdir()
    binary.write_text(f'#!/bin/sh\nexec {sys.executable} -m daemon "$@"\n')
    binary.chmod(0o755)
    home = tmp_path / "home"
    env = environment(home)
    env["PATH"] = f"{binary.parent}:{env['PATH']}"
    script = "set -eu\n" + "\n".join(blocks)
    try:
        done = subprocess.run(
            ["bash", "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
        )
    finally:
        cli(home, "stop", "--force", "--timeout", "5")
    assert done.returncode == 0, done.stderr
    expected = ["SUSPENDED", "SESSION_SUSPENDED", "READY", "researcher", "REVOKED", "SESSION_REVOKED"]
    lines = done.stdout.splitlines()
    assert [line for line in lines if line in set(expected)][: len(expected)] == expected
    assert '"code":"RENEWAL_TOO_EARLY"' in done.stdout
    assert lines[-1] == "the daemon has stopped"
    assert "the audit log is whole" in done.stdout


def test_every_command_of_the_command_line_is_in_the_readme() -> None:
    from daemon.cli.main import COMMANDS

    text = README.read_text().partition("## Command line")[2].partition("\n## ")[0]
    assert [name for name in COMMANDS if name not in text] == []

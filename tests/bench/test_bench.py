"""The benchmark runs and prints every row; what it measures is no test."""

import subprocess
import sys

import pytest

from tests.bench.__main__ import REPOSITORY
from tests.support.daemon_process import untraced


@pytest.mark.timeout(200)
def test_the_quick_benchmark_prints_every_row() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick"],
        cwd=REPOSITORY, env=untraced(), capture_output=True, text=True, check=False, timeout=180,
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stderr
    assert done.stdout.count("\n| ") == 44, done.stderr

"""The real Claude Code CLI under the daemon, where it and a network namespace can be had: part 1 of 3."""

from pathlib import Path

import pytest

from tests.claude.namespace import part, run_inside


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", part(0))
def test_in_a_namespace(name: str, tmp_path: Path) -> None:
    run_inside(name, tmp_path)

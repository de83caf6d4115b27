"""The real Claude Code CLI starts the server that `daemon mcp install` told it of, and uses its tools."""

import re
from pathlib import Path

import pytest

from tests.claude.namespace import run_inside

INSIDE = Path(__file__).with_name("inside.py")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", re.findall(r"^def (test_\w+)", INSIDE.read_text(), re.MULTILINE))
def test_in_a_namespace(name: str, tmp_path: Path) -> None:
    run_inside(name, tmp_path, INSIDE)

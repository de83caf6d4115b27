"""Every command of the README's section about Claude Code works, and prints what is shown."""

import shutil
from pathlib import Path

import msgspec
import pytest

from daemon.cli.process_options import process_options
from daemon.domain.process_config import Budget, ProcessConfig
from tests.claude import readme
from tests.support import fake_claude

SAID = "You said: "


@pytest.mark.skipif(shutil.which("jq") is None, reason="the README's commands need jq")
def test_every_command_runs_with_a_claude_that_repeats_what_it_is_told(tmp_path: Path) -> None:
    done = readme.run(tmp_path, fake_claude.install(tmp_path / "claude"))
    assert done.returncode == 0, done.stdout
    said = done.stdout
    for question, answer in readme.ASKED.items():
        assert f"{SAID}{question}" in said
        said = said.replace(f"{SAID}{question}", answer)
    assert readme.comparable(said) == readme.comparable(readme.shown())
    assert readme.TOKEN not in said


def test_every_field_and_option_of_a_process_is_in_the_table() -> None:
    rows = [line.split("|") for line in readme.section().splitlines() if line.startswith("| `")]
    fields = {row[1].strip(" `") for row in rows}
    options = " ".join(row[2] for row in rows)
    known = {field.encode_name for field in msgspec.structs.fields(ProcessConfig)} - {"budget"}
    known |= {f"budget.{field.encode_name}" for field in msgspec.structs.fields(Budget)}
    assert known <= fields
    names = {name for option in process_options(lambda: None).__click_params__ for name in option.opts}
    assert {name for name in names if name.startswith("--") and name not in options} == {"--process-json"}

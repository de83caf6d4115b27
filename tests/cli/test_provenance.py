"""How the program says that it was installed, in environments as pip, pipx and uv leave them."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import daemon
from tests.support.daemon_process import REPOSITORY, environment
from tests.support.versions import NextVersion

HERE = daemon.__version__
SITE = Path(sysconfig.get_path("purelib"))
DIST_INFO = f"agent_session_daemon-{HERE}.dist-info"
METADATA = f"""Metadata-Version: 2.4
Name: agent-session-daemon
Version: {HERE}
Provides-Extra: postgres
Provides-Extra: dev
Provides-Extra: missing
Requires-Dist: asyncpg>=0.30; extra == 'postgres'
Requires-Dist: ruff; extra == 'dev'
Requires-Dist: no-such-package; extra == 'missing'
"""


class Place:
    """An environment in which the program is installed.

    Args:
        root: where it is made.
        environment: a virtual one; else a directory of the interpreter's own.
        pip: whether there is a pip.
    """

    def __init__(self, root: Path, *, environment: bool = True, pip: bool = True) -> None:
        self.root = root
        if environment:
            venv.create(root, with_pip=False, symlinks=True)
            (self.site,) = root.glob("lib/python3*/site-packages")
        else:
            self.site = root
            root.mkdir()
        self.python = str(root / "bin" / "python") if environment else f"{sys.base_prefix}/bin/python3"
        for found in SITE.iterdir():
            if not re.match(r"(_?agent_session_|)daemon", found.name) and (pip or not found.name.startswith("pip")):
                (self.site / found.name).symlink_to(found)
        self._put_package()
        info = self.site / DIST_INFO
        info.mkdir()
        (info / "METADATA").write_text(METADATA)
        self.write("INSTALLER", "pip\n")

    def _put_package(self) -> None:
        """Put the files where a wheel puts them."""
        package = self.site / "daemon"
        (package / "_data").mkdir(parents=True)
        for found in (REPOSITORY / "daemon").iterdir():
            if found.suffix == ".py" and found.stem.startswith("__"):
                shutil.copy(found, package)
            elif found.name != "__pycache__":
                (package / found.name).symlink_to(found)
        for name in ("migrations", "schema.sql", "config.example.toml", "CHANGELOG.md"):
            (package / "_data" / name).symlink_to(REPOSITORY / name)

    def write(self, name: str, text: str) -> None:
        """Write a file of the distribution."""
        (self.site / DIST_INFO / name).write_text(text)

    def notes(self, home: Path) -> dict[str, Any]:
        """Return how it says that it was installed."""
        env = environment(home, PYTHONPATH=None if "bin" in self.python and self.site != self.root else str(self.site))
        done = subprocess.run(
            [self.python, "-m", "daemon", "upgrade", "--json"], env=env, cwd="/", capture_output=True, check=True
        )
        found: dict[str, Any] = json.loads(done.stdout)["installation"]
        return found


def from_index(_: Place) -> None:
    """Leave it as pip leaves what comes from an index."""


def from_a_file(place: Place) -> None:
    """Let it come from a wheel."""
    place.write("direct_url.json", '{"url": "file:///x/a.whl", "archive_info": {}}')


def from_git(place: Place) -> None:
    """Let it come from a repository."""
    place.write("direct_url.json", '{"url": "https://example.com/d.git", "vcs_info": {"vcs": "git", "commit_id": "1"}}')


def from_a_directory(place: Place) -> None:
    """Let it come from a checkout."""
    (place.root / "my src" / ".git").mkdir(parents=True)
    place.write("direct_url.json", json.dumps({"url": f"file://{place.root}/my%20src", "dir_info": {}}))


def editable(place: Place) -> None:
    """Let it be installed in place."""
    shutil.rmtree(place.site / "daemon")
    (place.site / "_editable_impl_agent_session_daemon.pth").write_text(str(REPOSITORY))
    place.write("direct_url.json", json.dumps({"url": f"file://{REPOSITORY}", "dir_info": {"editable": True}}))


def by_pipx(place: Place) -> None:
    """Let pipx have installed it."""
    (place.root / "pipx_metadata.json").write_text("{}")


def by_uv_tool(place: Place) -> None:
    """Let `uv tool` have installed it."""
    (place.root / "uv-receipt.toml").touch()


PULL = [f"git -C {shlex.quote(str(REPOSITORY))} pull"] if (REPOSITORY / ".git").exists() else []


@pytest.mark.parametrize(
    ("made", "kind", "commands"),
    [
        ([from_index], "venv", ["PY -m pip install --upgrade 'agent-session-daemon[postgres]'"]),
        ([from_a_file], "venv", ["PY -m pip install --upgrade NEW_FILE[postgres]"]),
        (
            [from_git],
            "venv",
            ["PY -m pip install --upgrade 'agent-session-daemon[postgres] @ git+https://example.com/d.git'"],
        ),
        ([from_a_directory], "venv", ["git -C 'ROOT/my src' pull", "PY -m pip install 'ROOT/my src[postgres]'"]),
        ([editable], "venv", [*PULL, f"PY -m pip install --editable '{REPOSITORY}[postgres]'"]),
        ([by_pipx], "pipx", ["pipx upgrade agent-session-daemon"]),
        ([by_pipx, from_a_file], "pipx", ["pipx install --force NEW_FILE[postgres]"]),
        ([by_uv_tool], "uv-tool", ["uv tool upgrade agent-session-daemon"]),
        ([by_uv_tool, from_git], "uv-tool", ["uv tool upgrade agent-session-daemon"]),
    ],
)
def test_the_commands_are_those_of_how_it_was_installed(
    tmp_path: Path, made: list[Callable[[Place], None]], kind: str, commands: list[str]
) -> None:
    place = Place(tmp_path / "env")
    for one in made:
        one(place)
    wanted = [line.replace("PY", place.python).replace("ROOT", str(place.root)) for line in commands]
    assert place.notes(tmp_path) == {"kind": kind, "path": str(place.root), "commands": wanted}


def test_an_environment_without_pip_is_one_of_uv(tmp_path: Path) -> None:
    place = Place(tmp_path / "env", pip=False)
    (command,) = place.notes(tmp_path)["commands"]
    assert command == f"uv pip install --python {place.python} --upgrade 'agent-session-daemon[postgres]'"


def test_what_the_system_has_installed_is_left_to_it(tmp_path: Path) -> None:
    place = Place(tmp_path / "site", environment=False)
    place.write("INSTALLER", "debian\n")
    assert place.notes(tmp_path) == {"kind": "package", "path": str(place.site / "daemon"), "commands": []}


def test_a_checkout_that_was_never_installed(tmp_path: Path) -> None:
    newer = NextVersion(tmp_path / "newer")
    notes = newer.cli(tmp_path, "upgrade", "--json").json()["installation"]
    assert notes == {"kind": "source", "path": str(newer.root), "commands": []}


def test_the_single_file_is_replaced_by_the_new_one(tmp_path: Path) -> None:
    code = "import sys; sys.frozen = True; from daemon.__main__ import main; main()"
    file = tmp_path / "my bin" / "daemon"
    file.parent.mkdir()
    file.touch(mode=0o755)
    command = [sys.executable, "-c", f"import sys; sys.argv = [{str(file)!r}, 'upgrade', '--json']; {code}"]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, check=True)
    notes = json.loads(done.stdout)["installation"]
    assert notes == {"kind": "binary", "path": str(file), "commands": [f"install -m 755 NEW_FILE '{file}'"]}

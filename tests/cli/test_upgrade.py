"""`daemon upgrade`: what it tells of the installation, of what runs, of the database and of the changes."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import daemon
from daemon.cli import changelog
from daemon.cli.changelog import Entry
from tests.support.daemon_process import REPOSITORY, DaemonProcess, cli, environment
from tests.support.postgres import fresh_database
from tests.support.readme import README
from tests.support.versions import NEXT, NextVersion, run

HERE = daemon.__version__


@pytest.fixture
def newer(tmp_path: Path) -> NextVersion:
    """The next version of the program."""
    return NextVersion(tmp_path / "newer")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[DaemonProcess]:
    """This version, running, with the session of an agent."""
    made = DaemonProcess(tmp_path / "home")
    yield made
    cli(made.home, "stop", "--force", "--timeout", "5")
    made.process.wait()


def told(screen: str) -> list[str]:
    """Return the commands that come next, as they are printed."""
    return [line.strip() for line in screen.splitlines() if line.startswith("    ")]


def test_what_runs_and_what_is_installed_are_the_same(running: DaemonProcess) -> None:
    notes = running.cli("upgrade", "--json").json()
    assert (notes["installed"], notes["running"]["version"], notes["restart"]) == (HERE, HERE, False)
    assert notes["running"] == {"version": HERE, "pid": running.process.pid, "url": running.url}
    assert (notes["database"]["migrations"], notes["database"]["problem"], notes["changes"]) == ([], None, [])
    assert (notes["steps"][0], notes["steps"][-1]) == ("daemon backup", "daemon restart")


def test_the_way_up_and_the_way_back_are_as_they_are_told(running: DaemonProcess, newer: NextVersion) -> None:
    home, token = running.home, running.cli("agent", "add", "a", "--session", "--json").json()["session"]["token"]
    screen = newer.cli(home, "upgrade").out
    assert f"running    {HERE} (pid {running.process.pid})" in screen
    assert f"the next start applies {newer.migration}, after a copy in {home}/backups" in screen
    assert f"{NEXT} (2026-12-24)" in screen
    assert "Something that this version does not have." in screen
    assert "What there was." not in screen
    assert told(screen) == ["daemon restart"]
    follow(newer.root, home, told(screen))
    url = json.loads((home / "daemon.json").read_text())["url"]
    assert httpx.get(f"{url}/health").json()["version"] == NEXT
    assert httpx.get(f"{url}/v1/session", headers={"Authorization": f"Bearer {token}"}).status_code == 200

    notes = run(REPOSITORY, home, "upgrade", "--json").json()
    assert (notes["running"]["version"], notes["changes"]) == (NEXT, [])
    assert f"knows {int(newer.migration[:4]) - 1}" in notes["database"]["problem"]
    refused = run(REPOSITORY, home, "restart")
    assert (refused.code, notes["database"]["problem"] in refused.err) == (1, True)
    assert httpx.get(f"{url}/health").json()["version"] == NEXT
    screen = run(REPOSITORY, home, "upgrade").out
    assert told(screen) == ["daemon stop", f"daemon restore {notes['database']['olderCopy']}", "daemon start --detach"]
    follow(REPOSITORY, home, [f"{line} --yes" if "restore" in line else line for line in told(screen)])
    url = json.loads((home / "daemon.json").read_text())["url"]
    assert httpx.get(f"{url}/health").json()["version"] == HERE


def likened(screen: str) -> set[str]:
    """Return the lines of a screen without paths and numbers."""
    lines = (re.sub(r"\S*/\S+|\d+", "N", line.replace(NextVersion.name, "")) for line in screen.splitlines())
    return {re.sub(r"\((pip|a checkout), N\)?", "(N)", line) for line in lines}


def test_the_readme_shows_what_is_told(running: DaemonProcess, newer: NextVersion) -> None:
    section = README.read_text().partition("\n## Upgrade\n")[2].partition("\n## ")[0]
    shown = re.findall(r"```\n\$ daemon upgrade\n(.*?)```", section, re.DOTALL)
    for screen, real in zip(shown, [running.cli("upgrade").out, newer.cli(running.home, "upgrade").out], strict=True):
        wanted = {line for line in likened(screen) if "pip install" not in line and line != "…"}
        assert wanted - likened(real) == set()


def test_who_would_be_refused_is_not_told_to_restart(running: DaemonProcess, newer: NextVersion) -> None:
    (newer.root / "migrations" / newer.migration).unlink()
    (newer.root / "migrations" / sorted(path.name for path in (newer.root / "migrations").glob("*.sql"))[-1]).unlink()
    notes = newer.cli(running.home, "upgrade", "--json").json()
    assert (notes["restart"], notes["steps"], notes["database"]["olderCopy"]) == (True, [], None)
    assert "Do not restart it" in newer.cli(running.home, "upgrade").out


def follow(root: Path, home: Path, steps: list[str]) -> None:
    """Do what was told with the version at `root`."""
    for step in steps:
        program, *arguments = shlex.split(step)
        assert program == "daemon"
        done = run(root, home, *arguments)
        assert done.code == 0, done.err


def test_without_a_daemon_and_without_a_database(tmp_path: Path) -> None:
    notes = cli(tmp_path / "none", "upgrade", "--json").json()
    assert (notes["running"], notes["restart"], notes["database"]["schemaVersion"]) == (None, False, 0)
    assert (notes["steps"][0] != "daemon backup", notes["steps"][-1]) == (True, "daemon start --detach")
    assert "the first start makes it" in cli(tmp_path / "none", "upgrade").out
    assert not (tmp_path / "none").exists()


def test_a_daemon_elsewhere_is_asked_for_its_version_alone(running: DaemonProcess, tmp_path: Path) -> None:
    notes = cli(tmp_path / "none", "--url", running.url, "upgrade", "--json").json()
    assert (notes["running"]["version"], notes["database"]) == (HERE, None)
    gone = cli(tmp_path / "none", "--url", "http://127.0.0.1:1", "upgrade", "--json").json()
    assert gone["running"] is None


def test_of_postgresql_no_copy_is_promised(tmp_path: Path, newer: NextVersion) -> None:
    with fresh_database() as url:
        notes = newer.cli(tmp_path / "home", "upgrade", "--json", DAEMON_DATABASE_URL=url).json()["database"]
        screen = newer.cli(tmp_path / "home", "upgrade", DAEMON_DATABASE_URL=url).out
    assert (notes["migrations"], notes["copiedTo"], notes["problem"]) == ([newer.migration], None, None)
    assert "pg_dump" in screen
    wrong = "postgresql://nobody@127.0.0.1:1/none"
    assert cli(tmp_path, "upgrade", "--json", DAEMON_DATABASE_URL=wrong).json()["database"]["problem"]


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    assert (cli(tmp_path, "upgrade", DAEMON_SERVER_PORT="x").code, cli(tmp_path, "upgrade", "more").code) == (2, 2)
    (tmp_path / "daemon.db").write_text("no database")
    done = cli(tmp_path, "upgrade")
    assert (done.code, done.err) == (0, "")
    assert "this version will not start on it" in done.out


def test_no_network_is_needed_and_nothing_is_changed(running: DaemonProcess, newer: NextVersion) -> None:
    before = {path: path.stat().st_mtime_ns for path in running.home.rglob("*") if path.suffix != ".log"}
    env = {"https_proxy": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1", "DAEMON_MASTER_PASSWORD": "wrong!"}
    assert newer.cli(running.home, "upgrade", **env).code == 0
    after = {path: path.stat().st_mtime_ns for path in running.home.rglob("*") if path.suffix != ".log"}
    assert {path for path in before if before[path] != after.get(path)} <= {running.home / "daemon.db-shm"}
    assert set(before) == set(after)


# How it was installed: environments as pip, pipx and uv leave them, with this package in them.

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


def test_a_checkout_that_was_never_installed(tmp_path: Path, newer: NextVersion) -> None:
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


# The changelog.


def entry(version: str, date: str | None = "2026-01-01") -> Entry:
    """Return what a version changed."""
    return Entry(version, date, f"- of {version}")


ENTRIES = [entry("Unreleased", None), entry("0.3.0"), entry("0.2.0"), entry("0.1.0")]


@pytest.mark.parametrize(
    ("older", "newer", "shown"),
    [
        ("0.1.0", "0.3.0", ["0.3.0", "0.2.0"]),
        ("0.2.0", "0.3.0", ["0.3.0"]),
        ("0.3.0", "0.3.0", []),
        ("0.3.0", "0.1.0", []),
        ("0.2.0", "0.4.0.dev1", ["Unreleased", "0.3.0"]),
        ("0.9.0", "0.3.0", []),
    ],
)
def test_what_changed_between_two_versions(older: str, newer: str, shown: list[str]) -> None:
    assert [one.version for one in changelog.between(ENTRIES, older, newer)] == shown


def test_a_changelog_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "CHANGELOG.md"
    assert changelog.read(file) == []
    file.write_text(
        "# Changelog\n\nWords.\n\n## [Unreleased]\n\n## [0.1.0] - 2026-01-01\n\n### Added\n- x\n\n[0.1.0]: https://e"
    )
    assert changelog.read(file) == [Entry("Unreleased", None, ""), Entry("0.1.0", "2026-01-01", "### Added\n- x")]


def test_our_own_changelog_can_be_read() -> None:
    entries = changelog.read(REPOSITORY / "CHANGELOG.md")
    assert entries[0].text.startswith("### Added")
    assert len(re.findall("^## ", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)) == len(entries)

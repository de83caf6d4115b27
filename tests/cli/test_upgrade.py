"""`daemon upgrade`: what it tells of what runs, of the database and of the changes."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import daemon
from daemon.cli import changelog
from daemon.cli.changelog import Entry
from tests.support.daemon_process import REPOSITORY, DaemonProcess, cli
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

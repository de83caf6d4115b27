"""The files that make the daemon a service: what stands in them, and how their readers see it."""

import json
import os
import plistlib
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.cli import failure
from daemon.cli.main import run
from daemon.cli.program import program as this_program
from daemon.installation.install import manager_of
from daemon.installation.launchd import Launchd
from daemon.installation.seal import whose
from daemon.installation.service import Service, ServiceError, absolute
from daemon.installation.systemd import Systemd, quoted, unquoted
from daemon.service_manager import CLOSING_SECONDS

needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")

SYSTEMD = Systemd(Path("/home/me/.config"))
LAUNCHD = Launchd(Path("/Users/me"))
SERVICE = Service(["/opt/daemon"], Path("/home/me/.local/share/agent-daemon"), "/usr/bin:/bin", 45)
PRINTABLE = st.text(st.characters(exclude_categories=("C", "Z"), include_characters=" "), max_size=30)


def assignments(text: str) -> dict[str, str]:
    """Return the assignments of a unit; the last of a name."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def analyzed(tmp_path: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Let systemd-analyze look at a unit of this text."""
    (tmp_path / "run").mkdir(mode=0o700, exist_ok=True)
    unit = tmp_path / "agent-daemon.service"
    unit.write_text(text)
    return subprocess.run(
        ["systemd-analyze", "--user", *arguments, str(unit)],
        env={**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that may be executed, in a place with a name that must be quoted."""
    made = tmp_path / "a place for $HOME, 100%" / "daemon"
    made.parent.mkdir()
    made.touch(mode=0o755)
    return made


@needs_analyze
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, program: Path) -> None:
    home = tmp_path / 'home of "me" \\ 50% of $USER; é'
    text = SYSTEMD.render(Service([str(program)], home, "/a b:/c%d:/e\\f", 45))
    done = analyzed(tmp_path, text, "verify")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_analyze
@pytest.mark.parametrize(
    ("right", "wrong"),
    [("KillMode=", "KilMode="), ('/daemon" ', '/missing" '), ("Type=notify", "Type=notyfy")],
)
def test_systemd_would_say_if_something_were_wrong(tmp_path: Path, program: Path, right: str, wrong: str) -> None:
    text = SYSTEMD.render(Service([str(program)], tmp_path, "/usr/bin", 45))
    assert right in text
    text = text.replace(right, wrong)
    assert analyzed(tmp_path, text, "verify").stderr != ""


@needs_analyze
def test_what_an_unprivileged_service_can_give_up_is_given_up(tmp_path: Path, program: Path) -> None:
    text = SYSTEMD.render(Service([str(program)], tmp_path, "/usr/bin", 45))
    done = analyzed(tmp_path, text, "security", "--offline=true", "--threshold=79", "--json=short")
    assert done.returncode == 0, done.stdout
    found = {one["json_field"]: one["set"] for one in json.loads(done.stdout)}
    given_up = {
        "NoNewPrivileges", "RestrictSUIDSGID", "RestrictRealtime", "LockPersonality", "SystemCallArchitectures",
        "RestrictAddressFamilies_AF_PACKET", "RestrictAddressFamilies_OTHER",
        *(f"SystemCallFilter_{name}" for name in ("clock", "cpu_emulation", "module", "obsolete", "raw_io", "reboot")),
    }  # fmt: skip
    assert {name for name in given_up if found.get(name) is not True} == set()


def test_agents_keep_what_they_need() -> None:
    names = assignments(SYSTEMD.render(SERVICE)).keys()
    for taken in ("ProtectHome", "ProtectSystem", "PrivateTmp", "PrivateNetwork", "RestrictNamespaces", "UMask"):
        assert taken not in names
    assert "MemoryDenyWriteExecute" not in names


def test_processes_outlive_the_service_and_do_not_end_it() -> None:
    found = assignments(SYSTEMD.render(SERVICE))
    assert (found["KillMode"], found["Delegate"], found["OOMPolicy"]) == ("process", "yes", "continue")


def test_exit_codes_that_another_start_would_not_change_end_it() -> None:
    found = assignments(SYSTEMD.render(SERVICE))
    codes = [failure.USAGE, failure.NOT_AUTHENTICATED, failure.ALREADY_RUNNING]
    assert found["Restart"] == "on-failure"
    assert [int(code) for code in found["RestartPreventExitStatus"].split()] == codes


@settings(max_examples=60, deadline=None)
@given(words=st.lists(PRINTABLE, min_size=1, max_size=4))
def test_a_quoted_word_is_one_word_without_specifiers(words: list[str]) -> None:
    line = " ".join(quoted(word) for word in words)
    assert "\n" not in line
    assert line.replace("%%", "").count("%") == 0
    assert [unquoted(word) for word in shlex.split(line)] == words


@settings(max_examples=60, deadline=None)
@given(home=PRINTABLE, path=PRINTABLE)
def test_what_was_written_is_read_again(home: str, path: str) -> None:
    service = Service(SERVICE.program, Path("/" + home), path, 45)
    for manager in (SYSTEMD, LAUNCHD):
        said = manager.read(manager.render(service))
        assert said == (["/opt/daemon", "--home", str(service.home), "start"], path)


@settings(max_examples=60, deadline=None)
@given(where=st.integers(min_value=0), character=st.characters(codec="ascii"))
def test_any_change_of_the_file_is_seen(where: int, character: str) -> None:
    for manager in (SYSTEMD, LAUNCHD):
        text = manager.render(SERVICE)
        assert whose(text) == "ours"
        at = where % len(text)
        changed = text[:at] + character + text[at + 1 :]
        assert changed == text or whose(changed) != "ours"
        assert whose(text[:at] + text[at + 1 :]) != "ours"


@pytest.mark.parametrize("home", ["/a\nb", "/a\tb", "/a\x00b", "/a\udcffb"])
def test_a_home_that_cannot_be_told_is_refused(home: str) -> None:
    for manager in (SYSTEMD, LAUNCHD):
        with pytest.raises(ServiceError, match="characters that no service can be told"):
            manager.render(Service(SERVICE.program, Path(home), "", 45))


@pytest.mark.parametrize("program", ['/a"b/daemon', "/a'b/daemon", "/a\\b/daemon"])
def test_a_program_that_systemd_would_not_run_is_refused(program: str) -> None:
    with pytest.raises(ServiceError, match="quotes or backslashes"):
        SYSTEMD.render(Service([program], SERVICE.home, "", 45))
    assert LAUNCHD.read(LAUNCHD.render(Service([program], SERVICE.home, "", 45))).command[0] == program


def test_launchd_starts_it_at_login_and_again_after_failures_and_leaves_processes_alone() -> None:
    said = plistlib.loads(LAUNCHD.render(SERVICE).encode())
    assert said["ProgramArguments"] == ["/opt/daemon", "--home", str(SERVICE.home), "start"]
    assert (said["Label"], said["RunAtLoad"], said["KeepAlive"]) == ("agent-daemon", True, {"SuccessfulExit": False})
    assert (said["AbandonProcessGroup"], said["ExitTimeOut"]) == (True, 45)
    assert LAUNCHD.file == Path("/Users/me/Library/LaunchAgents/agent-daemon.plist")


def test_print_tells_of_this_very_program_home_and_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:relative::/opt/my tools:/usr/bin:.")
    monkeypatch.setenv("DAEMON_SERVER_SHUTDOWN_TIMEOUT", "77")
    for kind in ("systemd", "launchd"):
        assert run(["--home", str(tmp_path / "my home"), "service", "print", "--kind", kind]) == 0
        said = manager_of(os.environ, kind).read(capsys.readouterr().out)
        assert said.command == [*this_program(), "--home", str(tmp_path / "my home"), "start"]
        assert said.path == "/usr/bin:/opt/my tools"
    assert run(["--home", str(tmp_path), "service", "print", "--kind", "systemd"]) == 0
    assert assignments(capsys.readouterr().out)["TimeoutStopSec"] == str(77 + CLOSING_SECONDS)
    monkeypatch.setenv("DAEMON_SERVER_SHUTDOWN_TIMEOUT", "7777")
    assert run(["--home", str(tmp_path), "service", "print"]) == failure.USAGE


def test_this_program_can_be_run_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "daemon").mkdir()  # no module of that name counts but ours
    for name in ("__init__.py", "__main__.py"):
        (tmp_path / "daemon" / name).write_text("raise SystemExit(9)")
    done = subprocess.run([*this_program(), "--version"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.startswith("daemon ")) == (0, True)


def test_the_script_or_single_file_that_was_called_is_this_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, link = tmp_path / "daemon", tmp_path / "bin" / "daemon"
    script.touch(mode=0o755)
    link.parent.mkdir()
    link.symlink_to(script)
    monkeypatch.chdir(link.parent)
    monkeypatch.setattr(sys, "argv", ["./daemon"])
    assert this_program() == [str(link)]
    script.chmod(0o644)
    assert this_program() == [sys.executable, "-P", "-m", "daemon"]


@pytest.mark.parametrize(
    ("group", "ours"),
    [
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/agent-daemon.service", True),
        ("4:memory:/\n1:name=systemd:/user.slice/user@7.service/agent-daemon.service/daemon-x", True),
        ("0::/system.slice/agent-daemon.service", False),
        ("0::/user.slice/user@1000.service/app.slice/app-agents.slice/agent-session-x-1.scope", False),
        ("0::/user.slice/user@1000.service/app.slice/my-agent-daemon.service", False),
        ("", False),
    ],
)
def test_a_process_is_the_service_s_where_its_control_group_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, ours: bool
) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text(f"{group}\n")
    monkeypatch.setattr("daemon.installation.systemd._PROC", tmp_path)
    assert SYSTEMD.runs(7) is ours
    assert not SYSTEMD.runs(8)


def test_a_path_keeps_what_means_the_same_everywhere() -> None:
    assert absolute("/b:/a::.:rel/ative:/b:/with space:/nul\x00:/\udcff") == "/b:/a:/with space"

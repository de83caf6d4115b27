"""`daemon service install`, `uninstall` and `status` without a systemd: what they would ask it, write, and refuse."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from daemon.cli.main import run
from daemon.home import Home
from daemon.installation import install as installation
from daemon.installation.launchd import Launchd
from daemon.installation.service import Service, ServiceError
from daemon.lock import HomeLock
from tests.support.homes import prepare
from tests.support.standin import StandIns

INACTIVE = "UnitFileState=enabled\nActiveState=inactive\nMainPID=0\n"
ACTIVE = "UnitFileState=enabled\nActiveState=active\nMainPID=1\n"
SHOW = "--property=UnitFileState,ActiveState,MainPID"
UNIT = "agent-daemon.service"
BEGIN = ["systemctl --user --no-ask-password daemon-reload", f"systemctl --user --no-ask-password enable {UNIT}"]


class Said(NamedTuple):
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


class Desk:
    """An owner at a shell whose systemd is a stand-in."""

    def __init__(self, place: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.home = place / "daemon home"
        self.unit = place / "my home" / ".config" / "systemd" / "user" / UNIT
        self.systemd = StandIns(place, "systemctl", "loginctl")
        self.systemd.say("--property=UnitPath", f"/etc/systemd/user {self.unit.parent} /usr/lib/systemd/user\n")
        self.systemd.say(SHOW, ACTIVE)
        self.systemd.say("--property=Linger", "yes\n")
        self._capture = capture

    def service(self, *arguments: str, home: Path | None = None) -> Said:
        """Run `daemon service` and return what it said."""
        self._capture.readouterr()
        code = run(["--home", str(home or self.home), "service", *arguments])
        return Said(code, *self._capture.readouterr())

    def asked(self) -> list[str]:
        """Return what systemd was asked to do since the last time, looks left out."""
        return [call for call in self.systemd.calls() if " show" not in call]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    made = Desk(tmp_path, capsys)
    monkeypatch.setenv("HOME", str(tmp_path / "my home"))
    monkeypatch.setenv("PATH", str(made.systemd.path))
    for name in [name for name in os.environ if name.startswith(("XDG_", "DAEMON_"))]:
        monkeypatch.delenv(name)
    prepare(made.home)
    return made


def test_install_writes_what_print_says_and_starts_it(desk: Desk) -> None:
    said = desk.service("install")
    assert (said.code, said.err) == (0, ""), said
    assert desk.unit.read_text() == desk.service("print", "--kind", "systemd").out
    assert stat.S_IMODE(desk.unit.stat().st_mode) == 0o644
    assert desk.asked() == [*BEGIN, f"systemctl --user --no-ask-password restart {UNIT}"]
    assert [line.split()[0] for line in said.out.splitlines()] == [
        "service", "file", "installed", "home", "enabled", "active", "pid",
    ]  # fmt: skip
    assert list(desk.unit.parent.iterdir()) == [desk.unit]


def test_a_second_install_changes_and_restarts_nothing(desk: Desk) -> None:
    desk.service("install")
    desk.asked()
    before = desk.unit.stat()
    assert desk.service("install").code == 0
    assert desk.asked() == [*BEGIN, f"systemctl --user --no-ask-password start {UNIT}"]
    assert desk.unit.stat() == before


def test_an_older_file_of_ours_is_replaced_and_the_service_started_anew(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAEMON_SERVER_SHUTDOWN_TIMEOUT", "60")
    desk.service("install")
    monkeypatch.delenv("DAEMON_SERVER_SHUTDOWN_TIMEOUT")
    assert json.loads(desk.service("status", "--json").out)["current"] is False
    assert "yes, not what print says" in desk.service("status").out
    desk.asked()
    assert desk.service("install").code == 0
    assert desk.asked()[-1] == f"systemctl --user --no-ask-password restart {UNIT}"
    assert json.loads(desk.service("status", "--json").out)["current"] is True


def test_no_start_leaves_what_runs_as_it_is_and_says_so(desk: Desk) -> None:
    said = desk.service("install", "--no-start")
    assert (said.code, desk.asked()) == (0, BEGIN)
    assert "what runs is not changed yet: systemctl --user restart agent-daemon" in said.err
    assert "there is no master password yet; set one: daemon init" in said.err


def test_another_path_of_the_shell_does_not_make_the_file_another(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.service("install")
    monkeypatch.setenv("PATH", f"{desk.systemd.path}:/somewhere/else")
    assert json.loads(desk.service("status", "--json").out)["current"] is True


def edit(file: Path) -> None:
    file.write_text(file.read_text().replace("RestartSec=3", "RestartSec=9"))


def rewrite(file: Path) -> None:
    file.write_text("[Service]\nExecStart=/bin/true\n")


def mask(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/null")


@pytest.mark.parametrize(
    ("change", "why"),
    [(edit, "was edited since it was installed"), (rewrite, "was not written by"), (mask, "was not written by")],
)
def test_what_somebody_else_wrote_is_neither_replaced_nor_removed_but_by_force(
    desk: Desk, change: Callable[[Path], None], why: str
) -> None:
    desk.service("install")
    change(desk.unit)
    before = (desk.unit.is_symlink(), desk.unit.read_bytes())
    desk.asked()
    for command in ("install", "uninstall"):
        said = desk.service(command)
        assert (said.code, said.out, said.err.count("\n")) == (1, "", 1)
        assert why in said.err
        assert f"daemon service {command} --force" in said.err
        assert ((desk.unit.is_symlink(), desk.unit.read_bytes()), desk.asked()) == (before, [])
    assert json.loads(desk.service("status", "--json").out)["edited"] is True
    assert desk.service("install", "--force").code == 0
    assert (desk.unit.is_symlink(), desk.service("status", "--json").code) == (False, 0)
    change(desk.unit)
    assert desk.service("uninstall", "--force").code == 0
    assert not desk.unit.is_symlink()
    assert not desk.unit.exists()


def test_the_service_of_another_home_is_replaced_and_removed_by_force_alone(desk: Desk, tmp_path: Path) -> None:
    desk.service("install")
    before = desk.unit.read_text()
    for command in ("install", "uninstall"):
        said = desk.service(command, home=tmp_path / "other")
        assert said.code == 1
        assert f"is the service of the home {desk.home}" in said.err
        assert desk.unit.read_text() == before
    assert desk.service("install", "--force", home=tmp_path / "other").code == 0
    assert json.loads(desk.service("status", "--json").out)["home"] == str(tmp_path / "other")


def test_uninstall_undoes_the_installation_and_leaves_the_home(desk: Desk) -> None:
    desk.service("install")
    desk.asked()
    said = desk.service("uninstall")
    assert (said.code, said.out) == (0, f"{desk.unit} is removed\n")
    assert desk.asked() == [
        f"systemctl --user --no-ask-password disable --now {UNIT}",
        "systemctl --user --no-ask-password daemon-reload",
        f"systemctl --user reset-failed {UNIT}",
    ]
    assert not desk.unit.exists()
    assert (desk.home / "daemon.db").exists()
    again = desk.service("uninstall")
    assert (again.code, again.out, desk.asked()) == (0, "the service is not installed\n", [])


def test_a_service_that_does_not_start_stays_installed_and_says_where_to_look(desk: Desk) -> None:
    desk.systemd.fail("restart", f"Job for {UNIT} failed because the control process exited.\nSee more.\n")
    said = desk.service("install")
    assert (said.code, said.out, said.err.count("\n")) == (1, "", 1)
    assert f"Job for {UNIT} failed" in said.err
    assert "journalctl --user -u agent-daemon" in said.err
    assert desk.unit.exists()


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_without_a_systemd_of_the_user_nothing_happens(desk: Desk, verb: str) -> None:
    if verb == "uninstall":
        desk.service("install")
    before = desk.unit.exists()
    desk.systemd.fail("--user", "Failed to connect to bus: No medium found\n")
    said = desk.service(verb)
    assert (said.code, said.out) == (1, "")
    assert said.err == (
        "error: No systemd serves this user: Failed to connect to bus: No medium found — log in as this user "
        "(su and sudo do not), or start the daemon by hand: daemon start --detach\n"
    )
    assert desk.unit.exists() is before


def test_a_machine_without_systemd_is_told_what_to_do_instead(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    (desk.systemd.path / "systemctl").unlink()
    for arguments in (["install"], ["status"], ["status", "--json"]):
        said = desk.service(*arguments)
        assert said.code == 1
        hint = "There is no systemd on this machine — start the daemon by hand: daemon start --detach"
        assert said.err == f"error: {hint}\n"
    assert json.loads(said.out) == {
        "manager": "systemd", "service": UNIT, "file": str(desk.unit), "installed": False, "edited": False,
        "current": False, "home": None, "enabled": None, "active": None, "state": None, "pid": None, "lingers": None,
    }  # fmt: skip
    assert not desk.unit.exists()


def test_a_systemd_that_looks_elsewhere_is_noticed_before_anything_is_written(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    said = desk.service("install")
    assert said.code == 1
    assert f"Your systemd does not look into {tmp_path / 'config' / 'systemd' / 'user'}" in said.err
    assert not (tmp_path / "config").exists()


def test_a_daemon_that_was_started_by_hand_is_not_joined_by_a_second_one(desk: Desk) -> None:
    lock = HomeLock(Home(desk.home))
    lock.acquire()
    try:
        said = desk.service("install")
        assert (said.code, said.err.count("\n"), desk.unit.exists(), desk.asked()) == (5, 1, False, [])
        assert "run: daemon stop, then install the service" in said.err
        assert desk.service("install", "--no-start").code == 0
    finally:
        lock.release()


def test_what_the_service_will_not_know_of_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAEMON_SERVER_PORT", "0")
    monkeypatch.setenv("DAEMON_LOG_LEVEL", "debug")
    desk.systemd.say("--property=Linger", "no\n")
    (desk.home / "initial-password").write_text("secret\n")
    said = desk.service("install")
    assert said.code == 0
    assert said.err.splitlines() == [
        f"note: the master password is in {desk.home}/initial-password; the file goes at its first use",
        "note: the service does not know of DAEMON_LOG_LEVEL, DAEMON_SERVER_PORT: put that into "
        f"{desk.home}/config.toml",
        "note: it ends when you log out, with what it runs; to let both go on: loginctl enable-linger",
    ]


def test_status_tells_by_its_exit_code_whether_it_runs(desk: Desk) -> None:
    desk.service("install")
    assert desk.service("status").code == 0
    desk.systemd.say(SHOW, INACTIVE)
    said = desk.service("status", "--json")
    found = json.loads(said.out)
    assert (said.code, found["active"], found["enabled"], found["state"]) == (3, False, True, "inactive")


def test_an_invalid_configuration_is_not_installed(desk: Desk) -> None:
    (desk.home / "config.toml").write_text("[server]\nport = 1\n")
    said = desk.service("install")
    assert (said.code, desk.unit.exists(), desk.asked()) == (2, False, [])


def test_an_invalid_configuration_keeps_nobody_from_looking_and_removing(desk: Desk) -> None:
    desk.service("install")
    (desk.home / "config.toml").write_text("[server]\nport = 1\n")
    said = desk.service("status", "--json")
    assert (said.code, json.loads(said.out)["current"]) == (0, False)
    assert said.err == "note: the configuration is invalid, see: daemon config check\n"
    assert desk.service("uninstall").code == 0


def test_a_place_that_cannot_be_written_is_one_line(desk: Desk) -> None:
    desk.unit.mkdir(parents=True)
    said = desk.service("install", "--force")
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert [path.name for path in desk.unit.parent.iterdir()] == [UNIT]


@pytest.fixture
def launchd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Launchd, StandIns]:
    stand_ins = StandIns(tmp_path, "launchctl")
    monkeypatch.setenv("PATH", str(stand_ins.path))
    return Launchd(tmp_path / "me"), stand_ins


def test_launchd_is_asked_what_launchctl_calls_it(launchd: tuple[Launchd, StandIns], tmp_path: Path) -> None:
    manager, program = launchd
    domain = f"gui/{os.getuid()}"
    target = f"{domain}/agent-daemon"
    service = Service(["/opt/daemon"], tmp_path / "home", "/usr/bin", 45)
    program.fail(target, "Could not find service\n")
    assert manager.state() == (False, False, "not loaded", None)
    program.succeed(target)
    manager.check()
    assert installation.write(manager, service, force=False)
    manager.enable()
    program.fail(target, "Could not find service\n")
    program.calls()
    manager.start(anew=True)
    assert program.calls()[-1] == f"launchctl bootstrap {domain} {manager.file}"
    assert manager.state() == (True, False, "not loaded", None)
    program.succeed(target)
    program.say("print", f"{target} = {{\n\tactive count = 1\n\tstate = running\n\n\tpid = {os.getpid()}\n}}\n")
    assert manager.state() == (True, True, "running", os.getpid())
    assert manager.runs(os.getpid())
    assert not manager.runs(1)
    manager.start(anew=False)
    assert program.calls()[-1] == f"launchctl kickstart {target}"
    found, trouble = installation.status(manager, service)
    assert (found.installed, found.current, found.active, found.lingers, trouble) == (True, True, True, None, None)
    program.fail("bootout", "Boot-out failed: 5: Input/output error\n")
    with pytest.raises(ServiceError, match="Boot-out failed: 5"):
        installation.remove(manager, service.home, force=False)
    program.fail(target, "Could not find service\n")
    assert installation.remove(manager, service.home, force=False)
    assert not manager.file.exists()

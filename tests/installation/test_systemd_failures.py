"""The service under a real systemd, when it hangs, when it fails, and when there are no scopes."""

import shutil
from collections.abc import Iterator

import pytest

from tests.installation.installed import UNIT, Site
from tests.support.daemon_process import wait_for
from tests.support.systemd import UserManager


@pytest.fixture
def made(manager: UserManager, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site whose unit has the drop-in that the test names."""
    site = Site(manager, request.param)
    yield site
    site.close()


@pytest.mark.parametrize("made", ["WatchdogSec=1s\nStandardError=append:{home}/stderr\n"], indirect=True)
def test_a_daemon_that_hangs_is_started_anew_and_one_that_would_fail_again_is_not(made: Site) -> None:
    made.did("service", "install")
    before = made.pid
    made.manager.run("kill", "-STOP", str(before))
    wait_for(lambda: made.is_ready_again(before))
    assert "Current thread" in (made.home / "stderr").read_text()
    assert made.manager.show(UNIT, "NRestarts") == "1"
    (made.home / "config.toml").write_text("[server]\nprot = 1\n")
    made.manager.run("kill", "-KILL", str(made.pid))
    wait_for(lambda: made.word == "failed")
    assert (made.manager.show(UNIT, "ExecMainStatus"), made.manager.show(UNIT, "NRestarts")) == ("2", "2")


@pytest.mark.parametrize("made", ['Environment="PATH={home}"\n'], indirect=True)
def test_processes_that_have_no_scope_outlive_the_service_all_the_same(made: Site) -> None:
    for name in ("cat", "setsid", "env"):  # and no systemd-run
        (made.home / name).symlink_to(shutil.which(name) or "")
    made.did("service", "install")
    session, pid = made.begin("cat")
    assert made.group(pid) == f"{made.group(made.pid)}/daemon-{session}"
    assert "systemd-run: No such file or directory" in made.did("logs", "--event", "process.unscoped")
    before = made.pid
    made.manager.systemctl("restart", UNIT)
    wait_for(lambda: made.is_ready_again(before))
    assert made.pid_of(session) == pid
    made.told(session, "still there")


@pytest.mark.parametrize("made", ["ExecStart=\nExecStart=/bin/false\nRestart=no\n"], indirect=True)
def test_a_service_that_does_not_start_is_told_of_in_one_line(made: Site) -> None:
    said = made.daemon("service", "install")
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert "Job for agent-daemon.service failed" in said.err
    assert made.word == "failed"

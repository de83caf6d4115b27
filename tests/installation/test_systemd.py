"""The service under a real systemd of a user's own: it starts, stops, is removed; processes outlive all of it."""

import json
from collections.abc import Iterator

import pytest

from daemon.installation.systemd import quoted
from tests.installation.installed import UNIT, Site
from tests.support.daemon_process import wait_for
from tests.support.systemd import UserManager

ODD = [
    "plain", "", " ", "two words", "  many  blanks  ", '"', "'", "\\", "\\n", '\\"', "a\\", "%", "%%", "%h", "%n %u",
    "$HOME", "${HOME}", "$$", "$", ";", "\\;", "#", "; rm", "=", "-", "--", "@", "+", "!", ":", "|", "~", "*", "é",
    "日本", "a'b\"c\\d%e$f", "\U0001f512",
]  # fmt: skip
"""Words that something between us and the program could take for something else."""


@pytest.fixture(scope="module")
def service(manager: UserManager) -> Iterator[Site]:
    """The service as it is installed, with one process that says what it can do and repeats what it is told."""
    made = Site(manager)
    made.did("service", "install")
    yield made
    made.close()


ABILITIES = """\
env
echo "umask $(umask)"
unshare --user true && echo "a namespace of its own"
python3 -c 'import mmap; mmap.mmap(-1, 4096, prot=7); print("code made at run time")'
python3 -c 'import os, socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)' 2>&1 | tail -n 1
grep NoNewPrivs /proc/self/status
echo ready
exec cat
"""


@pytest.fixture(scope="module")
def process(service: Site) -> tuple[str, int]:
    """The id of its session, and its pid."""
    session, pid = service.begin("sh", "-c", ABILITIES)
    wait_for(lambda: "ready" in service.said(session))
    return session, pid


def test_the_service_is_installed_and_serves(service: Site) -> None:
    assert service.inside() == {service.pid}
    assert service.manager.show(UNIT, "StatusText").startswith("Serving at http://127.0.0.1:")
    assert service.manager.systemctl("is-enabled", UNIT) == "enabled"
    found = json.loads(service.did("service", "status", "--json"))
    assert (found["current"], found["edited"], found["active"], found["pid"]) == (True, False, True, service.pid)
    assert found["home"] == str(service.home)


def test_a_process_has_a_scope_of_its_own(service: Site, process: tuple[str, int]) -> None:
    session, pid = process
    scope = f"agent-session-{session}-1.scope"
    assert service.group(pid).endswith(f"/app.slice/app-agents.slice/{scope}/daemon-{session}")
    assert service.manager.show(scope, "ActiveState") == "active"
    assert service.inside() == {service.pid}


def test_a_process_gets_nothing_that_is_meant_for_the_daemon(service: Site, process: tuple[str, int]) -> None:
    names = {line.partition("=")[0] for line in service.said(process[0]).splitlines()}
    assert "DAEMON_TOKEN_FILE" in names
    assert names.isdisjoint({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "SYSTEMD_EXEC_PID", "INVOCATION_ID"})


def test_a_process_can_do_what_agents_need_and_becomes_nobody_else(service: Site, process: tuple[str, int]) -> None:
    lines = service.said(process[0]).splitlines()
    for line in ("umask 0022", "a namespace of its own", "code made at run time", "NoNewPrivs:\t1"):
        assert line in lines
    assert any("Address family not supported" in line for line in lines)


@pytest.mark.parametrize("how", ["daemon restart", "systemctl restart", "kill -9", "daemon stop"])
def test_a_process_outlives_the_daemon_which_finds_it_again(service: Site, process: tuple[str, int], how: str) -> None:
    session, pid = process
    before = service.pid
    if how == "daemon restart":
        assert service.did("restart").endswith("(as a service)\n")
    elif how == "systemctl restart":
        service.manager.systemctl("restart", UNIT)
    elif how == "kill -9":  # of everything that systemd knows of
        service.manager.systemctl("kill", "--signal=KILL", UNIT)
    else:
        service.did("stop")
        wait_for(lambda: service.word == "inactive")
        service.manager.systemctl("start", UNIT)
    wait_for(lambda: service.is_ready_again(before))
    assert service.pid_of(session) == pid
    service.told(session, f"after {how}")


def test_a_reload_by_systemd_is_one(service: Site) -> None:
    service.manager.systemctl("reload", UNIT)
    wait_for(lambda: "CONFIG_RELOADED" in str(service.asks("GET", "/v1/admin/audit?limit=100")))
    assert service.word == "active"


def test_a_restart_takes_no_settings_that_the_service_would_not_keep(service: Site) -> None:
    before = service.pid
    assert service.daemon("restart", "--port", "0").code == 2
    assert service.pid == before


def test_a_removed_service_leaves_the_process_to_the_next_daemon(service: Site, process: tuple[str, int]) -> None:
    session, pid = process
    service.did("service", "uninstall")
    assert service.manager.run("systemctl", "--user", "is-enabled", UNIT).code != 0
    assert not (service.manager.units / UNIT).exists()
    service.did("start", "--detach")
    assert service.pid_of(session) == pid
    service.asks("POST", f"/v1/sessions/{session}/kill")
    wait_for(lambda: service.manager.show(f"agent-session-{session}-1.scope", "ActiveState") == "inactive")
    service.did("stop")


def test_systemd_reads_every_word_as_it_is_meant(manager: UserManager) -> None:
    record = manager.home / "record"
    manager.units.mkdir(parents=True, exist_ok=True)
    (manager.units / "words.service").write_text(
        f"[Service]\nType=oneshot\nEnvironment={quoted('PATH=' + ':'.join(ODD))}\n"
        f"ExecStart=:/usr/bin/printf '%%s\\n' {' '.join(map(quoted, ODD))}\n"
        f"ExecStart=:/usr/bin/printenv PATH\nStandardOutput=append:{record}\n"
    )
    manager.systemctl("daemon-reload")
    manager.systemctl("start", "words.service")
    *words, path, end = record.read_text().split("\n")
    assert (words, path, end) == (ODD, ":".join(ODD), "")

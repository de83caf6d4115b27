"""Life on a real desk: what an owner meets between `daemon start` and `daemon stop`."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx

from tests.cli.conftest import Start
from tests.support.daemon_process import PASSWORD, DaemonProcess, cli, environment, wait_for


def test_after_kill_9_the_very_next_start_works(start: Start) -> None:
    first = start()
    first.kill9()
    assert (first.home / "daemon.pid").exists()
    second = start()
    assert second.seconds_to_ready < 5
    assert httpx.get(f"{second.url}/health", trust_env=False).status_code == 200
    assert second.stop() == 0
    assert sorted(path.name for path in second.home.iterdir()) == [
        "backups",
        "config.toml",
        "daemon.db",
        "daemon.lock",
        "logs",
        "processes",
    ]


def test_a_second_start_exits_5_and_names_the_first(start: Start) -> None:
    first = start()
    second = first.cli("start")
    assert second.code == 5
    assert str(first.process.pid) in second.err
    assert first.url in second.err
    assert second.err.count("\n") == 1


def test_a_port_in_use_exits_1_and_says_how_to_choose_another(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = cli(home, "start", "--port", str(taken.getsockname()[1]))
    assert ended.code == 1
    assert "in use" in ended.err
    assert "--port" in ended.err
    assert not (home / "daemon.pid").exists()
    assert (started := cli(home, "start", "--detach")).code == 0
    assert started.err == ""


def test_a_home_that_others_can_write_to_is_refused_with_the_command_that_mends_it(home: Path) -> None:
    home.mkdir()
    home.chmod(0o777)
    ended = cli(home, "start")
    assert ended.code == 1
    assert f"chmod go-w {home}" in ended.err


def test_a_password_in_the_environment_that_does_not_match_exits_4(start: Start) -> None:
    daemon = start()
    daemon.stop()
    for arguments in (["start"], ["start", "--detach"]):
        ended = daemon.cli(*arguments, DAEMON_MASTER_PASSWORD="another password entirely")
        assert ended.code == 4
        assert "another password" not in ended.out + ended.err


def test_without_terminal_and_password_one_is_made_and_removed_at_its_first_use(home: Path) -> None:
    ended = cli(home, "start", "--detach", DAEMON_MASTER_PASSWORD=None)
    assert ended.code == 0
    file = home / "initial-password"
    assert str(file) in ended.err
    assert file.stat().st_mode & 0o777 == 0o600
    password = file.read_text().strip()
    assert password not in ended.out + ended.err
    assert cli(home, "agent", "list", DAEMON_MASTER_PASSWORD=password).code == 0
    assert not file.exists()


def test_a_detached_first_start_that_fails_says_one_error_and_where_the_password_is(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = cli(home, "start", "--detach", "--port", port, DAEMON_MASTER_PASSWORD=None)
    said, error = ended.err.splitlines()
    assert (ended.code, ended.out) == (1, "")
    assert said.startswith(f"note: The master password is in {home / 'initial-password'}")
    assert error.startswith(f"error: cannot listen on 127.0.0.1:{port}")


def test_start_piped_into_jq_prints_json_lines_with_the_ready_line(start: Start) -> None:
    daemon = start()
    assert set(daemon.ready) >= {"ts", "level", "event", "url", "socket", "home", "logFile", "pid", "version"}
    assert list(daemon.ready)[:3] == ["ts", "level", "event"]
    wait_for(lambda: Path(daemon.ready["logFile"]).read_text().count('"daemon.ready"') == 1)


def test_a_reader_of_the_log_that_goes_away_stops_nothing(start: Start) -> None:
    daemon = start()
    assert daemon.process.stdout is not None
    daemon.process.stdout.close()
    for _ in range(5):
        assert httpx.get(f"{daemon.url}/health", trust_env=False).status_code == 200
    daemon.process.stdout = None
    assert daemon.stop() == 0


def test_a_home_path_of_150_characters_gets_its_socket_elsewhere(tmp_path: Path) -> None:
    home = tmp_path / ("h" * (150 - len(str(tmp_path)) - 1) if len(str(tmp_path)) < 140 else "h" * 60)
    assert len(str(home)) >= 110
    daemon = DaemonProcess(home)
    try:
        assert len(daemon.ready["socket"]) <= 100
        assert daemon.cli("agent", "list", "--json").out.strip() == "[]"
    finally:
        daemon.stop()
    assert not Path(daemon.ready["socket"]).exists()


def test_a_password_with_korean_letters_works_everywhere(home: Path) -> None:
    korean = "한글 비밀번호입니다"
    assert cli(home, "start", "--detach", DAEMON_MASTER_PASSWORD=korean).code == 0
    assert cli(home, "agent", "add", "에이전트", DAEMON_MASTER_PASSWORD=korean).code == 0
    url = json.loads((home / "daemon.json").read_text())["url"]
    raw = httpx.get(f"{url}/v1/agents", headers={"X-Master-Password": korean.encode()}, trust_env=False)
    assert raw.json()[0]["name"] == "에이전트"


def test_the_port_from_the_environment_serves_status_and_stop(home: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    assert cli(home, "start", "--detach", DAEMON_SERVER_PORT=port).code == 0
    status = cli(home, "status", "--json", DAEMON_SERVER_PORT=port)
    assert (status.code, status.json()["status"]) == (0, "ok")
    assert cli(home, "stop", DAEMON_SERVER_PORT=port).code == 0
    assert cli(home, "status").code == 3
    assert cli(home, "stop").code == 3


def test_a_stale_password_in_a_loop_never_locks_the_owner_out(start: Start) -> None:
    daemon = start()
    stale = {"X-Master-Password": "a password of last year"}
    for _ in range(30):
        assert httpx.get(f"{daemon.url}/v1/agents", headers=stale, trust_env=False).status_code == 401
    assert daemon.cli("agent", "list").code == 0


def test_50_wrong_passwords_lock_and_even_then_stop_works(start: Start) -> None:
    daemon = start()
    codes = [
        httpx.get(f"{daemon.url}/v1/agents", headers={"X-Master-Password": f"wrong guess {n}"}, trust_env=False)
        for n in range(50)
    ]
    assert [answer.status_code for answer in codes[:5]] == [401] * 5
    assert {answer.json()["code"] for answer in codes[5:]} == {"MASTER_AUTH_LOCKED"}
    locked = daemon.cli("agent", "list")
    assert locked.code == 4
    assert daemon.cli("status").code == 0
    assert daemon.cli("stop").code == 0


def test_agent_add_with_session_is_one_call_to_a_usable_token(start: Start) -> None:
    daemon = start()
    made = daemon.cli("agent", "add", "researcher", "--session", "--json").json()
    headers = {"Authorization": f"Bearer {made['session']['token']}"}
    own = httpx.get(f"{daemon.url}/v1/session", headers=headers, trust_env=False).json()
    assert (own["agentName"], own["agentId"]) == ("researcher", made["agent"]["id"])


def test_an_ambiguous_agent_name_exits_2_and_lists_the_ids(start: Start) -> None:
    daemon = start()
    ids = [daemon.cli("agent", "add", "twin", "--json").json()["id"] for _ in range(2)]
    ended = daemon.cli("agent", "show", "twin")
    assert ended.code == 2
    assert all(agent_id in ended.err for agent_id in ids)


def test_login_gives_this_shell_a_ticket_and_logout_takes_it_back(start: Start) -> None:
    daemon = start()
    line = daemon.cli("login", "--for", "5m").out
    assert line.startswith("export DAEMON_OWNER_TICKET=wai_own_")
    ticket = line.partition("=")[2].strip().rstrip(";")
    alone = {"DAEMON_MASTER_PASSWORD": None, "DAEMON_OWNER_TICKET": ticket}
    assert daemon.cli("agent", "list", **alone).code == 0
    assert daemon.cli("logout", **alone).out.startswith("unset DAEMON_OWNER_TICKET")
    assert daemon.cli("agent", "list", **alone).code == 4


def test_ctrl_c_stops_in_good_order_and_a_third_signal_ends_at_once(start: Start) -> None:
    daemon = start()
    daemon.process.send_signal(signal.SIGINT)
    assert daemon._reap() == 0
    text = Path(daemon.ready["logFile"]).read_text()
    assert '"daemon.stopped"' in text
    assert text.rstrip().splitlines()[-1].count("audit.checkpoint") == 1


def test_restart_reads_the_configuration_anew(start: Start) -> None:
    daemon = start()
    config = daemon.home / "config.toml"
    config.write_text(config.read_text().replace("#session_rpm = 6000", "session_rpm = 7"))
    assert daemon.cli("restart").code == 0
    made = daemon.cli("agent", "add", "a", "--session", "--json").json()
    url = json.loads((daemon.home / "daemon.json").read_text())["url"]
    headers = {"Authorization": f"Bearer {made['session']['token']}"}
    assert httpx.get(f"{url}/v1/session", headers=headers, trust_env=False).headers["RateLimit-Limit"] == "7"


def test_sighup_applies_what_may_change_and_says_what_it_ignored(start: Start) -> None:
    daemon = start()
    config = daemon.home / "config.toml"
    changed = config.read_text().replace("#session_rpm = 6000", "session_rpm = 9")
    config.write_text(changed.replace("#session_ttl = 86400", "session_ttl = 600"))
    daemon.process.send_signal(signal.SIGHUP)
    log = Path(daemon.ready["logFile"])
    wait_for(lambda: "config.reloaded" in log.read_text())
    line = next(json.loads(text) for text in log.read_text().splitlines() if "config.reloaded" in text)
    assert (line["applied"], line["ignored"]) == (["server.session_rpm"], ["security.session_ttl"])


def test_errors_are_one_line_and_never_a_traceback(home: Path) -> None:
    for arguments in (["status"], ["agent", "list"], ["nonsense"], ["session", "show", "x"], ["logs", "--level", "x"]):
        ended = cli(home, *arguments)
        assert ended.code in {1, 2, 3}, arguments
        assert "Traceback" not in ended.err
        assert ended.err.startswith("error: ")


def test_the_command_line_imports_no_web_framework() -> None:
    heavy = {"litestar", "uvicorn", "daemon.services", "daemon.stores", "httpx", "cryptography"}
    script = f"import sys, daemon.cli.status, daemon.cli.server; print(sorted({heavy} & sys.modules.keys()))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment(Path("/")))
    assert done.stdout.strip() == "[]"


def test_a_first_start_at_a_terminal_asks_twice(home: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(sys.executable, [sys.executable, "-m", "daemon", "start", "--detach"], environment(home))
    said = b""
    answers = [f"{PASSWORD}\n".encode(), f"{PASSWORD}\n".encode()]
    while True:
        try:
            chunk = os.read(terminal, 1024)
        except OSError:
            break
        if not chunk:
            break
        said += chunk
        if answers and said.rstrip().endswith(b":"):
            os.write(terminal, answers.pop(0))
            said = b""
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)
    assert cli(home, "agent", "list").code == 0

"""What an owner does first works with the program alone: in an empty tree, environment, and without a Python."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import psutil
from mcp import Client, StdioServerParameters
from redis import Redis

from daemon import __version__
from daemon.cli.main import COMMANDS
from daemon.stores.migrate import data_file, migrate
from tests.binary.installed import Installed
from tests.stores.migration_help import NOW, add_agent, first_migrations, query
from tests.support.daemon_process import wait_for
from tests.support.postgres import ask, fresh_database
from tests.support.redis import shared


def test_it_tells_its_version_and_has_every_command(program: Installed) -> None:
    assert program("--version").out == f"daemon {__version__}\n"
    page = program("--help").out  # for which each command's module is loaded
    assert [name for name in COMMANDS if name not in page] == []
    assert shutil.which("python3", path=program.environment()["PATH"]) is None


def test_it_has_the_files_that_it_prints(program: Installed) -> None:
    assert json.loads(program("metrics", "dashboard", quiet=True).out)["title"]
    assert "_DAEMON_COMPLETE" in program("completion", "bash", quiet=True).out
    assert ".SH" in program("man", quiet=True).out
    assert "To upgrade" in program("upgrade").out


def test_it_starts_on_an_empty_home_serves_survives_kill_9_restores_a_backup_and_stops(program: Installed) -> None:
    pid = program.start()
    assert (program("start").code, program("status").code) == (5, 0)
    program.sign_in()
    session = program.add_agent()
    token = session["token"]
    assert program.ask("GET", "/v1/session", token).json()["agentName"] == "first"
    early = program.ask("PUT", f"/v1/sessions/{session['id']}/renew", token)
    assert (early.status_code, early.json()["code"]) == (403, "RENEWAL_TOO_EARLY")
    copy = program.user / "copy.db"
    assert program("backup", str(copy)).code == 0
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(pid))
    assert program("status").code == 3
    assert program.start() != pid
    assert program.ask("GET", "/v1/session", token).status_code == 200
    assert program("doctor").code == 0
    assert program("agent", "remove", "first", "--yes").code == 0
    assert program("stop").out == "the daemon has stopped\n"
    assert program("restore", str(copy), "--yes").code == 0
    assert program("restart", "--port", "0").code == 0
    assert program("audit", "verify").out.startswith("the audit log is whole")
    assert [agent["status"] for agent in program("agent", "list", "--json").json()] == ["ACTIVE"]
    assert program.ask("GET", "/v1/session", token).json()["code"] == "SESSION_REVOKED"


def test_a_database_of_an_earlier_version_is_migrated(program: Installed, tmp_path: Path) -> None:
    program.home.mkdir(mode=0o700)
    database = program.home / "daemon.db"
    migrate(database, now=NOW, backups=None, migrations=first_migrations(tmp_path / "earlier", 3))
    add_agent(database, "from-before")
    program.start()
    newest = len(list(data_file("migrations").glob("*.sql")))
    assert query(database, "SELECT max(version) FROM schema_migrations") == [(newest,)]
    program.sign_in()
    assert [agent["name"] for agent in program("agent", "list", "--json").json()] == ["from-before"]
    assert program("db", "check").code == 0
    assert list((program.home / "backups").glob("*-v0003-*"))


def test_what_it_runs_finds_the_callers_environment_and_outlives_kill_9_of_the_daemon(program: Installed) -> None:
    roots = {"DAEMON_PROCESSES_WORKSPACE_ROOTS": json.dumps([str(program.user)])}
    pid = program.start(**roots)
    program.sign_in()
    program.add_agent()
    given = {"LD_LIBRARY_PATH": "/own/lib", "VIRTUAL_ENV": "/own/venv", "OWN": "1"}
    done = program("run", "--agent", "first", "--", "env", **given)
    found = dict(line.split("=", 1) for line in done.out.splitlines())
    expected = program.environment(**given)
    del expected["DAEMON_MASTER_PASSWORD_FILE"]
    added = {"DAEMON_URL", "DAEMON_AGENT_ID", "DAEMON_SESSION_ID", "DAEMON_TOKEN_FILE"}
    assert added <= found.keys()
    not_given = {"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}  # a shell sets them, and Python the last
    assert {name: found[name] for name in found.keys() - added - not_given} == expected
    assert program("run", "--agent", "first", "--", "sh", "-c", "exit 7").code == 7
    session = program("session", "create", "--agent", "first", "--json", "--", "cat").json()["id"]
    assert program("session", "send", session, "hello", "--wait").out == "hello\n"
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(pid))
    program.start(**roots)
    assert program("session", "send", session, "again", "--wait").out == "again\n"
    (child,) = program("ps", "--json").json()
    environment = psutil.Process(child["pid"]).environ()
    assert environment["DAEMON_SESSION_ID"] == session
    assert [name for name in environment if name.startswith(("LD_", "_PYI", "DAEMON_STARTED"))] == []
    assert program("session", "kill", session).code == 0


def test_in_the_foreground_it_is_one_process_that_tells_systemd_and_ends_with_ctrl_c(
    program: Installed, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        process = subprocess.Popen(
            [program.path, "--home", program.home, "start", "--port", "0"],
            env=program.environment(NOTIFY_SOCKET=str(tmp_path / "notify")),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while "READY=1" not in manager.recv(4096).decode().splitlines():
            pass
        assert psutil.Process(process.pid).children() == []
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    ready = next(line for line in map(json.loads, out.splitlines()) if line["event"] == "daemon.ready")
    assert (ready["pid"], ready["version"]) == (process.pid, __version__)


def test_a_model_reaches_its_session_over_mcp(program: Installed) -> None:
    program.start()
    program.sign_in()
    token = program.user / "token"
    token.write_text(program.add_agent()["token"])
    token.chmod(0o600)

    async def status() -> Any:
        server = StdioServerParameters(
            command=str(program.path),
            args=["--home", str(program.home), "mcp"],
            env=program.environment(DAEMON_TOKEN_FILE=str(token)),
        )
        async with Client(server) as client:
            return (await client.call_tool("session_status", {})).structured_content

    found = asyncio.run(status())
    print("session_status:", found)
    assert (found["agentName"], found["status"]) == ("first", "ACTIVE")
    assert f"ExecStart=:{program.path}" in program("service", "print", "--kind", "systemd").out


def test_postgresql_keeps_the_rows_and_redis_the_conversations(program: Installed) -> None:
    with fresh_database(migrated=False) as database, shared() as redis:
        settings = {**redis, "DAEMON_DATABASE_URL": database}
        program.start(**settings)
        program.sign_in()
        token = program.add_agent()["token"]
        assert ask(database, "SELECT name FROM agents") == [("first",)]
        bound = program.ask("PUT", "/v1/conversations/c1", token, {"provider": "anthropic", "model": "m"})
        assert bound.status_code == 201
        kept = Redis.from_url(redis["DAEMON_CONVERSATIONS_URL"]).keys(f"{redis['DAEMON_CONVERSATIONS_KEY_PREFIX']}*")
        assert len(kept) > 0
        assert program("doctor", **settings).code == 0

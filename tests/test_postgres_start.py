"""Starting on PostgreSQL: what keeps a daemon from it is said in one line, soon, and without the password."""

import asyncio
import contextlib
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from daemon.app import make_hasher
from daemon.cli import offline
from daemon.config import load
from daemon.crypto.seal_key import SealKey
from daemon.home import Home
from daemon.running import Daemon
from daemon.services.owner import PASSWORD_KEY
from daemon.startup import StartError
from daemon.stores.postgres import migrate as postgres_migrate
from daemon.stores.postgres.connection import connect, unavailable
from daemon.stores.postgres.locks import number
from tests.stores.postgres_help import refusal
from tests.support.daemon_process import CHEAP, PASSWORD, DaemonProcess, cli, environment
from tests.support.postgres import Cluster, ask, named, own_cluster, script

SECRET = "s3same&co"
ESCAPED = "s3same%26co"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Cluster]:
    """A server that asks for a password, with a user who may do nothing."""
    with own_cluster("owner") as cluster:
        script(
            cluster.url,
            f"CREATE ROLE weak LOGIN PASSWORD '{SECRET}'; REVOKE CREATE ON SCHEMA public FROM PUBLIC;",
        )
        yield cluster


@contextlib.contextmanager
def stranger(answer: bytes) -> Iterator[int]:
    """Listen, and answer whoever connects with something, or with nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening, contextlib.ExitStack() as held:

        def serve() -> None:
            while True:
                try:
                    connection = held.enter_context(listening.accept()[0])
                except OSError:  # it is over
                    return
                connection.recv(1024)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        if answer:
            thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            if answer:
                thread.join()


def said(url: str, within: float = 1.5) -> str:
    """Return why the database cannot be used: one line, soon, that names the place and no password."""
    started = time.monotonic()
    line = refusal(url)
    assert time.monotonic() - started < within
    assert SECRET not in line
    assert ESCAPED not in line
    place = url.partition("?")[0].replace(ESCAPED, "***")
    assert line.startswith(f"{place}: ")
    return line


def test_a_wrong_password_user_or_database_is_named_with_its_cure(guarded: Cluster) -> None:
    at = f"127.0.0.1:{guarded.port}"
    line = said(f"postgresql://postgres:{ESCAPED}@{at}/postgres")
    assert 'password authentication failed for user "postgres"; correct user and password in database.url' in line
    assert 'failed for user "nobody"; correct' in said(f"postgresql://nobody:{ESCAPED}@{at}/postgres")
    assert 'failed for user "weak"; correct' in said(f"postgresql://weak@{at}/postgres")
    line = said(f"postgresql://weak:{ESCAPED}@{at}/none")
    assert line.endswith('"none" does not exist; create it, for example with createdb, or correct database.url')


def test_missing_rights_are_named_with_their_cure(guarded: Cluster) -> None:
    url = f"postgres://weak:{ESCAPED}@127.0.0.1:{guarded.port}/postgres"
    assert re.search(r"permission denied for schema public.*; GRANT CREATE, USAGE ON SCHEMA to the user", said(url))
    assert "no schema of search_path exists" in said(f"{url}?search_path=none")
    assert ask(guarded.url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_a_server_that_may_only_be_read_is_named(guarded: Cluster) -> None:
    ask(guarded.url, "CREATE DATABASE reading")
    ask(guarded.url, "ALTER DATABASE reading SET default_transaction_read_only = on")
    assert "name the primary server" in refusal(named(guarded.url, "reading"))


@pytest.mark.parametrize(
    ("place", "cure"),
    [
        ("127.0.0.1:{closed}", "nothing listens there; start the server, or correct host and port"),
        ("name.invalid", "the host's name cannot be resolved"),
    ],
)
def test_a_wrong_address_is_named_with_its_cure(place: str, cure: str) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        at = place.format(closed=reserved.getsockname()[1])
        line = said(f"postgresql://u:{ESCAPED}@{at}/n", within=4)
    assert cure in line
    assert "correct host" in line


@pytest.mark.parametrize(
    ("answer", "mode"), [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "prefer"), (b"-ERR unknown command\r\n", "disable")]
)
def test_another_service_at_the_port_is_told(answer: bytes, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_migrate, "CONNECT_TIMEOUT", 0.5)
    with stranger(answer) as port:
        line = said(f"postgresql://u:{ESCAPED}@127.0.0.1:{port}/n?sslmode={mode}", within=4)
    assert "host, port" in line or "host and port" in line


@pytest.mark.parametrize("option", ["sslmode=nonsense", "sslmode=require", "sslrootcert=/none", "host=/none"])
def test_options_that_do_not_work_are_told(guarded: Cluster, option: str) -> None:
    at = "" if option.startswith("host") else f"127.0.0.1:{guarded.port}"
    assert "database.url" in said(f"postgresql://weak:{ESCAPED}@{at}/n?{option}")


def test_a_silent_server_ends_the_start_in_a_few_seconds_and_nobody_is_asked_for_a_password(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with stranger(b"") as port:
        url = f"postgresql://u:{ESCAPED}@127.0.0.1:{port}/n"
        started = time.monotonic()
        ended = cli(home, "start", DAEMON_DATABASE_URL=url)
        assert time.monotonic() - started < 10
    assert ended.code == 1
    line = ended.err.strip()
    assert "\n" not in line
    assert f"postgresql://u:***@127.0.0.1:{port}/n: the server does not answer in time" in line
    log = (home / "logs/daemon.log").read_text()
    assert "daemon.failed" in log
    for text in (ended.out, ended.err, log):
        assert SECRET not in text
        assert ESCAPED not in text
        assert "Traceback" not in text


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (TimeoutError(), "(the server does not answer in time; look at host, port and firewall, "),
        (ConnectionRefusedError(111, "refused"), "(nothing listens there; start the server, "),
        (asyncpg.TooManyConnectionsError("sorry"), "(sorry; raise the server's max_connections)"),
    ],
)
async def test_a_step_that_the_server_does_not_let_happen_says_why(tmp_path: Path, cause: Exception, said: str) -> None:
    loaded = load(tmp_path, {"DAEMON_DATABASE_URL": f"postgresql://u:{ESCAPED}@h/n"}, {})
    opening = Daemon(Home(tmp_path), loaded)._opening

    async def fail() -> None:
        raise unavailable(cause)

    with pytest.raises(StartError) as refused:
        await opening.step("open the database", fail())
    assert refused.value.message.startswith("could not open the database: ")
    assert said in refused.value.message


def test_init_says_what_is_wrong_before_it_asks_for_a_password(tmp_path: Path, guarded: Cluster) -> None:
    url = f"postgresql://postgres:{ESCAPED}@127.0.0.1:{guarded.port}/postgres"
    ended = cli(tmp_path / "home", "init", DAEMON_DATABASE_URL=url, DAEMON_MASTER_PASSWORD=None)
    assert ended.code == 1
    assert "password authentication failed" in ended.err
    assert "terminal" not in ended.err
    assert ESCAPED not in ended.err


def test_without_asyncpg_the_start_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['asyncpg'] = None; from daemon.__main__ import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, "start"],
        env=environment(tmp_path, DAEMON_MASTER_PASSWORD=PASSWORD, DAEMON_DATABASE_URL="postgresql://h/n"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.strip() == (
        "error: PostgreSQL needs asyncpg; run: pip install 'agent-session-daemon[postgres]'"
    )


def test_asyncpg_is_imported_for_postgresql_alone(tmp_path: Path) -> None:
    code = (
        "import sys; from daemon.__main__ import main\n"
        "try: main()\n"
        "finally: assert not {name for name in sys.modules if name.startswith('asyncpg')}"
    )
    env = environment(tmp_path, DAEMON_MASTER_PASSWORD=PASSWORD)
    subprocess.run([sys.executable, "-c", code, "init"], env=env, check=True, capture_output=True)


def test_whether_a_database_has_a_master_password_is_asked(
    tmp_path: Path, database_url: str, empty_database_url: str
) -> None:
    def asked(url: str) -> bool | None:
        return offline.is_initialised(Home(tmp_path), load(tmp_path, {"DAEMON_DATABASE_URL": url}, {}))

    assert asked(empty_database_url) is False
    assert asked(database_url) is False
    ask(database_url, "INSERT INTO key_value_store VALUES ('master_password', 'hash', now())")
    assert asked(database_url) is True
    assert asked(named(database_url, "no_such_database")) is None


def test_a_configuration_is_checked_without_asking_the_server(tmp_path: Path) -> None:
    env = {
        "DAEMON_DATABASE_URL": f"postgresql://u:{ESCAPED}@name.invalid/n",
        "DAEMON_CONVERSATIONS_URL": "redis://name.invalid",
    }
    assert cli(tmp_path, "config", "check", **env)[:2] == (0, "the configuration is valid\n")


def test_a_second_home_on_a_database_is_made_by_init_with_the_first_ones_key(tmp_path: Path, database_url: str) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert cli(first, "init", DAEMON_DATABASE_URL=database_url).code == 0
    refused = cli(second, "init", DAEMON_DATABASE_URL=database_url)
    assert (refused.code, "copy seal.key from the home of one" in refused.err) == (2, True)
    shutil.copy(first / "seal.key", second)
    daemon = DaemonProcess(second, DAEMON_DATABASE_URL=database_url)
    assert daemon.stop() == 0


def test_who_cannot_open_the_channels_of_a_copied_database_is_refused(tmp_path: Path, database_url: str) -> None:
    first, second, env = tmp_path / "first", tmp_path / "second", {"DAEMON_DATABASE_URL": database_url}
    first.mkdir(mode=0o700)
    sealed = SealKey(first / "seal.key").seal(b"{}", "c")
    columns = "id, type, name, config, priority, min_level, agents, enabled, created_at, updated_at"
    values = "'c', 'NTFY', 'push', $1, 1, 'INFO', '[]', true, now(), now()"
    ask(database_url, f"INSERT INTO notification_channels ({columns}) VALUES ({values})", sealed)
    refused = cli(second, "init", **env)
    assert (refused.code, "copy seal.key from the home of one" in refused.err) == (2, True)
    assert not (second / "seal.key").exists()
    assert cli(first, "init", **env).code == 0
    shutil.copy(first / "seal.key", second)
    assert cli(second, "init", **env).code == 0


@pytest.mark.parametrize("given", [None, "another horse battery staple"])
def test_who_is_second_at_the_same_instant_does_not_begin_with_a_password_of_its_own(
    tmp_path: Path, database_url: str, given: str | None
) -> None:
    home, env = tmp_path / "home", {"DAEMON_DATABASE_URL": database_url, "DAEMON_MASTER_PASSWORD": given}
    begin = ["init"] if given else ["start", "--detach"]
    hasher = make_hasher(load(tmp_path, CHEAP, {}).config)
    waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = $1"
    [(oid,)] = ask(database_url, "SELECT oid FROM pg_database WHERE datname = current_database()")

    async def first() -> tuple[int, str]:
        """Set a password while the daemon, which has found none, is about to."""
        connection = await connect(database_url, seconds=5)
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", number("value", PASSWORD_KEY))
            second = asyncio.create_task(asyncio.to_thread(cli, home, *begin, **env))
            while not await connection.fetch(waiting, oid) and not second.done():
                await asyncio.sleep(0.02)
            stored = await hasher.hash(PASSWORD)
            await connection.execute("INSERT INTO key_value_store VALUES ($1, $2, now())", PASSWORD_KEY, stored)
        await connection.close()
        ended = await second
        return ended.code, ended.err

    code, err = asyncio.run(first())
    hasher.close()
    cli(home, "stop", **env)
    if given is None:
        assert (code, "its master password counts" in err) == (0, True)
    else:
        assert (code, "the given master password is not this home's" in err) == (4, True)
    assert not (home / "initial-password").exists()


def test_the_kill_switch_goes_on_while_the_daemon_is_down(tmp_path: Path, database_url: str) -> None:
    env = {"DAEMON_DATABASE_URL": database_url}
    assert "There is no daemon in" in cli(tmp_path / "home", "kill-switch", "on", **env).err
    assert cli(tmp_path / "home", "init", **env).code == 0
    assert cli(tmp_path / "home", "kill-switch", "on", **env).code == 0
    assert ask(database_url, "SELECT count(*) FROM audit_log WHERE event_type = 'KILL_SWITCH_ACTIVATED'") == [(1,)]
    away = cli(tmp_path / "home", "kill-switch", "on", DAEMON_DATABASE_URL=named(database_url, "no_such_database"))
    assert (away.code, '"no_such_database" does not exist; create it' in away.err) == (1, True)


def test_what_works_on_a_file_says_so(tmp_path: Path) -> None:
    ended = cli(tmp_path, "db", "schema", DAEMON_DATABASE_URL=f"postgresql://u:{ESCAPED}@h/n")
    assert ended.code == 2
    assert "This command works on a database file, and database.url names PostgreSQL" in ended.err
    assert ESCAPED not in ended.err

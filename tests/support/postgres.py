"""Real PostgreSQL: databases of the server that is there, and servers of our own that may be stopped."""

import asyncio
import contextlib
import functools
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import zlib
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

SERVER = os.environ.get("DAEMON_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")
_MINE = f"daemon_test_{zlib.crc32(socket.gethostname().encode()):08x}"
_numbers = itertools.count(1)


def unavailable(service: str, reason: str) -> Any:
    """Skip the test, or fail it where DAEMON_TEST_REQUIRE names the service."""
    if service in os.environ.get("DAEMON_TEST_REQUIRE", "").split():
        pytest.fail(reason)
    pytest.skip(reason)


def run_apart(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on a loop in a thread of its own, so that a test with a running loop may call this too."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def ask(url: str, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Run one statement on a connection of its own and return its rows; times are Unix seconds."""
    from daemon.stores.postgres.connection import connect

    async def work() -> list[tuple[Any, ...]]:
        connection = await connect(url, seconds=5)
        try:
            return [tuple(row) for row in await connection.fetch(sql, *parameters)]
        finally:
            await connection.close()

    found: list[tuple[Any, ...]] = run_apart(work())
    return found


def script(url: str, sql: str) -> None:
    """Run several statements, which have no parameters."""
    from daemon.stores.postgres.connection import connect

    async def work() -> None:
        connection = await connect(url, seconds=5)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    run_apart(work())


def named(url: str, database: str) -> str:
    """Return the address of another database of a server."""
    return re.sub(r"(://[^/]*/)[^?]*", rf"\g<1>{database}", url)


@functools.cache
def _problem() -> str | None:
    try:
        leftovers = ask(SERVER, "SELECT datname FROM pg_database WHERE datname LIKE $1", f"{_MINE}%")
    except Exception as error:  # noqa: BLE001 (whatever it is, there is none)
        return f"there is no PostgreSQL to test with at DAEMON_TEST_POSTGRES: {error!r}"
    for (name,) in leftovers:
        if not psutil.pid_exists(int(name.split("_")[3])):
            _drop(name)
    return None


def server() -> str:
    """Return the address of the server that tests share; nothing of it may be stopped or changed."""
    if (problem := _problem()) is not None:
        unavailable("postgres", problem)
    return SERVER


def _drop(name: str) -> None:
    with contextlib.suppress(Exception):
        ask(SERVER, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@functools.cache
def _template() -> str:
    """Make, once in a process, the migrated database that the others are copied from."""
    from daemon.stores.postgres.migrate import migrate

    name = f"{_MINE}_{os.getpid()}_template"
    ask(SERVER, f"CREATE DATABASE {name} TEMPLATE template0")
    run_apart(migrate(named(SERVER, name), now=1_750_000_000))
    return name


def drop_template() -> None:
    """Drop what this process made for all its tests."""
    if _template.cache_info().currsize:
        _drop(_template())


@contextlib.contextmanager
def fresh_database(*, migrated: bool = True) -> Iterator[str]:
    """Make a database and yield its address; it is dropped afterwards, whoever uses it.

    Args:
        migrated: or empty.
    """
    server()
    name = f"{_MINE}_{os.getpid()}_{next(_numbers)}"
    ask(SERVER, f"CREATE DATABASE {name} TEMPLATE {_template() if migrated else 'template0'}")
    try:
        yield named(SERVER, name)
    finally:
        _drop(name)


class Cluster:
    """A PostgreSQL server of our own, which may be stopped, killed, frozen and started again.

    Args:
        root: an empty directory that is the server's alone.
        password: of the user `postgres`; None lets everybody in.
    """

    def __init__(self, root: Path, password: str | None) -> None:
        self.root = root
        self._binaries = _binaries()
        self._user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        secret = f":{password}" if password else ""
        self.url = f"postgresql://postgres{secret}@127.0.0.1:{self.port}/postgres"
        if self._user:
            shutil.chown(root, "postgres", "postgres")
        words = root / "password"
        words.write_text(password or "-")
        how = ["--auth=scram-sha-256", f"--pwfile={words}"] if password else ["--auth=trust"]
        self._run("initdb", "-D", str(root / "data"), "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", *how)
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._binaries / program, *arguments], cwd=self.root, check=True, capture_output=True, **self._user
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
        }
        self.process = subprocess.Popen(
            [
                self._binaries / "postgres",
                "-D",
                str(self.root / "data"),
                *(f"--{name}={value}" for name, value in options.items()),
            ],
            cwd=self.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._user,
        )
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(Exception):
                ask(self.url, "SELECT 1")
                return
            assert self.process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.02)

    def stop(self) -> None:
        """Shut down in good order: clients are told and cut off."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Let it crash; the next start recovers."""
        self._end(signal.SIGQUIT)

    def _end(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(30)

    def freeze(self) -> None:
        """Let every process hang: connections stay open, and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        parent = psutil.Process(self.process.pid)
        for process in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def _binaries() -> Path:
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not packaged:
        unavailable("postgres", "there is no initdb to make a PostgreSQL server with")
    return packaged[-1].parent


@contextlib.contextmanager
def own_cluster(password: str | None = None) -> Iterator[Cluster]:
    """Make a server of our own (about a second), and remove it afterwards."""
    root = Path(tempfile.mkdtemp(prefix="daemon-postgres-"))
    cluster = None
    try:
        cluster = Cluster(root, password)
        yield cluster
    finally:
        if cluster is not None and cluster.process.poll() is None:
            cluster.thaw()
            cluster.kill()
        shutil.rmtree(root, ignore_errors=True)

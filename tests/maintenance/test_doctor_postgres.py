"""The doctor on a PostgreSQL database: finds each fault, names its cure, and changes nothing."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from daemon.home import Home
from daemon.maintenance.doctor import FIRST, OF_HOME, examine
from daemon.maintenance.findings import Finding, Patient
from daemon.maintenance.postgres_checks import NEEDED, OF_ROWS, OF_SERVER
from daemon.maintenance.postgres_place import opened
from daemon.stores.tables import Sums
from tests.maintenance.test_restore import files
from tests.support.daemon_process import cli, environment
from tests.support.live import FakeTime, LiveDaemon
from tests.support.owner import WEBHOOK_SECRET, add, webhook
from tests.support.postgres import Cluster, ask, named, own_cluster, script
from tests.support.services.webhook import FakeWebhook

SECRET = "s3same"


class Site(NamedTuple):
    """A home whose daemon is down, and its database."""

    root: Path
    url: str

    @property
    def home(self) -> Home:
        """The home's paths."""
        return Home.resolve(self.root, {})

    def findings(self, url: str = "", later: int = 0) -> list[Finding]:
        """Examine the home, on another address or with another clock if asked; no line has the password."""
        env = {"DAEMON_SERVER_PORT": "0", "DAEMON_DATABASE_URL": url or self.url}
        found = asyncio.run(examine(Patient.of(self.home, env, int(time.time()) + later)))
        assert SECRET not in str(found)
        assert all(one.cure for one in found if one.status != "ok")
        return found

    def faults(self, url: str = "", later: int = 0) -> list[tuple[str, str, str]]:
        """Return name, status and cure of what is not ok."""
        return [(one.name, one.status, one.cure or "") for one in self.findings(url, later) if one.status != "ok"]

    def sums(self) -> Sums:
        """Return what the database holds."""

        class Silent:
            def begin(self, what: str, rows: int) -> None:
                """Say nothing."""

            def advance(self, rows: int) -> None:
                """Say nothing."""

        async def read() -> Sums:
            async with opened(self.url) as place:
                return await place.sums(Silent())

        return asyncio.run(read())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A server that asks for a password."""
    with own_cluster(SECRET) as made:
        yield made


@pytest.fixture(scope="module")
def site(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A home that is well; a test leaves it so."""
    root = tmp_path_factory.mktemp("site") / "home"
    live = LiveDaemon(root, FakeTime(int(time.time()) - 60), DAEMON_DATABASE_URL=cluster.url)
    live.new_session(live.new_agent())
    backup = live.owner.post("/v1/admin/backup")
    live.stop()
    assert backup.status_code in {200, 201}
    return Site(root, cluster.url)


def test_a_healthy_home_is_ok_in_every_check_and_nothing_is_changed(site: Site) -> None:
    before = files(site.root), site.sums()
    found = site.findings()
    assert [one for one in found if one.status != "ok" or one.cure] == []
    checks = [check.__name__.removeprefix("check_") for check in (*FIRST, *OF_HOME)]
    parts = [part.__name__.removeprefix("look_at_") for part in (*OF_SERVER, *OF_ROWS)]
    names = {name.replace("_", "-") for name in (*checks, *parts, "encoding", "schema", "checkpoints", "backups")}
    assert names == {one.name for one in found}
    assert (files(site.root), site.sums()) == before


def test_a_running_daemon_is_seen_and_the_command_exits_0(site: Site) -> None:
    live = LiveDaemon(site.root, FakeTime(int(time.time())), DAEMON_DATABASE_URL=site.url)
    try:
        ended = cli(site.root, "doctor", DAEMON_DATABASE_URL=site.url)
    finally:
        live.stop()
    assert (ended.code, ended.err, "failed" in ended.out, SECRET in ended.out) == (0, "", False, False)
    assert "connected from 127.0.0.1" in ended.out


# Faults of rows: the statements that make one and undo it, and what is found


_ARMED = "ALTER TABLE audit_log DISABLE TRIGGER ALL; {}; ALTER TABLE audit_log ENABLE TRIGGER ALL"

FAULTS: list[tuple[str, str, tuple[str, str, str]]] = [
    (
        "UPDATE key_value_store SET key = 'away' WHERE key = 'master_password'",
        "UPDATE key_value_store SET key = 'master_password' WHERE key = 'away'",
        ("password", "failed", "daemon init"),
    ),
    (
        _ARMED.format("UPDATE audit_log SET actor = actor || 'x' WHERE id = 2"),
        _ARMED.format("UPDATE audit_log SET actor = rtrim(actor, 'x') WHERE id = 2"),
        ("audit", "failed", "evidence"),
    ),
    (
        _ARMED.format(
            "CREATE TABLE cut AS SELECT * FROM audit_log ORDER BY id DESC LIMIT 1; "
            "DELETE FROM audit_log WHERE id = (SELECT id FROM cut)"
        ),
        "INSERT INTO audit_log SELECT * FROM cut; DROP TABLE cut",
        ("audit", "failed", "daemon db copy"),
    ),
    (
        "CREATE TABLE last AS SELECT * FROM schema_migrations ORDER BY version DESC LIMIT 1; "
        "DELETE FROM schema_migrations WHERE version = (SELECT version FROM last)",
        "INSERT INTO schema_migrations SELECT * FROM last; DROP TABLE last",
        ("schema", "warning", "daemon start"),
    ),
    (
        "INSERT INTO schema_migrations VALUES (9999, '9999_new', 'x', now())",
        "DELETE FROM schema_migrations WHERE version = 9999",
        ("schema", "failed", "install a newer version"),
    ),
    (
        "UPDATE key_value_store SET value = 'x' || value WHERE key = 'seal_key'",
        "UPDATE key_value_store SET value = ltrim(value, 'x') WHERE key = 'seal_key'",
        ("seal-key", "failed", "copy seal.key from the home of another daemon"),
    ),
]


@pytest.mark.parametrize(("make", "undo", "expected"), FAULTS)
def test_each_fault_of_the_rows_is_found_with_its_cure(
    site: Site, make: str, undo: str, expected: tuple[str, str, str]
) -> None:
    script(site.url, make)
    try:
        ((name, status, cure),) = site.faults()
    finally:
        script(site.url, undo)
    assert (name, status) == expected[:2]
    assert expected[2] in cure
    assert site.faults() == []


def without_key(root: Path) -> None:
    (root / "seal.key").unlink()


def other_checkpoint(root: Path) -> None:
    with (root / "logs" / "daemon.log").open("a") as log:
        log.write(f'{{"event": "audit.checkpoint", "seq": 1, "hash": "{"0" * 64}"}}\n')


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (without_key, ("seal-key", "failed", "copy seal.key")),
        (other_checkpoint, ("checkpoints", "failed", "daemon audit verify --against")),
    ],
)
def test_each_fault_of_the_home_is_found_with_its_cure(
    site: Site, tmp_path: Path, damage: Callable[[Path], None], expected: tuple[str, str, str]
) -> None:
    copied = site._replace(root=Path(shutil.copytree(site.root, tmp_path / "home")))
    damage(copied.root)
    ((name, status, cure),) = copied.faults()
    assert (name, status, expected[2] in cure) == (*expected[:2], True)


@pytest.mark.parametrize("later", [60, -60])
def test_a_clock_that_is_not_the_servers_is_a_warning(site: Site, later: int) -> None:
    ((name, status, cure),) = site.faults(later=later)
    assert (name, status, "timedatectl" in cure) == ("clock", "warning", True)
    assert site.faults(later=3) == []


def test_an_event_after_the_servers_time_is_a_warning(cluster: Cluster, site: Site, tmp_path: Path) -> None:
    with database(cluster, "future") as url:
        LiveDaemon(tmp_path / "home", FakeTime(int(time.time()) + 500), DAEMON_DATABASE_URL=url).stop()
        found = Site(tmp_path / "home", url).faults()
    assert [one[:2] for one in found if one[0] != "backups"] == [("server-clock", "warning")]


@contextlib.contextmanager
def database(cluster: Cluster, name: str, options: str = "") -> Iterator[str]:
    """Make an empty database, and drop it afterwards."""
    ask(cluster.url, f"CREATE DATABASE {name} TEMPLATE template0 {options}")
    try:
        yield named(cluster.url, name)
    finally:
        ask(cluster.url, f"DROP DATABASE {name} WITH (FORCE)")


def test_an_empty_a_misencoded_and_a_read_only_database_are_found(cluster: Cluster, site: Site) -> None:
    with database(cluster, "latin", "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'") as url:
        ask(cluster.url, "ALTER DATABASE latin SET default_transaction_read_only = on")
        found = {name: (status, cure) for name, status, cure in site.faults(url)}
    assert found.keys() == {"server", "encoding", "schema"}
    assert {status for status, _ in found.values()} == {"failed"}
    assert "primary" in found["server"][1]
    assert "--encoding UTF8" in found["encoding"][1]
    assert "daemon init" in found["schema"][1]


def test_missing_rights_and_too_few_connections_are_found(cluster: Cluster, site: Site) -> None:
    script(
        cluster.url, f"CREATE ROLE weak LOGIN PASSWORD '{SECRET}'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO weak"
    )
    url = cluster.url.replace("//postgres:", "//weak:")
    try:
        ((name, status, cure),) = site.faults(url)
        assert (name, status) == ("rights", "failed")
        assert "UPDATE on audit_head" in cure
        assert "DELETE on audit_log" not in cure
        script(
            cluster.url, f"GRANT ALL ON ALL TABLES IN SCHEMA public TO weak; ALTER ROLE weak CONNECTION LIMIT {NEEDED}"
        )
        found = site.faults(url)
        assert [one[:2] for one in found] == [("connections", "warning"), ("rights", "warning")]
        assert "max_connections" in found[0][2]
        assert "OWNER TO" in found[1][2]
    finally:
        script(cluster.url, "DROP OWNED BY weak; DROP ROLE weak")


def test_a_channel_whose_service_is_gone_is_found(cluster: Cluster, tmp_path: Path) -> None:
    with database(cluster, "channels") as url:
        live = LiveDaemon(tmp_path / "home", FakeTime(int(time.time())), DAEMON_DATABASE_URL=url)
        with FakeWebhook(WEBHOOK_SECRET, clock=lambda: live.time.wall) as hook:
            add(live, webhook(hook))
            live.stop()
            there = Site(tmp_path / "home", url)
            assert [one[0] for one in there.faults()] == ["backups"]
        assert [one[:2] for one in there.faults()] == [("channel hook", "failed"), ("backups", "warning")]


def test_a_server_that_is_not_there_hangs_or_refuses_is_one_finding(cluster: Cluster, site: Site) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        away = f"postgresql://postgres:{SECRET}@127.0.0.1:{reserved.getsockname()[1]}/postgres"
        assert site.faults(away) == [
            ("database", "failed", "start the server, or correct host and port in database.url")
        ]
    ((name, status, cure),) = site.faults(cluster.url.replace(SECRET, f"{SECRET}x"))
    assert (name, status, cure) == ("database", "failed", "correct user and password in database.url")
    cluster.freeze()
    started = time.monotonic()
    try:
        ((name, status, cure),) = site.faults()
    finally:
        cluster.thaw()
    assert (name, status, "firewall" in cure) == ("database", "failed", True)
    assert time.monotonic() - started < 4


def test_without_the_packages_the_doctor_says_what_to_install(site: Site) -> None:
    code = "import sys; sys.modules['asyncpg'] = sys.modules['redis'] = None; from daemon.__main__ import main; main()"
    env = environment(site.root, DAEMON_DATABASE_URL=site.url, DAEMON_CONVERSATIONS_URL=f"redis://:{SECRET}@127.0.0.1")
    ended = subprocess.run(
        [sys.executable, "-c", code, "doctor"], env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stderr, SECRET in ended.stdout) == (1, "", False)
    assert "run: pip install 'agent-session-daemon[postgres]'" in ended.stdout
    assert "run: pip install 'agent-session-daemon[redis]'" in ended.stdout

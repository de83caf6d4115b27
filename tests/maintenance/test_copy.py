"""`daemon db copy`: everything arrives or nothing does, nobody's token is lost, and no history is overwritten."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from daemon.home import Home
from daemon.maintenance.copy import Copied, copy
from daemon.maintenance.exclusive import Refused
from daemon.stores.migrate import latest_version, migrate
from daemon.stores.tables import TABLES
from tests.maintenance.kill_copy import Quiet
from tests.maintenance.test_restore import files, read, write
from tests.support import postgres
from tests.support.daemon_process import REPOSITORY, UNTRACED, DaemonProcess, cli, environment
from tests.support.live import FakeTime, LiveDaemon
from tests.support.terminal import at_terminal

NOW = 1_800_000_000
LEASES = {"taken_by", "taken_until"}
"""Columns that say what a daemon of the source is doing just now: nobody misses them."""
HARD = {"nul": "a\0b", "emoji": "😀👩‍👩‍👧", "big": "x" * 7_000, "quote": "'\"\\", "rtl": "\u202eabc\u2028"}


class History(NamedTuple):
    """A home whose database has rows in every table, and what its agents know.

    Args:
        root: the home.
        session: renewed by an agent that never saw the answer: with the token that was renewed, and the new one.
        revoked: a session that ended.
    """

    root: Path
    session: dict[str, Any]
    revoked: dict[str, Any]

    @property
    def home(self) -> Home:
        """The home's paths."""
        return Home.resolve(self.root, {})

    @property
    def url(self) -> str:
        """Address of its database."""
        return address(self.home.database)

    def go_on(self, url: str | None = None, root: Path | None = None) -> LiveDaemon:
        """Start a daemon on a database, ten seconds after the renewal."""
        where = {} if url is None else {"DAEMON_DATABASE_URL": url}
        return LiveDaemon(root or self.root, FakeTime(NOW + 160), **where)


def address(path: Path) -> str:
    return f"sqlite://{path}"


FURTHER = (
    "INSERT INTO conversations SELECT agent_id, 'Gespräch 1', 'p', 'm', NULL, id, 5, 6, 7, 8, 9 FROM sessions",
    "INSERT INTO processes SELECT id, 'h', '{}', 'sealed', 'x', revoked_at IS NULL, 'pool', 'idle', 3, 41, 42, '7',"
    " 'boot', 5, NULL, 1, 9, 'crashed', 2, 1, 6, 4, 3, 1 << 40, '{\"costUsd\":0.1}', 7 FROM sessions",
    "INSERT INTO turns SELECT id, 4, 'QUEUED', '한글 👍', 5, NULL, NULL FROM sessions",
    "INSERT INTO turns SELECT id, 3, 'DONE', NULL, 5, 6, 7 FROM sessions",
    "INSERT INTO verifiers VALUES ('v', 'gateway', 'h', 1, 5, 6, 7)",
    "INSERT INTO idempotency_keys SELECT 'k' || id, id, 5 FROM sessions",
    "INSERT INTO notification_channels VALUES ('c', 'NTFY', 'push', 'sealed', 1, 'INFO', NULL, '[]', 0, 5, 6)",
    "INSERT INTO notification_outbox VALUES (41, 3, 'c', 'E', 'INFO', NULL, NULL, 'r', 'd', 5, 2, 6, 7)",
    "INSERT INTO answers VALUES ('h', 'c', 3, NULL, NULL, '[]', 5, 6, 7, NULL, NULL)",
    "INSERT INTO notification_log VALUES ('l', 'c', 'E', 'INFO', NULL, 'FAILED', 'HTTP 500', 1, 5)",
)


@pytest.fixture(scope="session")
def _history(tmp_path_factory: pytest.TempPathFactory) -> History:
    live = LiveDaemon(tmp_path_factory.mktemp("history") / "home", FakeTime(NOW))
    try:
        session = live.new_session(live.new_agent("Ωmega"), ttl=300, metadata=HARD, userId="user 👍")
        revoked = live.new_session(ttl=300)
        live.owner.delete(f"/v1/sessions/{revoked['id']}").raise_for_status()
        live.time.advance(150)
        renewed = live.agent(session["token"]).put(f"/v1/sessions/{session['id']}/renew").raise_for_status().json()
    finally:
        live.stop()
    write(live.home.database, *FURTHER)
    return History(live.root, {**session, "renewed": renewed["token"]}, revoked)


@pytest.fixture
def history(_history: History, tmp_path: Path) -> History:
    """The history, as a copy of the test's own."""
    return _history._replace(root=Path(shutil.copytree(_history.root, tmp_path / "home")))


def rows(database: Path | str) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table as it is, independently of how the program copies them."""
    found = {}
    for table in TABLES:
        sql = f"SELECT * FROM {table.name} ORDER BY {', '.join(table.key)}"
        if isinstance(database, Path):
            found[table.name] = read(database, sql)
        else:
            names = [name for (name,) in postgres.ask(database, _COLUMNS, table.name)]
            kept = [index for index, name in enumerate(names) if name not in LEASES]
            found[table.name] = [tuple(row[index] for index in kept) for row in postgres.ask(database, sql)]
    return found


_COLUMNS = """SELECT column_name FROM information_schema.columns
WHERE table_name = $1 AND table_schema = current_schema() ORDER BY ordinal_position"""


def copied(home: Home, source: str, target: str) -> Copied:
    return copy(home, source, target, Quiet())


def refusal(home: Home, source: str, target: str) -> str:
    with pytest.raises(Refused) as refused:
        copied(home, source, target)
    assert "\n" not in str(refused.value)
    return f"{refused.value.problem} {refused.value.cure}"


def test_every_table_and_column_of_both_engines_is_copied(tmp_path: Path, database_url: str) -> None:
    migrate(tmp_path / "new.db", now=1, backups=None)
    wanted = {table.name: list(table.columns) for table in TABLES}
    tables = read(
        tmp_path / "new.db", "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    )
    found = {
        name: [row[1] for row in read(tmp_path / "new.db", f"PRAGMA table_info({name})")]
        for (name,) in tables
        if name != "schema_migrations"
    }
    assert found == wanted
    on_server: dict[str, list[str]] = {}
    for name, column in postgres.ask(
        database_url,
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema()"
        " ORDER BY table_name, ordinal_position",
    ):
        on_server.setdefault(name, []).append(column)
    assert on_server.keys() - wanted.keys() == {"schema_migrations", "audit_head"}
    assert {name: [one for one in on_server[name] if one not in LEASES] for name in wanted} == wanted


def test_there_and_back_again_every_row_is_the_same(history: History, empty_database_url: str, tmp_path: Path) -> None:
    before, original = rows(history.home.database), files(history.root)
    assert all(before.values()), "a table has no row to be copied"
    there = copied(history.home, history.url, empty_database_url)
    assert (there.changed, rows(empty_database_url)) == (True, before)
    assert {path: text for path, text in files(history.root).items() if not path.startswith("backups")} == original
    assert (there.backup is not None, rows(Path(str(there.backup)))) == (True, before)
    assert Path(str(there.backup)).stat().st_mode & 0o777 == 0o600
    head = postgres.ask(empty_database_url, "SELECT id, hash FROM audit_head")
    assert head == [(there.head.seq, there.head.hash)] == [before["audit_log"][-1][:1] + before["audit_log"][-1][-1:]]
    columns, values = "seq, event, level, created_at, next_attempt_at", "1, 'E', 'INFO', $1, $1"
    another = f"INSERT INTO notification_outbox ({columns}) VALUES ({values}) RETURNING id"
    assert postgres.ask(empty_database_url, another, NOW) == [(42,)]
    postgres.ask(empty_database_url, "DELETE FROM notification_outbox WHERE id = 42")
    back = copied(history.home, empty_database_url, address(tmp_path / "back.db"))
    assert (back.head, back.tables, rows(tmp_path / "back.db")) == (there.head, there.tables, before)
    assert (tmp_path / "back.db").stat().st_mode & 0o777 == 0o600
    assert cli(history.root, "db", "check", DAEMON_DATABASE_URL=address(tmp_path / "back.db")).code == 0


def test_what_guards_the_audit_log_is_there_after_a_copy(history: History, database_url: str) -> None:
    copied(history.home, history.url, database_url)
    for attack in ("TRUNCATE audit_log", "DELETE FROM audit_log", "UPDATE audit_log SET hash = ''"):
        with pytest.raises(Exception, match="append-only"):
            postgres.ask(database_url, attack)
        with pytest.raises(Exception, match="append-only"):
            postgres.script(database_url, f"SET session_replication_role = replica; {attack}")


def _goes_on(history: History, live: LiveDaemon) -> str:
    """Prove that everybody's credentials mean what they did; return the token of the next renewal."""
    try:
        token = history.session["renewed"]
        repeated = live.agent(history.session["token"]).put(f"/v1/sessions/{history.session['id']}/renew")
        assert (repeated.status_code, repeated.json()["token"]) == (200, token), "the lost answer is lost"
        assert live.agent(token).get("/v1/session").status_code == 200
        refused = live.agent(history.revoked["token"]).get("/v1/session")
        assert (refused.status_code, refused.json()["code"]) == (401, "SESSION_REVOKED")
        assert live.owner.get("/v1/admin/audit/verify").json()["valid"] is True
        live.time.advance(200)
        return str(live.agent(token).put(f"/v1/sessions/{history.session['id']}/renew").json()["token"])
    finally:
        live.stop()


def test_a_daemon_on_the_target_takes_every_token_and_renews_on(history: History, database_url: str) -> None:
    copied(history.home, history.url, database_url)
    newest = _goes_on(history, history.go_on(database_url))
    back = copied(history.home, database_url, history.url)
    assert back.changed, "the older file is brought up to what happened since"
    live = LiveDaemon(history.root, FakeTime(NOW + 400))
    try:
        assert live.agent(newest).get("/v1/session").status_code == 200
        assert live.owner.get("/v1/admin/audit/verify").json()["valid"] is True
    finally:
        live.stop()


def test_from_file_to_file_too_and_the_replaced_one_is_kept(history: History, tmp_path: Path) -> None:
    target = tmp_path / "drawer" / "other.db"
    assert "no directory" in refusal(history.home, history.url, address(target))
    target.parent.mkdir()
    copied(history.home, history.url, address(target))
    older = rows(target)
    history.go_on().stop()
    assert copied(history.home, history.url, address(target)).changed
    assert rows(target) == rows(history.home.database) != older
    (kept,) = history.home.backups.glob("daemon-before-copy-*.db")
    assert rows(kept) == older


def test_from_server_to_server_too(history: History, database_url: str) -> None:
    copied(history.home, history.url, database_url)
    with postgres.fresh_database(migrated=False) as other:
        assert copied(history.home, database_url, other).changed
        assert rows(other) == rows(database_url) == rows(history.home.database)
        assert not copied(history.home, other, history.url).changed


def test_repeated_it_changes_nothing_and_says_so(history: History, database_url: str) -> None:
    first = cli(history.root, "db", "copy", "--from", history.url, "--to", database_url)
    assert first.code == 0, first.err
    assert "audit_log" in first.out
    assert "note: copying to the target (32 rows)" in first.err
    assert f"need {history.home.seal_key_file} too" in first.err
    before = files(history.root)
    again = cli(history.root, "db", "copy", "--from", history.url, "--to", database_url, "--json")
    assert (again.code, again.json()["changed"], again.json()["backup"]) == (0, False, None)
    assert [one["table"] for one in again.json()["tables"]] == [table.name for table in TABLES]
    assert files(history.root) == before
    told = cli(history.root, "db", "copy", "--from", database_url, "--to", history.url)
    assert (told.code, "nothing to do" in told.out) == (0, True)


def test_a_terminal_shows_a_bar(history: History, database_url: str) -> None:
    command = [sys.executable, "-m", "daemon", "db", "copy", "--from", history.url, "--to", database_url]
    code, screen = at_terminal(command, environment(history.root, TERM="xterm"), {})
    assert (code, "100%" in screen, "copying to the target" in screen) == (0, True, True), screen


@pytest.mark.parametrize("to_server", [True, False])
def test_a_target_with_a_history_of_its_own_is_left_alone(
    history: History, database_url: str, tmp_path: Path, *, to_server: bool
) -> None:
    other = database_url if to_server else address(tmp_path / "own.db")
    live = history.go_on(other, tmp_path / "own home")
    live.stop()
    place = other if to_server else tmp_path / "own.db"
    before = rows(place)
    assert "history of its own" in refusal(history.home, history.url, other)
    assert "history of its own" in refusal(history.home, other, history.url)
    assert rows(place) == before
    assert list(history.home.backups.iterdir()) == []


def test_a_target_that_went_on_is_not_set_back(history: History, database_url: str) -> None:
    copied(history.home, history.url, database_url)
    history.go_on(database_url).stop()
    before = rows(database_url)
    assert "history of its own" in refusal(history.home, history.url, database_url)
    assert rows(database_url) == before


def test_running_daemons_are_not_copied_from_or_to(history: History, database_url: str, tmp_path: Path) -> None:
    copied(history.home, history.url, database_url)
    free = Home.resolve(tmp_path / "free", {})
    daemon = DaemonProcess(history.root, DAEMON_DATABASE_URL=database_url)
    try:
        for source, target in ((database_url, address(tmp_path / "new.db")), (history.url, database_url)):
            ended = cli(history.root, "db", "copy", "--from", source, "--to", target)
            assert (ended.code, "daemon stop" in ended.err) == (5, True)
        # From another home there is no lock to see; the server knows who is connected.
        moved = shutil.copy(history.home.database, tmp_path / "moved.db")
        for source, target in ((database_url, address(tmp_path / "new.db")), (address(moved), database_url)):
            assert "a daemon works with it" in refusal(free, source, target)
    finally:
        daemon.stop()
    live = history.go_on()
    try:
        daemon_in_home = subprocess.run(
            [sys.executable, "-m", "daemon", "db", "copy", "--from", history.url, "--to", address(tmp_path / "new.db")],
            env=environment(free.root), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (daemon_in_home.returncode, daemon_in_home.stderr.count("\n")) == (5, 1)
    finally:
        live.stop()
    assert not (tmp_path / "new.db").exists()


def test_a_file_that_another_program_has_open_is_not_copied(history: History, tmp_path: Path) -> None:
    moved = Path(shutil.copy(history.home.database, tmp_path / "moved.db"))
    with _opened_elsewhere(moved):
        assert "another program has it open" in refusal(history.home, address(moved), address(tmp_path / "new.db"))
    assert copied(history.home, address(moved), address(tmp_path / "new.db")).changed


@contextmanager
def _opened_elsewhere(database: Path) -> Iterator[None]:
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA journal_mode = WAL');"
        "c.execute('SELECT * FROM agents').fetchall(); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        yield


def test_what_cannot_be_copied_is_told_in_one_line_and_nothing_is_changed(
    history: History, database_url: str, tmp_path: Path
) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(history.home.database)
    assert "same database" in refusal(history.home, history.url, address(link))
    same = database_url.replace("127.0.0.1", "localhost")
    assert "same database" in refusal(history.home, database_url, same)
    assert "no database" in refusal(history.home, address(tmp_path / "none.db"), database_url)
    with postgres.fresh_database(migrated=False) as empty:
        assert "no database" in refusal(history.home, empty, history.url)
    assert "create it" in refusal(history.home, history.url, postgres.named(database_url, "no_such_database"))
    assert "nothing listens" in refusal(history.home, history.url, "postgresql://postgres:s3cret@127.0.0.1:1/x")
    for database, change in ((history.home.database, write), (database_url, postgres.script)):
        where = history.url if isinstance(database, Path) else database
        newest = latest_version()
        change(database, f"UPDATE schema_migrations SET version = 99 WHERE version = {newest}")  # type: ignore[operator]
        assert "install a newer version" in refusal(history.home, where, address(tmp_path / "new.db"))
        change(database, "DELETE FROM schema_migrations WHERE version = 99")  # type: ignore[operator]
        assert "start the daemon on it once" in refusal(history.home, where, address(tmp_path / "new.db"))
    assert list(tmp_path.glob("*.db")) == [link]


def test_a_broken_audit_log_is_not_copied(history: History, database_url: str, tmp_path: Path) -> None:
    copied(history.home, history.url, database_url)
    new = address(tmp_path / "new.db")
    postgres.script(database_url, "UPDATE audit_head SET id = id + 1")
    assert "broken at event" in refusal(history.home, database_url, new)
    verified = cli(history.root, "audit", "verify", "--offline", DAEMON_DATABASE_URL=database_url)
    assert (verified.code, "its head names" in verified.err) == (1, True)
    write(
        history.home.database, "DROP TRIGGER audit_log_refuses_update", "UPDATE audit_log SET actor = 'x' WHERE id = 3"
    )
    assert "event 3" in refusal(history.home, history.url, new)
    assert not (tmp_path / "new.db").exists()


def test_a_text_that_postgresql_cannot_hold_is_named_and_no_new_one_is_taken(
    history: History, database_url: str, launch: Any
) -> None:
    ((agent,),) = read(history.home.database, "SELECT id FROM agents LIMIT 1")
    with closing(sqlite3.connect(history.home.database)) as connection, connection:
        connection.execute("UPDATE agents SET suspension_reason = ? WHERE id = ?", ("se\0cret", agent))
    told = refusal(history.home, history.url, database_url)
    assert f"agents {agent}: its suspension_reason has a NUL character" in told
    assert "cret" not in told
    assert rows(database_url)["agents"] == []
    live = launch()
    url = f"/v1/agents/{live.new_agent()}/suspend"
    assert live.owner.post(url, json={"reason": "a\0b"}).status_code == 400
    assert live.owner.post(url, json={"reason": "two\nlines 😀"}).status_code == 200


@pytest.mark.parametrize("address_", ["", "mysql://x/y", "sqlite:///a%b", "postgresql://u:s3cret@h:port/x"])
def test_an_address_that_is_none_exits_2_and_is_not_repeated(tmp_path: Path, address_: str) -> None:
    ended = cli(tmp_path / "home", "db", "copy", "--from", address_, "--to", "sqlite:////tmp/x.db")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "s3cret" not in ended.err


def test_a_password_is_never_shown(history: History, database_url: str) -> None:
    url = database_url.replace("postgres@", "postgres:s3cret@")
    for _ in range(2):
        ended = cli(history.root, "db", "copy", "--from", history.url, "--to", url)
        assert (ended.code, "s3cret" in ended.out + ended.err, "postgres:***@" in ended.out) == (0, False, True)


@pytest.mark.parametrize(
    ("to_server", "number", "points", "last"),
    [(True, signal.SIGKILL, 4, 8), (False, signal.SIGKILL, 4, 12), (True, signal.SIGINT, 5, 0)],
)
def test_ended_anywhere_the_target_is_as_it_was_or_whole_and_repeated_it_is_whole(
    history: History,
    database_url: str,
    tmp_path: Path,
    campaign: bool,
    *,
    to_server: bool,
    number: signal.Signals,
    points: int,
    last: int,
) -> None:
    points *= 20 if campaign else 1
    with postgres.fresh_database() as spare:
        if to_server:
            source, target, other = history.url, database_url, spare
        else:
            copied(history.home, history.url, database_url)
            source, target, other = database_url, address(tmp_path / "new.db"), address(tmp_path / "other.db")
            shutil.rmtree(history.home.backups)
        before = rows(history.home.database)
        driver = [sys.executable, str(Path(__file__).with_name("kill_copy.py")), str(history.root)]
        done = subprocess.run(
            [*driver, source, target, other, str(int(number)), str(points), str(last)],
            env=environment(history.root, **UNTRACED), cwd=REPOSITORY, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert len(seen) > points
    assert {sessions for sessions, _ in seen[:-1]} == {0}, "the target had a part of the rows"
    if number == signal.SIGINT:
        assert {backups for sessions, backups in seen if not sessions} == {0}, "it left a file behind"
    copied(history.home, source, target)
    assert rows(database_url if to_server else tmp_path / "new.db") == before == rows(history.home.database)


def test_a_postgresql_home_is_backed_up_looked_at_and_not_restored_in_place(
    history: History, database_url: str, tmp_path: Path
) -> None:
    copied(history.home, history.url, database_url)
    live = history.go_on(database_url)
    try:
        made = live.owner.post("/v1/admin/backup").raise_for_status().json()
        live.new_agent("after the backup")
    finally:
        live.stop()
    assert (Path(made["path"]).stat().st_size, Path(made["path"]).stat().st_mode & 0o777) == (made["sizeBytes"], 0o600)
    where = {"DAEMON_DATABASE_URL": database_url}
    ended = cli(history.root, "backup", str(tmp_path / "mine.db"), "--json", **where)
    assert ended.code == 0, ended.err
    assert rows(tmp_path / "mine.db") == rows(database_url)
    assert cli(history.root, "db", "check", **where).out == "the database is whole\n"
    assert cli(history.root, "audit", "verify", "--offline", **where).out.startswith("the audit log is whole")
    refused = cli(history.root, "restore", made["path"], "--yes", **where)
    assert (refused.code, f"db copy --from sqlite://{made['path']}" in refused.err) == (2, True)
    with postgres.fresh_database(migrated=False) as empty:
        assert copied(history.home, f"sqlite://{made['path']}", empty).changed
        assert rows(empty) == rows(Path(made["path"]))

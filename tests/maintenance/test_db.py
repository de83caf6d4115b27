"""`daemon db`: read only, streaming, and silent about secrets."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

from daemon.stores.migration_files import statements
from tests.maintenance.conftest import Past
from tests.maintenance.test_restore import files, orphaned, overwritten, read, tampered, write
from tests.support.daemon_process import DaemonProcess, cli, environment

SECRETS = {"token_hash", "previous_token_hash", "retry_answer", "key_hash", "credential_hash"}


def test_schema_prints_what_makes_the_same_schema_and_changes_nothing(past: Past, tmp_path: Path) -> None:
    before = files(past.root)
    printed = cli(past.root, "db", "schema").out
    assert files(past.root) == before
    made = tmp_path / "made.db"
    write(made, *_statements(printed))
    names = "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY 1, 2"
    assert read(made, names) == read(past.root / "daemon.db", names)


def _statements(text: str) -> list[str]:
    return list(statements(text))


def test_check_is_quiet_on_a_whole_database_and_exits_1_on_a_broken_one(past: Past) -> None:
    assert cli(past.root, "db", "check").out == "the database is whole\n"
    for damage, word in ((orphaned, "refers to"), (tampered, "event 3"), (overwritten, "damaged")):
        damage(past.root / "daemon.db")
        ended = cli(past.root, "db", "check")
        assert (ended.code, ended.err.count("\n"), word in ended.err) == (1, 1, True), ended.err


def _fill_with_secrets(database: Path) -> None:
    write(
        database,
        "UPDATE sessions SET previous_token_hash = 'old' || id, retry_answer = x'00ff'",
        "INSERT INTO idempotency_keys VALUES ('hash of a key', 's', 1)",
        "INSERT INTO verifiers VALUES ('v', 'gateway', 'hash of a credential', 1, 5, 6, 7)",
        "INSERT INTO notification_channels (id, type, name, config, created_at, updated_at)"
        " VALUES ('c', 'NTFY', 'phone', '{\"token\": \"tk_1\"}', 1, 1)",
        "INSERT INTO key_value_store VALUES ('kill_switch', '{\"state\":\"NORMAL\"}', 1)",
        "INSERT INTO key_value_store VALUES ('whatever comes', 'may be secret', 1)",
    )


def test_export_masks_every_secret_in_both_formats(past: Past) -> None:
    _fill_with_secrets(past.root / "daemon.db")
    secrets = {row[0] for row in read(past.root / "daemon.db", "SELECT token_hash FROM sessions")}
    secrets |= {
        row[0] for row in read(past.root / "daemon.db", "SELECT value FROM key_value_store WHERE key <> 'kill_switch'")
    }
    secrets |= {"AP8=", "00ff", "hash of a key", "hash of a credential", "tk_1", "oldX"}
    tables = ("sessions", "idempotency_keys", "verifiers", "notification_channels", "key_value_store")
    for table in tables:
        as_csv = cli(past.root, "db", "export", table).out
        as_json = cli(past.root, "db", "export", table, "--format", "json").json()
        assert not [secret for secret in secrets if secret in as_csv or secret in json.dumps(as_json)]
        (rows,) = read(past.root / "daemon.db", f"SELECT count(*) FROM {table}")
        assert len(list(csv.DictReader(io.StringIO(as_csv)))) == len(as_json) == rows[0] > 0
        assert {row[name] for row in as_json for name in SECRETS & row.keys()} <= {"***"}
    values = {row["key"]: row["value"] for row in as_json}
    assert values == {
        "kill_switch": '{"state":"NORMAL"}', "master_password": "***", "token_secrets": "***", "whatever comes": "***",
    }  # fmt: skip


def test_an_empty_table_is_an_empty_list_and_an_unknown_one_exits_2_with_the_known(past: Past) -> None:
    assert cli(past.root, "db", "export", "notification_log", "--format", "json").json() == []
    assert cli(past.root, "db", "export", "notification_log").out.startswith("id,channel_id,event")
    ended = cli(past.root, "db", "export", "sqlite_master")
    assert (ended.code, "audit_log, conversations, idempotency_keys" in ended.err) == (2, True)


def test_a_running_daemon_is_looked_at_too(past: Past) -> None:
    daemon = DaemonProcess(past.root)
    try:
        for arguments in (["schema"], ["check"], ["export", "agents"]):
            assert daemon.cli("db", *arguments).code == 0
    finally:
        daemon.stop()


def test_a_reader_that_goes_away_gets_no_error_message(past: Past) -> None:
    numbers = "WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 50000) SELECT v FROM n"
    write(past.root / "daemon.db", f"INSERT INTO key_value_store SELECT 'k' || v, 'v', 1 FROM ({numbers})")
    command = ["bash", "-c", f"{sys.executable} -m daemon db export key_value_store | head -n 1"]
    done = subprocess.run(command, env=environment(past.root), capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("key,value,updated_at\n", "")


def test_without_a_database_it_says_what_to_do(tmp_path: Path) -> None:
    ended = cli(tmp_path / "home", "db", "schema")
    assert (ended.code, "daemon init" in ended.err) == (1, True)

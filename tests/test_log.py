"""The structured log: its catalogue, its lines, its file, and what happens when it cannot be written."""

import logging
import os
import re
import resource
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon.domain.events import Event, details_text
from daemon.domain.facts import kinds
from daemon.domain.facts.sessions import SessionRenewalRejected
from daemon.log import Log, cause_fields
from daemon.log_events import AUDIT, EVENTS, LEVELS, OPERATIONAL, for_people, last_logged_seq, log_name, table
from daemon.log_sinks import FileSink

TOKEN = "wai_sess_eyJhbGciOiJIUzI1NiJ9.eyJzaWQiOiIxIn0.c2ln-_nature"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "daemon.log"


@pytest.fixture
def open_log(file: Path) -> Iterator[Callable[..., Log]]:
    logs: list[Log] = []

    def make(**settings: Any) -> Log:
        logs.append(Log(file, **settings))
        return logs[-1]

    yield make
    for log in logs:
        log.close(5)


def lines(file: Path) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]


def wait_for(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not fact():
        assert time.monotonic() < deadline, "waited ten seconds"
        threading.Event().wait(0.01)


# --- the catalogue


def test_an_audit_events_log_name_is_its_noun_a_dot_and_the_rest() -> None:
    assert log_name("SESSION_RENEWED") == "session.renewed"
    assert log_name("SESSION_RENEWAL_REJECTED") == "session.renewal_rejected"
    assert log_name("KILL_SWITCH_ACTIVATED") == "kill_switch.activated"
    assert log_name("AUTO_STOP_TRIGGERED") == "auto_stop.triggered"
    assert log_name("MASTER_AUTH_FAILED") == "master_auth.failed"


def test_every_audit_event_is_in_the_catalogue_with_its_details() -> None:
    assert set(AUDIT) == {log_name(fact.type) for fact in kinds()}
    rejected = AUDIT["session.renewal_rejected"]
    assert rejected.level == "warning"
    assert rejected.order == ("seq", "timestamp", "actor", "ipAddress", "renewalCount", "rejectedAt")
    assert rejected.meaning == "The owner revoked a session because of a renewal."


def test_no_operational_name_is_also_an_audit_event_and_no_field_shadows_a_fixed_key() -> None:
    assert not OPERATIONAL.keys() & AUDIT.keys()
    fixed = {"ts", "level", "event", "requestId", "sessionId", "agentId"}
    assert all(not event.fields & fixed for event in EVENTS.values())


def test_the_table_lists_every_event_with_level_fields_and_meaning() -> None:
    rows = table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(EVENTS)
    assert (
        "| `http.request` | info | `method` `route` `status` `durationMs` `actor` | A request was answered. |" in rows
    )
    assert all(len(row.split(" | ")) == 4 for row in rows)


def test_the_catalogue_is_imported_without_the_web_framework() -> None:
    heavy = "('litestar', 'uvicorn', 'asyncio', 'logging')"
    code = f"import sys, daemon.log_events; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- lines


def test_a_line_has_the_fixed_keys_first_and_rfc_3339_with_milliseconds(open_log: Any, file: Path) -> None:
    log = open_log(wall=lambda: 1_700_000_000.0129)
    log.emit("audit.checkpoint", agent_id="a", request_id="r", session_id="s", seq=7, hash="h")
    assert log.flush(5)
    assert file.read_text() == (
        '{"ts":"2023-11-14T22:13:20.012Z","level":"info","event":"audit.checkpoint",'
        '"requestId":"r","sessionId":"s","agentId":"a","seq":7,"hash":"h"}\n'
    )


def test_an_undeclared_event_or_field_is_a_programming_error(open_log: Any) -> None:
    log = open_log()
    with pytest.raises(TypeError, match=r"no daemon\.exploded"):
        log.emit("daemon.exploded")
    with pytest.raises(TypeError, match=r"no log\.dropped with password"):
        log.emit("log.dropped", password="x")


def test_an_audit_event_is_logged_with_its_seq_under_its_log_name(open_log: Any, file: Path) -> None:
    log = open_log()
    fact = SessionRenewalRejected(agent_id="a", session_id="s", renewal_count=3, rejected_at=9)
    details = msgspec.Raw(details_text(fact).encode())
    event = Event(41, 8, fact.type, fact.severity, "owner", "a", "s", "r", None, details, "0", "1")
    log.audit(event)
    assert log.flush(5)
    (line,) = lines(file)
    del line["ts"]
    assert line == {
        "level": "warning",
        "event": "session.renewal_rejected",
        "requestId": "r",
        "sessionId": "s",
        "agentId": "a",
        "seq": 41,
        "timestamp": 8,
        "actor": "owner",
        "ipAddress": None,
        "renewalCount": 3,
        "rejectedAt": 9,
    }


def test_the_level_filters_and_can_be_changed_while_running(open_log: Any, file: Path) -> None:
    log = open_log(level="warning")
    log.emit("daemon.initialised", home="1")
    log.emit("clock.held", seconds=1)
    log.reconfigure(level="info", max_size=1 << 20, max_files=1, console=False)
    log.emit("daemon.initialised", home="2")
    log.emit("daemon.initialised", level="debug", home="3")
    assert log.flush(5)
    assert [line.get("home", line["event"]) for line in lines(file)] == ["clock.held", "2"]
    assert list(LEVELS) == ["debug", "info", "warning", "error"]


@pytest.mark.parametrize("token", [TOKEN, "wai_own_abc.d", "wai_verf_Zm9v", "Bearer " + TOKEN, f"x{TOKEN}y"])
def test_what_looks_like_a_token_is_masked_wherever_it_stands(open_log: Any, file: Path, token: str) -> None:
    log = open_log()
    log.emit("storage.failed", request_id=token, operation=token, reason=["deep", {"er": token}])
    assert log.flush(5)
    assert not re.search(r"wai_[a-z]", file.read_text())
    assert lines(file)[0]["reason"][0] == "deep"


def test_a_value_that_json_cannot_carry_ends_neither_the_log_nor_the_line(open_log: Any, file: Path) -> None:
    log = open_log()
    log.emit("storage.failed", operation="\ud800", reason=object)
    log.emit("daemon.initialised", home="next")
    assert log.flush(5)
    assert [line["event"] for line in lines(file)] == ["storage.failed", "daemon.initialised"]


def test_a_cause_tells_type_and_place_and_not_the_values() -> None:
    try:
        try:
            {}["hunter2"]
        except KeyError as exc:
            raise ValueError('cannot read "hunter2"') from exc
    except ValueError as exc:
        fields = cause_fields(exc)
    assert fields["exception"] == "ValueError"
    assert "in test_a_cause_tells_type_and_place_and_not_the_values" in fields["traceback"]
    assert "KeyError: '***'\n" in fields["traceback"]
    assert fields["traceback"].endswith("ValueError: cannot read '***'\n")


def test_what_libraries_warn_about_arrives_as_library_message(
    open_log: Any, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The test runner's own handlers raise at a message that does not fit its arguments.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log = open_log()
    log.capture_libraries()
    logging.getLogger("uvicorn.error").info("not this")
    logging.getLogger("uvicorn.error").warning("odd %s", "'thing'")
    logging.getLogger("asyncio").error("broken", exc_info=RuntimeError("why"))
    logging.getLogger("litestar").warning("wrong %d", "arguments")
    assert log.flush(5)
    odd, broken, wrong = lines(file)
    assert (odd["event"], odd["level"], odd["logger"], odd["message"]) == (
        "library.message",
        "warning",
        "uvicorn.error",
        "odd '***'",
    )
    assert (broken["level"], broken["exception"]) == ("error", "RuntimeError")
    assert wrong["message"] == "wrong %d"
    log.close(5)
    logging.getLogger("asyncio").error("after the end")
    assert len(lines(file)) == 3


# --- the file


def test_the_file_and_its_directory_are_for_the_owner(open_log: Any, file: Path) -> None:
    open_log()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_file_with_a_wider_mode_is_narrowed_and_a_symlink_refused(file: Path, tmp_path: Path) -> None:
    file.parent.mkdir()
    file.touch(0o644)
    FileSink(file, 100, 1).close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (tmp_path / "link.log").symlink_to(file)
    with pytest.raises(OSError, match="symbolic link"):
        Log(tmp_path / "link.log")


def test_rotation_keeps_so_many_files_and_every_line_once(open_log: Any, file: Path) -> None:
    log = open_log(max_size=4_000, max_files=3)
    for number in range(100):
        log.emit("clock.held", seconds=number)
        if number % 10 == 0:
            assert log.flush(5)
    assert log.flush(5)
    names = sorted(path.name for path in file.parent.iterdir())
    assert names == ["daemon.log", "daemon.log.1", "daemon.log.2"]
    found = [line["seconds"] for name in reversed(names) for line in lines(file.parent / name)]
    assert found == list(range(100))
    assert all((file.parent / name).stat().st_size <= 4_000 for name in names)


def test_rotation_deletes_the_oldest(open_log: Any, file: Path) -> None:
    log = open_log(max_size=200, max_files=2)
    for number in range(50):
        log.emit("clock.held", seconds=number)
    assert log.flush(5)
    assert sorted(path.name for path in file.parent.iterdir()) == ["daemon.log", "daemon.log.1", "daemon.log.2"]
    assert lines(file)[-1]["seconds"] == 49


def test_an_external_logrotate_loses_no_line(open_log: Any, file: Path) -> None:
    log = open_log()
    moved = file.with_name("old.log")
    log.emit("clock.held", seconds=1)
    assert log.flush(5)
    file.rename(moved)
    log.emit("clock.held", seconds=2)
    log.reopen()
    log.emit("clock.held", seconds=3)
    assert log.flush(5)
    found = [line["seconds"] for line in lines(moved) + lines(file)]
    assert found == [1, 2, 3]
    assert lines(file)


def test_a_deleted_file_is_made_again(open_log: Any, file: Path) -> None:
    log = open_log()
    file.unlink()
    log.emit("clock.held", seconds=1)
    assert log.flush(5)
    assert [line["seconds"] for line in lines(file)] == [1]


def test_half_a_line_of_a_crash_does_not_spoil_the_next(open_log: Any, file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b'{"half')
    log = open_log()
    log.emit("clock.held", seconds=1)
    assert log.flush(5)
    half, line = file.read_bytes().splitlines()
    assert half == b'{"half'
    assert msgspec.json.decode(line)["seconds"] == 1


# --- when it cannot be written


@pytest.fixture
def full_disk(file: Path) -> Iterator[Callable[[int], None]]:
    """Sets how large a file may grow; the signal that comes with it is ignored by Python."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_half_way_leaves_whole_lines_and_goes_on_later(
    open_log: Any, file: Path, full_disk: Callable[[int], None]
) -> None:
    log = open_log()
    full_disk(500)
    for number in range(20):
        log.emit("clock.held", seconds=number)
    assert not log.flush(0.2)
    written = len(lines(file))
    assert 0 < written < 20
    full_disk(resource.RLIM_INFINITY)
    wait_for(lambda: len(lines(file)) == 20)
    assert [line["seconds"] for line in lines(file)] == list(range(20))


def test_what_does_not_fit_into_memory_is_counted_and_reported(
    open_log: Any, file: Path, full_disk: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.log.QUEUE_LIMIT", 5)
    log = open_log()
    full_disk(0)
    for number in range(8):
        log.emit("clock.held", seconds=number)
        log.flush(0.05)
    full_disk(resource.RLIM_INFINITY)
    wait_for(lambda: b"log.dropped" in file.read_bytes())
    found = lines(file)
    assert [line["seconds"] for line in found[:5]] == [0, 1, 2, 3, 4]
    assert (found[5]["event"], found[5]["count"]) == ("log.dropped", 3)


def test_emitting_never_waits_for_the_disk_or_the_reader(open_log: Any, file: Path) -> None:
    reader, writer = os.pipe()
    log = open_log(stdout=writer)
    started = time.monotonic()
    for _ in range(3_000):
        log.emit("storage.failed", operation="x" * 100, reason="nobody reads the pipe, which holds 64 KiB")
    assert time.monotonic() - started < 1
    wait_for(lambda: file.read_bytes().count(b"\n") == 3_000)
    os.close(reader)
    os.close(writer)


# --- standard output


def test_stdout_gets_the_same_lines(open_log: Any, file: Path) -> None:
    reader, writer = os.pipe()
    log = open_log(stdout=writer)
    log.emit("clock.held", seconds=1)
    assert log.flush(5)
    assert os.read(reader, 65_536) == file.read_bytes()
    os.close(reader)
    os.close(writer)


def test_stdout_for_people_leaves_the_file_json(open_log: Any, file: Path) -> None:
    reader, writer = os.pipe()
    log = open_log(stdout=writer, console=True, wall=lambda: 1_700_000_000.0)
    log.emit("clock.held", seconds=1)
    assert log.flush(5)
    assert os.read(reader, 65_536) == b"22:13:20.000 WARNING clock.held               seconds=1\n"
    assert lines(file)[0]["seconds"] == 1
    os.close(reader)
    os.close(writer)


def test_a_reader_that_goes_away_harms_nothing(open_log: Any, file: Path) -> None:
    reader, writer = os.pipe()
    log = open_log(stdout=writer)
    os.close(reader)
    for number in range(3):
        log.emit("clock.held", seconds=number)
        assert log.flush(5)
    assert [line["seconds"] for line in lines(file)] == [0, 1, 2]
    os.close(writer)


def test_closing_writes_everything_and_ends_the_threads(file: Path) -> None:
    before = threading.active_count()
    reader, writer = os.pipe()
    log = Log(file, stdout=writer)
    for number in range(500):
        log.emit("clock.held", seconds=number)
    assert log.close(5)
    assert len(lines(file)) == 500
    assert threading.active_count() == before
    os.close(reader)
    os.close(writer)


# --- reading


def test_a_line_for_people_obeys_no_control_character() -> None:
    line = msgspec.json.encode(
        {"ts": "2026-01-01T00:00:00.000Z", "level": "info", "event": "x", "name": "\x1b[2J\u202e"}
    )
    shown = for_people(line)
    assert shown.startswith("00:00:00.000 INFO    x")
    assert shown.isprintable()
    assert for_people(b"no json \x1b[2J\n").isprintable()


def _audit_line(seq: int) -> str:
    return f'{{"event":"session.renewed","seq":{seq}}}\n'


def test_the_last_logged_seq_is_that_of_the_newest_audit_event(file: Path) -> None:
    assert last_logged_seq(file) is None
    file.parent.mkdir()
    noise = '{"event":"http.request","route":"\\"seq\\":99"}\n' * 50_000
    file.write_text(_audit_line(41) + _audit_line(42) + '{"event":"audit.checkpoint","seq":77}\n' + noise + '{"half')
    assert last_logged_seq(file) == 42


def test_the_last_logged_seq_is_looked_for_across_rotation(file: Path) -> None:
    file.parent.mkdir()
    file.write_text('{"event":"http.request"}\n')
    file.with_name("daemon.log.2").write_text(_audit_line(5))
    file.with_name("daemon.log.10").write_text(_audit_line(4))
    file.with_name("daemon.log.1.gz").write_bytes(b"\x1f\x8b")
    assert last_logged_seq(file) == 5
    file.with_name("daemon.log.1").write_text(_audit_line(6))
    assert last_logged_seq(file) == 6

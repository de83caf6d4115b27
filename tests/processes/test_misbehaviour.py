"""Whatever a child does, the daemon answers, its limits hold, and what ended it stands in event and log."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import wait_for
from tests.support.live import LiveDaemon
from tests.support.supervised import BEGIN, Desk, Supervised, is_alive, marked, ticked

SETTINGS = {"DAEMON_PROCESSES_OUTPUT_MAX_MB": "16"}
MIB = 1 << 20


def logged(desk: Desk, event: str, session: Supervised) -> list[dict[str, Any]]:
    """Return the lines of the structured log about a session."""
    file = desk.live.home.logs / "daemon.log"
    lines = map(json.loads, file.read_text().splitlines())
    return [line for line in lines if line["event"] == event and line.get("sessionId") == session.id]


def ended_for(desk: Desk, session: Supervised, reason: str) -> None:
    """Check that a session's process was ended for a limit, and that this is told everywhere."""
    session.wait("ERROR", seconds=40)
    assert session.process["reason"] == reason
    assert session.pids == []
    wait_for(lambda: logged(desk, "session.error", session))
    (line,) = logged(desk, "session.error", session)
    assert line["reason"] == reason
    (limit,) = logged(desk, "process.limit", session)
    assert limit["limit"] == reason
    (event,) = [one for one in session.events() if one["type"] == "SESSION_ERROR"]
    assert event["details"]["reason"] == reason
    assert event["severity"] == "warning"


def answers(session: Supervised) -> bool:
    """Return whether the daemon answers the session's own token; how soon is a matter of the benchmark."""
    return session.live.agent(session.token).get("/v1/session").status_code == 200


@pytest.mark.timeout(90)
def test_a_flood_of_200_mb_is_cut_at_its_head_and_offsets_stay_true(desk: Desk) -> None:
    total = 200 * MIB
    script = f"yes 0123456789abcde | head -c {total}; echo done >&2; exec sleep 300"
    session = desk.sh(script)
    file = session.directory / "stdout"
    while "done" not in session.output("stderr"):
        assert answers(session)
    wait_for(lambda: (ticked(desk.live), file.stat().st_blocks * 512 <= 17 * MIB)[1], 30)
    assert file.stat().st_size == total
    gone = session.live.owner.get(f"{session.path}/output", params={"follow": "false"})
    assert (gone.status_code, gone.json()["code"]) == (410, "OUTPUT_GONE")
    first = gone.json()["details"]["firstOffset"]
    assert first % 16 == 0
    assert total - 17 * MIB <= first < total
    rest = session.live.owner.get(f"{session.path}/output", params={"follow": "false", "offset": first})
    assert rest.status_code == 200
    assert rest.content.startswith(b"0123456789abcde\n")
    with session.live.owner.stream("GET", f"{session.path}/output", params={"offset": 16}) as answer:
        assert answer.status_code == 410
    assert session.state == "READY"


def frames(session: Supervised, count: int) -> list[tuple[int, str, bytes]]:
    """Return the first frames of a session's output: id, event, data."""
    found: list[tuple[int, str, bytes]] = []
    seen: dict[str, str] = {}
    with session.live.owner.stream("GET", f"{session.path}/output") as answer:
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if line:
                seen[name] = value
            elif "data" in seen:
                found.append((int(seen["id"]), seen["event"], seen["data"].encode()))
                if len(found) == count:
                    break
                seen = {}
    return found


def test_a_line_of_10_mb_comes_in_marked_pieces_and_not_a_byte_is_lost(desk: Desk) -> None:
    length = 10 * MIB + 7
    program = f"import sys; sys.stdout.write('x' * {length} + '\\nshort\\n'); sys.stdout.flush(); sys.stdin.read()"
    session = desk.run("python3", "-S", "-c", program)
    wait_for(lambda: (session.directory / "stdout").stat().st_size == length + 7)
    found = frames(session, 12)
    assert [kind for _, kind, _ in found] == ["piece"] * 10 + ["last-piece", "text"]
    assert b"".join(data for _, _, data in found[:11]) == b"x" * length
    assert [offset for offset, _, _ in found] == [MIB * number for number in range(1, 11)] + [length + 1, length + 7]
    raw, offset = hashlib.sha256(), 0
    while True:
        query = {"follow": "false", "offset": offset}
        more = session.live.owner.get(f"{session.path}/output", params=query).raise_for_status()
        if not more.content:
            break
        raw.update(more.content)
        offset = int(more.headers["X-Next-Offset"])
    assert raw.hexdigest() == hashlib.sha256(b"x" * length + b"\nshort\n").hexdigest()


def test_a_child_that_closes_its_output_and_lives_on_is_still_seen_to_run(desk: Desk) -> None:
    session = desk.sh("echo last; exec >&- 2>&-; exec sleep 300").says("last")
    ticked(desk.live)
    assert session.state == "READY"
    assert is_alive(session.pid)
    session.revoke()
    session.wait_closed()


def test_a_child_that_takes_more_memory_than_it_may_is_ended(desk: Desk) -> None:
    program = "import time; kept = bytearray(160 << 20); time.sleep(300)"
    session = desk.make("sh", "-c", f"python3 -S -c '{program}' & wait", process={"maxMemory": 64 * MIB})
    ended_for(desk, session, "memory")


def test_a_child_that_keeps_more_processors_busy_than_it_may_is_ended(desk: Desk) -> None:
    session = desk.make("sh", "-c", "(while :; do :; done) & wait", process={"maxCpu": 0.1})
    ended_for(desk, session, "cpu")


def test_a_child_within_its_limits_is_left_alone(desk: Desk) -> None:
    session = desk.run("cat", maxMemory=256 * MIB, maxCpu=1)
    for _ in range(3):
        ticked(desk.live)
    assert session.turn("hello").output() == "hello\n"
    assert session.story()[: len(BEGIN)] == BEGIN


@pytest.mark.timeout(120)
def test_a_child_that_forks_without_end_is_ended(desk: Desk) -> None:
    session = desk.sh("while :; do sleep 300 & done")
    while session.state != "ERROR":
        assert answers(session)
    ended_for(desk, session, "processes")
    assert marked(session.id) == []


@pytest.fixture
def uncuttable(tmp_path: Path) -> Iterator[LiveDaemon]:
    """A daemon whose home is on a file system that frees nothing in place."""
    place = tmp_path / "ramfs"
    place.mkdir()
    if subprocess.run(["mount", "-t", "ramfs", "ramfs", place], capture_output=True, check=False).returncode:
        pytest.skip("no ramfs can be mounted here")
    daemon = None
    try:
        settings = {"DAEMON_PROCESSES_WORKSPACE_ROOTS": f'["{tmp_path}"]', "DAEMON_PROCESSES_OUTPUT_MAX_MB": "4"}
        daemon = LiveDaemon(place / "home", **settings)
        yield daemon
    finally:
        if daemon is not None:
            daemon.stop()
        subprocess.run(["umount", "-l", place], check=True)


def test_output_that_cannot_be_cut_suspends_its_session(uncuttable: LiveDaemon, tmp_path: Path) -> None:
    desk = Desk(uncuttable, tmp_path)
    session = desk.sh(f"head -c {6 * MIB} /dev/zero | tr '\\0' '\\n'; echo done >&2; exec sleep 300")
    wait_for(lambda: "done" in session.output("stderr"))
    wait_for(lambda: (ticked(uncuttable), session.state == "SUSPENDED")[1])
    (event,) = [one for one in session.events() if one["type"] == "SESSION_SUSPENDED"]
    assert event["details"] == {"reason": "output", "by": "output"}
    wait_for(session.stopped)
    desk.close()

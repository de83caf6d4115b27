"""Disks that fill up, turn read-only or lose bytes: clear errors, nothing lost, agents go on."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon_process import cli
from tests.support.live import LiveDaemon

Launch = Callable[..., LiveDaemon]


def mounted(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    point = tmp_path / "disk"
    point.mkdir()
    if os.geteuid() != 0 or not mounted("-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(point)):
        pytest.skip("a small disk can only be mounted as root, where mounting is allowed")
    yield point
    subprocess.run(["umount", "-l", str(point)], check=True)


@pytest.fixture
def on_disk(disk: Path) -> Iterator[LiveDaemon]:
    live = LiveDaemon(disk / "home")
    yield live
    live.stop()


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return filler


def create_until_refused(live: LiveDaemon) -> tuple[int, int]:
    """Register agents until one is refused: what is left of the last pages may still take a few."""
    for acknowledged in range(500):
        started = time.monotonic()
        answer = live.owner.post("/v1/agents", json={"name": "x" * 100, "metadata": {"fill": "y" * 8000}})
        if answer.status_code != 201:
            assert (answer.status_code, answer.json()["code"]) == (503, "STORAGE_UNAVAILABLE")
            assert answer.headers["Retry-After"]
            assert time.monotonic() - started < 1
            return acknowledged, answer.status_code
    raise AssertionError("the disk never became full")


def test_a_full_disk_is_503_within_a_second_agents_go_on_and_nothing_is_lost(disk: Path, on_disk: LiveDaemon) -> None:
    live = on_disk
    made = live.new_session()
    agent = live.agent(made["token"])
    assert agent.get("/v1/session").status_code == 200
    filler = fill(disk)
    acknowledged, _ = create_until_refused(live)
    assert live.owner.delete(f"/v1/sessions/{made['id']}").status_code == 503
    assert agent.get("/v1/session").status_code == 200
    health = live.anonymous.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "degraded")
    assert health.json()["checks"]["database"]["status"] == "failed"
    filler.unlink()
    assert live.owner.delete(f"/v1/sessions/{made['id']}").status_code == 200
    assert agent.get("/v1/session").json()["code"] == "SESSION_REVOKED"
    assert live.anonymous.get("/health").json()["checks"]["database"]["status"] == "ok"
    assert live.query("SELECT count(*) FROM agents") == [(acknowledged + 1,)]
    assert live.owner.get("/v1/admin/audit/verify").json()["valid"] is True


def test_a_disk_that_turns_read_only_is_503_until_it_is_writable_again(disk: Path, on_disk: LiveDaemon) -> None:
    live = on_disk
    agent = live.agent(live.new_session()["token"])
    assert agent.get("/v1/session").status_code == 200
    live.call(lambda daemon: daemon.parts.store.flush())
    assert mounted("-o", "remount,ro", str(disk)) or pytest.skip("the disk cannot be made read-only while it is used")
    try:
        assert live.owner.post("/v1/agents", json={"name": "x"}).json()["code"] == "STORAGE_UNAVAILABLE"
        assert agent.get("/v1/session").status_code == 200
    finally:
        assert mounted("-o", "remount,rw", str(disk))
    assert live.owner.post("/v1/agents", json={"name": "x"}).status_code == 201


@pytest.mark.parametrize("content", [b"this is no database, but a text file\n" * 200, b"\x00" * 8192])
def test_a_start_on_a_file_that_is_no_database_says_so_in_one_line(tmp_path: Path, content: bytes) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "daemon.db").write_bytes(content)
    ended = cli(home, "start", "--detach")
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert "daemon.db" in ended.err
    assert (home / "daemon.db").read_bytes() == content


def test_damaged_pages_are_a_clear_error_and_never_a_traceback(launch: Launch, tmp_path: Path) -> None:
    live = launch(tmp_path / "home")
    for _ in range(20):
        live.owner.post("/v1/agents", json={"name": "n", "metadata": {"x": "y" * 8000}})
    live.stop()
    with (tmp_path / "home" / "daemon.db").open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    ended = cli(tmp_path / "home", "start", "--detach")
    assert ended.code == 1
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1

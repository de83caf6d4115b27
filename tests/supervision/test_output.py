"""One file of output: reading it, freeing its head, and what the file itself tells of that after a restart."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.supervision.output import Gone, NotAFileError, OutputFile
from tests.support.daemon_process import wait_for

BLOCK = 4_096
LINES = [b"%06d " % number + b"x" * 92 + b"\n" for number in range(20_000)]
DATA = b"".join(LINES)
WRITER = """
import os, sys, time
end = time.monotonic() + float(sys.argv[1])
number = 0
while time.monotonic() < end:
    os.write(1, b"".join(b"%09d\\n" % n for n in range(number, number + 1000)))
    number += 1000
"""


def can_punch(directory: Path) -> bool:
    probe = directory / "probe"
    probe.write_bytes(DATA)
    freed = OutputFile(probe).free(len(DATA))
    probe.unlink()
    return freed


@pytest.fixture(params=["/tmp", "/dev/shm"])
def directory(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory on a disk and one in memory, where heads can be freed."""
    if not os.access(request.param, os.W_OK):
        pytest.skip(f"no {request.param} to write to")
    made = Path(tempfile.mkdtemp(dir=request.param))
    try:
        if not can_punch(made):
            pytest.skip(f"{request.param} cannot free the head of a file")
        yield made
    finally:
        shutil.rmtree(made)


@pytest.fixture
def unfreeing(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system that cannot free the head of a file."""
    point = tmp_path / "ramfs"
    point.mkdir()
    command = ["mount", "-t", "ramfs", "-o", "mode=700", "ramfs", str(point)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("such a file system can only be mounted as root, where mounting is allowed")
    yield point
    subprocess.run(["umount", "-l", str(point)], check=True)


def written(directory: Path, data: bytes = DATA) -> OutputFile:
    path = directory / "stdout"
    path.write_bytes(data)
    return OutputFile(path)


def line_after(offset: int) -> int:
    """Return where the first line begins whose newline before it is at `offset` or later."""
    return DATA.index(b"\n", offset) + 1


def test_a_missing_file_is_empty(tmp_path: Path) -> None:
    file = OutputFile(tmp_path / "nothing" / "stdout")
    assert (file.size(), file.first_kept(), file.kept_bytes()) == (0, 0, 0)
    assert (file.read(0, 100), file.read_now(0, 100)) == (b"", b"")
    assert file.free(1_000_000)
    assert not file.path.exists()


def test_reading_gives_the_bytes_at_the_offset_and_nothing_at_the_end(directory: Path) -> None:
    file = written(directory)
    assert file.size() == file.kept_bytes() == len(DATA)
    assert file.first_kept() == 0
    for offset, limit in [(0, 10), (99, 2), (12_345, 65_536), (len(DATA) - 5, 100), (len(DATA), 100)]:
        assert file.read(offset, limit) == DATA[offset : offset + limit]
    assert file.read_now(len(DATA) - 5, 100) == DATA[-5:]
    assert file.read_now(len(DATA), 100) == b""


@pytest.mark.parametrize("kind", ["link", "directory", "pipe", "device", "link to nothing"])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "stdout"
    (tmp_path / "secret").write_bytes(DATA)
    match kind:
        case "link":
            path.symlink_to(tmp_path / "secret")
        case "link to nothing":
            path.symlink_to(tmp_path / "nothing")
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path = Path("/dev/null")
    file = OutputFile(path)
    for use in (file.size, file.first_kept, file.kept_bytes, lambda: file.read(0, 10), lambda: file.read_now(0, 10)):
        with pytest.raises(NotAFileError):
            use()
    assert not file.free(100_000)
    assert (tmp_path / "secret").read_bytes() == DATA


@pytest.mark.parametrize("until", [8_000, 8_192, 8_200, 12_288, 1_000_000, len(DATA)])
def test_freeing_keeps_offsets_true_and_a_new_object_knows_what_is_kept(directory: Path, until: int) -> None:
    file = written(directory)
    on_disk = file.path.stat().st_blocks
    assert file.free(until)
    freed = (until - 1) // BLOCK * BLOCK
    again = OutputFile(file.path)
    assert (again.size(), again.kept_bytes()) == (len(DATA), len(DATA) - freed)
    assert again.first_kept() == line_after(freed)
    assert again.read(freed, 1 << 30) == DATA[freed:]
    assert file.path.stat().st_blocks <= on_disk - freed // 512 + 16
    for offset in {0, freed // 2, freed - 1}:
        with pytest.raises(Gone) as gone:
            again.read(offset, 100_000)
        assert gone.value.first_kept == again.first_kept()


@pytest.mark.parametrize("line", [64, 128, 4_096])
def test_a_line_that_begins_at_a_block_is_kept_whole(directory: Path, line: int) -> None:
    data = b"".join(b"%0*d\n" % (line - 1, number) for number in range(200_000 // line))
    file = written(directory, data)
    until = 16 * BLOCK
    assert file.free(until)
    assert file.first_kept() <= until
    assert file.read(file.first_kept(), line) == b"%0*d\n" % (line - 1, file.first_kept() // line)


def test_freeing_less_than_a_block_and_freeing_again_change_nothing(directory: Path) -> None:
    file = written(directory)
    for until in (-5, 0, 1, BLOCK):
        assert file.free(until)
        assert file.kept_bytes() == len(DATA)
    assert file.free(500_000)
    kept, first = file.kept_bytes(), file.first_kept()
    assert file.free(500_000)
    assert file.free(3_000)
    assert (file.kept_bytes(), file.first_kept()) == (kept, first)


def test_more_than_is_written_frees_no_more_than_is_written(directory: Path) -> None:
    file = written(directory)
    assert file.free(1 << 40)
    assert file.size() == len(DATA)
    assert 0 < file.kept_bytes() <= BLOCK
    assert file.read(file.first_kept(), 1 << 20) == DATA[file.first_kept() :]


@pytest.mark.parametrize("limit", [50_000, 65_536, 1_000_000])
def test_a_limit_is_kept_to_a_block(directory: Path, limit: int) -> None:
    file = OutputFile(directory / "stdout")
    with file.path.open("ab", buffering=0) as writer:
        for at in range(0, len(DATA), 77_777):
            writer.write(DATA[at : at + 77_777])
            if file.kept_bytes() > limit:
                assert file.free(file.size() - limit)
            assert file.kept_bytes() <= limit + BLOCK
            assert file.read(file.first_kept(), 1 << 30) == DATA[file.first_kept() : file.size()]


def test_a_head_within_a_line_too_long_to_be_one_is_kept_from_its_first_byte(directory: Path) -> None:
    file = written(directory, b"a\n" + b"x" * 5_000_000 + b"\nb\n")
    assert file.free(2 << 20)
    assert file.first_kept() == (2 << 20) - BLOCK
    assert file.free(4_990_000)
    assert file.first_kept() == 5_000_003


def test_a_head_within_a_line_that_is_not_finished_is_kept_from_its_first_byte(directory: Path) -> None:
    file = written(directory, b"a\n" + b"x" * 20_000)
    assert file.free(3 * BLOCK)
    assert file.first_kept() == 2 * BLOCK


def test_a_hole_that_a_crash_has_cut_short_counts_as_freed_up_to_its_end(directory: Path) -> None:
    file = written(directory)
    assert file.free(1_000_000)
    freed = file.size() - file.kept_bytes()
    with file.path.open("r+b") as damaged:
        damaged.write(DATA[: 3 * BLOCK])
    assert file.size() - file.kept_bytes() == freed
    with pytest.raises(Gone) as gone:
        file.read(0, 65_536)
    assert gone.value.first_kept == line_after(freed)
    assert file.free(1_000_000)
    with file.path.open("rb") as mended:
        assert os.lseek(mended.fileno(), 0, os.SEEK_DATA) == freed


@pytest.mark.parametrize("before", [b"", b"first\n"])
def test_what_is_written_while_the_file_is_asked_does_not_look_freed(
    directory: Path, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    file = written(directory, before)
    seek = os.lseek

    def late(fd: int, offset: int, whence: int) -> int:
        try:
            return seek(fd, offset, whence)
        finally:
            with file.path.open("ab") as writer:
                writer.write(b"x" * 5_000 + b"\n")

    monkeypatch.setattr("os.lseek", late)
    assert (file.first_kept(), file.kept_bytes() >= len(before)) == (0, True)
    assert file.read(0, 1 << 20).startswith(before)


def test_real_nul_bytes_are_no_hole(directory: Path) -> None:
    data = (b"\x00" * 50_000 + b"\n") * 4
    file = written(directory, data)
    assert file.read(0, 1 << 30) == data
    assert file.free(60_000)
    assert file.first_kept() == 100_002
    assert file.read(100_002, 1 << 30) == data[100_002:]


def test_an_offset_behind_the_end_is_gone_since_the_process_has_emptied_its_output(directory: Path) -> None:
    file = written(directory)
    subprocess.run(["/bin/sh", "-c", "echo new >/dev/stdout"], stdout=file.path.open("ab"), check=True)
    assert file.size() == 4
    for read in (file.read, file.read_now):
        with pytest.raises(Gone) as gone:
            read(1_000, 100)
        assert gone.value.first_kept == 0
        assert read(4, 100) == b""


def test_a_missing_file_that_was_read_before_is_gone(tmp_path: Path) -> None:
    with pytest.raises(Gone):
        OutputFile(tmp_path / "stdout").read(10, 100)


def test_where_heads_cannot_be_freed_the_answer_is_no_and_nothing_is_lost(unfreeing: Path) -> None:
    file = written(unfreeing)
    assert not file.free(1_000_000)
    assert (file.first_kept(), file.kept_bytes()) == (0, len(DATA))
    assert file.read(0, 1 << 30) == DATA
    assert file.read_now(0, 65_536) is None  # this file system does not say what is in memory
    assert file.read_now(len(DATA) - 100, 65_536) == DATA[-100:]


def test_where_holes_are_not_shown_the_answer_is_no_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, offset: int, whence: int) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    file = written(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("os.lseek", refuse)
        assert not file.free(1_000_000)
        assert (file.first_kept(), file.kept_bytes()) == (0, len(DATA))
        assert file.read(0, 1 << 30) == DATA
    assert file.read(0, 1 << 30) == DATA


def test_a_file_that_may_not_be_written_cannot_be_freed(tmp_path: Path) -> None:
    file = written(tmp_path)
    file.path.chmod(0o400)
    if os.access(file.path, os.W_OK):
        pytest.skip("root may write everything")
    assert not file.free(1_000_000)


def test_a_reader_never_sees_what_was_not_written_while_the_head_is_freed(directory: Path) -> None:
    file = OutputFile(directory / "stdout")
    with file.path.open("ab") as stdout:
        child = subprocess.Popen([sys.executable, "-ISc", WRITER, "0.8"], stdout=stdout)
    wait_for(lambda: file.size() > 1_000_000)
    frees = 0

    def free() -> None:
        nonlocal frees
        while child.poll() is None:
            assert file.free(file.size() - 400_000)
            frees += 1

    thread = threading.Thread(target=free)
    thread.start()
    offset, gone, checked = 0, 0, 0
    while child.poll() is None:
        try:
            data = file.read(offset, 65_536)
        except Gone as error:
            gone, offset = gone + 1, error.first_kept
            assert offset % 10 == 0
            continue
        first = -(-offset // 10)
        whole = data[first * 10 - offset :]
        whole = whole[: len(whole) // 10 * 10]
        assert whole == b"".join(b"%09d\n" % number for number in range(first, first + len(whole) // 10))
        checked, offset = checked + len(whole), offset + len(data)
    thread.join()
    print(f"\n{file.size() / 1e6:.0f} MB written, {checked / 1e6:.0f} MB read, {frees} times freed, {gone} times gone")
    assert checked
    assert frees


def test_asking_what_is_kept_is_cheap(directory: Path) -> None:
    file = written(directory, DATA * 25)
    assert file.free(len(DATA) * 24)
    started, count = time.perf_counter(), 200
    for _ in range(count):
        assert file.first_kept()
        assert file.kept_bytes() <= len(DATA) + BLOCK
    each = (time.perf_counter() - started) / count
    print(f"\nfirst_kept and kept_bytes of a file of 50 MB: {each * 1e6:.0f} µs")
    assert each < 0.01

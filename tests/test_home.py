"""The home and who runs in it: paths, permissions, the lock, and what a crash leaves behind."""

import errno
import fcntl
import json
import os
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.home import SOCKET_PATH_LIMIT, Home, HomeError
from daemon.lock import AlreadyRunning, HomeLock, lock_holder, write_private
from daemon.run_info import RunInfo, read_info, read_pid

ROOT = Path(__file__).parent.parent
TAKE_LOCK = """
import sys
from pathlib import Path
from daemon.home import Home
from daemon.lock import AlreadyRunning, HomeLock
lock = HomeLock(Home(Path(sys.argv[1])))
try:
    lock.acquire()
except AlreadyRunning as error:
    print("refused", error.pid, flush=True)
    sys.exit(5)
print("locked", flush=True)
"""
HOLD_LOCK = TAKE_LOCK + "sys.stdin.read()\n"
ASK_HOLDER = """
import sys
from pathlib import Path
from daemon.home import Home, HomeError
from daemon.lock import lock_holder
try:
    print(lock_holder(Home(Path(sys.argv[1]))))
except HomeError as error:
    print("HomeError", error.problem)
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another user")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.create()
    return made


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name, wherever pytest keeps its own."""
    with tempfile.TemporaryDirectory(prefix="d", dir="/tmp") as made:
        yield Path(made)


@pytest.fixture
def lock(home: Home) -> Iterator[HomeLock]:
    held = HomeLock(home)
    held.acquire()
    yield held
    held.release()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def run(code: str, home: Home, *before: str) -> str:
    """Run code in another process and return what it printed."""
    command = [*before, sys.executable, "-c", code, str(home.root)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False).stdout.strip()


@contextmanager
def holder(home: Home, code: str = HOLD_LOCK) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until its stdin closes."""
    command = [sys.executable, "-c", code, str(home.root)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "locked\n"
            yield child
        finally:
            child.kill()


def bind(path: Path) -> None:
    """Leave a socket behind as a crash does."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def info(home: Home, pid: int = 4711) -> RunInfo:
    return RunInfo(pid, 1_700_000_000, "http://127.0.0.1:3100", str(home.socket_path), "0.1.0")


# Where things lie


def test_the_flag_wins_over_the_variable_over_the_user_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    environ = {"DAEMON_HOME": str(tmp_path / "variable")}
    assert Home.resolve(tmp_path / "flag", environ).root == tmp_path / "flag"
    assert Home.resolve(None, environ).root == tmp_path / "variable"
    fallback = Home.resolve(None, {"DAEMON_HOME": ""}).root
    assert fallback.name == "agent-daemon"
    if sys.platform == "linux":
        assert fallback == tmp_path / "data" / "agent-daemon"


def test_a_relative_home_and_a_tilde_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Home.resolve(Path("a/../b"), {}).root == tmp_path / "b"
    assert Home.resolve(None, {"DAEMON_HOME": "~/c"}).root == tmp_path / "c"


def test_the_files_of_the_home_have_their_documented_names(tmp_path: Path) -> None:
    home = Home(tmp_path)
    paths = [home.config_file, home.database, home.lock_file, home.pid_file, home.json_file, home.socket_path]
    paths += [home.log_file("logs/daemon.log"), home.logs, home.backups, home.initial_password_file]
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "config.toml",
        "daemon.db",
        "daemon.lock",
        "daemon.pid",
        "daemon.json",
        "daemon.sock",
        "logs/daemon.log",
        "logs",
        "backups",
        "initial-password",
    ]
    assert home.log_file("/var/log/d.log") == Path("/var/log/d.log")


@pytest.mark.parametrize(("length", "inside"), [(100, True), (101, False)])
def test_the_socket_lies_in_the_home_up_to_100_bytes(length: int, inside: bool) -> None:
    root = Path("/" + "h" * (length - len("//daemon.sock")))
    assert len(os.fsencode(root / "daemon.sock")) == length
    assert (Home(root).socket_path.parent == root) is inside


def test_the_length_of_a_socket_path_is_counted_in_bytes() -> None:
    assert Home(Path("/" + "h" * 40)).socket_path.name == "daemon.sock"
    assert Home(Path("/" + "집" * 40)).socket_path.name != "daemon.sock"


def test_a_home_of_150_characters_has_a_socket_that_can_be_bound(short: Path) -> None:
    root = short / ("h" * (150 - len(str(short)) - 1))
    assert len(str(root)) == 150
    runtime = short / "run"
    runtime.mkdir(mode=0o700)
    desktop = Home.resolve(root, {"XDG_RUNTIME_DIR": str(runtime), "TMPDIR": str(short)})
    server = Home.resolve(root, {"TMPDIR": str(short)})
    assert desktop.socket_path.parent == runtime
    assert server.socket_path.parent == short / f"agent-daemon-{os.geteuid()}"
    for home in (desktop, server):
        home.create()
        assert len(os.fsencode(home.socket_path)) <= SOCKET_PATH_LIMIT
        bind(home.socket_path)
        assert mode(home.socket_path.parent) == 0o700


def test_two_long_homes_have_two_sockets() -> None:
    assert Home(Path("/" + "a" * 150)).socket_path != Home(Path("/" + "b" * 150)).socket_path


@pytest.mark.parametrize("bits", [0o770, 0o705, 0o755])
def test_a_runtime_directory_that_others_can_use_is_not_used(tmp_path: Path, bits: int) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    runtime.chmod(bits)
    assert Home.resolve(Path("/" + "h" * 150), {"XDG_RUNTIME_DIR": str(runtime)}).runtime_dir is None


@pytest.mark.parametrize("value", ["", "relative", "/does/not/exist"])
def test_a_runtime_directory_that_is_none_is_not_used(value: str) -> None:
    assert Home.resolve(Path("/h"), {"XDG_RUNTIME_DIR": value}).runtime_dir is None


def test_a_temporary_directory_that_is_too_long_is_passed_over() -> None:
    home = Home(Path("/" + "h" * 150), temp_dir=Path("/" + "t" * 90))
    assert home.socket_path.parent == Path(f"/tmp/agent-daemon-{os.geteuid()}")


@pytest.mark.parametrize("bits", [0o777, 0o1777, 0o755])
def test_a_socket_directory_that_others_prepared_is_refused(short: Path, bits: int) -> None:
    home = Home(short / ("h" * 100), temp_dir=short)
    prepared = home.socket_path.parent
    assert prepared.parent == short
    prepared.mkdir()
    prepared.chmod(bits)
    with pytest.raises(HomeError, match="not a directory that only you can use"):
        home.create()


def test_a_socket_directory_that_is_a_symlink_is_refused(short: Path) -> None:
    home = Home(short / ("h" * 100), temp_dir=short)
    elsewhere = short / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    home.socket_path.parent.symlink_to(elsewhere)
    with pytest.raises(HomeError, match="not a directory that only you can use"):
        home.create()


# Who may touch it


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_home_and_its_parents_are_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        home = Home(tmp_path / "parent" / "home")
        home.create()
        held = HomeLock(home)
        held.acquire()
        held.announce(info(home))
        held.release()
    finally:
        os.umask(before)
    assert {mode(path) for path in (home.root, home.root.parent, home.logs, home.backups)} == {0o700}
    assert {mode(path) for path in (home.lock_file, home.pid_file, home.json_file)} == {0o600}


def test_creating_a_home_again_changes_nothing(home: Home) -> None:
    home.root.chmod(0o755)
    home.config_file.write_text("kept")
    home.create()
    assert mode(home.root) == 0o755
    assert home.config_file.read_text() == "kept"


@pytest.mark.parametrize("bits", [0o720, 0o702, 0o777, 0o1777])
@pytest.mark.parametrize("linked", [False, True])
def test_a_home_that_others_can_write_to_is_refused_and_the_named_command_mends_it(
    tmp_path: Path, bits: int, linked: bool
) -> None:
    real = tmp_path / "a home"
    real.mkdir()
    real.chmod(bits)
    home = Home(tmp_path / "link" if linked else real)
    if linked:
        home.root.symlink_to(real)
    with pytest.raises(HomeError, match="Others can write") as caught:
        home.create()
    assert not list(real.iterdir())
    subprocess.run(shlex.split(caught.value.mend.removeprefix("run: ")), check=True)
    home.create()


@pytest.mark.parametrize("bits", [0o500, 0o300, 0o600, 0o000])
def test_a_home_without_our_own_bits_is_refused_and_the_named_command_mends_it(home: Home, bits: int) -> None:
    home.root.chmod(bits)
    with pytest.raises(HomeError, match="is not writable") as caught:
        home.check()
    subprocess.run(shlex.split(caught.value.mend.removeprefix("run: ")), check=True)
    home.check()


@needs_root
def test_a_home_of_another_user_is_refused_and_the_named_command_mends_it(home: Home) -> None:
    os.chown(home.root, 12345, 12345)
    with pytest.raises(HomeError, match="belongs to another user") as caught:
        home.check()
    assert caught.value.mend.startswith("run: sudo chown ")
    subprocess.run(shlex.split(caught.value.mend.removeprefix("run: sudo ")), check=True)
    home.check()


def test_a_home_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nothing")
    for root in (file, dangling, file / "below"):
        with pytest.raises(HomeError):
            Home(root).create()
    with pytest.raises(HomeError, match="is not a directory"):
        Home(file).check()


def test_a_missing_home_is_answered_with_init(tmp_path: Path) -> None:
    root = tmp_path / "no home"
    with pytest.raises(HomeError) as caught:
        Home(root).check()
    assert caught.value.mend == f"run: daemon --home '{root}' init"


# The lock


def test_a_second_daemon_is_refused_with_the_pid_of_the_first(home: Home) -> None:
    with holder(home) as first:
        with pytest.raises(AlreadyRunning) as caught:
            HomeLock(home).acquire()
        assert caught.value.pid == first.pid
        assert lock_holder(home) == first.pid
        assert run(TAKE_LOCK, home) == f"refused {first.pid}"


def test_a_free_lock_has_no_holder(home: Home) -> None:
    assert lock_holder(home) is None
    home.lock_file.touch()
    assert lock_holder(home) is None
    assert lock_holder(Home(home.root / "missing")) is None


def test_after_kill_9_the_very_next_start_gets_the_lock(home: Home) -> None:
    for _ in range(3):
        with holder(home) as first:
            first.kill()
            first.wait()
            assert lock_holder(home) is None
    lock = HomeLock(home)
    lock.acquire()
    lock.release()


def test_asking_who_holds_our_own_lock_does_not_drop_it(home: Home, lock: HomeLock) -> None:
    assert lock_holder(home) == os.getpid()
    with pytest.raises(AlreadyRunning) as caught:
        HomeLock(home).acquire()
    assert caught.value.pid == os.getpid()
    assert run(TAKE_LOCK, home) == f"refused {os.getpid()}"


def test_a_released_lock_is_free_and_may_be_taken_again(home: Home) -> None:
    lock = HomeLock(home)
    for _ in range(2):
        lock.acquire()
        lock.release()
        lock.release()
        assert run(TAKE_LOCK, home) == "locked"


def test_a_refused_lock_leaves_the_first_one_alone(home: Home) -> None:
    with holder(home) as first:
        for _ in range(3):
            with pytest.raises(AlreadyRunning):
                HomeLock(home).acquire()
        assert lock_holder(home) == first.pid


def test_no_started_child_keeps_the_lock_of_a_dead_daemon(home: Home) -> None:
    code = TAKE_LOCK + (
        "import subprocess\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'], close_fds=False)\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    with holder(home, code) as first:
        assert first.stdout is not None
        child = int(first.stdout.readline())
        first.kill()
        first.wait()
        os.kill(child, 0)
        assert lock_holder(home) is None
        assert run(TAKE_LOCK, home) == "locked"


def test_a_forked_child_neither_holds_nor_drops_the_lock(home: Home) -> None:
    code = TAKE_LOCK + (
        "import os\n"
        "if (child := os.fork()) == 0:\n"
        "    try:\n"
        "        HomeLock(Home(Path(sys.argv[1]))).acquire()\n"
        "    except AlreadyRunning as error:\n"
        "        print(error.pid, flush=True)\n"
        "    lock.release()\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print('waited', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with holder(home, code) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == f"{first.pid}\n"
        assert first.stdout.readline() == "waited\n"
        assert lock_holder(home) == first.pid


def test_a_symlink_in_place_of_the_lock_is_refused(home: Home) -> None:
    home.lock_file.symlink_to(home.root / "elsewhere")
    with pytest.raises(HomeError, match="cannot be used"):
        HomeLock(home).acquire()
    with pytest.raises(HomeError, match="cannot be used"):
        lock_holder(home)
    assert not (home.root / "elsewhere").exists()


def test_a_lock_that_the_file_system_cannot_explain_is_an_error_and_no_endless_loop(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def contended(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "locked")

    monkeypatch.setattr(fcntl, "lockf", contended)
    with pytest.raises(HomeError, match="nobody the file system can name"):
        HomeLock(home).acquire()


@needs_root
@pytest.mark.skipif(not shutil.which("unshare"), reason="no pid namespaces here")
def test_a_holder_that_has_no_pid_here_is_neither_free_nor_pid_zero(home: Home, lock: HomeLock) -> None:
    answer = run(ASK_HOLDER, home, "unshare", "--fork", "--pid")
    assert answer == f"HomeError {home.lock_file} is held from another container or machine"
    assert run(ASK_HOLDER, home) == str(os.getpid())


# What a running daemon says of itself, and what a crash leaves behind


def test_pid_file_and_json_say_who_runs(home: Home, lock: HomeLock) -> None:
    lock.announce(info(home))
    assert home.pid_file.read_bytes() == b"4711\n"
    assert json.loads(home.json_file.read_bytes()) == {
        "pid": 4711,
        "startedAt": 1_700_000_000,
        "url": "http://127.0.0.1:3100",
        "socket": str(home.socket_path),
        "version": "0.1.0",
    }
    assert read_pid(home) == 4711
    assert read_info(home) == info(home)


def test_nothing_is_announced_or_removed_without_the_lock(home: Home) -> None:
    home.pid_file.write_text("1\n")
    with pytest.raises(RuntimeError, match="not held"):
        HomeLock(home).announce(info(home))
    with pytest.raises(RuntimeError, match="not held"):
        HomeLock(home).leftovers()
    assert home.pid_file.read_text() == "1\n"


@pytest.mark.parametrize("content", [b"", b"x", b"-1\n", b"0\n", b"1 2\n", b"9" * 50, b"\xff", b"2147483648\n"])
def test_a_pid_file_that_says_nothing_is_none(home: Home, content: bytes) -> None:
    home.pid_file.write_bytes(content)
    assert read_pid(home) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"[" * 5000, b'{"pid":-1,"startedAt":1,"url":"u","socket":null,"version":"v"}', b"\xff"],
)
def test_a_json_file_that_says_nothing_is_none(home: Home, content: bytes) -> None:
    home.json_file.write_bytes(content)
    assert read_info(home) is None


def test_missing_files_and_directories_in_their_place_are_none(home: Home) -> None:
    assert (read_pid(home), read_info(home)) == (None, None)
    home.pid_file.mkdir()
    home.json_file.mkdir()
    assert (read_pid(home), read_info(home)) == (None, None)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=80) | st.text(alphabet='{}":,pid0123456789 \n', max_size=80).map(str.encode))
def test_any_bytes_in_the_pid_file_are_a_pid_or_none(home: Home, content: bytes) -> None:
    home.pid_file.write_bytes(content)
    home.json_file.write_bytes(content)
    pid = read_pid(home)
    assert pid is None or (pid > 0 and str(pid).encode() == content.strip().lstrip(b"0"))
    assert read_info(home) is None


def test_a_crash_leaves_pid_json_and_socket_which_the_next_start_removes(home: Home) -> None:
    crashed = TAKE_LOCK + (
        "import os, socket\n"
        "from daemon.run_info import RunInfo\n"
        "home = Home(Path(sys.argv[1]))\n"
        "socket.socket(socket.AF_UNIX).bind(str(home.socket_path))\n"
        "lock.announce(RunInfo(os.getpid(), 1, 'u', str(home.socket_path), 'v'))\n"
        "print('up', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with holder(home, crashed) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "up\n"
        first.kill()
        first.wait()
    assert read_pid(home) == first.pid
    lock = HomeLock(home)
    lock.acquire()
    assert set(lock.leftovers()) == {home.pid_file, home.json_file, home.socket_path}
    assert lock.leftovers() == []
    lock.release()
    assert {path.name for path in home.root.iterdir()} == {"daemon.lock", "logs", "backups", "processes"}


def test_half_written_files_are_leftovers_too(home: Home, lock: HomeLock) -> None:
    half = home.root / ".daemon.json.partial"
    half.write_text("{")
    assert lock.leftovers() == [half]


def test_a_socket_in_an_earlier_runtime_directory_is_removed(short: Path) -> None:
    root = short / ("h" * 100)
    before, now = (Home(root, runtime_dir=short / name) for name in ("before", "now"))
    for home in (before, now):
        assert home.runtime_dir is not None
        home.runtime_dir.mkdir(mode=0o700)
        home.create()
    assert before.socket_path != now.socket_path
    bind(before.socket_path)
    lock = HomeLock(now)
    lock.acquire()
    lock.announce(info(before))
    assert before.socket_path in lock.leftovers()
    lock.release()
    assert not before.socket_path.exists()


def test_a_copied_home_does_not_remove_the_socket_of_the_original(tmp_path: Path, home: Home, lock: HomeLock) -> None:
    bind(home.socket_path)
    lock.announce(info(home))
    copy = Home(tmp_path / "copy")
    copy.create()
    shutil.copy(home.json_file, copy.json_file)
    second = HomeLock(copy)
    second.acquire()
    assert second.leftovers() == [copy.json_file]
    second.release()
    assert home.socket_path.exists()


def test_what_is_no_socket_is_not_removed_in_its_place(home: Home, lock: HomeLock) -> None:
    home.socket_path.write_text("mine")
    assert lock.leftovers() == []
    assert home.socket_path.read_text() == "mine"


def test_a_private_file_replaces_what_was_there_and_follows_no_symlink(home: Home) -> None:
    target = home.root / "target"
    target.write_text("old")
    target.chmod(0o644)
    for name in ("config.toml", ".config.toml.partial"):
        (home.root / name).symlink_to(target)
    write_private(home.config_file, b"new")
    assert not home.config_file.is_symlink()
    assert home.config_file.read_bytes() == b"new"
    assert mode(home.config_file) == 0o600
    assert target.read_text() == "old"


def test_a_file_that_cannot_be_written_is_a_home_error(home: Home) -> None:
    home.pid_file.mkdir()
    with pytest.raises(HomeError, match=r"daemon\.pid cannot be used"):
        write_private(home.pid_file, b"1\n")

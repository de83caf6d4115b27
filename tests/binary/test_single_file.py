"""The single file: what it brings, what it unpacks and when, and what can go wrong with that."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from daemon import __version__
from tests.binary.installed import Installed, path_of
from tests.support.daemon_process import wait_for
from tests.support.readme import README

VERSION = f"daemon {__version__}\n"
OLD = 8 * 86_400
"""Seconds after which a version counts as unused."""
OF_THE_SYSTEM = re.compile(
    r"/(ld-linux[^/]*|lib(c|m|dl|rt|util|pthread|resolv|nss_\w+)[.-][^/]*|locale-archive|gconv\S*)$"
)
"""What belongs to glibc."""
TOOLS = ("sh", "id", "mkdir", "mktemp", "rm", "tail", "gzip", "tar")
DEPENDENCY = re.compile(r"(?:=> |\t)(/\S+) \(0x")
"""A line of ldd(1)."""


def places(file: Installed) -> Path:
    """Return where it keeps its versions."""
    return Path(file.environment().get("DAEMON_UNPACK_DIR", file.user / ".local/share/agent-daemon-program"))


def place(file: Installed) -> Path:
    """Return where this version is."""
    found = re.search(rb"^id=([0-9a-f]{64})$", path_of("file").read_bytes()[:4096], re.MULTILINE)
    assert found is not None
    return places(file) / found[1].decode()


def begun(file: Installed) -> tuple[subprocess.Popen[bytes], Path]:
    """Begin a first start, and return it and where it unpacks."""
    process = subprocess.Popen(
        [file.path, "--version"], env=file.environment(), stdout=subprocess.DEVNULL, start_new_session=True
    )
    return process, wait_for(lambda: list(places(file).glob(".unpacking.*/_internal")))[0].parent


@pytest.fixture
def cut_short(file: Installed, tmp_path: Path) -> Iterator[Path]:
    """A copy of the file whose end was lost on the way."""
    whole = path_of("file").read_bytes()
    copy = tmp_path / "cut-short"
    copy.write_bytes(whole[: len(whole) - 100_000])
    copy.chmod(0o755)
    yield copy
    assert list(places(file).iterdir()) == []


def test_the_first_start_unpacks_it_for_its_owner_alone_and_later_ones_use_that(file: Installed) -> None:
    assert file("--version").out == VERSION
    assert list(places(file).iterdir()) == [place(file)]
    entries = [places(file), place(file), *place(file).rglob("*")]
    assert {entry.stat().st_mode & 0o077 for entry in entries} == {0}
    assert {entry.stat().st_uid for entry in entries} == {os.geteuid()}
    before = {entry: entry.stat().st_ctime_ns for entry in entries if entry.is_file()}
    assert file("--version").out == VERSION
    assert {entry: entry.stat().st_ctime_ns for entry in before} == before
    assert (place(file) / "licences" / "python-LICENSE.txt").is_file()
    assert (place(file) / "licences" / "litestar-LICENSE").is_file()


def test_it_is_installed_as_the_readme_says(settled: Installed) -> None:
    section = README.read_text().partition("## One file\n")[2].partition("\n## ")[0]
    (commands,) = re.findall(r"```sh\n(.*?)```\n", section, re.DOTALL)
    (settled.user / "dist").mkdir()
    shutil.copy(settled.path, settled.user / "dist/daemon")
    environment = settled.environment(PATH=os.defpath)
    command = ["sh", "-euc", commands]
    done = subprocess.run(command, cwd=settled.user, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (VERSION, "")


def test_many_first_starts_at_once_all_work_and_leave_one_place(file: Installed) -> None:
    with ThreadPoolExecutor(3) as threads:
        said = [done.out for done in threads.map(lambda _: file("--version"), range(3))]
    assert said == [VERSION] * 3
    assert list(places(file).iterdir()) == [place(file)]


def test_a_first_start_that_was_killed_is_made_good_by_the_next(file: Installed) -> None:
    process, left = begun(file)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
    assert not place(file).exists()
    long_ago = time.time() - OLD
    os.utime(left, (long_ago, long_ago))
    assert file("--version").out == VERSION
    assert list(places(file).iterdir()) == [place(file)]


def test_a_first_start_that_is_interrupted_leaves_nothing(file: Installed) -> None:
    process, _ = begun(file)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(30) != 0
    wait_for(lambda: not list(places(file).iterdir()))


def test_a_file_that_is_cut_short_is_refused_in_one_line(file: Installed, cut_short: Path) -> None:
    done = subprocess.run([cut_short, "--version"], env=file.environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"error: {cut_short} cannot be unpacked")


def test_every_file_is_held_against_the_manifest_before_it_is_used(file: Installed, tmp_path: Path) -> None:
    """gzip's own sum would let pass what somebody has packed again."""
    script, _, rest = path_of("file").read_bytes().partition(b'exec "$place/daemon" "$@"\n')
    packed = tmp_path / "packed"
    packed.mkdir()
    subprocess.run(["tar", "-xzf", "-", "-C", packed], input=rest, check=True)
    with (packed / "_internal/daemon/_data/schema.sql").open("a") as schema:
        schema.write("-- changed\n")
    again = f"tar -cf - -C {packed} . | gzip -1"
    archive = subprocess.run(["sh", "-c", again], capture_output=True, check=True).stdout
    changed = tmp_path / "changed"
    changed.write_bytes(script + b'exec "$place/daemon" "$@"\n' + archive)
    changed.chmod(0o755)
    done = subprocess.run([changed, "--version"], env=file.environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "_internal/daemon/_data/schema.sql is damaged" in done.stderr
    assert list(places(file).iterdir()) == []


@pytest.mark.parametrize(
    ("where", "says"),
    [("/proc/nowhere", "name another directory"), ("relative", "no absolute path"), ("/dev/null/x", "name another")],
)
def test_a_place_that_cannot_be_used_is_named_with_what_to_do(file: Installed, where: str, says: str) -> None:
    done = file("--version", DAEMON_UNPACK_DIR=where)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert says in done.err
    assert "DAEMON_UNPACK_DIR" in done.err


@pytest.mark.parametrize("options", ["noexec", "size=20m"])
def test_a_file_system_that_is_too_small_or_executes_nothing_is_refused_in_one_line(
    file: Installed, tmp_path: Path, options: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", disk]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        done = file("--version", DAEMON_UNPACK_DIR=str(disk))
        left = list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)
    assert (done.code, done.out, done.err.count("\n"), left) == (1, "", 1, [])
    assert re.search(r"wants \d+ MB there, where programs may be executed", done.err)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_nothing_is_run_that_belongs_to_another_user(file: Installed) -> None:
    assert file("--version").code == 0
    os.chown(place(file) / "daemon", 65_534, 65_534)
    done = file("--version")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "belongs to another user" in done.err
    shutil.rmtree(place(file))
    os.chown(places(file), 65_534, 65_534)
    assert "belongs to another user" in file("--version").err


def test_a_new_version_removes_those_that_nobody_uses_and_nothing_else(file: Installed) -> None:
    running, unused, recent = (places(file) / (letter * 64) for letter in "abc")
    stranger = places(file) / "somebody-else's"
    long_ago = time.time() - OLD
    for version in (running, unused, recent, stranger):
        version.mkdir(parents=True)
        (version / "daemon").touch()
        if version != recent:
            os.utime(version, (long_ago, long_ago))
    held = os.open(running, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    assert file("--version").out == VERSION
    assert set(places(file).iterdir()) == {running, recent, stranger, place(file)}
    os.close(held)


def test_a_running_daemon_keeps_its_version_and_has_nothing_but_its_files(settled: Installed, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    pid = settled.start(TMPDIR=str(temporary))
    assert not can_be_removed(place(settled))
    mapped = {found.path for found in psutil.Process(pid).memory_maps() if found.path.startswith("/")}
    assert any("libpython" in path for path in mapped)
    foreign = {path for path in mapped if not path.startswith((f"{place(settled)}/", f"{settled.home}/"))}
    assert [path for path in foreign if not OF_THE_SYSTEM.search(path)] == []
    assert psutil.Process(pid).children() == []
    before = list(places(settled).iterdir())
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(pid))
    assert (list(temporary.iterdir()), list(places(settled).iterdir())) == ([], before)
    assert can_be_removed(place(settled))


def can_be_removed(version: Path) -> bool:
    """Return whether no process has said that it uses a version."""
    held = os.open(version, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(held)
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no root directory for a process alone")
def test_a_shell_its_tools_and_glibc_are_all_that_it_needs(settled: Installed, tmp_path: Path) -> None:
    """In an empty tree with an empty environment: no Python, no other library, no HOME, no /proc, no /tmp."""
    assert settled("--version").out == VERSION
    libraries = asked_for(place(settled))
    assert [path for path in libraries if not OF_THE_SYSTEM.search(path)] == []
    tree = tmp_path / "empty"
    for directory in ("etc", "root", "dev"):
        (tree / directory).mkdir(parents=True)
    for path in libraries:
        bring(path, tree)
    for name in TOOLS:
        tool = shutil.which(name)
        assert tool is not None
        bring(tool, tree, "bin")
    (tree / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (tree / "etc/nsswitch.conf").write_text("passwd: files\n")
    (tree / "dev/null").touch()
    shutil.copy(settled.path, tree / "daemon")
    assert (inside(tree, "/daemon", "--version").stdout, inside(tree, "/daemon", "--version").stderr) == (VERSION, "")
    started = inside(tree, "/daemon", "start", "--detach", "--port", "0")
    assert started.returncode == 0, started.stderr
    assert inside(tree, "/daemon", "stop").stdout == "the daemon has stopped\n"
    made = sorted(path.name for path in (tree / "root/.local/share").iterdir())
    assert made == ["agent-daemon", "agent-daemon-program"]


def inside(tree: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with a tree as its root directory and nothing in its environment."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    into = ["unshare", *user, "--root", str(tree), "--wd", "/"]
    if subprocess.run([*into, "/bin/sh", "-c", ":"], env={}, capture_output=True, check=False).returncode != 0:
        pytest.skip("no root directory of its own can be had here")
    return subprocess.run([*into, *command], env={}, capture_output=True, text=True, timeout=60, check=False)


def asked_for(version: Path) -> list[str]:
    """Return the libraries of the system that what was unpacked asks for."""
    binaries = [version / "daemon", *version.rglob("*.so*")]
    where = {"LD_LIBRARY_PATH": str(version / "_internal"), "PATH": os.defpath}
    said = subprocess.run(["ldd", *binaries], env=where, capture_output=True, text=True, check=True).stdout
    return sorted({path for path in DEPENDENCY.findall(said) if not path.startswith(f"{version}/")})


def bring(path: str, tree: Path, directory: str | None = None) -> None:
    """Copy a file to where it is looked for in a tree, with the libraries that it asks for."""
    said = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    for found in (path, *DEPENDENCY.findall(said)):
        copy = tree / (directory if directory and found == path else found[1 : found.rindex("/")]) / Path(found).name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(found, copy)

"""A systemd of a user's own, real, in namespaces of its own: for machines that were booted with it, and others."""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.support.daemon_process import Ended, environment, wait_for

PLACES: Final = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
BEGIN: Final = """
set -eu
mount --make-rprivate /
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mkdir "/sys/fs/cgroup$GROUP"
echo $$ >"/sys/fs/cgroup$GROUP/cgroup.procs"
mount -t tmpfs none /run
mkdir -p /run/systemd/system
"$SYSTEMD" --user --unit=basic.target --log-target=console --log-level=info &
wait
"""
"""The first process of the pid namespace stays a shell: as the first, systemd would take itself for the system's.

`/run/systemd/system` tells that a machine was booted with systemd (sd_booted(3)).
"""


class UserManager:
    """A running one.

    Args:
        place: a short path for its directories: those of sockets have a limit.
        pid: the first process of its namespaces.
    """

    def __init__(self, place: Path, pid: int) -> None:
        self.home = place / "home"
        self.units = self.home / ".config" / "systemd" / "user"
        self._runtime = place / "run"
        self._pid = pid

    def run(self, *command: str, timeout: float = 60, **env: str) -> Ended:
        """Run a command there, with nothing of a daemon of the caller's."""
        inside = ["nsenter", "--target", str(self._pid), "--mount", "--pid", "--cgroup", "--", *command]
        done = subprocess.run(
            inside,
            env={**_environment(self.home, self._runtime), **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            start_new_session=True,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def systemctl(self, *words: str) -> str:
        """Ask it something, and return the answer."""
        done = self.run("systemctl", "--user", *words)
        assert done.code == 0, done.err
        return done.out.strip()

    def show(self, unit: str, what: str) -> str:
        """Return a property of a unit."""
        return self.systemctl("show", unit, f"--property={what}", "--value")


def _environment(home: Path, runtime: Path) -> dict[str, str]:
    found = environment(home, DAEMON_HOME=None, DAEMON_SERVER_PORT=None)
    kept = {name: value for name, value in found.items() if not name.startswith(("XDG_", "DBUS_", "DAEMON_"))}
    return {**kept, "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime)}


@contextlib.contextmanager
def user_manager() -> Iterator[UserManager]:
    """Start one, and end it with all that it has started; skip the test where there can be none."""
    if (missing := why_not()) is not None:
        required = "systemd" in os.environ.get("DAEMON_TEST_REQUIRE", "").split()
        (pytest.fail if required else pytest.skip)(missing)
    with _started() as manager:
        yield manager


@functools.cache
def why_not() -> str | None:
    """Return why there can be none here; None: there can."""
    if not any(map(os.path.exists, PLACES)) or None in map(shutil.which, ("systemctl", "unshare", "nsenter")):
        return "there is no systemd"
    if os.geteuid() != 0:
        return "only root can make the namespaces"
    try:
        with _started():
            return None
    except AssertionError as error:
        return f"systemd does not start here: {error}"


@contextlib.contextmanager
def _started() -> Iterator[UserManager]:
    place = Path(tempfile.mkdtemp(prefix="user-", dir="/tmp"))
    for name in ("home", "run"):
        (place / name).mkdir(mode=0o700)
    group = f"{_own_group().rstrip('/')}/daemon-test-{place.name}"
    with (place / "log").open("wb") as log:
        unshare = subprocess.Popen(
            ["unshare", "--mount", "--cgroup", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", BEGIN],
            env={
                **_environment(place / "home", place / "run"),
                "GROUP": group,
                "SYSTEMD": next(filter(os.path.exists, PLACES)),
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        ready = place / "run" / "systemd" / "private"
        wait_for(lambda: ready.exists() or unshare.poll() is not None)
        assert unshare.poll() is None, (place / "log").read_text()[-300:]
        (child,) = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
        manager = UserManager(place, int(child))
        wait_for(lambda: manager.run("systemctl", "--user", "is-active", "basic.target").code == 0)
        yield manager
    finally:
        unshare.send_signal(signal.SIGKILL)
        unshare.wait()
        _remove_group(group)
        shutil.rmtree(place, ignore_errors=True)


def _own_group() -> str:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return next(line[3:] for line in lines if line.startswith("0::"))


def _remove_group(group: str) -> None:
    """Remove the control group, which is empty as soon as the kernel has ended the namespace."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    for top in [Path(mount[1] + group) for mount in mounts if mount[2] == "cgroup2"]:
        wait_for(partial(_is_removed, top))


def _is_removed(top: Path) -> bool:
    for at, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(at)
    return not top.exists()

"""Network namespaces in which there is nothing but loopback, for programs that must not reach the internet."""

import functools
import os
import shutil
import subprocess
import sys
from typing import Final

import pytest

# `ip link set lo up` for machines without `ip`: netdevice(7), struct ifreq and its flags.
UP: Final = """
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
os.execvp(sys.argv[1], sys.argv[1:])
"""
PROBE: Final = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 5):
    pass
with open("/proc/net/route") as routes:
    assert len(routes.readlines()) < 2, "there is a route out"
"""


def loopback_only() -> list[str]:
    """Return what to put before a command so that it, and what it starts, has a new namespace with `lo` up.

    The command takes the place of this prefix: it has the process id, the streams and the exit code. Who is not root
    becomes root in a user namespace.
    """
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", "--net", *user, "--", sys.executable, "-I", "-S", "-c", UP]


@functools.cache
def why_not() -> str | None:
    """Return why such namespaces cannot be made here; None: they can."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return "there is no unshare"
    command = [*loopback_only(), sys.executable, "-I", "-S", "-c", PROBE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return None if done.returncode == 0 else f"no network namespace: {done.stderr.strip()[-200:]}"


def require() -> None:
    """Skip the test where such namespaces cannot be made; fail where `DAEMON_TEST_REQUIRE` names netns."""
    missing = why_not()
    if missing is not None:
        required = "netns" in os.environ.get("DAEMON_TEST_REQUIRE", "").split()
        (pytest.fail if required else pytest.skip)(missing)

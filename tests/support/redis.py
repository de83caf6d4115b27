"""Redis for tests: the one that runs on this machine, and servers of a test's own that it kills and freezes."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
import redis

SHARED = "redis://127.0.0.1:6379"


def require(present: bool, missing: str) -> None:
    """Skip the test, saying what is missing; fail where `DAEMON_TEST_REQUIRE` names redis."""
    if not present:
        required = "redis" in os.environ.get("DAEMON_TEST_REQUIRE", "").split()
        (pytest.fail if required else pytest.skip)(missing)


def shared_url() -> str:
    """Return the URL of the Redis that runs on this machine."""
    try:
        found = redis.Redis.from_url(SHARED, socket_timeout=2).ping()
    except redis.RedisError:
        found = False
    require(bool(found), f"no Redis answers at {SHARED}")
    return SHARED


@contextlib.contextmanager
def shared() -> Iterator[dict[str, str]]:
    """Give settings for conversations in that Redis under a prefix of their own, and leave no key behind."""
    prefix = f"test-{token_hex(8)}:"
    url = shared_url()
    yield {"DAEMON_CONVERSATIONS_URL": url, "DAEMON_CONVERSATIONS_KEY_PREFIX": prefix}
    plain = redis.Redis.from_url(url)
    for key in plain.scan_iter(f"{prefix}*"):
        plain.delete(key)


class RedisServer:
    """A `redis-server` of the test's own; its data is lost whenever it ends, unless it saves.

    Args:
        directory: where it may write.
        options: further ones of its command line.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        binary = shutil.which("redis-server") or shutil.which("valkey-server")
        require(binary is not None, "there is no redis-server")
        self._binary = str(binary)
        self._directory = directory
        self._options = options
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.start()

    def start(self, *options: str) -> None:
        """Start it on its port, and return when it answers."""
        port = "--tls-port" if "--tls-cert-file" in self._options else "--port"
        fixed = ["--bind", "127.0.0.1", port, str(self.port), "--save", "", "--dir", str(self._directory)]
        self.process = subprocess.Popen(
            [self._binary, *fixed, *self._options, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
                return
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.01)

    def kill(self) -> None:
        """Kill it with SIGKILL and reap it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(10)

    def freeze(self) -> None:
        """Let it hang: connections are taken, nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def everything(self) -> dict[str, str]:
        """Return what it holds."""
        plain = self.client()
        return {key: plain.get(key) for key in plain.scan_iter()}

    def client(self, **options: Any) -> "redis.Redis[Any]":
        """Return a plain client."""
        return redis.Redis(port=self.port, socket_timeout=5, decode_responses=True, **options)

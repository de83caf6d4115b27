"""Which process made a session, told apart from a later one with the same pid."""

import os
import socket
import subprocess
from pathlib import Path

import msgspec


class Runner(msgspec.Struct, frozen=True, rename="camel"):
    """A process: pid, when it started, in which boot of which host."""

    pid: int
    start_time: str
    boot_id: str
    host: str

    def is_gone(self) -> bool:
        """Return whether it was on this host and runs no more; of other hosts nothing is known."""
        if self.host != socket.gethostname():
            return False
        return self.boot_id != _boot_id() or self.start_time != _start_time(self.pid)


def myself() -> Runner:
    """Return this process."""
    pid = os.getpid()
    return Runner(pid, _start_time(pid), _boot_id(), socket.gethostname())


def _start_time(pid: int) -> str:
    """Return when a process started, in whatever unit the system has; empty if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return "" if Path("/proc/self").exists() else _start_time_by_ps(pid)
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]  # proc(5): field 22, counted after the name


def _start_time_by_ps(pid: int) -> str:
    found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603, S607 (macOS has no /proc)
    return found.stdout.strip()


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        found = subprocess.run(["sysctl", "-n", "kern.boottime"], capture_output=True, text=True, check=False)  # noqa: S607 (macOS)
        return found.stdout.strip()

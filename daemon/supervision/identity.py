"""Which process is meant: a pid, and what tells its process from a later one that was given the same pid."""

import functools
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

PROCFS = sys.platform == "linux"
"""Whether processes are read from /proc; elsewhere psutil reads them."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STAT_LIMIT = 2048  # 52 numbers of at most 20 digits, and a name
_STATE, _THREADS, _STARTED = 0, 17, 19  # proc_pid_stat(5), counted from the third field on


class Identity(msgspec.Struct, frozen=True):
    """One process: its pid, the kernel's stamp of its start, which no setting of the clock changes, and the boot."""

    pid: int
    started: str
    boot: str


@functools.cache
def boot_id() -> str:
    """Return what names the time since the machine was last started."""
    if PROCFS:
        return _BOOT_ID.read_text().strip()
    return _boot_session() or _boot_time()


def identify(pid: int) -> Identity | None:
    """Return the process that has the pid now; None where none has, or one that is dead and not yet reaped.

    Raises:
        OSError: the process table cannot be read, as when file descriptors have run out.
    """
    started = _started(pid) if pid > 0 else None
    return None if started is None else Identity(pid, started, boot_id())


def is_alive(identity: Identity) -> bool:
    """Return whether that very process runs, or is stopped.

    Raises:
        OSError: the process table cannot be read, as when file descriptors have run out.
    """
    return identity == identify(identity.pid)


def send(identity: Identity, number: int) -> bool:
    """Send a signal to that very process, and never to another that has its pid by now.

    Args:
        identity: the process.
        number: of the signal.

    Returns:
        Whether it was sent; not to a process that is gone, nor to one that we may not signal.
    """
    if identity.pid <= 0:  # to kill(2) such a number means a group, or everybody
        return False
    # What the descriptor means cannot change. If the process is the meant one after it was opened, it was so before.
    descriptor = _open(identity.pid)
    try:
        if not is_alive(identity):
            return False
        if sys.platform == "linux" and descriptor is not None:
            signal.pidfd_send_signal(descriptor, number)
        else:
            os.kill(identity.pid, number)
    except OSError:
        return False
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return True


def stat_fields(pid: int | str) -> list[bytes] | None:
    """Return /proc/<pid>/stat from its third field, the state, on: 23 fields, the last of them all the rest.

    Raises:
        OSError: it cannot be read for another reason than that there is no such process, or that it is hidden from us.
    """
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    try:
        line = os.read(descriptor, _STAT_LIMIT)
    except (ProcessLookupError, PermissionError):
        return None
    finally:
        os.close(descriptor)
    # The name before it is the process's own choice, and may hold spaces and brackets.
    return line[line.rindex(b")") + 2 :].split(b" ", 22)


def is_dead(fields: list[bytes]) -> bool:
    """Return whether these fields are of a dead process, which its parent has not reaped."""
    # A process whose first thread has ended says Z too, for as long as the others run.
    return fields[_STATE] in {b"Z", b"X"} and int(fields[_THREADS]) <= 1


def _started(pid: int) -> str | None:
    if not PROCFS:
        return _portable_started(pid)
    fields = stat_fields(pid)
    return None if fields is None or is_dead(fields) else fields[_STARTED].decode()


def _open(pid: int) -> int | None:
    """Return a descriptor of the process; None where the system has no such thing, or none is to be had."""
    if sys.platform == "linux" and hasattr(os, "pidfd_open"):
        try:
            return os.pidfd_open(pid)
        except OSError:
            return None
    return None


def _portable_started(pid: int) -> str | None:
    psutil = portable()
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else portable_stamp(process)
    except psutil.Error:
        return None


def portable() -> Any:
    """Return the module psutil, which Linux does without, and which has no types."""
    return importlib.import_module("psutil")


def portable_stamp(process: Any) -> str:
    """Return the start stamp of a process of psutil."""
    # Its public create_time() moves with the clock; what psutil itself tells processes apart by does not.
    return str(process._ident[1])


def _boot_session() -> str:
    """Return the boot session of macOS, or nothing."""
    try:
        command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()  # noqa: S603 (constant)
    except (OSError, subprocess.SubprocessError):
        return ""


def _boot_time() -> str:
    return str(int(portable().boot_time()))

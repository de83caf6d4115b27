"""Checks of the running daemon: who holds the lock, who answers at the port."""

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from daemon.home import HomeError
from daemon.maintenance.findings import Finding, Patient, failed, ok, warning
from daemon.run_info import read_info, read_pid

_ANSWER_SECONDS = 5.0
_LIMIT = 65_536


def check_lock(patient: Patient) -> Iterator[Finding]:
    """Do the lock, the pid file and `daemon.json` agree?"""
    home = patient.home
    try:
        holder = patient.holder
    except HomeError as error:
        yield failed("lock", error.problem, error.mend)
        return
    info = read_info(home)
    if holder is not None and info and info.pid == read_pid(home) == holder:
        yield ok("lock", f"held by the daemon, pid {holder}")
    elif holder is not None:
        detail = f"pid {holder} holds the lock, but is not the daemon of daemon.pid and daemon.json"
        yield warning("lock", detail, "if it does not start or stop just now, run: daemon restart --force")
    elif left := [path.name for path in _traces(patient) if path.exists()]:
        yield warning("lock", f"a crash left {', '.join(left)}", "run: daemon start (it removes them)")
    else:
        yield ok("lock", "free, no daemon runs")


def _traces(patient: Patient) -> list[Path]:
    home, info = patient.home, read_info(patient.home)
    traces = {home.pid_file, home.json_file, home.root / "daemon.sock"}
    return sorted(traces | ({Path(info.socket)} if info and info.socket else set()))


class _Health(msgspec.Struct):
    pid: int
    status: str


def check_port(patient: Patient) -> Iterator[Finding]:
    """Does our daemon answer, or is the port free for it?"""
    holder, info = patient.holder, read_info(patient.home)
    if holder is None:
        yield _free_port(patient)
    elif info is not None and info.pid == holder:
        yield _answer(info.url, holder)


def _answer(url: str, holder: int) -> Finding:
    try:
        health = _health(url)
    except (OSError, http.client.HTTPException, msgspec.DecodeError):
        return failed("port", f"the daemon does not answer at {url}", "look at: daemon logs; then run: daemon restart")
    if health.pid != holder:
        cure = "stop that program, then run: daemon restart"
        return failed("port", f"another program (pid {health.pid}) answers at {url}", cure)
    if health.status != "ok":
        return failed("port", f"the daemon at {url} is {health.status}", "run: daemon status")
    return ok("port", f"the daemon answers at {url}")


def _health(url: str) -> _Health:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/health")
        return msgspec.json.decode(connection.getresponse().read(_LIMIT), type=_Health)
    finally:
        connection.close()


def _free_port(patient: Patient) -> Finding:
    server = patient.config.server
    if server.port == 0:
        return ok("port", "any free one will be taken")
    where = f"{server.host}:{server.port}"
    try:
        family, kind, number, _, target = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the daemon does
            listener.bind(target)
            listener.listen(1)
    except OSError as error:
        cure = "stop the program that has it, or choose another port: daemon start --port 0"
        return failed("port", f"{where} cannot be had: {error.strerror}", cure)
    return ok("port", f"{where} is free")

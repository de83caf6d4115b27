"""`daemon init`, `start`, `stop` and `restart`: the process itself."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from daemon.cli import base, credentials, offline
from daemon.cli.exclusive import already
from daemon.cli.failure import (
    FAILED,
    NOT_RUNNING,
    OK,
    STOP_TIMED_OUT,
    USAGE,
    Failure,
)
from daemon.cli.output import note
from daemon.cli.parameters import DURATION
from daemon.cli.program import program
from daemon.config import SECRET_VARIABLES, Loaded
from daemon.home import Home
from daemon.lock import AlreadyRunning, lock_holder
from daemon.run_info import read_info

F = TypeVar("F", bound=Callable[..., Any])

_POLL = 0.02
_KILLED_SECONDS = 5.0
_SERVICE_SECONDS = 60.0


def _password_options(command: F) -> F:
    command = click.option(
        "--password-file", type=click.Path(path_type=Path), help="File that holds the master password."
    )(command)
    return click.option("--password-stdin", is_flag=True, help="Read the master password from standard input.")(command)


def _start_options(command: F) -> F:
    command = click.option("--port", type=click.IntRange(0, 65_535), help="TCP port; 0 picks a free one.")(command)
    return click.option(
        "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Least level that is logged."
    )(command)


def _given_password(password_file: Path | None, password_stdin: bool) -> str | None:
    if password_file is not None and password_stdin:
        raise Failure("Give --password-file or --password-stdin, not both", USAGE)
    if password_stdin:
        return credentials.read_stdin()
    if password_file is not None:
        return credentials.read_password(password_file)
    found = credentials.from_environment()
    return found[1] if found else None


@click.command(cls=base.Command)
@_password_options
def init(password_file: Path | None, password_stdin: bool) -> None:
    """Make the home, its configuration, database and master password; what is there stays."""
    home = base.home()
    loaded = base.configuration(home)
    initialised = offline.is_initialised(home, loaded)
    # A database that other daemons share is there before the home is.
    if initialised and home.root.is_dir():
        click.echo(f"{home.root} is initialised already; start it with: daemon start")
        return
    password = _given_password(password_file, password_stdin)
    if password is None and initialised is False:
        if not credentials.has_terminal():
            raise Failure(
                "There is no terminal to ask for a master password", USAGE, hint="set DAEMON_MASTER_PASSWORD_FILE"
            )
        password = credentials.ask_twice("New master password")
    if password is not None:
        credentials.checked(password)
    # Imported here: the engine and the web framework take longer than most commands run.
    from daemon.lifecycle import prepare  # noqa: PLC0415
    from daemon.startup import StartError  # noqa: PLC0415

    try:
        prepare(home, loaded, password)
    except StartError as error:
        raise Failure(error.message, error.exit_code) from None
    except AlreadyRunning as running:
        raise already(home, running.pid) from None
    click.echo(f"{home.root} is ready; start it with: daemon start")


@click.command(cls=base.Command)
@click.option("--detach", is_flag=True, help="Return when the daemon is ready, and leave it running.")
@_start_options
@_password_options
@click.option("--ready-fd", type=int, hidden=True)
def start(
    *,
    detach: bool,
    port: int | None,
    log_level: str | None,
    password_file: Path | None,
    password_stdin: bool,
    ready_fd: int | None,
) -> int:
    """Run the daemon in the foreground, its log on standard output; a first start initialises the home."""
    home = base.home()
    loaded = base.configuration(home, server_port=port, log_level=log_level)
    if (holder := lock_holder(home)) is not None:
        raise already(home, holder)
    password = _given_password(password_file, password_stdin)
    fresh = offline.is_initialised(home, loaded) is False
    if fresh and password is None and ready_fd is None and sys.stdin is not None and sys.stdin.isatty():
        password = credentials.ask_twice("New master password")
    if fresh and password is not None:
        credentials.checked(password)
    if detach:
        _start_detached(home, port, log_level, password)
        return OK
    return _serve(home, loaded, password, ready_fd, {"server.port": port, "log.level": log_level})


def _serve(home: Home, loaded: Loaded, password: str | None, ready_fd: int | None, flags: dict[str, object]) -> int:
    # Imported here: the engine and the web framework take longer than most commands run.
    from daemon.lifecycle import run  # noqa: PLC0415
    from daemon.startup import StartError  # noqa: PLC0415

    try:
        return run(home, loaded, password=password, foreground=ready_fd is None, ready_fd=ready_fd, flags=flags)
    except StartError as error:
        raise Failure(error.message, error.exit_code) from None
    except AlreadyRunning as running:
        raise already(home, running.pid) from None


def _start_detached(home: Home, port: int | None, log_level: str | None, password: str | None) -> None:
    """Start a daemon in a session of its own and return when it is ready; the password goes through its stdin."""
    reading, writing = os.pipe()
    command = [*program(), "--home", str(home.root), "start", "--ready-fd", str(writing)]
    command += ["--port", str(port)] if port is not None else []
    command += ["--log-level", log_level] if log_level is not None else []
    command += ["--password-stdin"] if password is not None else []
    environment = {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}
    child = subprocess.Popen(  # noqa: S603 (this very program)
        command,
        stdin=subprocess.PIPE if password is not None else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        pass_fds=(writing,),
        start_new_session=True,
        cwd="/",
    )
    os.close(writing)
    if password is not None and child.stdin is not None:
        child.stdin.write(password.encode(errors="surrogateescape"))
        child.stdin.close()
    with os.fdopen(reading, "rb") as pipe:
        ready = pipe.read() == b"ready\n"
    said = child.stderr.read().decode(errors="replace").strip() if child.stderr else ""
    notes, _, error = f"\n{said}".partition("\nerror: ")
    for line in filter(None, notes.split("\n")):
        note(line)
    if not ready:
        raise Failure(error or "The daemon ended before it was ready", max(child.wait(), FAILED))
    child.returncode = 0  # it lives on; nobody waits for it
    info = read_info(home)
    click.echo(f"the daemon is running at {info.url if info else '?'} (pid {child.pid})")


def _stop_options(command: F) -> F:
    command = click.option(
        "--kill-processes", "kill", is_flag=True, help="End the processes of sessions too; else they go on."
    )(command)
    command = click.option("--force", is_flag=True, help="Kill the daemon itself if it has not stopped in time.")(
        command
    )
    return click.option(
        "--timeout", type=DURATION, help="How long to wait for the stop (else shutdown_timeout + 5 s)."
    )(command)


@click.command(cls=base.Command)
@_stop_options
def stop(timeout: int | None, force: bool, kill: bool) -> None:
    """Stop the daemon of the home in good order (exit 3: not running; 6: not in time)."""
    home = base.home()
    pid = lock_holder(home)
    if pid is None:
        raise Failure(f"The daemon is not running in {home.root}", NOT_RUNNING)
    _stop(home, pid, timeout, force=force, kill=kill)
    click.echo("the daemon has stopped")


@click.command(cls=base.Command)
@_stop_options
@_start_options
def restart(*, timeout: int | None, force: bool, kill: bool, port: int | None, log_level: str | None) -> None:
    """Stop the daemon if it runs, read its settings anew, and start it: detached, or as the service that it was."""
    home = base.home()
    loaded = base.configuration(home, server_port=port, log_level=log_level)
    offline.must_start_again(home, loaded)
    pid = lock_holder(home)
    start_service = None if pid is None else _starter(home, pid)
    if start_service is not None and (port is not None or log_level is not None):
        raise Failure("A service takes its settings from its configuration", USAGE, hint=f"see {home.config_file}")
    if pid is not None:
        _stop(home, pid, timeout, force=force, kill=kill)
    if start_service is None:
        _start_detached(home, port, log_level, None)
        return
    start_service()
    info = read_info(home)
    click.echo(f"the daemon is running at {info.url if info else '?'} (as a service)")


def _starter(home: Home, pid: int) -> Callable[[], None] | None:
    """Return what starts the daemon as the service that it runs as; None where it was started by hand."""
    # Imported here: `start` does without it.
    from daemon.installation.install import manager_of  # noqa: PLC0415
    from daemon.installation.service import ServiceError  # noqa: PLC0415

    manager = manager_of(os.environ)
    if not manager.runs(pid):
        return None

    def start() -> None:
        try:
            manager.start(anew=False)
        except ServiceError as error:
            raise Failure(error.message, FAILED, hint=error.hint) from None
        deadline = time.monotonic() + _SERVICE_SECONDS
        while lock_holder(home) is None or read_info(home) is None:  # launchd does not wait for it
            if time.monotonic() >= deadline:
                raise Failure("The service does not start", FAILED, hint="see: daemon logs")
            time.sleep(_POLL)

    return start


def _stop(home: Home, pid: int, timeout: int | None, *, force: bool, kill: bool) -> None:
    """Tell the holder of the lock to stop and wait until the lock is free.

    Args:
        home: its home.
        pid: the holder.
        timeout: seconds to wait; None is as long as an ordinary stop may take.
        force: kill it then.
        kill: it shall end the processes of sessions too.
    """
    limit = timeout if timeout is not None else _default_timeout(home)
    _signal(pid, signal.SIGUSR1 if kill else signal.SIGTERM)
    if _is_gone(home, pid, limit):
        return
    if not force:
        raise Failure(
            f"The daemon (pid {pid}) has not stopped within {limit} s", STOP_TIMED_OUT, hint="run: daemon stop --force"
        )
    _signal(pid, signal.SIGKILL)
    if not _is_gone(home, pid, _KILLED_SECONDS):
        raise Failure(f"The daemon (pid {pid}) cannot be killed", STOP_TIMED_OUT)


def _default_timeout(home: Home) -> int:
    try:
        return base.configuration(home).config.server.shutdown_timeout + 5
    except Failure:
        return 35  # a broken configuration must not keep the daemon from being stopped


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError:
        raise Failure(f"The daemon (pid {pid}) belongs to another user") from None


def _is_gone(home: Home, pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while lock_holder(home) == pid:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL)
    return True

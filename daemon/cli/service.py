"""`daemon service print`, `install`, `uninstall` and `status`: the daemon as a service of systemd or launchd."""

import os

import msgspec
import rich_click as click

from daemon.cli import base, offline
from daemon.cli.exclusive import already
from daemon.cli.failure import FAILED, NOT_RUNNING, OK, Failure
from daemon.cli.output import fields, json_out, note
from daemon.cli.program import program
from daemon.config import Loaded
from daemon.home import Home
from daemon.installation import install as installation
from daemon.installation.manager import Manager
from daemon.installation.service import Service, ServiceError, absolute
from daemon.lock import lock_holder
from daemon.service_manager import CLOSING_SECONDS


@click.group(cls=base.Group)
def service() -> None:
    """Run the daemon as a service: it starts with your session, and again if it fails."""


def _manager(kind: str | None = None) -> Manager:
    return installation.manager_of(os.environ, kind)


def _service(home: Home, loaded: Loaded) -> Service:
    stop_seconds = loaded.config.server.shutdown_timeout + CLOSING_SECONDS
    return Service(program(), home.root, absolute(os.environ.get("PATH", os.defpath)), stop_seconds)


def _failure(error: ServiceError) -> Failure:
    return Failure(error.message, FAILED, hint=error.hint)


@service.command("print")
@click.option("--kind", type=click.Choice(["systemd", "launchd"]), help="Whose file (else that of this system).")
def print_(kind: str | None) -> None:
    """Print the file that `install` would write."""
    home = base.home()
    try:
        text = _manager(kind).render(_service(home, base.configuration(home)))
    except ServiceError as error:
        raise _failure(error) from None
    click.echo(text, nl=False)


@service.command()
@click.option("--no-start", is_flag=True, help="Start it with the next session only, and not now.")
@click.option("--force", is_flag=True, help="Replace a file that was edited, or is another home's.")
def install(*, no_start: bool, force: bool) -> None:
    """Write the service's file, and start it now and with each session of yours."""
    home, manager = base.home(), _manager()
    loaded = base.configuration(home)
    try:
        manager.check()
        _leave_running(home, manager, start=not no_start)
        changed = installation.write(manager, _service(home, loaded), force=force)
        manager.enable()
        if not no_start:
            manager.start(anew=changed)
        _tell(manager, _service(home, loaded))
        _advise(home, loaded, manager, started=not no_start, changed=changed)
    except ServiceError as error:
        raise _failure(error) from None


def _leave_running(home: Home, manager: Manager, *, start: bool) -> None:
    """Refuse to start a second daemon: it would fail, again and again."""
    holder = lock_holder(home)
    if start and holder is not None and not manager.runs(holder):
        raise already(home, holder, cure="run: daemon stop, then install the service")


def _wanted(home: Home) -> Service | None:
    """Return what would be installed; nothing would with an invalid configuration."""
    try:
        return _service(home, base.configuration(home))
    except Failure:
        note("the configuration is invalid, see: daemon config check")
        return None


def _tell(manager: Manager, wanted: Service | None) -> int:
    found, trouble = installation.status(manager, wanted)
    _show(found)
    if trouble is not None:
        raise _failure(trouble)
    return OK if found.active else NOT_RUNNING


def _show(found: installation.Status) -> None:
    how = "edited by somebody else" if found.edited else "current" if found.current else "not what print says"
    fields(
        [
            ("service", f"{found.service} ({found.manager})"),
            ("file", found.file),
            ("installed", f"yes, {how}" if found.installed else "no"),
            ("home", found.home),
            ("enabled", found.enabled),
            ("active", found.state),
            ("pid", found.pid),
        ]
    )


def _advise(home: Home, loaded: Loaded, manager: Manager, *, started: bool, changed: bool) -> None:
    """Say what the owner may not expect."""
    if home.initial_password_file.exists():
        note(f"the master password is in {home.initial_password_file}; the file goes at its first use")
    elif not started and offline.is_initialised(home, loaded) is False:
        note("there is no master password yet; set one: daemon init")
    if changed and not started and manager.state().active:
        note(f"what runs is not changed yet: {manager.restart_hint}")
    if variables := sorted({origin for origin in loaded.origins.values() if origin in os.environ}):
        note(f"the service does not know of {', '.join(variables)}: put that into {home.config_file}")
    if manager.lingers() is False:
        note("it ends when you log out, with what it runs; to let both go on: loginctl enable-linger")


@service.command()
@click.option("--force", is_flag=True, help="Remove a file that was edited, or is another home's.")
def uninstall(*, force: bool) -> None:
    """Stop the service and remove its file; the home and the processes of sessions stay."""
    home, manager = base.home(), _manager()
    try:
        removed = installation.remove(manager, home.root, force=force)
    except ServiceError as error:
        raise _failure(error) from None
    click.echo(f"{manager.file} is removed" if removed else "the service is not installed")


@service.command()
@base.json_option
def status(*, as_json: bool) -> int:
    """Say whether the service is installed and runs (exit 3: it does not run)."""
    manager, wanted = _manager(), _wanted(base.home())
    if not as_json:
        return _tell(manager, wanted)
    found, trouble = installation.status(manager, wanted)
    json_out(msgspec.json.encode(found))
    if trouble is not None:
        raise _failure(trouble)
    return OK if found.active else NOT_RUNNING

"""`daemon kill-switch on`, `off` and `status`: stop everything, also with the daemon down."""

import sys

import msgspec
import rich_click as click

from daemon.cli import base, offline
from daemon.cli.client import Client
from daemon.cli.failure import FAILED, USAGE, Failure, NotRunning
from daemon.cli.output import fields, json_out, note, relative
from daemon.domain.errors import DaemonError
from daemon.domain.views import KillSwitchView, Recovery
from daemon.lock import AlreadyRunning


@click.group("kill-switch", cls=base.Group)
def kill_switch() -> None:
    """Stop everything: every session is revoked, every agent suspended, until you recover."""


@kill_switch.command()
@click.option("--reason", default="activated from the command line", show_default=True, help="Why.")
@base.json_option
def on(reason: str, as_json: bool) -> None:
    """Stop everything, now; with the daemon down, from its next start on."""
    try:
        client = Client()
    except NotRunning:
        if base.url() is not None:
            raise
        body = msgspec.json.encode(_offline(reason))
    else:
        body = client.call("POST", "/v1/admin/kill-switch", {"reason": reason}).body
    if as_json:
        json_out(body)
        return
    state = msgspec.json.decode(body, type=KillSwitchView)
    ended = f", {state.processes_killed} processes killed" if state.processes_killed else ""
    click.echo(
        f"the kill switch is on: {state.sessions_revoked} sessions revoked, "
        f"{state.agents_suspended} agents suspended{ended}"
    )
    if state.processes_left:
        note(f"{state.processes_left} processes could not be ended yet; look at: daemon kill-switch status")


def _offline(reason: str) -> KillSwitchView:
    home = base.home()
    loaded = base.configuration(home)
    if offline.is_initialised(home, loaded) is False:
        raise Failure(f"There is no daemon in {home.root}", hint="look at --home and DAEMON_HOME")
    # Imported here: the engine and the web framework take longer than most commands run.
    from daemon.lifecycle import stop_everything  # noqa: PLC0415
    from daemon.startup import StartError  # noqa: PLC0415

    try:
        return stop_everything(home, loaded, reason)
    except StartError as error:
        raise Failure(error.message, error.exit_code) from None
    except AlreadyRunning:
        raise Failure("The daemon has just been started", FAILED, hint="run the command again") from None
    except DaemonError as error:
        raise Failure(f"{error.detail} ({error.code})", FAILED, hint=error.hint) from None


@kill_switch.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@base.json_option
def off(yes: bool, as_json: bool) -> None:
    """Recover: the agents that the switch suspended come back, their sessions stay revoked."""
    if not yes:
        if not sys.stdin.isatty():
            raise Failure("There is no terminal to ask at", USAGE, hint="add --yes")
        click.confirm("Bring back the agents that the kill switch suspended?", abort=True, err=True)
    answer = Client().call("POST", "/v1/admin/recover")
    if as_json:
        json_out(answer.body)
        return
    made = answer.read(Recovery)
    if made.state == "NORMAL":
        click.echo(f"the kill switch is off: {made.agents_reactivated} agents are active again")
    else:
        until = made.recovery_eligible_at if isinstance(made.recovery_eligible_at, int) else None
        click.echo(f"recovering: run the command again {relative(until)}")


@kill_switch.command()
@base.json_option
def status(as_json: bool) -> None:
    """Show whether everything is stopped."""
    answer = Client().call("GET", "/v1/admin/kill-switch")
    if as_json:
        json_out(answer.body)
        return
    state = answer.read(KillSwitchView)
    stopped = state.state != "NORMAL"
    fields(
        [
            ("state", state.state),
            ("reason", state.reason),
            ("activated", relative(state.activated_at)),
            ("recovery possible", relative(state.recovery_eligible_at)),
            ("sessions revoked", state.sessions_revoked if stopped else None),
            ("agents suspended", state.agents_suspended if stopped else None),
            ("processes killed", state.processes_killed or None),
            ("processes left", state.processes_left or None),
        ]
    )

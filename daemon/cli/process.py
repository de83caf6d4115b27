"""`daemon session kill` and `update`, and `daemon ps`: the processes that the daemon runs."""

from typing import Any

import rich_click as click

from daemon.cli import base
from daemon.cli.client import PAGE, Client
from daemon.cli.failure import FAILED, USAGE, Failure
from daemon.cli.lookup import session_id
from daemon.cli.output import fields, json_out, note, relative, size, table, usd
from daemon.cli.process_options import Wanted, changed_process, process_options
from daemon.cli.session_view import command_line, print_detail, reason_option, session_argument, signal_name
from daemon.domain.process_views import KilledSession, RunningProcess
from daemon.domain.views import AgentView

_LONGEST = 40
"""Characters of a command in a table."""


@click.command(cls=base.Command)
@session_argument
@reason_option
@base.json_option
def kill(session_ref: str, reason: str | None, as_json: bool) -> None:
    """End a SESSION and its whole process tree without grace (exit 1: something of it is left)."""
    body = None if reason is None else {"reason": reason}
    answer = Client().call("POST", f"/v1/sessions/{session_id(session_ref)}/kill", body)
    view = answer.read(KilledSession)
    if as_json:
        json_out(answer.body)
    else:
        fields(
            [
                ("session", view.id),
                ("state", view.state),
                ("exit code", view.exit_code),
                ("signal", None if view.signal is None else signal_name(view.signal)),
            ]
        )
    if view.processes_left:
        hint = "the daemon goes on trying; look at: daemon logs --event process"
        raise Failure(f"{view.processes_left} of its processes could not be ended in time", FAILED, hint=hint)


@click.command(cls=base.Command)
@session_argument
@process_options
@click.option("--force", is_flag=True, help="Interrupt a running turn where the process must begin again for it.")
@base.json_option
def update(session_ref: str, force: bool, as_json: bool, **given: Any) -> None:
    """Change what the daemon runs for a SESSION: a higher budget, other limits, another model.

    What is given replaces what was there: all variables for --env and --env-file, all tools for --allow-tool, both
    bounds of the budget for --budget-usd or --budget-tokens. null in --process-json is the default.
    """
    whose, changes = session_id(session_ref), changed_process(Wanted.taken_from(given))
    if not changes:
        raise Failure("There is nothing to change", USAGE, hint="see: daemon session update --help")
    try:
        answer = Client().call("PATCH", f"/v1/sessions/{whose}", {"process": changes, "force": force})
    except Failure as failure:
        if failure.refusal != "SESSION_BUSY" or force:
            raise
        raise Failure(failure.message, hint="wait until its turn is over, or interrupt it: add --force") from None
    budget = changes.get("budget")
    if isinstance(budget, dict) and len(budget) == 1:
        note(f"{'USD' if 'maxCostUsd' in budget else 'tokens'} alone are bounded now; give both to bound both")
    print_detail(answer, as_json)


@click.command(cls=base.Command)
@base.json_option
def ps(as_json: bool) -> None:
    """List the processes that run, each with what its whole tree takes; CPU is in cores."""
    client = Client()
    answer = client.call("GET", "/v1/owner/processes")
    if as_json:
        json_out(answer.body)
        return
    running = answer.read_list(RunningProcess)
    names = _names(client) if running else {}
    headers = ("SESSION", "AGENT", "COMMAND", "PID", "PROCS", "RSS", "CPU", "STATE", "SINCE", "TURNS", "COST")
    table(headers, [_row(view, names) for view in running])


def _names(client: Client) -> dict[str, str]:
    """Return the newest agents' names: one page is enough for most, and the others have their id."""
    return {agent.id: agent.name for agent in client.call("GET", "/v1/agents", limit=PAGE).read_list(AgentView)}


def _row(view: RunningProcess, names: dict[str, str]) -> tuple[object, ...]:
    command = command_line(view.command)
    return (
        view.session_id,
        names.get(view.agent_id, view.agent_id),
        command if len(command) <= _LONGEST else f"{command[: _LONGEST - 1]}…",
        view.pid,
        view.processes,
        size(view.rss),
        f"{view.cpu:.2f}",
        view.state,
        relative(view.since),
        view.turns,
        usd(view.cost_usd),
    )

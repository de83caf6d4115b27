"""`daemon agent …`: who may have sessions."""

import sys
from typing import Any

import msgspec
import rich_click as click

from daemon.cli import base
from daemon.cli.candidates import agents
from daemon.cli.client import PAGE, Answer, Client, merged
from daemon.cli.failure import USAGE, Failure
from daemon.cli.lookup import agent_id
from daemon.cli.output import fields, json_out, note, one_line, relative, table
from daemon.cli.parameters import DURATION, JSON_OBJECT
from daemon.cli.session import show_created
from daemon.domain.views import AgentView, CreatedSession, TerminatedView


@click.group(cls=base.Group)
def agent() -> None:
    """Register agents and look after them; an AGENT is an id or an exact name."""


@agent.command()
@click.argument("name")
@click.option("--chain", type=click.Choice(["solana", "ethereum"]), help="Chain of the agent's wallet.")
@click.option("--network", type=click.Choice(["mainnet", "devnet", "testnet"]), help="Network of that chain.")
@click.option("--public-key", help="The agent's public key; no two agents have the same.")
@click.option("--owner-address", help="Address of the agent's owner.")
@click.option("--metadata", type=JSON_OBJECT, metavar="JSON", help="Anything to remember with the agent.")
@click.option("--session", "with_session", is_flag=True, help="Make a session too and print its token, this once.")
@click.option("--ttl", type=DURATION, help="How long that session lasts until it is renewed.")
@base.json_option
def add(with_session: bool, ttl: int | None, as_json: bool, **attributes: Any) -> None:
    """Register an agent called NAME."""
    if ttl is not None and not with_session:
        raise Failure("--ttl is the session's", USAGE, hint="add --session")
    client = Client()
    names = {"public_key": "publicKey", "owner_address": "ownerAddress"}
    body = {names.get(name, name): value for name, value in attributes.items() if value is not None}
    answer = client.call("POST", "/v1/agents", body)
    if with_session:
        _add_session(client, answer, ttl, as_json)
    else:
        _print_agent(answer, as_json)


def _add_session(client: Client, added: Answer, ttl: int | None, as_json: bool) -> None:
    view = added.read(AgentView)
    try:
        answer = client.call("POST", "/v1/sessions", {"agentId": view.id} | ({"ttl": ttl} if ttl is not None else {}))
    except Failure:
        note(f"the agent {view.name} was registered as {view.id}; only its session is missing")
        raise
    if as_json:
        json_out(msgspec.json.encode({"agent": added.read(msgspec.Raw), "session": answer.read(msgspec.Raw)}))
        return
    _show(view)
    click.echo()
    show_created(answer.read(CreatedSession))


@agent.command(name="list")
@click.option(
    "--status",
    type=click.Choice(["CREATING", "ACTIVE", "SUSPENDED", "TERMINATING", "TERMINATED"], case_sensitive=False),
    help="Only agents of this status.",
)
@base.json_option
def list_(status: str | None, as_json: bool) -> None:
    """List the agents, newest first."""
    pages = list(Client().pages("/v1/agents", status=status, limit=PAGE))
    if as_json:
        json_out(merged(pages))
        return
    agents = [view for page in pages for view in page.read_list(AgentView)]
    rows = [(view.id, view.name, view.status, relative(view.created_at)) for view in agents]
    table(("ID", "NAME", "STATUS", "CREATED"), rows)


@agent.command()
@click.argument("ref", metavar="AGENT", shell_complete=agents())
@base.json_option
def show(ref: str, as_json: bool) -> None:
    """Show everything about an AGENT."""
    client = Client()
    _print_agent(client.call("GET", f"/v1/agents/{agent_id(client, ref)}"), as_json)


@agent.command()
@click.argument("ref", metavar="AGENT", shell_complete=agents("ACTIVE"))
@click.option("--reason", help="Why; it is shown with the agent.")
@base.json_option
def suspend(ref: str, reason: str | None, as_json: bool) -> None:
    """Refuse all tokens of an AGENT until it is activated."""
    _switch(ref, "suspend", reason, as_json)


@agent.command()
@click.argument("ref", metavar="AGENT", shell_complete=agents("SUSPENDED"))
@click.option("--reason", help="Why; it stands in the audit log.")
@base.json_option
def activate(ref: str, reason: str | None, as_json: bool) -> None:
    """Accept the tokens of a suspended AGENT again."""
    _switch(ref, "activate", reason, as_json)


def _switch(ref: str, action: str, reason: str | None, as_json: bool) -> None:
    client = Client()
    body = None if reason is None else {"reason": reason}
    _print_agent(client.call("POST", f"/v1/agents/{agent_id(client, ref)}/{action}", body), as_json)


@agent.command()
@click.argument("ref", metavar="AGENT", shell_complete=agents())
@click.option("--yes", is_flag=True, help="Do not ask.")
@base.json_option
def remove(ref: str, yes: bool, as_json: bool) -> None:
    """Terminate an AGENT for good and revoke its sessions."""
    client = Client()
    found = agent_id(client, ref)
    if not yes:
        _confirm(ref, found)
    answer = client.call("DELETE", f"/v1/agents/{found}")
    if as_json:
        json_out(answer.body)
        return
    view = answer.read(TerminatedView)
    fields([("id", view.id), ("status", view.status), ("sessions revoked", view.sessions_revoked)])


def _confirm(ref: str, found: str) -> None:
    if not sys.stdin.isatty():
        raise Failure("Termination is final, and there is no terminal to ask at", USAGE, hint="add --yes")
    name = found if ref == found else f"{one_line(ref)} ({found})"
    click.confirm(f"Terminate {name} for good and revoke its sessions?", abort=True, err=True)


def _print_agent(answer: Answer, as_json: bool) -> None:
    if as_json:
        json_out(answer.body)
    else:
        _show(answer.read(AgentView))


def _show(view: AgentView) -> None:
    metadata = bytes(view.metadata).decode()
    fields(
        [
            ("id", view.id),
            ("name", view.name),
            ("status", view.status),
            ("suspended", relative(view.suspended_at)),
            ("reason", view.suspension_reason),
            ("chain", view.chain),
            ("network", view.network),
            ("public key", view.public_key),
            ("owner address", view.owner_address),
            ("owner state", None if view.owner_state == "NONE" else view.owner_state),
            ("metadata", None if metadata == "{}" else metadata),
            ("created", relative(view.created_at)),
        ]
    )

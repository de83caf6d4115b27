"""`daemon session …`: hand out sessions, look at them, end them."""

from typing import Any
from urllib.parse import parse_qsl

import rich_click as click

from daemon.cli import base
from daemon.cli.attach import attach
from daemon.cli.candidates import agents
from daemon.cli.client import PAGE, Answer, Client, merged, next_link
from daemon.cli.lookup import agent_id, session_id
from daemon.cli.output import export_line, fields, json_out, note, relative, shell_of, table
from daemon.cli.parameters import DURATION, JSON_OBJECT
from daemon.cli.process import kill, update
from daemon.cli.process_options import Wanted, new_process, process_options
from daemon.cli.process_output import output
from daemon.cli.send import send
from daemon.cli.session_view import print_detail, reason_option, session_argument
from daemon.cli.tree import tree
from daemon.domain.states import STATES
from daemon.domain.views import (
    CreatedSession,
    ExtendedSession,
    RevokedSession,
    RotatedSession,
    SessionSummary,
)


@click.group(cls=base.Group)
def session() -> None:
    """Hand out sessions, look at them, end them; a SESSION is an id."""


for command in (send, output, attach, update, kill, tree):
    session.add_command(command)


@session.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--agent",
    "ref",
    required=True,
    metavar="AGENT",
    shell_complete=agents("ACTIVE"),
    help="Whose session, by id or name.",
)
@click.option("--ttl", type=DURATION, help="How long it lasts until it is renewed, 5m to 7d.")
@click.option("--constraints", type=JSON_OBJECT, metavar="JSON", help="""Its limits, such as '{"maxRenewals": 3}'.""")
@click.option("--user", "userId", help="The user it works for.")
@click.option("--workspace", "workspaceId", help="The workspace it works in.")
@click.option("--metadata", type=JSON_OBJECT, metavar="JSON", help="Anything to remember with the session.")
@click.option(
    "--output",
    "form",
    type=click.Choice(["token", "json", "env"]),
    help="The token alone, the API's answer, or lines that export it all.",
)
@process_options
@base.json_option
def create(ref: str, form: str | None, as_json: bool, **given: Any) -> None:
    """Make a session and print its token, this once; with --process, or a COMMAND, the daemon runs that for it.

    daemon session create --agent a --process claude --workdir ~/project --budget-usd 5

    daemon session create --agent a -- cat -u
    """
    process = new_process(Wanted.taken_from(given))
    client = Client()
    body = {name: value for name, value in {**given, "process": process}.items() if value is not None}
    answer = client.call("POST", "/v1/sessions", {"agentId": agent_id(client, ref), **body})
    created = answer.read(CreatedSession)
    if as_json or form == "json":
        json_out(answer.body)
    elif form == "token":
        click.echo(created.token)
    elif form == "env":
        for name, value in environment(created, client.at.url).items():
            click.echo(export_line(name, value, shell_of(None)))
    else:
        show_created(created)
        if process is not None:
            note(f"its process is being started; talk to it: daemon session attach {created.id}")


def environment(created: CreatedSession, url: str) -> dict[str, str]:
    """Return the variables that make a program the holder of a session."""
    return {
        "DAEMON_SESSION_TOKEN": created.token,
        "DAEMON_URL": url,
        "DAEMON_SESSION_ID": created.id,
        "DAEMON_AGENT_ID": created.agent_id,
    }


def show_created(created: CreatedSession) -> None:
    """Print a new session for people, its token last and alone, so that it can be copied."""
    fields(
        [
            ("session", created.id),
            ("agent", created.agent_id),
            ("expires", relative(created.expires_at)),
            ("renewals", created.max_renewals),
            ("ends at last", relative(created.absolute_expires_at)),
            ("token", created.token),
        ]
    )
    note("the token is shown only now")


@session.command(name="list")
@click.option("--agent", "ref", metavar="AGENT", shell_complete=agents(), help="Only of this agent, by id or name.")
@click.option("--all", "every", is_flag=True, help="Revoked sessions too.")
@click.option(
    "--status", type=click.Choice(["ACTIVE", "EXPIRED", "REVOKED"], case_sensitive=False), help="Only of this status."
)
@click.option("--state", type=click.Choice(STATES, case_sensitive=False), help="Only in this state.")
@click.option("--user", help="Only for this user.")
@click.option("--workspace", help="Only in this workspace.")
@click.option("--limit", type=click.IntRange(1, 200), help="One page of at most so many (else every session).")
@click.option("--cursor", help="Where that page begins, as the page before says.")
@base.json_option
def list_(
    *,
    ref: str | None,
    every: bool,
    status: str | None,
    state: str | None,
    user: str | None,
    workspace: str | None,
    limit: int | None,
    cursor: str | None,
    as_json: bool,
) -> None:
    """List the sessions, newest first."""
    client = Client()
    query = {
        "agentId": ref and agent_id(client, ref),
        "status": status or ("all" if every else None),
        "state": state,
        "userId": user,
        "workspaceId": workspace,
        "limit": limit or PAGE,
        "cursor": cursor,
    }
    pages = client.pages("/v1/owner/sessions", **query)
    _print_list([next(pages)] if limit else list(pages), as_json)


def _print_list(pages: list[Answer], as_json: bool) -> None:
    if as_json:
        json_out(merged(pages))
    else:
        sessions = [view for page in pages for view in page.read_list(SessionSummary)]
        headers = ("ID", "AGENT", "STATUS", "STATE", "EXPIRES", "RENEWALS", "LAST USED", "REQUESTS")
        table(headers, [_row(view) for view in sessions])
    if following := next_link(pages[-1].link):
        note(f"there is more: --cursor {_cursor(following)}")


def _cursor(target: str) -> str:
    return dict(parse_qsl(target.partition("?")[2])).get("cursor", "")


def _row(view: SessionSummary) -> tuple[object, ...]:
    return (
        view.id,
        view.agent_id,
        view.status,
        view.state,
        relative(view.expires_at),
        f"{view.renewal_count}/{view.max_renewals}",
        relative(view.last_activity),
        view.request_count,
    )


@session.command()
@session_argument
@base.json_option
def show(session_ref: str, as_json: bool) -> None:
    """Show everything about a SESSION, but for its token."""
    print_detail(Client().call("GET", f"/v1/sessions/{session_id(session_ref)}"), as_json)


@session.command()
@session_argument
@base.json_option
def revoke(session_ref: str, as_json: bool) -> None:
    """End a SESSION now."""
    answer = Client().call("DELETE", f"/v1/sessions/{session_id(session_ref)}")
    if as_json:
        json_out(answer.body)
        return
    view = answer.read(RevokedSession)
    fields([("session", view.id), ("status", view.status), ("revoked", relative(view.revoked_at))])


@session.command()
@session_argument
@click.option("--output", "form", type=click.Choice(["token", "json"]), help="The token alone, or the API's answer.")
@base.json_option
def rotate(session_ref: str, form: str | None, as_json: bool) -> None:
    """Replace the token of a SESSION and print the new one, this once."""
    answer = Client().call("POST", f"/v1/sessions/{session_id(session_ref)}/rotate")
    view = answer.read(RotatedSession)
    if as_json or form == "json":
        json_out(answer.body)
    elif form == "token":
        click.echo(view.token)
    else:
        fields([("session", view.id), ("expires", relative(view.expires_at)), ("token", view.token)])
        note("the token is shown only now")


@session.command()
@session_argument
@click.argument("time", type=DURATION)
@base.json_option
def extend(session_ref: str, time: int, as_json: bool) -> None:
    """Let a SESSION expire no earlier than TIME from now: 30m, 24h."""
    answer = Client().call("POST", f"/v1/sessions/{session_id(session_ref)}/extend", {"seconds": time})
    if as_json:
        json_out(answer.body)
        return
    view = answer.read(ExtendedSession)
    fields([("session", view.id), ("expires", relative(view.expires_at))])


@session.command()
@session_argument
@reason_option
@base.json_option
def suspend(session_ref: str, reason: str | None, as_json: bool) -> None:
    """Refuse the token of a SESSION until it is resumed."""
    _switch(session_ref, "suspend", reason, as_json)


@session.command()
@session_argument
@reason_option
@base.json_option
def resume(session_ref: str, reason: str | None, as_json: bool) -> None:
    """Accept the token of a suspended SESSION again."""
    _switch(session_ref, "resume", reason, as_json)


def _switch(session_ref: str, action: str, reason: str | None, as_json: bool) -> None:
    body = None if reason is None else {"reason": reason}
    print_detail(Client().call("POST", f"/v1/sessions/{session_id(session_ref)}/{action}", body), as_json)

"""`daemon session tree`: what agents made from their sessions."""

from collections.abc import Iterator

import rich_click as click

from daemon.cli import base
from daemon.cli.candidates import agents, sessions
from daemon.cli.client import Client, merged
from daemon.cli.lookup import agent_id, session_id
from daemon.cli.output import json_out, relative, table
from daemon.domain.views import SessionTree

_HEADERS = ("ID", "AGENT", "STATUS", "STATE", "EXPIRES", "LAST USED", "REQUESTS")


@click.command()
@click.argument("session_ref", metavar="[SESSION]", required=False, shell_complete=sessions)
@click.option("--agent", "ref", metavar="AGENT", shell_complete=agents(), help="Only of this agent, by id or name.")
@base.json_option
def tree(session_ref: str | None, ref: str | None, as_json: bool) -> None:
    """Show sessions with those that their agents made from them; one SESSION, or all."""
    if session_ref is not None and ref is not None:
        raise click.UsageError("a SESSION has its agent: leave --agent out")
    client = Client()
    if session_ref is not None:
        answer = client.call("GET", f"/v1/sessions/{session_id(session_ref)}/tree")
        body, trees = answer.body, [answer.read(SessionTree)]
    else:
        pages = list(client.pages("/v1/owner/sessions/trees", agentId=ref and agent_id(client, ref)))
        body, trees = merged(pages), [one for page in pages for one in page.read_list(SessionTree)]
    if as_json:
        json_out(body)
        return
    table(_HEADERS, [_row(mark, one) for top in trees for mark, one in _lines(top)])


def _lines(node: SessionTree, mark: str = "", indent: str = "") -> Iterator[tuple[str, SessionTree]]:
    """Yield a session and all below it, each with what draws its branch."""
    yield mark, node
    for number, child in enumerate(node.children, 1):
        last = number == len(node.children)
        yield from _lines(child, indent + ("└─ " if last else "├─ "), indent + ("   " if last else "│  "))


def _row(mark: str, view: SessionTree) -> tuple[object, ...]:
    return (
        mark + view.id,
        view.agent_id,
        view.status,
        view.state,
        relative(view.expires_at),
        relative(view.last_activity),
        view.request_count,
    )

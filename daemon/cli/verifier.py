"""`daemon verifier …`: other services on the machine that may ask whether a token is good."""

import rich_click as click

from daemon.cli import base
from daemon.cli.candidates import verifiers
from daemon.cli.client import PAGE, Answer, Client, merged
from daemon.cli.lookup import verifier_id
from daemon.cli.output import export_line, fields, json_out, note, relative, shell_of, table
from daemon.config import VERIFIER_VARIABLE
from daemon.domain.oauth_views import AddedVerifier, VerifierView

_PATH = "/v1/owner/verifiers"


@click.group(cls=base.Group)
def verifier() -> None:
    """Services that may ask whether a token is good; a VERIFIER is an id or an exact name."""


@verifier.command()
@click.argument("name")
@click.option("--may-revoke", is_flag=True, help="It may also end sessions, by their tokens.")
@click.option(
    "--output",
    "form",
    type=click.Choice(["credential", "json", "env"]),
    help="The credential alone, the API's answer, or lines that export it all.",
)
@base.json_option
def add(name: str, may_revoke: bool, form: str | None, as_json: bool) -> None:
    """Add a verifier called NAME and print its credential, this once."""
    client = Client()
    answer = client.call("POST", _PATH, {"name": name, "mayRevoke": may_revoke})
    added = answer.read(AddedVerifier)
    if as_json or form == "json":
        json_out(answer.body)
    elif form == "credential":
        click.echo(added.credential)
    elif form == "env":
        for variable, value in ((VERIFIER_VARIABLE, added.credential), ("DAEMON_URL", client.at.url)):
            click.echo(export_line(variable, value, shell_of(None)))
    else:
        pairs = [("id", added.id), ("name", added.name), ("may revoke", added.may_revoke)]
        fields([*pairs, ("credential", added.credential)])
        note("the credential is shown only now")


@verifier.command(name="list")
@base.json_option
def list_(as_json: bool) -> None:
    """List the verifiers, newest first, revoked ones too."""
    pages = list(Client().pages(_PATH, limit=PAGE))
    if as_json:
        json_out(merged(pages))
        return
    found = [one for page in pages for one in page.read_list(VerifierView)]
    rows = [
        (one.id, one.name, one.may_revoke, *map(relative, (one.created_at, one.last_used_at, one.revoked_at)))
        for one in found
    ]
    table(("ID", "NAME", "MAY REVOKE", "CREATED", "LAST USED", "REVOKED"), rows)


@verifier.command()
@click.argument("ref", metavar="VERIFIER", shell_complete=verifiers)
@base.json_option
def show(ref: str, as_json: bool) -> None:
    """Show everything about a VERIFIER."""
    client = Client()
    _print(client.call("GET", f"{_PATH}/{verifier_id(client, ref)}"), as_json)


@verifier.command()
@click.argument("ref", metavar="VERIFIER", shell_complete=verifiers)
@base.json_option
def revoke(ref: str, as_json: bool) -> None:
    """Refuse the credential of a VERIFIER from now on, for good."""
    client = Client()
    _print(client.call("DELETE", f"{_PATH}/{verifier_id(client, ref)}"), as_json)


def _print(answer: Answer, as_json: bool) -> None:
    if as_json:
        json_out(answer.body)
        return
    view = answer.read(VerifierView)
    fields(
        [
            ("id", view.id),
            ("name", view.name),
            ("may revoke", view.may_revoke),
            ("created", relative(view.created_at)),
            ("last used", relative(view.last_used_at)),
            ("revoked", relative(view.revoked_at)),
        ]
    )

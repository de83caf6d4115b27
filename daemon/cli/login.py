"""`daemon login` and `logout`: an owner ticket for this shell, as ssh-agent does it."""

import os
import sys

import rich_click as click

from daemon.cli import base
from daemon.cli.client import Client
from daemon.cli.credentials import TICKET, Owner
from daemon.cli.failure import NOT_AUTHENTICATED, Failure, NotRunning
from daemon.cli.output import export_line, json_out, note, shell_of, unset_line
from daemon.cli.parameters import DURATION
from daemon.domain.views import Ticket

shell_option = click.option(
    "--shell", type=click.Choice(["sh", "fish"]), help="Language of the printed lines (else what $SHELL speaks)."
)


@click.command(cls=base.Command)
@click.option(
    "--for", "ttl", type=DURATION, default=900, show_default="15m", help="How long the ticket lives, 1m to 1h."
)
@shell_option
@base.json_option
def login(ttl: int, shell: str | None, as_json: bool) -> None:
    """Print lines that give this shell an owner ticket: eval "$(daemon login)"."""
    answer = Client(owner=Owner(use_ticket=False)).call("POST", "/v1/owner/login", {"ttl": ttl})
    ticket = answer.read(Ticket)
    if as_json:
        json_out(answer.body)
        return
    click.echo(export_line(TICKET, ticket.ticket, shell_of(shell)))
    if sys.stdout.isatty():
        note('to log in, run: eval "$(daemon login)"')


@click.command(cls=base.Command)
@shell_option
def logout(shell: str | None) -> None:
    """End this shell's owner ticket: eval "$(daemon logout)"."""
    click.echo(unset_line(TICKET, shell_of(shell)))
    ticket = os.environ.get(TICKET)
    if not ticket:
        note("this shell has no owner ticket")
        return
    try:
        owner = Owner()
        owner.may_ask = False
        Client(owner=owner).call("POST", "/v1/owner/logout")
    except NotRunning:
        note("the daemon is not running: its tickets ended with it")
    except Failure as refused:
        if refused.code != NOT_AUTHENTICATED:
            raise
        note("the ticket was over already")

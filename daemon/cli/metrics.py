"""`daemon metrics`: the numbers of a running daemon, and what is needed to watch them."""

import rich_click as click

from daemon.cli import base
from daemon.cli.client import Client, accepted
from daemon.cli.failure import FAILED, Failure
from daemon.monitoring import DASHBOARD, RULES


@click.group(cls=base.Group, invoke_without_command=True)
@click.pass_context
def metrics(context: click.Context) -> None:
    """Print the metrics, as Prometheus reads them."""
    if context.invoked_subcommand is not None:
        return
    answer = Client().send("GET", "/metrics", None, {"Accept": "text/plain"})
    if answer.status == 404:
        raise Failure("Metrics are off", FAILED, hint="set server.metrics = true, then: daemon restart")
    click.echo(accepted(answer).body.decode(), nl=False)


@metrics.command()
def dashboard() -> None:
    """Print a dashboard, to be imported into Grafana."""
    click.echo(DASHBOARD.read_text(), nl=False)


@metrics.command()
def rules() -> None:
    """Print alert rules, to be loaded by Prometheus."""
    click.echo(RULES.read_text(), nl=False)

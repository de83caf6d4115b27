"""`daemon config show`, `path` and `check`."""

import msgspec
import rich_click as click

from daemon.cli import base
from daemon.cli.output import json_out, table
from daemon.config import shown


@click.group(cls=base.Group)
def config() -> None:
    """The effective configuration."""


@config.command()
@base.json_option
def show(as_json: bool) -> None:
    """Show every value and where it came from."""
    loaded = base.configuration(base.home())
    values = shown(loaded.config)
    if as_json:
        json_out(
            msgspec.json.encode({key: {"value": value, "origin": loaded.origins[key]} for key, value in values.items()})
        )
        return
    table(
        ("KEY", "VALUE", "FROM"),
        ((key, msgspec.json.encode(value).decode(), loaded.origins[key]) for key, value in values.items()),
    )


@config.command()
def path() -> None:
    """Print where the configuration file is, or would be."""
    click.echo(base.home().config_file)


@config.command()
def check() -> None:
    """Say whether the configuration is valid (exit 2: it is not)."""
    base.configuration(base.home())
    click.echo("the configuration is valid")

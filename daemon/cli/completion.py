"""`daemon completion`: the script that a shell sources."""

import rich_click as click
from click.shell_completion import get_completion_class

from daemon.cli import base


@click.command(cls=base.Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell, e.g. for ~/.bashrc: source <(daemon completion bash)."""
    kind = get_completion_class(shell)
    if kind is not None:
        click.echo(kind(base.root().command, {}, "daemon", "_DAEMON_COMPLETE").source())

"""`daemon completion`: the script that a shell sources, and the answers to it."""

import os

import rich_click as click

from daemon.cli import base
from daemon.cli.failure import FAILED, OK
from daemon.cli.shells import SHELLS

VARIABLE = "_DAEMON_COMPLETE"
"""What the script asks for; such as `bash_complete`."""


@click.command(cls=base.Command)
@click.argument("shell", type=click.Choice(list(SHELLS)))
def completion(shell: str) -> None:
    """Print the completion script of a SHELL.

    bash, in ~/.bashrc: source <(daemon completion bash)

    zsh, in ~/.zshrc after compinit: source <(daemon completion zsh)

    fish, once: daemon completion fish >~/.config/fish/completions/daemon.fish
    """
    click.echo(SHELLS[shell](base.root().command, {}, "daemon", VARIABLE).source(), nl=False)


def answer(root: click.Command) -> int:
    """Print the candidates that a shell asks for. Whatever fails is silent: a person is typing there."""
    shell = SHELLS.get(os.environ.get(VARIABLE, "").removesuffix("_complete"))
    if shell is None:
        return FAILED
    try:
        found = shell(root, {}, "daemon", VARIABLE).complete()
        click.echo(found.encode(errors="surrogateescape"), nl=False)
    except Exception:  # noqa: BLE001 (no traceback in the midst of a command line)
        return FAILED
    return OK

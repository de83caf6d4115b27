"""The command line as data: every command with what it takes."""

from collections.abc import Iterator

import rich_click as click

from daemon.cli.main import root


def commands(command: click.Command = root, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Yield every command, hidden ones left out, by the words that name it after `daemon`."""
    yield " ".join(path), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            if not found.hidden:
                yield from commands(found, (*path, name))


def parameters() -> Iterator[tuple[str, click.Parameter]]:
    """Yield every parameter that is not hidden, with the words of its command."""
    for path, command in commands():
        for param in command.params:
            if not (isinstance(param, click.Option) and param.hidden):
                yield path, param

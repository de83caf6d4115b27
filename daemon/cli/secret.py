"""`daemon secret rotate` and `daemon password change`."""

from pathlib import Path

import rich_click as click

from daemon.cli import base, credentials
from daemon.cli.client import Client
from daemon.cli.failure import NOT_AUTHENTICATED, USAGE, Failure
from daemon.cli.output import json_out, relative
from daemon.domain.views import PasswordSet, RotatedSecret


@click.group(cls=base.Group)
def secret() -> None:
    """The secret that signs session tokens."""


@secret.command()
@click.option("--revoke-sessions", is_flag=True, help="Also revoke every session: cut everyone off.")
@base.json_option
def rotate(revoke_sessions: bool, as_json: bool) -> None:
    """Replace the signing secret; sessions go on."""
    answer = Client().call("POST", "/v1/admin/rotate-secret", {"revokeSessions": revoke_sessions})
    rotated = answer.read(RotatedSecret)
    if as_json:
        json_out(answer.body)
        return
    click.echo(f"a new secret signs tokens; the previous one is forgotten {relative(rotated.previous_expires_at)}")


@click.group(cls=base.Group)
def password() -> None:
    """The master password."""


@password.command()
@click.option("--new-password-file", type=click.Path(path_type=Path), help="File that holds the new password.")
@click.option("--new-password-stdin", is_flag=True, help="Read the new password from standard input.")
@base.json_option
def change(new_password_file: Path | None, new_password_stdin: bool, as_json: bool) -> None:
    """Replace the master password; owner tickets end."""
    client = Client(owner=credentials.Owner(use_ticket=False))
    new = _new_password(new_password_file, new_password_stdin)
    answer = client.call("POST", "/v1/admin/password", {"newPassword": new})
    answer.read(PasswordSet)
    if as_json:
        json_out(answer.body)
        return
    click.echo("the master password was changed; owner tickets have ended")


def _new_password(file: Path | None, stdin: bool) -> str:
    if file is not None and stdin:
        raise Failure("Give --new-password-file or --new-password-stdin, not both", USAGE)
    if stdin:
        return credentials.checked(credentials.read_stdin())
    if file is not None:
        return credentials.checked(credentials.read_password(file))
    if not credentials.has_terminal():
        raise Failure(
            "There is no terminal to ask for the new password", NOT_AUTHENTICATED, hint="use --new-password-stdin"
        )
    return credentials.ask_twice("New master password")

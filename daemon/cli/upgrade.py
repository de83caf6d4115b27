"""`daemon upgrade`: notes for the owner; it fetches nothing and changes nothing."""

import msgspec
import rich_click as click

from daemon.cli import base
from daemon.cli.output import json_out


@click.command(cls=base.Command)
@click.option("--json", "as_json", is_flag=True, help="Print it all as one JSON object.")
def upgrade(as_json: bool) -> None:
    """Tell how to upgrade this installation, and what will happen then; nothing is fetched or changed.

    It says how the program was installed and which commands bring its next version, whether what runs is the version
    that is installed, what the next start does to the database, and what has changed since the version that runs.
    """
    # Imported here: the migrations, and what knows of installations, take longer than most commands run.
    from daemon.cli import upgrade_notes  # noqa: PLC0415

    notes = upgrade_notes.gather()
    if as_json:
        json_out(msgspec.json.encode(notes))
    else:
        upgrade_notes.show(notes)

"""`daemon doctor`: what is wrong with this home, and what cures it."""

import os
import time

import msgspec
import rich_click as click

from daemon.cli import base
from daemon.cli.failure import FAILED, OK
from daemon.cli.output import json_out, one_line


@click.command(cls=base.Command)
@base.json_option
def doctor(as_json: bool) -> int:
    """Examine the home, running or not, and change nothing (exit 1: something has failed)."""
    # Imported here: the engine, and asyncio, take longer than most commands run.
    import asyncio  # noqa: PLC0415

    from daemon.maintenance.doctor import examine  # noqa: PLC0415
    from daemon.maintenance.findings import Patient  # noqa: PLC0415

    found = asyncio.run(examine(Patient.of(base.home(), os.environ, int(time.time()))))
    healthy = all(finding.status != "failed" for finding in found)
    if as_json:
        json_out(msgspec.json.encode({"healthy": healthy, "findings": found}))
        return OK if healthy else FAILED
    width = max(len(finding.name) for finding in found)
    for finding in found:
        click.echo(f"{finding.status:<7}  {finding.name:<{width}}  {one_line(finding.detail)}")
        if finding.cure:
            click.echo(f"{'':7}  {'':{width}}  cure: {one_line(finding.cure)}")
    return OK if healthy else FAILED

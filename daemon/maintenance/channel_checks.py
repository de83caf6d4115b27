"""Checks of the notification channels: can their credentials be read, and do their services answer?"""

import asyncio
from collections.abc import Sequence

from daemon.crypto.seal_key import SealKey
from daemon.domain.channels import ChannelConfig
from daemon.domain.rows import Channel
from daemon.maintenance.findings import Finding, Patient, failed, ok
from daemon.notify import channels
from daemon.notify.client import Http
from daemon.notify.failure import SendFailed
from daemon.services.channel_seals import ChannelSeals
from daemon.stores.sqlite import notifications


async def check_channels(patient: Patient) -> list[Finding]:
    """Ask the service of every enabled channel whether it is well; nobody is shown a message."""
    if not patient.database.exists():
        return []
    with patient.reading() as connection:
        return await examine(patient, notifications.channels(connection))


async def examine(patient: Patient, found: Sequence[Channel]) -> list[Finding]:
    """Do what `check_channels` does with the channels of any engine."""
    enabled = [channel for channel in found if channel.enabled]
    if not enabled:
        return [ok("channels", "none; with one you are told of what matters: daemon channel add")]
    seals, http = ChannelSeals(SealKey(patient.home.seal_key_file)), Http()
    try:
        return list(await asyncio.gather(*(_check(one, seals.read(one), http, patient.now) for one in enabled)))
    finally:
        await http.close()


async def _check(channel: Channel, config: ChannelConfig | None, http: Http, now: int) -> Finding:
    name = f"channel {channel.name}"
    if config is None:
        cure = "put the seal.key back that belongs to this database, or disable the channel and add it anew"
        return failed(name, "its credentials cannot be read with the home's seal.key", cure)
    try:
        await channels.check(http, channel.type, config, now)
    except SendFailed as failure:
        cure = "look at the service and your network; then run: daemon channel test, or disable the channel"
        return failed(name, f"{channel.type} does not answer well: {failure.reason}", cure)
    return ok(name, f"{channel.type} answers")

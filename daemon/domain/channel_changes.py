"""Changes of the list of channels, decided on the whole list."""

import msgspec

from daemon.domain.changes import Outcome, Rows
from daemon.domain.errors import CHANNEL_NOT_FOUND, MIN_CHANNELS_REQUIRED, DaemonError
from daemon.domain.events import Fact
from daemon.domain.facts.messages import ChannelAdded, ChannelDisabled, ChannelUpdated
from daemon.domain.rows import Channel


def add(_rows: Rows, now: int, *, channel: Channel) -> Outcome[Channel]:
    """Add a channel."""
    made = msgspec.structs.replace(channel, created_at=now, updated_at=now)
    fact = ChannelAdded(channel_id=made.id, kind=made.type, name=made.name)
    return Outcome(answer=made, new_channel=made, facts=(fact,))


def update(
    rows: Rows, now: int, *, channel_id: str, changes: dict[str, object], min_channels: int, force: bool
) -> Outcome[Channel]:
    """Change attributes of a channel; what equals the stored value is no change.

    Args:
        rows: every channel.
        now: Unix seconds.
        channel_id: of the channel.
        changes: by the names of the row's fields.
        min_channels: enabled channels that must remain if this one is disabled.
        force: disable it all the same.

    Raises:
        DaemonError: CHANNEL_NOT_FOUND, MIN_CHANNELS_REQUIRED.
    """
    before = require(rows, channel_id)
    changed = {name: value for name, value in changes.items() if getattr(before, name) != value}
    if not changed:
        return Outcome(answer=before)
    disabling = changed.get("enabled") is False
    others = sum(one.enabled for one in rows.channels if one.id != channel_id)
    if disabling and others < min_channels and not force:
        raise DaemonError(MIN_CHANNELS_REQUIRED, details={"minChannels": min_channels, "remaining": others})
    after = msgspec.structs.replace(before, **changed, updated_at=now)
    facts: list[Fact] = []
    if fields := tuple(sorted(changed.keys() - ({"enabled"} if disabling else set()))):
        facts.append(ChannelUpdated(channel_id=channel_id, fields=fields))
    if disabling:
        facts.append(ChannelDisabled(channel_id=channel_id, name=before.name))
    return Outcome(answer=after, channel=after, facts=tuple(facts))


def require(rows: Rows, channel_id: str) -> Channel:
    """Return a channel of the list.

    Raises:
        DaemonError: CHANNEL_NOT_FOUND.
    """
    for one in rows.channels:
        if one.id == channel_id:
            return one
    raise DaemonError(CHANNEL_NOT_FOUND)

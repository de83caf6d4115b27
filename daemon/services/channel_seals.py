"""Channel configurations as they are stored: sealed whole."""

import msgspec

from daemon.crypto.seal_key import SealKey
from daemon.domain.channels import CONFIGS, ChannelConfig, ChannelType
from daemon.domain.errors import STORAGE_UNAVAILABLE, DaemonError
from daemon.domain.rows import Channel
from daemon.home import HomeError


class ChannelSeals:
    """Seals and opens configurations.

    Args:
        key: the home's own.
    """

    def __init__(self, key: SealKey) -> None:
        self._key = key

    def seal(self, config: ChannelConfig, channel_id: str) -> str:
        """Return the configuration as it is stored.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        try:
            return self._key.seal(msgspec.json.encode(config), channel_id)
        except HomeError as error:
            raise DaemonError(STORAGE_UNAVAILABLE, f"The configuration cannot be sealed: {error}.") from error

    def read(self, channel: Channel) -> ChannelConfig | None:
        """Return a channel's configuration; None where the key that sealed it is not there."""
        kind: ChannelType = channel.type
        text = self._key.unseal(channel.config, channel.id)
        if text is None:
            return None
        try:
            return msgspec.json.decode(text, type=CONFIGS[kind])
        except msgspec.MsgspecError:
            return None

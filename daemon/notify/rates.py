"""How fast a channel may be used: token buckets, and pauses that a service asked for."""

from collections.abc import Callable

from daemon.domain.channels import ChannelType

_RATES: dict[ChannelType, tuple[int, float]] = {"TELEGRAM": (30, 30.0), "DISCORD": (5, 1.0), "NTFY": (60, 0.2)}
"""Messages at once, then messages a second; below what each service allows one sender."""


class Bucket:
    """A token bucket.

    Args:
        size: tokens at most, and at first.
        rate: tokens a second.
        now: monotonic seconds.
    """

    def __init__(self, size: int, rate: float, now: float) -> None:
        self._size = size
        self._rate = rate
        self._tokens = float(size)
        self._at = now

    def has(self, now: float) -> bool:
        """Return whether there is a token."""
        self._tokens = min(self._size, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return self._tokens >= 1

    def take(self, now: float) -> bool:
        """Take a token if there is one."""
        if not self.has(now):
            return False
        self._tokens -= 1
        return True


class Rates:
    """Every channel's bucket and pause.

    Args:
        monotonic: returns seconds.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._buckets: dict[str, Bucket] = {}
        self._paused: dict[str, float] = {}

    def wait(self, channel_id: str) -> float:
        """Return for how many seconds more the channel's service wants to be left alone."""
        return max(0.0, self._paused.get(channel_id, 0.0) - self._monotonic())

    def pause(self, channel_id: str, seconds: float) -> None:
        """Leave the channel alone for so many seconds."""
        self._paused[channel_id] = max(self._paused.get(channel_id, 0.0), self._monotonic() + seconds)

    def ready(self, channel_id: str, kind: ChannelType) -> bool:
        """Return whether a message may be sent now."""
        bucket = self._bucket(channel_id, kind)
        return self.wait(channel_id) == 0 and (bucket is None or bucket.has(self._monotonic()))

    def take(self, channel_id: str, kind: ChannelType) -> bool:
        """Return whether the bucket lets a message be sent now, and count it."""
        bucket = self._bucket(channel_id, kind)
        return bucket is None or bucket.take(self._monotonic())

    def _bucket(self, channel_id: str, kind: ChannelType) -> Bucket | None:
        """Return the channel's bucket, full at first; None where there is no limit."""
        rate = _RATES.get(kind)
        if rate is None:
            return None
        if channel_id not in self._buckets:
            self._buckets[channel_id] = Bucket(*rate, self._monotonic())
        return self._buckets[channel_id]

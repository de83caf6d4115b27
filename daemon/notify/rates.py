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

    def take(self, now: float) -> bool:
        """Take a token if there is one."""
        self._tokens = min(self._size, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
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

    def take(self, channel_id: str, kind: ChannelType) -> bool:
        """Return whether a message may be sent now, and count it."""
        rate = _RATES.get(kind)
        if rate is None:
            return True
        now = self._monotonic()
        bucket = self._buckets.get(channel_id)
        if bucket is None:
            bucket = self._buckets[channel_id] = Bucket(*rate, now)
        return bucket.take(now)

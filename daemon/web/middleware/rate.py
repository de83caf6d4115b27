"""How many requests a session may send in a minute."""

from daemon.domain.clock import Clock
from daemon.domain.errors import RATE_LIMIT_EXCEEDED, DaemonError
from daemon.web.context import RequestContext

_MINUTE = 60.0
_PRUNE_AT = 20_000


class SessionRates:
    """Counts in fixed windows of a minute that begin with a session's first request.

    Args:
        limit: requests a minute; 0 counts nothing. May be changed at any time.
        clock: for monotonic time.
    """

    def __init__(self, limit: int, clock: Clock) -> None:
        self.limit = limit
        self._clock = clock
        self._windows: dict[str, list[float]] = {}

    def take(self, session_id: str, about: RequestContext) -> None:
        """Count one request and add the `RateLimit-*` headers to its answer.

        Raises:
            DaemonError: RATE_LIMIT_EXCEEDED.
        """
        limit = self.limit
        if not limit:
            return
        now = self._clock.monotonic()
        window = self._windows.get(session_id)
        if window is None or now - window[0] >= _MINUTE:
            window = self._open(session_id, now)
        window[1] += 1
        reset = int(window[0] + _MINUTE - now) + 1
        remaining = max(0, limit - int(window[1]))
        about.headers += (
            (b"ratelimit-limit", b"%d" % limit),
            (b"ratelimit-remaining", b"%d" % remaining),
            (b"ratelimit-reset", b"%d" % reset),
        )
        if window[1] > limit:
            raise DaemonError(RATE_LIMIT_EXCEEDED, retry_after=reset)

    def _open(self, session_id: str, now: float) -> list[float]:
        if len(self._windows) >= _PRUNE_AT:
            self._windows = {key: window for key, window in self._windows.items() if now - window[0] < _MINUTE}
        window = self._windows[session_id] = [now, 0.0]
        return window

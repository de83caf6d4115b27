"""How many requests a session, or a verifier, may send in a minute."""

from daemon.domain.clock import Clock
from daemon.domain.errors import RATE_LIMIT_EXCEEDED, DaemonError
from daemon.web.context import RequestContext
from daemon.web.limits import RateWindow

_MINUTE = 60.0
_PRUNE_AT = 20_000
MOST_FAILURES = 60
"""Wrong credentials of verifiers a minute, whoever sends them; with the next ones he is told to wait."""


class SessionRates:
    """Counts in fixed windows of a minute that begin with the first request of a session or verifier.

    Args:
        limit: requests a minute; 0 counts nothing. May be changed at any time.
        clock: for monotonic time.
    """

    def __init__(self, limit: int, clock: Clock) -> None:
        self.limit = limit
        self._clock = clock
        self._windows: dict[str, list[float]] = {}
        self._failures = RateWindow(MOST_FAILURES)

    def take(self, session_id: str, about: RequestContext, route: str = "", per_minute: int = 0) -> None:
        """Count one request and add the `RateLimit-*` headers to its answer; those of the narrower limit.

        Args:
            session_id: of the session, or the verifier's own key.
            about: the request.
            route: with a limit of its own.
            per_minute: that limit; 0 is none.

        Raises:
            DaemonError: RATE_LIMIT_EXCEEDED.
        """
        others = tuple(about.headers)
        for key, limit in ((session_id, self.limit), (f"{session_id} {route}", per_minute)):
            if limit:
                used, reset = self._count(key)
                about.headers = [
                    *others,
                    (b"ratelimit-limit", b"%d" % limit),
                    (b"ratelimit-remaining", b"%d" % max(0, limit - used)),
                    (b"ratelimit-reset", b"%d" % reset),
                ]
                if used > limit:
                    raise DaemonError(RATE_LIMIT_EXCEEDED, retry_after=reset)

    def fail(self) -> None:
        """Count one credential that was refused; whoever has a good one is not held up by it.

        Raises:
            DaemonError: RATE_LIMIT_EXCEEDED.
        """
        wait = self._failures.take(self._clock.monotonic())
        if wait is not None:
            raise DaemonError(RATE_LIMIT_EXCEEDED, retry_after=wait)

    def _count(self, key: str) -> tuple[int, int]:
        """Count one request; return how many there were in this window, and the seconds until it ends."""
        now = self._clock.monotonic()
        window = self._windows.get(key)
        if window is None or now - window[0] >= _MINUTE:
            window = self._open(key, now)
        window[1] += 1
        return int(window[1]), int(window[0] + _MINUTE - now) + 1

    def _open(self, key: str, now: float) -> list[float]:
        if len(self._windows) >= _PRUNE_AT:
            self._windows = {key: window for key, window in self._windows.items() if now - window[0] < _MINUTE}
        window = self._windows[key] = [now, 0.0]
        return window

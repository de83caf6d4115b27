"""Why a message did not arrive, in words that may be stored and shown: no credential, no URL."""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from daemon.notify.text import neutralise

LONGEST_WAIT = 86_400.0
"""Seconds; what a service asks for beyond is not believed."""
_LONGEST_REASON = 200
_CURABLE = frozenset({408, 409, 425, 429})
"""Of the 4xx statuses those that pass by themselves (RFC 9110, section 15.5; RFC 8470; RFC 6585)."""


class SendFailed(Exception):  # noqa: N818 (it is a result that every caller expects, not an error of the program)
    """A service did not take what was sent.

    Args:
        reason: one line for the owner.
        retry_after: seconds that the service asks to wait, at most `LONGEST_WAIT`.
        limited: whether it said that there were too many messages.
        permanent: whether no retry will cure it: a wrong token, an unknown chat.
    """

    def __init__(
        self, reason: str, *, retry_after: float | None = None, limited: bool = False, permanent: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        self.limited = limited
        self.permanent = permanent


def refusal(
    status: int,
    headers: Mapping[str, str],
    now: float,
    *,
    said: object = None,
    waits: Iterable[object] = (),
    secrets: Iterable[str | None] = (),
) -> SendFailed:
    """Return the failure that an answer means.

    Args:
        status, headers: of the answer.
        now: Unix seconds, for a date in Retry-After.
        said: the service's own explanation; left out when it is no text or names a secret.
        waits: seconds to wait, as the body states them.
        secrets: the channel's credentials.
    """
    limited = status == 429
    permanent = 400 <= status < 500 and status not in _CURABLE
    reason = f"HTTP {status}"
    if 300 <= status < 400:
        reason += ": redirects are not followed"
    elif isinstance(said, str) and not any(secret in said for secret in secrets if secret):
        # Not `cut`: this is for a log line, where any cut is good enough.
        words = neutralise(said)[:_LONGEST_REASON]
        reason += f": {words}" if words else ""
    return SendFailed(reason, retry_after=_wait(headers, waits, now), limited=limited, permanent=permanent)


def _wait(headers: Mapping[str, str], stated: Iterable[object], now: float) -> float | None:
    """Return the longest of the waits that an answer states, within bounds."""
    found = [_seconds(value) for value in (*stated, headers.get("x-ratelimit-reset-after"))]
    found.append(_retry_after(headers.get("retry-after", ""), headers.get("date", ""), now))
    known = [value for value in found if value is not None]
    return min(max(known), LONGEST_WAIT) if known else None


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _retry_after(value: str, date: str, now: float) -> float | None:
    """Return the seconds of a Retry-After header: a number, or a date by the server's clock (RFC 9110, 10.2.3)."""
    if re.fullmatch(r"[0-9]{1,12}", value):
        return float(value)
    then = _timestamp(value)
    if then is None:
        return _seconds(value)
    return max(0.0, then - (_timestamp(date) or now))


def _timestamp(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None

"""The daily summary: what happened since the one before, once a day at the owner's time."""

from datetime import datetime, timedelta

import msgspec

from daemon.domain.changes import Outcome, Rows, Scope
from daemon.domain.events import SYSTEM
from daemon.domain.facts.messages import DailySummary as Fact
from daemon.settings import Notifications as Settings
from daemon.stores.protocol import Store

KEY = "daily_summary"
_DAY = 86_400


class _Last(msgspec.Struct, frozen=True):
    """The summary before: its local date, and the newest event that it counted."""

    date: str
    seq: int


_decode = msgspec.json.Decoder(_Last).decode


class DailySummary:
    """Writes the summary's event; the outbox does the rest.

    Args:
        store: the engine.
        settings: the notifications section; may be replaced at any time.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self.settings = settings

    async def tell(self) -> bool:
        """Record the summary if it is due; return whether it was. A daemon that was down tells it when it is up."""
        at = self.settings.daily_summary
        if not at:
            return False
        now = self._store.clock.now()
        local = datetime.fromtimestamp(now).astimezone()
        before = local.strftime("%H:%M") < at
        stored = await self._store.value(KEY)
        last = _decode(stored) if stored else None
        if before and last is None:
            return False
        # Before today's time it is yesterday's that may be missing: the machine slept through it.
        date = (local - timedelta(days=before)).strftime("%Y-%m-%d")
        if last is not None and last.date >= date:
            return False
        head = await self._store.head()
        since = last.seq if last else 0
        counts = await self._store.count_events(since, head.seq, now - _DAY if last is None else 0)
        fact = Fact(
            date=date,
            active_sessions=await self._store.active_session_count(),
            created=counts.get("SESSION_CREATED", 0),
            renewed=counts.get("SESSION_RENEWED", 0),
            rejected=counts.get("SESSION_RENEWAL_REJECTED", 0),
            revoked=counts.get("SESSION_REVOKED", 0),
            expired=counts.get("SESSION_EXPIRED", 0),
            warnings=counts.get("warning", 0),
            criticals=counts.get("critical", 0),
        )
        mark = msgspec.json.encode(_Last(date, head.seq)).decode()

        def decide(rows: Rows, _now: int) -> Outcome[bool]:
            if rows.values.get(KEY) != stored:
                return Outcome(answer=False)
            return Outcome(answer=True, values={KEY: mark}, facts=(fact,))

        return await self._store.change(Scope(values=(KEY,), while_locked=True), decide, SYSTEM)

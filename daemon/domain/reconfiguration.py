"""A new configuration of a session's process, which begins again to obey it."""

import msgspec

from daemon.domain import turns
from daemon.domain.changes import Outcome, Rows
from daemon.domain.errors import SESSION_BUSY, DaemonError
from daemon.domain.events import Fact
from daemon.domain.lifecycle import transition
from daemon.domain.process_rows import Process
from daemon.domain.processes import ALIVE, require
from daemon.domain.rows import Session

_RESTARTABLE = ALIVE | {"SUSPENDED"}


class Reconfigure(msgspec.Struct, frozen=True):
    """A new configuration of a session's process; called, it is the law that makes it so.

    Args:
        before: as it is stored; decided on nothing else.
        config: the new one, as it is stored.
        secrets: likewise, sealed.
        restarts: whether a process that runs must begin again to obey it.
        force: whether a running turn is interrupted for it.
    """

    before: Process
    config: str
    secrets: str | None
    restarts: bool
    force: bool

    def __call__(self, rows: Rows, now: int) -> Outcome[Session] | None:
        """Return what changes; None: nothing.

        Raises:
            DaemonError: SESSION_BUSY; INVALID_STATE_TRANSITION where there is no process.
        """
        session, process = require(rows)
        if (process.config, process.secrets) != (self.before.config, self.before.secrets):
            raise DaemonError(SESSION_BUSY, "Its configuration was changed at the same time.", retry_after=1)
        if self.config == process.config and self.secrets == process.secrets:
            return None
        made = msgspec.structs.replace(process, config=self.config, secrets=self.secrets, warned_at=None)
        if not self.restarts or process.pid is None or session.state not in _RESTARTABLE:
            return Outcome(answer=session, process=made)
        running = [turn.turn for turn in rows.turns if turn.state == "RUNNING"]
        if running and not self.force:
            hint = "Wait until the turn is over, or send `force: true` to interrupt it."
            raise DaemonError(SESSION_BUSY, details={"state": session.state}, retry_after=1, hint=hint)
        facts: tuple[Fact, ...] = ()
        if session.state == "ACTIVE":
            session, facts = transition(session, "IDLE", now, turn=running[0], outcome="interrupted")
        over = turns.interrupted(rows.turns, now)
        made = msgspec.structs.replace(made, rest=process.rest or "restart")
        return Outcome(answer=session, session=session, process=made, turns=over, facts=facts)

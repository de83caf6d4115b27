"""The kill switch: NORMAL, ACTIVATED, RECOVERING; stored, so that it holds across a restart."""

import msgspec

from daemon.domain import agents, lifecycle
from daemon.domain.changes import Outcome, Rows
from daemon.domain.errors import (
    KILL_SWITCH_ALREADY_ACTIVE,
    KILL_SWITCH_NOT_ACTIVE,
    RECOVERY_WAIT_REQUIRED,
    DaemonError,
)
from daemon.domain.events import Fact
from daemon.domain.facts.daemon import KillSwitchActivated, KillSwitchRecovered, KillSwitchRecovering
from daemon.domain.views import KillSwitchView, Recovery

KEY = "kill_switch"
"""Of the row that holds the state, in the key-value store."""

_NORMAL = KillSwitchView(state="NORMAL")
_UNREADABLE = KillSwitchView(state="ACTIVATED", reason="the stored state could not be read")
_decode = msgspec.json.Decoder(KillSwitchView).decode


def read(stored: str | None) -> KillSwitchView:
    """Return the state as it is stored; nothing stored is NORMAL, and what cannot be read is ACTIVATED, to be safe."""
    if stored is None:
        return _NORMAL
    try:
        return _decode(stored)
    except msgspec.DecodeError:
        return _UNREADABLE


def is_on(stored: str | None) -> bool:
    """Return whether everything is stopped."""
    return stored is not None and read(stored).state != "NORMAL"


def _write(state: KillSwitchView) -> dict[str, str]:
    return {KEY: msgspec.json.encode(state).decode()}


def activate(rows: Rows, now: int, *, reason: str) -> Outcome[KillSwitchView]:
    """Stop everything: the state, every session and every active agent, in one transaction.

    While a recovery is waiting this takes it back.

    Args:
        rows: the state, every session that is not revoked, every active agent.
        now: Unix seconds.
        reason: the owner's words.

    Raises:
        DaemonError: KILL_SWITCH_ALREADY_ACTIVE.
    """
    before = read(rows.values.get(KEY))
    if before.state == "ACTIVATED":
        raise DaemonError(KILL_SWITCH_ALREADY_ACTIVE)
    ended = lifecycle.revoke_every(rows, now, reason="kill_switch")
    stopped = [agents.suspended(agent, now, by="kill_switch", reason="kill_switch") for agent in rows.agents]
    state = KillSwitchView(
        state="ACTIVATED",
        reason=reason,
        activated_at=now,
        sessions_revoked=before.sessions_revoked + ended.answer,
        agents_suspended=before.agents_suspended + len(stopped),
        processes_killed=before.processes_killed,
    )
    fact = KillSwitchActivated(
        reason=reason, sessions_revoked=state.sessions_revoked, agents_suspended=state.agents_suspended
    )
    return Outcome(
        answer=state,
        agents=tuple(agent for agent, _ in stopped),
        sessions=ended.sessions,
        values=_write(state),
        facts=(fact, *(one for _, one in stopped), *ended.facts),
    )


def count_processes(rows: Rows, _now: int, *, killed: int, left: int) -> Outcome[KillSwitchView]:
    """Note what came of the processes of the sessions that were ended: their ends are events of their own.

    Args:
        rows: the state.
        killed: processes of the system that are gone.
        left: that were still seen when the time was up.
    """
    state = read(rows.values.get(KEY))
    counted = msgspec.structs.replace(state, processes_killed=state.processes_killed + killed, processes_left=left)
    return Outcome(answer=counted, values=_write(counted) if state.state != "NORMAL" else None)


def recover(rows: Rows, now: int, *, wait: int) -> Outcome[Recovery]:
    """Begin the recovery, or end it once its time has come; sessions stay revoked.

    Args:
        rows: the state, and the agents that the switch suspended.
        now: Unix seconds.
        wait: seconds between asking and getting; 0 recovers at once.

    Raises:
        DaemonError: KILL_SWITCH_NOT_ACTIVE, RECOVERY_WAIT_REQUIRED.
    """
    state = read(rows.values.get(KEY))
    if state.state == "NORMAL":
        raise DaemonError(KILL_SWITCH_NOT_ACTIVE)
    if state.state == "ACTIVATED" and wait > 0:
        eligible = now + wait
        waiting = msgspec.structs.replace(state, state="RECOVERING", recovery_eligible_at=eligible)
        answer = Recovery(state="RECOVERING", recovery_eligible_at=eligible)
        return Outcome(
            answer=answer, values=_write(waiting), facts=(KillSwitchRecovering(recovery_eligible_at=eligible),)
        )
    if state.recovery_eligible_at is not None and now < state.recovery_eligible_at:
        raise DaemonError(
            RECOVERY_WAIT_REQUIRED,
            details={"recoveryEligibleAt": state.recovery_eligible_at},
            retry_after=state.recovery_eligible_at - now,
        )
    back = [agents.activated(agent, now, reason="kill_switch_recovered") for agent in rows.agents]
    facts: tuple[Fact, ...] = (KillSwitchRecovered(agents_reactivated=len(back)), *(fact for _, fact in back))
    return Outcome(
        answer=Recovery(state="NORMAL", agents_reactivated=len(back)),
        agents=tuple(agent for agent, _ in back),
        values=_write(_NORMAL),
        facts=facts,
    )

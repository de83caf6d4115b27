"""The nine life-cycle states of a session and the one door through which every change goes."""

from typing import Literal, get_args

from daemon.domain.errors import INVALID_STATE_TRANSITION, DaemonError

State = Literal["CREATED", "INITIALIZING", "READY", "ACTIVE", "IDLE", "SUSPENDED", "CLOSING", "CLOSED", "ERROR"]

STATES: tuple[State, ...] = get_args(State)

TRANSITIONS: dict[State, tuple[State, ...]] = {
    "CREATED": ("INITIALIZING", "CLOSING", "CLOSED", "ERROR"),
    "INITIALIZING": ("READY", "CLOSING", "CLOSED", "ERROR"),
    "READY": ("ACTIVE", "IDLE", "SUSPENDED", "CLOSING", "ERROR"),
    "ACTIVE": ("IDLE", "SUSPENDED", "CLOSING", "ERROR"),
    "IDLE": ("ACTIVE", "SUSPENDED", "CLOSING", "ERROR"),
    "SUSPENDED": ("READY", "CLOSING", "ERROR"),
    "CLOSING": ("CLOSED", "ERROR"),
    "ERROR": ("INITIALIZING", "CLOSING", "CLOSED"),
    "CLOSED": (),
}


def advance(state: State, to: State) -> State:
    """Return `to` if the table allows the step.

    Raises:
        DaemonError: INVALID_STATE_TRANSITION with `from`, `to` and `allowed`.
    """
    allowed = TRANSITIONS[state]
    if to not in allowed:
        raise DaemonError(
            INVALID_STATE_TRANSITION,
            f"A session in state {state} cannot become {to}.",
            details={"from": state, "to": to, "allowed": list(allowed)},
        )
    return to

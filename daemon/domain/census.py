"""How many there are of what is stored, at one moment."""

import msgspec

from daemon.domain.rows import AgentStatus
from daemon.domain.states import State
from daemon.domain.views import Status


class Census(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of rows.

    Args:
        sessions: that are kept, by state and status.
        agents: by status.
        pending: messages that wait to be sent.
        failed: of those, how many failed at least once.
        oldest: seconds that the oldest of them has waited; 0 where none waits.
    """

    sessions: dict[tuple[State, Status], int]
    agents: dict[AgentStatus, int]
    pending: int
    failed: int
    oldest: int

"""The pool: the bounded set of live processes, and which of them makes room for another."""

from collections.abc import Sequence

import msgspec

from daemon.domain.errors import PROCESS_LIMIT_EXCEEDED, DaemonError
from daemon.domain.events import Fact
from daemon.domain.facts.sessions import SessionUpdated
from daemon.domain.process_config import adapter_of, read
from daemon.domain.process_rows import Place


class Limits(msgspec.Struct, frozen=True):
    """How many processes may run: all together, and of one agent."""

    everybody: int
    agent: int


def make_room(places: Sequence[Place], session_id: str, agent_id: str, limits: Limits) -> Place | None:
    """Return the place that is given up for another process; None: there is room.

    Args:
        places: that are taken.
        session_id: the session that needs one; it may have its place already.
        agent_id: its agent.
        limits: how many there are.

    Raises:
        DaemonError: PROCESS_LIMIT_EXCEEDED.
    """
    others = [place for place in places if place.session_id != session_id]
    own = [place for place in others if place.agent_id == agent_id]
    if len(own) >= limits.agent:
        return _longest_idle(own, "processes.max_per_agent", limits.agent)
    if len(others) >= limits.everybody:
        return _longest_idle(others, "processes.max_processes", limits.everybody)
    return None


def _longest_idle(places: Sequence[Place], limit: str, most: int) -> Place:
    idle = [place for place in places if place.state in {"READY", "IDLE"} and can_rest(place.config)]
    if not idle:
        raise DaemonError(PROCESS_LIMIT_EXCEEDED, details={"limit": limit, "most": most}, retry_after=5)
    return min(idle, key=lambda place: (place.since, place.session_id))


def given_up(place: Place | None) -> tuple[Fact, ...]:
    """Return the fact that a process makes room for another."""
    if place is None:
        return ()
    return (SessionUpdated(agent_id=place.agent_id, session_id=place.session_id, fields=("process",)),)


def can_rest(config: str) -> bool:
    """Return whether a process can be ended and go on later where it was: its command keeps the conversation."""
    return adapter_of(read(config)) == "claude"

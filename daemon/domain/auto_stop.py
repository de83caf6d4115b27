"""Auto-stop: an agent with too many security incidents is suspended, an agent that only polls too fast never."""

from daemon.domain import agents
from daemon.domain.changes import Rows
from daemon.domain.events import Fact
from daemon.domain.facts.agents import AutoStopTriggered
from daemon.domain.rows import Agent


def consider(rows: Rows, now: int, threshold: int) -> tuple[Agent | None, tuple[Fact, ...]]:
    """Return the suspended agent and the facts if an incident that happens now reaches the threshold.

    Incidents are a superseded token that comes back and a breach of `allowedOperations`.

    Args:
        rows: the agent, and its minutes of the last hour with an incident that no auto-stop has answered yet.
        now: Unix seconds.
        threshold: distinct minutes; 0 stops nobody.
    """
    agent = rows.agent
    minutes = len(rows.incident_minutes | {now // 60})
    if agent is None or agent.status != "ACTIVE" or not threshold or minutes < threshold:
        return None, ()
    stopped, fact = agents.suspended(agent, now, by="auto_stop", reason="auto_stop")
    return stopped, (AutoStopTriggered(agent_id=agent.id, minutes=minutes, threshold=threshold), fact)

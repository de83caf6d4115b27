"""Facts about agents, and what agents publish of their own work."""

from typing import Any, ClassVar

from daemon.domain.events import Fact, Severity


class AgentCreated(Fact, frozen=True, kw_only=True):
    """An agent was registered."""

    type: ClassVar[str] = "AGENT_CREATED"
    name: str


class AgentUpdated(Fact, frozen=True, kw_only=True):
    """Attributes of an agent changed."""

    type: ClassVar[str] = "AGENT_UPDATED"
    fields: tuple[str, ...]


class AgentSuspended(Fact, frozen=True, kw_only=True):
    """An agent's tokens are refused until it is activated."""

    type: ClassVar[str] = "AGENT_SUSPENDED"
    reason: str | None


class AgentActivated(Fact, frozen=True, kw_only=True):
    """An agent's tokens are accepted again."""

    type: ClassVar[str] = "AGENT_ACTIVATED"
    reason: str | None


class AgentTerminated(Fact, frozen=True, kw_only=True):
    """An agent ended for good."""

    type: ClassVar[str] = "AGENT_TERMINATED"
    sessions_revoked: int


class AutoStopTriggered(Fact, frozen=True, kw_only=True):
    """An agent was suspended: incidents in `minutes` distinct minutes of an hour reached the threshold."""

    type: ClassVar[str] = "AUTO_STOP_TRIGGERED"
    severity: ClassVar[Severity] = "critical"
    minutes: int
    threshold: int


class Published(Fact, frozen=True, kw_only=True):
    """Base of what an agent tells of its own work; every field is the agent's word."""

    type: ClassVar[str] = ""
    reference_id: str | None
    title: str | None
    details: dict[str, Any]


class TxNotify(Published, frozen=True, kw_only=True):
    """An agent tells of a transaction."""

    type: ClassVar[str] = "TX_NOTIFY"


class TxDelayQueued(Published, frozen=True, kw_only=True):
    """An agent's transaction waits for its delay to pass."""

    type: ClassVar[str] = "TX_DELAY_QUEUED"


class TxDelayExecuted(Published, frozen=True, kw_only=True):
    """An agent's delayed transaction was executed."""

    type: ClassVar[str] = "TX_DELAY_EXECUTED"


class TxApprovalRequest(Published, frozen=True, kw_only=True):
    """An agent asks the owner to approve a transaction."""

    type: ClassVar[str] = "TX_APPROVAL_REQUEST"
    severity: ClassVar[Severity] = "warning"


class TxApprovalExpired(Published, frozen=True, kw_only=True):
    """An agent's request for approval ran out."""

    type: ClassVar[str] = "TX_APPROVAL_EXPIRED"
    severity: ClassVar[Severity] = "warning"


class TxConfirmed(Published, frozen=True, kw_only=True):
    """An agent's transaction was confirmed."""

    type: ClassVar[str] = "TX_CONFIRMED"


class TxFailed(Published, frozen=True, kw_only=True):
    """An agent's transaction failed."""

    type: ClassVar[str] = "TX_FAILED"
    severity: ClassVar[Severity] = "warning"


class AgentReport(Published, frozen=True, kw_only=True):
    """An agent reports."""

    type: ClassVar[str] = "AGENT_REPORT"


PUBLISHED: dict[str, type[Published]] = {kind.type: kind for kind in Published.__subclasses__()}
"""What agents may publish, by its type."""

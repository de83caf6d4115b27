"""Bodies that the API accepts: strict, every bound in the type, so that the OpenAPI document shows it."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from daemon.domain import constraints as constraint_rules
from daemon.domain.body import MAX_MODEL, NO_NUL, ONE_LINE, Body, under
from daemon.domain.channels import ChannelType
from daemon.domain.ids import is_id
from daemon.domain.levels import Level
from daemon.domain.notifications import EVENTS
from daemon.domain.process_config import PatchProcess, ProcessConfig
from daemon.domain.rows import Chain, Network

Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=ONE_LINE)]
Label = Annotated[str, Meta(min_length=1, max_length=100, pattern=ONE_LINE)]
Address = Annotated[str, Meta(min_length=1, max_length=200, pattern=ONE_LINE)]
Reason = Annotated[str, Meta(min_length=1, max_length=500, pattern=NO_NUL)]
Model = Annotated[str, Meta(min_length=1, max_length=MAX_MODEL, pattern=ONE_LINE)]
ExternalId = Annotated[str, Meta(min_length=1, max_length=200, pattern=ONE_LINE)]
Title = Annotated[str, Meta(min_length=1, max_length=200)]
Ttl = Annotated[int, Meta(ge=300, le=604_800, description="Seconds.")]
Content = Annotated[str, Meta(min_length=1, max_length=262_144, pattern=NO_NUL)]
JsonObject = dict[str, Any]
Names = Annotated[list[str], Meta(max_length=100)]
Priority = Annotated[int, Meta(ge=-1000, le=1000, description="Higher is tried first.")]
PublishedType = Literal[
    "TX_NOTIFY",
    "TX_DELAY_QUEUED",
    "TX_DELAY_EXECUTED",
    "TX_APPROVAL_REQUEST",
    "TX_APPROVAL_EXPIRED",
    "TX_CONFIRMED",
    "TX_FAILED",
    "AGENT_REPORT",
]


class Empty(Body, frozen=True):
    """No fields."""


class WithReason(Body, frozen=True):
    """Why the owner does this."""

    reason: Reason | None = None


class StopEverything(Body, frozen=True):
    """Why the kill switch is activated."""

    reason: Reason


class CreateAgent(Body, frozen=True):
    """A new agent."""

    name: Name
    chain: Chain | None = None
    network: Network | None = None
    public_key: Address | None = None
    owner_address: Address | None = None
    metadata: JsonObject | None = None

    def problems(self) -> list[tuple[str, str]]:
        """Return problems of the metadata."""
        return constraint_rules.json_problems(self.metadata or {}, "metadata")


class PatchAgent(Body, frozen=True):
    """Changes to an agent; `metadata` is replaced whole."""

    name: Name | UnsetType = UNSET
    owner_address: Address | UnsetType | None = UNSET
    owner_verified: bool | UnsetType = UNSET
    metadata: JsonObject | UnsetType = UNSET

    def problems(self) -> list[tuple[str, str]]:
        """Return problems of the metadata."""
        return constraint_rules.json_problems(self.metadata or {}, "metadata")


class CreateSession(Body, frozen=True):
    """A new session of an agent."""

    agent_id: str
    ttl: Ttl | None = None
    constraints: JsonObject | None = None
    user_id: Label | None = None
    workspace_id: Label | None = None
    metadata: JsonObject | None = None
    process: ProcessConfig | None = None

    def problems(self) -> list[tuple[str, str]]:
        """Return problems of the constraints, the metadata and the process."""
        of_process = self.process.problems() if self.process is not None else []
        return _object_problems(self.constraints, self.metadata) + under("process", of_process)


class CreateChild(Body, frozen=True):
    """A new session below the one that asks; what goes beyond that one's is cut to it."""

    ttl: Ttl | None = None
    constraints: JsonObject | None = None
    metadata: JsonObject | None = None

    def problems(self) -> list[tuple[str, str]]:
        """Return problems of the constraints and the metadata."""
        return _object_problems(self.constraints, self.metadata)


class PatchSession(Body, frozen=True):
    """Changes to a session; `metadata` and `constraints` are replaced whole."""

    metadata: JsonObject | UnsetType = UNSET
    constraints: JsonObject | UnsetType | None = UNSET
    user_id: Label | UnsetType | None = UNSET
    process: PatchProcess | UnsetType = UNSET
    force: bool = False

    def problems(self) -> list[tuple[str, str]]:
        """Return problems of the constraints and the metadata."""
        return _object_problems(self.constraints or None, self.metadata or None)

    def changes(self) -> dict[str, Any]:
        """Return the fields of the session that were sent."""
        return {name: value for name, value in super().changes().items() if name not in {"process", "force"}}


def _object_problems(constraints: JsonObject | None, metadata: JsonObject | None) -> list[tuple[str, str]]:
    return constraint_rules.problems(constraints or {}) + constraint_rules.json_problems(metadata or {}, "metadata")


class PublishEvent(Body, frozen=True):
    """What an agent tells of its own work."""

    type: PublishedType
    reference_id: Label | None = None
    title: Title | None = None
    details: JsonObject | None = None

    def problems(self) -> list[tuple[str, str]]:
        """Return problems of the details."""
        return constraint_rules.json_problems(self.details or {}, "details")


class ExpectedBinding(Body, frozen=True):
    """What a conversation is believed to be bound to."""

    provider: Label
    model: Model


class BindConversation(Body, frozen=True):
    """What a conversation shall be bound to if it is not bound yet."""

    provider: Label
    model: Model
    external_id: ExternalId | None = None


class RebindConversation(Body, frozen=True):
    """What a conversation shall be bound to instead of what it is believed to be bound to, and why."""

    expected: ExpectedBinding
    provider: Label
    model: Model
    reason: Reason


class AddChannel(Body, frozen=True):
    """A new notification channel; what `config` needs depends on the type."""

    type: ChannelType
    name: Name
    config: JsonObject
    priority: Priority = 0
    min_level: Level = "INFO"
    events: Names | None = None
    agents: Names | None = None

    def problems(self) -> list[tuple[str, str]]:
        """Return problems of the configuration's size and of the filters."""
        return constraint_rules.json_problems(self.config, "config") + _filter_problems(self.events, self.agents)


class UpdateChannel(Body, frozen=True):
    """Changes to a channel; `***` in `config` stands for what is stored."""

    name: Name | UnsetType = UNSET
    config: JsonObject | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    min_level: Level | UnsetType = UNSET
    events: Names | UnsetType | None = UNSET
    agents: Names | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET

    def problems(self) -> list[tuple[str, str]]:
        """Return problems of the configuration's size and of the filters."""
        sized = constraint_rules.json_problems(self.config or {}, "config")
        return sized + _filter_problems(self.events or None, self.agents or None)


def _filter_problems(events: list[str] | None, agents: list[str] | None) -> list[tuple[str, str]]:
    unknown = [
        (f"events.{index}", "is no event that the owner is told of")
        for index, name in enumerate(events or ())
        if name not in EVENTS
    ]
    malformed = [
        (f"agents.{index}", "must be the id of an agent") for index, name in enumerate(agents or ()) if not is_id(name)
    ]
    return unknown + malformed


class AddVerifier(Body, frozen=True):
    """A new verifier."""

    name: Name
    may_revoke: bool = False


class TokenForm(Body, frozen=True, rename=None):
    """A token that a verifier asks about; the hint is not needed, for there is one type of token."""

    token: Annotated[str, Meta(min_length=1)]
    token_type_hint: str | None = None

    def __repr__(self) -> str:
        return "TokenForm(***)"


class Message(Body, frozen=True):
    """What a supervised session shall do next."""

    content: Content
    queue: bool = False

    def __repr__(self) -> str:
        return "Message(***)"


class Extend(Body, frozen=True):
    """More time for a session."""

    seconds: Annotated[int, Meta(ge=1, le=7_776_000)]


class Login(Body, frozen=True):
    """How long an owner ticket lives, in seconds."""

    ttl: Annotated[int, Meta(ge=60, le=3600)] = 900


class RotateSecret(Body, frozen=True):
    """Whether every session is revoked with the old secret."""

    revoke_sessions: bool = False


class ChangePassword(Body, frozen=True):
    """The new master password."""

    new_password: Annotated[str, Meta(min_length=1, max_length=1024)]

"""What the tools take: what the API does, within its bounds, with what a model must know to fill them."""

from typing import Annotated

from msgspec import Meta

from daemon.domain.body import Body
from daemon.domain.conversations import MAX_ID
from daemon.domain.requests import ExpectedBinding, ExternalId, JsonObject, Label, Model, Reason, Title

ConversationId = Annotated[
    str, Meta(min_length=1, max_length=MAX_ID, description="Id of the conversation, which you choose: `ticket-4711`.")
]


class OneConversation(Body, frozen=True):
    """Which conversation."""

    conversation_id: ConversationId


class Bind(Body, frozen=True):
    """Which conversation, and what it shall be bound to."""

    conversation_id: ConversationId
    provider: Annotated[Label, Meta(description="Provider of the model, e.g. `anthropic`.")]
    model: Annotated[Model, Meta(description="Model of the provider, e.g. `claude-sonnet-4-5`.")]
    external_id: Annotated[ExternalId, Meta(description="Id that the provider gave it, if it did.")] | None = None


class Rebind(Body, frozen=True):
    """Which conversation, from what to what, and why."""

    conversation_id: ConversationId
    expected: Annotated[
        ExpectedBinding, Meta(description="What it is bound to as far as you know; else nothing is changed.")
    ]
    provider: Annotated[Label, Meta(description="Provider that it shall be bound to.")]
    model: Annotated[Model, Meta(description="Model that it shall be bound to.")]
    reason: Annotated[Reason, Meta(description="Why, for the owner, e.g. `anthropic answered 529 three times`.")]


class Tell(Body, frozen=True):
    """What the owner is told."""

    title: Annotated[Title, Meta(description="One line that the owner reads first.")]
    details: Annotated[JsonObject, Meta(description="Facts, 16 KiB at most; never a secret.")] | None = None
    reference_id: Annotated[Label, Meta(description="Your own id of what this is about: `job-42`.")] | None = None

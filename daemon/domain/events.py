"""Facts: what happened, one frozen struct each; `chain.py` makes their order tamper-evident."""

from typing import Any, ClassVar, Literal

import msgspec

Severity = Literal["info", "warning", "critical"]


class Fact(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Something that happened; fields beyond the two ids are the event's `details`."""

    type: ClassVar[str]
    severity: ClassVar[Severity] = "info"

    agent_id: str | None = None
    session_id: str | None = None


class Origin(msgspec.Struct, frozen=True):
    """Who caused a change, for its events.

    Args:
        actor: `owner`, `agent:<id>`, `verifier:<id>`, `system` or `cli`.
        request_id: of the HTTP request, if there was one.
        ip_address: the peer's; None over the unix socket.
    """

    actor: str
    request_id: str | None = None
    ip_address: str | None = None


SYSTEM = Origin("system")


class Event(msgspec.Struct, frozen=True, rename="camel"):
    """A fact as it stands in the audit log; `details` is the stored JSON text, untouched."""

    seq: int
    timestamp: int
    type: str
    severity: Severity
    actor: str
    agent_id: str | None
    session_id: str | None
    request_id: str | None
    ip_address: str | None
    details: msgspec.Raw
    prev_hash: str
    hash: str


_encode = msgspec.json.Encoder().encode
_IDS = ("agent_id", "session_id")


def details_text(fact: Fact) -> str:
    """Return the fact's own fields as JSON text, camelCase, in the order of their definition."""
    pairs = zip(fact.__struct_fields__, fact.__struct_encode_fields__, strict=True)
    details: dict[str, Any] = {name: getattr(fact, field) for field, name in pairs if field not in _IDS}
    return _encode(details).decode()

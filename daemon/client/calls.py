"""The routes of agents as calls: what is sent, and how the answer is read."""

import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from daemon.client.effects import Reply
from daemon.client.errors import ClientError, Problem, StrangeAnswer
from daemon.domain.conversation_views import BoundConversation, ConversationView, TouchedView
from daemon.domain.views import (
    CreatedChild,
    OwnSession,
    PublishedEvent,
    RenewedSession,
    RevokedSession,
    SessionSummary,
)

T = TypeVar("T")

PAGE = 200
"""Items that one page of a list has at most."""
_REPEATABLE = frozenset({"GET", "HEAD", "PUT"})
"""Methods that may be repeated after a lost answer (RFC 9110, section 9.2.2); a repeated DELETE says "not found"."""


class Call(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One request of an agent.

    Args:
        method: the HTTP method.
        target: path and query, quoted.
        body: sent as JSON; None is no body.
        read: makes the result of an answer.
        repeatable: whether doing it twice is as good as doing it once.
    """

    method: str
    target: str
    read: Callable[[Reply], T]
    body: bytes | None = None
    repeatable: bool = True


def _reader(kind: type[T]) -> Callable[[Reply], T]:
    decoder = msgspec.json.Decoder(kind)

    def read(reply: Reply) -> T:
        try:
            return decoder.decode(reply.body)
        except (ValueError, RecursionError):
            raise _strange(reply) from None

    return read


def _strange(reply: Reply) -> StrangeAnswer:
    return StrangeAnswer(f"What answers at {reply.where} is not this daemon, or not this version")


def problem(reply: Reply) -> Problem:
    """Return what an answer says that is a refusal.

    Raises:
        StrangeAnswer: it is none of this daemon's.
    """
    try:
        read = msgspec.json.decode(reply.body, type=Problem)
    except (ValueError, RecursionError):
        raise _strange(reply) from None
    text = reply.headers.get("retry-after", "")
    return msgspec.structs.replace(read, retry_after=float(text) if text.isdecimal() else None)


_own = _reader(OwnSession)
_renewed = _reader(RenewedSession)
_revoked = _reader(RevokedSession)
_published = _reader(PublishedEvent)
_child = _reader(CreatedChild)
_children = _reader(list[SessionSummary])
_bound = _reader(BoundConversation)
_conversation = _reader(ConversationView)
_conversations = _reader(list[ConversationView])
_touched = _reader(TouchedView)


def whoami() -> Call[OwnSession]:
    """Show the session."""
    return Call(method="GET", target="/v1/session", read=_own)


def renew(session_id: str) -> Call[RenewedSession]:
    """Exchange the token for the next one."""
    return Call(method="PUT", target=f"/v1/sessions/{session_id}/renew", read=_renewed)


def end() -> Call[RevokedSession]:
    """End the session."""
    return Call(method="DELETE", target="/v1/session", read=_revoked)


def publish(
    kind: str, reference_id: str | None, title: str | None, details: Mapping[str, Any] | None
) -> Call[PublishedEvent]:
    """Tell the owner something."""
    fields = {"type": kind, "referenceId": reference_id, "title": title, "details": details}
    return Call(method="POST", target="/v1/session/events", body=_sent(fields), read=_published, repeatable=False)


def create_child(
    ttl: int | None, constraints: Mapping[str, Any] | None, metadata: Mapping[str, Any] | None
) -> Call[CreatedChild]:
    """Make a session below this one."""
    fields = {"ttl": ttl, "constraints": constraints, "metadata": metadata}
    return Call(method="POST", target="/v1/session/children", body=_sent(fields), read=_child, repeatable=False)


def children(limit: int) -> Call[list[SessionSummary]]:
    """List the sessions right below this one: the first page of them."""
    return Call(method="GET", target=f"/v1/session/children?limit={limit}", read=_children)


def end_child(session_id: str) -> Call[RevokedSession]:
    """End a session below this one."""
    return Call(method="DELETE", target=f"/v1/session/children/{_quoted(session_id)}", read=_revoked)


def bind(conversation_id: str, provider: str, model: str, external_id: str | None) -> Call[BoundConversation]:
    """Bind a conversation, or find what it is bound to."""
    fields = {"provider": provider, "model": model, "externalId": external_id}
    return Call(method="PUT", target=_of(conversation_id), body=_sent(fields), read=_bound)


def conversation(conversation_id: str) -> Call[ConversationView]:
    """Show a conversation."""
    return Call(method="GET", target=_of(conversation_id), read=_conversation)


def conversations(limit: int) -> Call[list[ConversationView]]:
    """List the agent's conversations: the first page of them."""
    return Call(method="GET", target=f"/v1/conversations?limit={limit}", read=_conversations)


def touch(conversation_id: str) -> Call[TouchedView]:
    """Keep a conversation."""
    return Call(method="POST", target=f"{_of(conversation_id)}/touch", read=_touched, repeatable=False)


def delete_conversation(conversation_id: str) -> Call[None]:
    """Delete a conversation."""
    return Call(method="DELETE", target=_of(conversation_id), read=lambda _reply: None, repeatable=False)


def rebind(
    conversation_id: str, expected: tuple[str, str], provider: str, model: str, reason: str
) -> Call[ConversationView]:
    """Bind a conversation to another provider or model, if it is bound as expected."""
    fields = {
        "expected": {"provider": expected[0], "model": expected[1]},
        "provider": provider,
        "model": model,
        "reason": reason,
    }
    target = f"{_of(conversation_id)}/rebind"
    return Call(method="POST", target=target, body=_sent(fields), read=_conversation, repeatable=False)


def anything(method: str, path: str, body: object) -> Call[Any]:
    """Ask for any other route.

    Raises:
        ClientError: the path is none, or the body is no JSON.
    """
    if not path.startswith("/") or path.startswith("//"):  # a URL would carry the token elsewhere
        raise ClientError("The path must begin with one /")
    method, sent = method.upper(), None if body is None else _encoded(body)
    return Call(method=method, target=path, body=sent, read=_any, repeatable=method in _REPEATABLE)


def following(call: Call[T], reply: Reply) -> Call[T] | None:
    """Return the call of the next page that an answer links to (RFC 8288); None where it is the last one."""
    for part in reply.headers.get("link", "").split(","):
        address, _, parameters = part.strip().partition(">")
        if address.startswith("</") and not address.startswith("<//") and 'rel="next"' in parameters:
            return msgspec.structs.replace(call, target=address[1:])
    return None


def as_renewed(own: OwnSession, token: str) -> RenewedSession:
    """Return what a renewal was answered that another process has made."""
    return RenewedSession(
        id=own.id,
        token=token,
        expires_at=own.expires_at,
        renewal_count=own.renewal_count,
        max_renewals=own.max_renewals,
        absolute_expires_at=own.absolute_expires_at,
        last_renewed_at=own.last_renewed_at or own.created_at,
    )


def _any(reply: Reply) -> Any:
    if not reply.body:
        return None
    try:
        return msgspec.json.decode(reply.body)
    except (ValueError, RecursionError):
        raise _strange(reply) from None


def _of(conversation_id: str) -> str:
    return f"/v1/conversations/{_quoted(conversation_id)}"


def _quoted(text: str) -> str:
    """Return a segment of a path; one of dots alone would be taken for a step up (RFC 3986, section 5.2.4)."""
    try:
        quoted = urllib.parse.quote(text, safe="")
    except UnicodeEncodeError:
        raise ClientError("An id must be text that can be sent as UTF-8") from None
    return quoted.replace(".", "%2E") if quoted in {".", ".."} else quoted


def _sent(fields: dict[str, Any]) -> bytes:
    return _encoded({name: value for name, value in fields.items() if value is not None})


def _encoded(body: object) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, RecursionError) as error:
        raise ClientError(f"This cannot be sent as JSON: {error}") from None

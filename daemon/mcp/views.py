"""What the tools answer where that is not what the API answers: no token, and times that need no clock to be read."""

import msgspec

from daemon.domain.conversation_views import ConversationView
from daemon.domain.view import View
from daemon.domain.views import OwnSession, RenewedSession


class SessionStatus(OwnSession):
    """The session, and in how many seconds it expires and may be renewed; times are Unix seconds."""

    expires_in: int
    renewable_in: int


class Renewed(View):
    """What became of the session with its renewal; the new token is the server's business."""

    id: str
    expires_at: int
    expires_in: int
    renewal_count: int
    max_renewals: int
    absolute_expires_at: int
    last_renewed_at: int


class Conversations(View):
    """Conversations of the agent, newest first."""

    conversations: list[ConversationView]


def status(session: OwnSession, now: int) -> SessionStatus:
    """Return a session with what is left of it at `now`, in Unix seconds."""
    known = {name: getattr(session, name) for name in session.__struct_fields__}
    return SessionStatus(
        **known,
        expires_in=max(0, session.expires_at - now),
        renewable_in=max(0, session.renewable_at - now),
    )


def renewed(session: RenewedSession, now: int) -> Renewed:
    """Return a renewal without its token; `now` in Unix seconds."""
    known = {name: getattr(session, name) for name in session.__struct_fields__ if name != "token"}
    return Renewed(**known, expires_in=max(0, session.expires_at - now))


def plain(answer: View) -> dict[str, object]:
    """Return an answer as JSON has it."""
    made: dict[str, object] = msgspec.json.decode(msgspec.json.encode(answer))
    return made

"""What a token says of itself, unverified: enough to plan with, since the daemon alone decides what it is worth."""

import base64

import msgspec

from daemon.client.errors import NoSession
from daemon.domain.ids import is_id
from daemon.domain.tokens import MAX_LENGTH, PREFIX


class Claims(msgspec.Struct, frozen=True):
    """The claims of a token that matter to its holder (RFC 7519): session, agent, generation, times in Unix seconds."""

    sub: str
    agt: str
    gen: int
    exp: int


def claims(token: str, origin: str) -> Claims:
    """Return what a token says.

    Args:
        token: with its prefix.
        origin: where it came from, for the error.

    Raises:
        NoSession: it is no session token.
    """
    try:
        _, payload, _ = token.removeprefix(PREFIX).split(".")
        said = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=Claims)
    except (ValueError, RecursionError):
        said = None
    if said is None or len(token) > MAX_LENGTH or not token.startswith(PREFIX) or not is_id(said.sub):
        raise NoSession(f"What {origin} holds is no session token ({PREFIX}…)")
    return said

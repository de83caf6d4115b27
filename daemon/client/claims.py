"""What a token says of itself, unverified: enough to plan with, since the daemon alone decides what it is worth."""

import base64
import re

import msgspec

from daemon.client.errors import NoSession
from daemon.domain.ids import is_id
from daemon.domain.tokens import MAX_LENGTH, PREFIX

_TOKEN = re.compile(rf"{PREFIX}[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")


class Claims(msgspec.Struct, frozen=True):
    """The claims that matter to a token's holder: session, agent, generation, and from when to when (Unix seconds)."""

    sub: str
    agt: str
    gen: int
    iat: int
    exp: int


def claims(token: str, origin: str) -> Claims:
    """Return what a token says (a JWT, RFC 7519).

    Args:
        token: with its prefix.
        origin: where it came from, for the error.

    Raises:
        NoSession: it is no session token.
    """
    said = _read(token)
    if said is None or not is_id(said.sub):
        raise NoSession(f"What {origin} holds is no session token ({PREFIX}…)")
    return said


def _read(token: str) -> Claims | None:
    match = _TOKEN.fullmatch(token)
    if match is None or len(token) > MAX_LENGTH:
        return None
    try:
        payload = base64.urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4))
        return msgspec.json.decode(payload, type=Claims)
    except (ValueError, RecursionError):
        return None

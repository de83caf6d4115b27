"""An agent that passed the session check; what `auth` hands to the other services."""

import msgspec

from daemon.stores.live import LiveSession


class Caller(msgspec.Struct, gc=False):
    """An agent that passed the session check.

    Args:
        live: its session.
        token: what it presented.
        digest: the token's hash.
        previous: whether the token is the previous generation, asking for a lost answer.
    """

    live: LiveSession
    token: str
    digest: str
    previous: bool

    def __repr__(self) -> str:
        return f"Caller({self.live.session.id})"

"""Verifiers as the API shows them, and what is answered to one (RFC 7662, RFC 7009)."""

from msgspec import UNSET, UnsetType

from daemon.domain.states import State
from daemon.domain.view import View


class VerifierView(View):
    """A service that may ask whether a token is good; `lastUsedAt` is to the minute."""

    id: str
    name: str
    may_revoke: bool
    created_at: int
    revoked_at: int | None
    last_used_at: int | None


class AddedVerifier(View):
    """A new verifier; the credential is shown this once."""

    id: str
    name: str
    may_revoke: bool
    created_at: int
    credential: str

    def __repr__(self) -> str:
        return f"AddedVerifier({self.id})"


class Introspection(View, rename=None):
    """Whether a token is good, and whose it is (RFC 7662, section 2.2); of one that is not, nothing else is told.

    `sub` is the session, `client_id` its agent and `client_name` the agent's name; `scope` has the patterns of
    `allowedOperations`, or `*`. `session_state`, `user_id` and `workspace_id` are this daemon's own.
    """

    active: bool
    sub: str | UnsetType = UNSET
    client_id: str | UnsetType = UNSET
    client_name: str | UnsetType = UNSET
    scope: str | UnsetType = UNSET
    token_type: str | UnsetType = UNSET
    exp: int | UnsetType = UNSET
    iat: int | UnsetType = UNSET
    iss: str | UnsetType = UNSET
    session_state: State | UnsetType = UNSET
    user_id: str | UnsetType = UNSET
    workspace_id: str | UnsetType = UNSET


class RevokedToken(View):
    """The token is not good, or not any more: which of these is not told (RFC 7009, section 2.2)."""

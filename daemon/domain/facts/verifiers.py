"""Facts about verifiers: services that may ask whether a token is good."""

from typing import ClassVar

from daemon.domain.events import Fact


class VerifierAdded(Fact, frozen=True, kw_only=True):
    """A service was given a credential with which it may ask whether a token is good."""

    type: ClassVar[str] = "VERIFIER_ADDED"
    verifier_id: str
    name: str
    may_revoke: bool


class VerifierRevoked(Fact, frozen=True, kw_only=True):
    """A verifier's credential is refused from now on; `reason` is `manual_revoke` or `restored`."""

    type: ClassVar[str] = "VERIFIER_REVOKED"
    verifier_id: str
    name: str
    reason: str

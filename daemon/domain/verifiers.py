"""Verifiers: services that may ask whether a token is good, decided on the whole list of them."""

import msgspec

from daemon.domain.changes import Outcome, Rows
from daemon.domain.errors import VERIFIER_NOT_FOUND, DaemonError
from daemon.domain.facts.verifiers import VerifierAdded, VerifierRevoked
from daemon.domain.oauth_views import VerifierView
from daemon.domain.rows import Verifier


def view(verifier: Verifier) -> VerifierView:
    """Return the verifier as the API shows it."""
    return VerifierView(
        id=verifier.id,
        name=verifier.name,
        may_revoke=verifier.may_revoke,
        created_at=verifier.created_at,
        revoked_at=verifier.revoked_at,
        last_used_at=verifier.last_used_at,
    )


def add(_rows: Rows, now: int, *, verifier: Verifier) -> Outcome[Verifier]:
    """Add a verifier."""
    made = msgspec.structs.replace(verifier, created_at=now)
    fact = VerifierAdded(verifier_id=made.id, name=made.name, may_revoke=made.may_revoke)
    return Outcome(answer=made, new_verifier=made, facts=(fact,))


def revoke(rows: Rows, now: int, *, verifier_id: str) -> Outcome[Verifier]:
    """Refuse a verifier's credential from now on; repeated, nothing changes.

    Raises:
        DaemonError: VERIFIER_NOT_FOUND.
    """
    verifier = next((one for one in rows.verifiers if one.id == verifier_id), None)
    if verifier is None:
        raise DaemonError(VERIFIER_NOT_FOUND)
    if verifier.revoked_at is not None:
        return Outcome(answer=verifier)
    revoked, fact = _revoked(verifier, now, "manual_revoke")
    return Outcome(answer=revoked, verifiers=(revoked,), facts=(fact,))


def revoke_every(rows: Rows, now: int, *, reason: str) -> Outcome[int]:
    """Refuse the credentials of all verifiers from now on; the answer is of how many."""
    changed = [_revoked(one, now, reason) for one in rows.verifiers if one.revoked_at is None]
    return Outcome(
        answer=len(changed),
        verifiers=tuple(verifier for verifier, _ in changed),
        facts=tuple(fact for _, fact in changed),
    )


def _revoked(verifier: Verifier, now: int, reason: str) -> tuple[Verifier, VerifierRevoked]:
    revoked = msgspec.structs.replace(verifier, revoked_at=now)
    return revoked, VerifierRevoked(verifier_id=verifier.id, name=verifier.name, reason=reason)

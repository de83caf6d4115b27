"""A token that lies in no file: whatever this process opens for one session shares one, so that it is renewed once."""

import os
import threading
from weakref import WeakValueDictionary

from daemon.client.claims import claims


class TokenCell:
    """The newest token of a session that this process knows.

    Who shares it by other ways must not renew it, since the others could not hear of the next one: a forked child, and
    whoever found it in the environment.
    """

    origin = "this session"

    def __init__(self, token: str, generation: int) -> None:
        self._token = token
        self.generation = generation
        self.may_renew = True
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Return it without the token."""
        return f"TokenCell(generation={self.generation})"

    def read(self) -> str:
        """Return the token."""
        return self._token

    def claim(self) -> "TokenCell | None":
        """Return the right to renew, or None while another thread has it."""
        return self if self._lock.acquire(blocking=False) else None

    def stage(self) -> None:
        """Do nothing: memory is there."""

    def store(self, token: str) -> None:
        """Replace the token."""
        self.generation = claims(token, "the answer").gen
        self._token = token

    def release(self) -> None:
        """Let others renew."""
        if self._lock.locked():
            self._lock.release()

    def forked(self) -> None:
        """Become a child's copy."""
        self.may_renew = False
        self._lock = threading.Lock()


_cells: WeakValueDictionary[str, TokenCell] = WeakValueDictionary()
_access = threading.Lock()


def cell(token: str, origin: str) -> TokenCell:
    """Return the cell of a token's session, which holds the newer of this token and what is known already.

    Raises:
        NoSession: it is no session token.
    """
    said = claims(token, origin)
    with _access:
        known = _cells.get(said.sub)
        if known is None or not known.may_renew:
            known = _cells[said.sub] = TokenCell(token, said.gen)
        elif known.generation < said.gen:
            known.store(token)
        return known


def lent(token: str, origin: str) -> TokenCell:
    """Return the cell of a token that others hold, too.

    Raises:
        NoSession: it is no session token.
    """
    made = TokenCell(token, claims(token, origin).gen)
    made.may_renew = False
    return made


def _forked() -> None:
    for known in list(_cells.values()):
        known.forked()
    _access.release()


os.register_at_fork(before=_access.acquire, after_in_parent=_access.release, after_in_child=_forked)

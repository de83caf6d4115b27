"""The signing secrets, read again where another daemon may have replaced them."""

import os

from daemon.crypto.tokens import SECRET_BYTES, Secrets, TokenSigner, decode_secrets, encode_secrets
from daemon.domain.changes import Outcome, Rows, Scope
from daemon.domain.events import SYSTEM
from daemon.stores.protocol import Store

SECRETS_KEY = "token_secrets"


class Signing:
    """Makes and classifies tokens with the secrets as they are stored.

    Args:
        store: the engine.
        signer: has the secrets that were read last.
    """

    def __init__(self, store: Store, signer: TokenSigner) -> None:
        self._store = store
        self._signer = signer
        self._doubts = 0
        self._settled = 0

    def doubt(self) -> None:
        """Note that another daemon may have replaced the secrets."""
        self._doubts += 1

    def replace(self, secrets: Secrets) -> None:
        """Take over what this daemon has committed; another one may have done so since."""
        self._signer.secrets = secrets
        self.doubt()

    async def signer(self) -> TokenSigner:
        """Return the signer, with secrets that no other daemon has replaced.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        certain = self._settled == self._doubts and self._store.is_current
        while not certain:
            doubts = self._doubts
            stored = await self._store.value(SECRETS_KEY)
            certain = doubts == self._doubts
            if certain and stored is not None:
                self._settled, self._signer.secrets = doubts, decode_secrets(stored)
        return self._signer


async def load_secrets(store: Store) -> Secrets:
    """Return the signing secrets, made on first use.

    Raises:
        DaemonError: STORAGE_UNAVAILABLE.
    """
    stored = await store.value(SECRETS_KEY)
    if stored is not None:
        return decode_secrets(stored)
    fresh = Secrets(os.urandom(SECRET_BYTES))

    def decide(rows: Rows, _now: int) -> Outcome[Secrets]:
        if SECRETS_KEY in rows.values:
            return Outcome(answer=decode_secrets(rows.values[SECRETS_KEY]))
        return Outcome(answer=fresh, values={SECRETS_KEY: encode_secrets(fresh)})

    return await store.change(Scope(values=(SECRETS_KEY,), while_locked=True), decide, SYSTEM)

"""One seal.key for all daemons on a database: what one of them seals the others must be able to open."""

from daemon.crypto.seal_key import SealKey
from daemon.domain.changes import Outcome, Rows, Scope
from daemon.domain.events import SYSTEM
from daemon.stores.protocol import Store

FINGERPRINT_KEY = "seal_key"


async def agree(store: Store, key: SealKey) -> bool:
    """Return whether the home has the key of the database; the first daemon on a database brings its own.

    A database that was copied knows no key yet, but may have channels: whoever cannot open them is not the first.

    Args:
        store: the engine.
        key: the home's; made where neither the home nor the database has one.

    Raises:
        DaemonError: STORAGE_UNAVAILABLE.
        HomeError: the key's file cannot be written, or holds no key.
    """
    stored, own = await store.value(FINGERPRINT_KEY), key.fingerprint()
    if stored is not None:
        return stored == own
    channels = await store.channels()
    if any(channel.enabled and key.unseal(channel.config, channel.id) is None for channel in channels):
        return False
    fingerprint = own or key.make()

    def decide(rows: Rows, _now: int) -> Outcome[str]:
        if FINGERPRINT_KEY in rows.values:
            return Outcome(answer=rows.values[FINGERPRINT_KEY])
        return Outcome(answer=fingerprint, values={FINGERPRINT_KEY: fingerprint})

    agreed = await store.change(Scope(values=(FINGERPRINT_KEY,), while_locked=True), decide, SYSTEM) == fingerprint
    if not agreed and own is None:
        key.discard()
    return agreed

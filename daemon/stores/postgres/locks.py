"""Advisory locks: for what is decided on rows that may not exist yet, and for the kill switch.

They last until the end of the transaction and come first in the one order of locks: the kill switch, these by their
numbers, then agents, sessions, conversations and answers by their keys, then the head of the audit log. Who waits for
a lock holds none that comes later, so that no two daemons wait for each other.

The rows of supervised processes and of their turns have no locks of their own: whoever decides on one, or on the places
that a home's processes take, has the lock of that home. So a place is given to one process, and who is asked to make
room does not begin to work meanwhile. Without it a session's end may be begun, which leaves its process as it is.
"""

from collections.abc import Collection, Iterable
from hashlib import blake2b
from typing import Literal

from daemon.domain.kill_switch import KEY as KILL_SWITCH
from daemon.stores.postgres.connection import Connection

Kind = Literal["value", "idempotency", "public_key", "conversation", "home"]

# Several, in the order of the array.
_TAKE = "SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS key"


def number(kind: Kind, key: str) -> int:
    """Return the number of a key's lock; should two keys share one, they only wait for each other."""
    return int.from_bytes(blake2b(f"{kind}\n{key}".encode(), digest_size=8).digest(), signed=True)


_SWITCH = number("value", KILL_SWITCH)

# A transaction that is over at once. A daemon that is frozen in the middle of one must not hold up the others for long.
_BEGIN = (
    "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = 800;"
    f" SET LOCAL idle_in_transaction_session_timeout = 3000; SELECT pg_advisory_xact_lock_shared({_SWITCH})"
)

# One that takes its time; the kill switch's is alone, so that nothing else commits once it has looked.
_BEGIN_LONG = (
    "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = 60000;"
    f" SELECT pg_advisory_xact_lock_shared({_SWITCH})"
)
_BEGIN_SWITCH = _BEGIN_LONG.replace("lock_shared", "lock")


async def begin(raw: Connection, values: Collection[str], *, long: bool) -> None:
    """Begin a transaction.

    Every transaction shares the lock of the kill switch, but the one that decides on the switch itself: that waits
    for all others, and those that come later wait for it and then read what it stored.

    Args:
        raw: the connection.
        values: keys of the key-value store that it decides on.
        long: the transaction takes its time, and so may waiting for its locks.
    """
    await raw.execute(_BEGIN_SWITCH if KILL_SWITCH in values else _BEGIN_LONG if long else _BEGIN)


async def take(raw: Connection, values: Collection[str], others: Iterable[int]) -> None:
    """Go on when nobody else decides on these keys; nobody will until the transaction ends.

    Args:
        raw: the connection, in a transaction that has no other lock yet.
        values: keys of the key-value store.
        others: numbers of other locks.
    """
    numbers = sorted({*(number("value", key) for key in values if key != KILL_SWITCH), *others})
    if numbers:
        await raw.execute(_TAKE, numbers)

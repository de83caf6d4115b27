"""Opening the conversations in Redis."""

from collections.abc import Callable

from daemon.stores.conversations import EngineConversations
from daemon.stores.protocol import Store
from daemon.stores.redis.conversations import RedisConversations
from daemon.stores.redis.keys import Keys
from daemon.stores.redis.link import Link


async def open_conversations(
    store: Store, engine: EngineConversations, *, url: str, key_prefix: str, ttl: int, report: Callable[..., None]
) -> RedisConversations:
    """Connect to a Redis, or begin without it while it is away.

    Args:
        store: the engine.
        engine: the conversations in it.
        url: of the server.
        key_prefix: what its keys begin with.
        ttl: seconds without use after which a conversation is over.
        report: puts one line into the structured log.

    Raises:
        UnfitError: it can never serve.
        DaemonError: STORAGE_UNAVAILABLE.
    """
    opened = RedisConversations(store, engine, link=Link(url), keys=Keys(key_prefix), ttl=ttl, report=report)
    try:
        await opened.start()
    except BaseException:
        await opened.close()
        raise
    return opened

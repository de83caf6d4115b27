"""The connection to a Redis: bounded in number and in time, and told when the server is another one."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from daemon.stores.redis import scripts
from daemon.stores.redis.failures import FAILURES, AwayError, Restarted, away, not_a_redis, unfit
from daemon.stores.terms import UnfitError

TIMEOUT = 0.3
"""Seconds that one request may take, connecting included."""
BULK_TIMEOUT = 5.0
"""Seconds for many at once, where no agent waits."""
CONNECTIONS = 16
OLDEST = 6
"""The least major version: KEEPTTL."""
_SCHEMES = ("redis://", "rediss://")


class Server(msgspec.Struct, frozen=True):
    """Which server answers; `run_id` changes whenever it is started."""

    run_id: str
    version: str
    mode: str


class Look(msgspec.Struct, frozen=True):
    """What a look at a server found.

    Args:
        server: which answers.
        seconds: an answer takes.
        read_only: whether it is a replica, which takes no writes.
        policy: what it drops when its memory is full; `noeviction` is nothing.
        memory: bytes that it may use; 0 is no limit.
    """

    server: Server
    seconds: float
    read_only: bool
    policy: str
    memory: int


class Link:
    """A Redis that runs our scripts.

    Args:
        url: `redis://` or `rediss://`, with user and password where it wants them.

    Raises:
        UnfitError: the URL is none of these.
    """

    def __init__(self, url: str) -> None:
        self._pool = _pool(url, self._greet)
        self._client = Redis(connection_pool=self._pool)
        self._scripts = {text: self._client.register_script(text) for text in scripts.ALL}
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self.server: Server | None = None
        """The server that is trusted; a connection to any other one fails. None trusts whoever answers."""
        self.away: AwayError | None = None
        """Set while nothing but `greet` and `run_many` may ask."""

    async def run(self, script: str, key: str, *values: str | bytes | int) -> list[Any]:
        """Run a script on a key and return its answer; one round trip.

        Raises:
            AwayError: Redis cannot be asked.
        """
        async with self._slots:
            if self.away is not None:
                raise self.away
            try:
                async with asyncio.timeout(TIMEOUT):
                    return list(await self._scripts[script](keys=[key], args=values))
            except FAILURES as error:
                raise away(error) from error

    async def run_many(self, script: str, calls: Iterable[tuple[str, Sequence[str | bytes | int]]]) -> list[list[Any]]:
        """Run a script on many keys in one round trip, also while `away`; each on its own, not all or none.

        Args:
            script: which.
            calls: key and values of each.

        Raises:
            AwayError: Redis cannot be asked.
        """
        run = self._scripts[script]
        try:
            async with asyncio.timeout(BULK_TIMEOUT), self._client.pipeline(transaction=False) as pipeline:
                for key, values in calls:
                    await run(keys=[key], args=values, client=pipeline)
                return [list(answer) for answer in await pipeline.execute()]
        except FAILURES as error:
            raise away(error) from error

    async def greet(self, probe: str) -> Server:
        """Connect anew, and return who answers once it has proved that it takes writes.

        Args:
            probe: a key that nobody else uses.

        Raises:
            AwayError: it cannot be asked, or takes no writes.
            UnfitError: it can never serve.
        """
        self.server = None
        try:
            async with asyncio.timeout(TIMEOUT):
                # Those that are in use end with their own request.
                await self._pool.disconnect(inuse_connections=False)
                server = _server(await self._client.info())
                _check(server)
                await self._scripts[scripts.PROBE](keys=[probe])
        except FAILURES as error:
            raise unfit(error) or away(error) from error
        return server

    async def look(self, probe: str) -> Look:
        """Return what the server says of itself; nothing is written.

        Args:
            probe: a key that nobody else uses.

        Raises:
            AwayError: it cannot be asked.
            UnfitError: it can never serve.
        """
        try:
            async with asyncio.timeout(TIMEOUT):
                info = await self._client.info()
                _check(server := _server(info))
                asked = time.monotonic()
                await self._client.get(probe)
        except FAILURES as error:
            raise unfit(error) or away(error) from error
        seconds, fields = time.monotonic() - asked, _fields(info)
        policy, memory = fields.get("maxmemory_policy", "noeviction"), int(fields.get("maxmemory", "0"))
        return Look(server, seconds, fields.get("role") == "slave", policy, memory)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()
        await self._pool.disconnect()

    async def _greet(self, connection: Connection) -> None:
        """Log in on a new connection, and make sure of the server: a restarted one may hold what is old."""
        await connection.on_connect()
        if self.server is None:
            return
        await connection.send_command("INFO", "server")
        answer = await connection.read_response()
        if _fields(answer).get("run_id") != self.server.run_id:
            raise Restarted


def _pool(url: str, greet: Any) -> ConnectionPool:
    try:
        options: dict[str, Any] = dict(parse_url(url)) if url.startswith(_SCHEMES) else {}
    except ValueError:
        options = {}
    if not options.get("host") or not options.keys() <= _OPTIONS:
        raise UnfitError(
            "conversations.url must be redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], or rediss:// for TLS"
        )
    return ConnectionPool(
        **options,
        redis_connect_func=greet,
        max_connections=2 * CONNECTIONS,
        socket_timeout=None,
        socket_connect_timeout=TIMEOUT,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )


_OPTIONS = frozenset({"host", "port", "username", "password", "db", "connection_class"})


def _fields(info: object) -> dict[str, str]:
    """Return the fields of an INFO answer; empty if it is none."""
    if isinstance(info, dict):
        return {str(name): str(value) for name, value in info.items()}
    text = info.decode(errors="replace") if isinstance(info, bytes) else ""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def _server(info: object) -> Server:
    fields = _fields(info)
    return Server(fields.get("run_id", ""), fields.get("redis_version", ""), fields.get("redis_mode", "standalone"))


def _check(server: Server) -> None:
    major = server.version.partition(".")[0]
    if not server.run_id or not major.isdecimal():
        raise not_a_redis()
    if int(major) < OLDEST:
        raise UnfitError(f"the Redis of conversations.url is {server.version}: {OLDEST}.0 or newer is needed")
    if server.mode != "standalone":
        raise UnfitError(f"conversations.url names a Redis {server.mode}: name one Redis, not a cluster or a sentinel")

"""The HTTP client that all channels share: bounded in time and size, and silent about URLs."""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NamedTuple

import httpx
import msgspec

from daemon import __version__
from daemon.notify.failure import SendFailed
from daemon.notify.links import is_loopback

TIMEOUT = 10.0
"""Seconds that a request may take from connecting to the last byte of its answer."""
LARGEST = 64 << 10
"""Bytes of an answer, or of one line of a stream."""
_LIMITS = httpx.Limits(max_connections=50, max_keepalive_connections=10, keepalive_expiry=30)
# An answer that is not compressed cannot unpack to more than was counted.
_HEADERS = {"User-Agent": f"agent-session-daemon/{__version__}", "Accept-Encoding": "identity"}


class Answer(NamedTuple):
    """A complete answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def good(self) -> bool:
        """Whether the status says success."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Return the body as JSON; None if it is none."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None


class Http:
    """Sends requests; no redirect is followed, no cookie kept.

    Proxies of the environment are used, but never for addresses of this machine.

    Args:
        timeout: seconds for each request as a whole.
        wall: returns Unix seconds.
    """

    def __init__(self, *, timeout: float = TIMEOUT, wall: Callable[[], float] = time.time) -> None:
        self.wall = wall
        self._timeout = timeout
        self._clients: dict[bool, httpx.AsyncClient] = {}
        self._trusted: ssl.SSLContext | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        wait: float = 0,
    ) -> Answer:
        """Return the answer, whatever its status.

        Args:
            method, url, headers: of the request.
            json: its body, or
            content: the bytes of its body.
            wait: seconds that the service may hold the answer back.

        Raises:
            SendFailed: there is no answer within the time, or a larger one than `LARGEST`.
        """
        sent = dict(headers or {})
        if json is not None:
            content = msgspec.json.encode(json)
            sent["Content-Type"] = "application/json"
        with _told():
            async with asyncio.timeout(self._timeout + wait):
                async with self._client(url).stream(method, url, content=content, headers=sent) as response:
                    return Answer(response.status_code, response.headers, await _body(response))

    async def lines(
        self, url: str, *, headers: Mapping[str, str], silence: float
    ) -> AsyncGenerator[bytes | Answer, None]:
        """Yield the lines of an answer that does not end; a refusal is the only thing yielded, as an answer.

        Ends when the connection does, or when nothing came for `silence` seconds.

        Raises:
            SendFailed: the service cannot be reached.
        """
        with _told():
            async with asyncio.timeout(self._timeout):
                client = self._client(url)
                response = await client.send(client.build_request("GET", url, headers=headers), stream=True)
        try:
            if response.status_code != 200:
                yield await self._refusal(response)
                return
            async with aclosing(_lines(response, silence)) as lines:
                async for line in lines:
                    yield line
        finally:
            await response.aclose()

    async def close(self) -> None:
        """End all connections."""
        clients = list(self._clients.values())
        self._clients.clear()
        for client in clients:
            await client.aclose()

    async def _refusal(self, response: httpx.Response) -> Answer:
        with _told():
            async with asyncio.timeout(self._timeout):
                return Answer(response.status_code, response.headers, await _body(response))

    def _client(self, url: str) -> httpx.AsyncClient:
        """Return the client for a URL: one that knows the environment's proxies, or one that does not."""
        near = is_loopback(url)
        if near not in self._clients:
            self._trusted = self._trusted or httpx.create_ssl_context()
            client = httpx.AsyncClient(
                headers=_HEADERS,
                limits=_LIMITS,
                timeout=None,  # noqa: S113 (its timeouts are for each read; ours are for the whole)
                trust_env=not near,
                verify=self._trusted,
            )
            client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            self._clients[near] = client
            _silence()
        return self._clients[near]


async def _body(response: httpx.Response) -> bytes:
    parts = bytearray()
    async for part in response.aiter_raw():
        parts += part
        if len(parts) > LARGEST:
            raise SendFailed("the answer is too large")
    return bytes(parts)


async def _lines(response: httpx.Response, silence: float) -> AsyncGenerator[bytes, None]:
    """Yield complete lines; those that are too long are left out."""
    rest = b""
    chunks = response.aiter_raw()
    while True:
        try:
            async with asyncio.timeout(silence):
                rest += await anext(chunks)
        except (StopAsyncIteration, TimeoutError, httpx.HTTPError, OSError):
            return
        *complete, rest = rest.split(b"\n")
        for line in complete:
            yield line
        # What is cut off here is no JSON any more and is dropped as such.
        rest = rest[:LARGEST]


@contextmanager
def _told() -> Iterator[None]:
    """Turn whatever goes wrong into a failure that names no URL."""
    try:
        yield
    except TimeoutError:
        raise SendFailed("timed out") from None
    except (httpx.HTTPError, httpx.StreamError, OSError) as problem:
        raise SendFailed(_reason(problem)) from None
    except (httpx.InvalidURL, ImportError, ValueError, ExceptionGroup):
        # Besides a URL this is a proxy in the environment that httpx cannot use, or lacks a package for; a group comes
        # from anyio, which connects to several addresses at once.
        raise SendFailed("the URL, or a proxy of the environment, cannot be used") from None


def _reason(problem: BaseException) -> str:
    """Return the cause of a failed connection in words of our own."""
    link: BaseException | None = problem
    while link is not None:
        if isinstance(link, ssl.SSLCertVerificationError):
            return f"certificate not trusted: {link.verify_message}"
        if isinstance(link, ssl.SSLError):
            return "TLS failed"
        if isinstance(link, ConnectionRefusedError):
            return "connection refused"
        if isinstance(link, socket.gaierror):
            return "host name not found"
        link = link.__cause__ or link.__context__
    if isinstance(problem, httpx.ProxyError):
        return "the proxy refused"
    return "cannot connect" if isinstance(problem, httpx.ConnectError) else "connection lost"


def _silence() -> None:
    """Keep httpx and httpcore out of every log: their lines hold URLs, and some URLs hold tokens."""
    for name in ("httpx", *logging.root.manager.loggerDict):
        if name == "httpx" or name.partition(".")[0] == "httpcore":
            logging.getLogger(name).disabled = True

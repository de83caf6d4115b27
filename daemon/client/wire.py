"""HTTP to the daemon, with and without asyncio: the unix socket, or TCP."""

import ssl
import threading
from typing import Any

import httpx

from daemon.client.effects import Lost, NotSent, Reply, Send
from daemon.client.errors import ClientError, Unreachable
from daemon.client.finding import Address, Locate

_CONNECT = 5.0
"""Seconds to a connection: the daemon is near."""
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


def _options(at: Address) -> dict[str, Any]:
    # Loading the certificates of a TLS context that plain HTTP never uses takes longer than most requests.
    verify = ssl.create_default_context() if at.url.startswith("https:") and not at.socket else False
    return {"uds": at.socket, "verify": verify, "trust_env": False, "limits": httpx.Limits(max_connections=None)}


def _headers(send: Send) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {send.token}", "Accept": "application/json"}
    return headers if send.body is None else {**headers, "Content-Type": "application/json"}


def _timeout(send: Send) -> httpx.Timeout:
    return httpx.Timeout(send.timeout, connect=min(send.timeout, _CONNECT))


def _reply(response: httpx.Response, at: Address) -> Reply:
    headers = {name: response.headers[name] for name in ("retry-after", "link") if name in response.headers}
    return Reply(response.status_code, headers, response.content, str(at))


def _failure(error: Exception, at: Address) -> Exception:
    if isinstance(error, _NEVER_SENT):
        return NotSent(f"No daemon answers at {at}")
    if isinstance(error, httpx.TransportError) and not isinstance(error, httpx.LocalProtocolError):
        return Lost(f"The connection to {at} ended before the answer")
    return ClientError(f"This cannot be sent: {type(error).__name__}")


def _found(locate: Locate) -> Address:
    try:
        return locate()
    except Unreachable as error:
        raise NotSent(str(error)) from None


class Wire:
    """Connections of one process; used by many threads.

    Args:
        locate: says where the daemon is.
    """

    def __init__(self, locate: Locate) -> None:
        self._locate = locate
        self._open: tuple[Address, httpx.Client] | None = None
        self._opening = threading.Lock()

    def send(self, send: Send) -> Reply:
        """Send a request; raises NotSent, Lost, or ClientError where it cannot be sent at all."""
        at = _found(self._locate)
        with self._opening:
            client = self._client(at)
        try:
            response = client.request(
                send.method, send.target, content=send.body, headers=_headers(send), timeout=_timeout(send)
            )
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError, ValueError) as error:
            raise _failure(error, at) from None
        return _reply(response, at)

    def _client(self, at: Address) -> httpx.Client:
        known = self._open
        if known is not None and known[0] == at:
            return known[1]
        base = "http://localhost" if at.socket else at.url
        client = httpx.Client(transport=httpx.HTTPTransport(**_options(at)), base_url=base, trust_env=False)
        self._open = (at, client)
        if known is not None:
            known[1].close()
        return client

    def close(self) -> None:
        """End every connection."""
        if self._open is not None:
            self._open[1].close()


class AsyncWire:
    """Connections of one event loop.

    Args:
        locate: says where the daemon is.
    """

    def __init__(self, locate: Locate) -> None:
        self._locate = locate
        self._open: tuple[Address, httpx.AsyncClient] | None = None

    async def send(self, send: Send) -> Reply:
        """Send a request; raises as `Wire.send`."""
        at = _found(self._locate)
        client = await self._client(at)
        try:
            response = await client.request(
                send.method, send.target, content=send.body, headers=_headers(send), timeout=_timeout(send)
            )
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError, ValueError) as error:
            raise _failure(error, at) from None
        return _reply(response, at)

    async def _client(self, at: Address) -> httpx.AsyncClient:
        known = self._open
        if known is not None and known[0] == at:
            return known[1]
        base = "http://localhost" if at.socket else at.url
        client = httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(**_options(at)), base_url=base, trust_env=False)
        self._open = (at, client)
        if known is not None:
            await known[1].aclose()
        return client

    async def close(self) -> None:
        """End every connection."""
        if self._open is not None:
            await self._open[1].aclose()

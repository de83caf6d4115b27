"""Which Host and Origin headers name this daemon: the defence against DNS rebinding and foreign web pages."""

from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec

from daemon.domain.errors import BAD_REQUEST, HOST_NOT_ALLOWED, ORIGIN_NOT_ALLOWED, DaemonError

_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class HostPolicy(msgspec.Struct, frozen=True):
    """The allowed names, lower case.

    A foreign Referer is not refused: a link may be followed from anywhere, and without an Origin
    header a web page can neither send a credential nor read the answer.

    Args:
        hosts: whole Host headers.
        names: hosts without a port; any port is allowed.
        origins: whole Origin headers.
    """

    hosts: frozenset[bytes]
    names: frozenset[bytes]
    origins: frozenset[bytes]

    @classmethod
    def of(cls, port: int | None, allowed_hosts: Iterable[str] = (), public_url: str = "") -> "HostPolicy":
        """Make the policy.

        Args:
            port: that the TCP listener is really bound to; None without one.
            allowed_hosts: further HOST:PORT, or HOST for any port.
            public_url: http(s)://HOST[:PORT] or empty.
        """
        hosts = {name for local in _LOCAL for name in _spellings("http", local, port)} if port else set()
        names = set()
        for entry in allowed_hosts:
            name, separate, digits = entry.lower().rpartition(":")
            if separate and digits.isdecimal() and not _is_bare_ipv6(name):
                hosts.update(_spellings("http", name, int(digits)))
            else:
                names.add(entry.lower())
        origins = {f"http://{host}" for host in hosts}
        if public_url:
            url = urlsplit(public_url.lower())
            host = url.netloc.rpartition(":")[0] if url.port else url.netloc
            public = _spellings(url.scheme, host, url.port or _DEFAULT_PORTS[url.scheme])
            hosts |= public
            origins |= {f"{url.scheme}://{name}" for name in public}
        return cls(_encoded(hosts), _encoded(names), _encoded(origins))

    def check_host(self, host: bytes | None) -> DaemonError | None:
        """Return why a Host header is refused, or None if it is allowed.

        A request without exactly one is malformed (RFC 9112, section 3.2).

        Args:
            host: its value; several are joined by commas, which no host contains.
        """
        if host is None or b"," in host:
            return DaemonError(BAD_REQUEST, "There must be exactly one Host header")
        lowered = host.lower()
        return None if lowered in self.hosts or self._is_named(lowered) else DaemonError(HOST_NOT_ALLOWED)

    def check_origin(self, origin: bytes) -> DaemonError | None:
        """Return why an Origin header is refused, or None if it names this daemon."""
        lowered = origin.lower()
        if lowered in self.origins or (lowered.startswith(b"http://") and self._is_named(lowered[7:])):
            return None
        return DaemonError(ORIGIN_NOT_ALLOWED)

    def _is_named(self, host: bytes) -> bool:
        name, _, digits = host.rpartition(b":")
        return host in self.names or (name in self.names and digits.isdigit())


def _spellings(scheme: str, host: str, port: int | None) -> set[str]:
    spelled = {f"{host}:{port}"}
    return spelled | {host} if port == _DEFAULT_PORTS[scheme] else spelled


def _is_bare_ipv6(name: str) -> bool:
    return ":" in name and not name.endswith("]")


def _encoded(texts: Iterable[str]) -> frozenset[bytes]:
    return frozenset(text.encode() for text in texts)

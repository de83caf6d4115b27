"""What kind of place a URL leads to, without asking a resolver."""

import ipaddress
from urllib.parse import urlsplit

_PRIVATE = (".localhost", ".local", ".internal", ".lan", ".home.arpa")
"""Names that never resolve on the internet (RFC 6761, 6762, 8375), and two that are used as such."""


def is_loopback(url: str) -> bool:
    """Return whether a URL leads to this machine."""
    host = _host(url)
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def is_public(url: str) -> bool:
    """Return whether a URL looks as if anybody could open it: Telegram and Discord refuse messages with others."""
    host = _host(url)
    address = _address(host)
    if address is not None:
        return address.is_global
    return "." in host.strip(".") and not host.endswith(_PRIVATE)


def without_userinfo(url: str) -> str:
    """Return a URL without the credentials that may stand before its host."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None

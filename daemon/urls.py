"""Hosts and addresses: what is well formed, and what of them may be shown."""

import ipaddress
import re
from urllib.parse import unquote, urlsplit

_NAME = r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"
HOST = re.compile(rf"({_NAME}|\[[0-9A-Fa-f:.]+\])(:[1-9][0-9]{{0,4}})?")
"""HOST or HOST:PORT."""
SQLITE = "sqlite:///"
_POSTGRESQL = re.compile(r"postgres(?:ql)?://(?:[^/?#]*@)?[^/?#@]*/[^/?#]+(?:\?[^#]+)?")
_REDIS = re.compile(r"rediss?://(?:[^/?#@]*@)?[^/?#@]+(?:/[0-9]{0,4})?(?:\?[^#]+)?")
_SECRET_OPTION = re.compile(r"(?<=[?&])([^=&#]*)=([^&#]*)")


def is_host(text: str) -> bool:
    """Return whether this is a name or an IP address."""
    return _is_ip(text) or re.fullmatch(_NAME, text) is not None


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return text.isprintable()


def is_loopback(host: str) -> bool:
    """Return whether `host` can only be reached from this machine, without asking a resolver."""
    return host == "localhost" or (_is_ip(host) and ipaddress.ip_address(host).is_loopback)


def is_origin(url: str) -> bool:
    """Return whether this is empty, or scheme and host of a web server."""
    scheme, _, host = url.partition("://")
    return not url or (scheme in {"http", "https"} and HOST.fullmatch(host.removesuffix("/")) is not None)


def is_database(url: str) -> bool:
    """Return whether this is empty, or names an SQLite file or a PostgreSQL database."""
    return not url or _is_sqlite(url) or _is_server(url, _POSTGRESQL)


def is_redis(url: str) -> bool:
    """Return whether this is empty, or names a Redis server."""
    return not url or _is_server(url, _REDIS)


def _is_sqlite(url: str) -> bool:
    return url.isprintable() and re.fullmatch(rf"{SQLITE}[^?#%]*[^?#%/]", url) is not None


def _is_server(url: str, form: re.Pattern[str]) -> bool:
    if not url.isprintable() or " " in url or form.fullmatch(url) is None:
        return False
    try:
        urlsplit(url).port  # noqa: B018 (raises where it is none)
    except ValueError:
        return False
    return True


def masked(url: str) -> str:
    """Return a URL with `***` for the passwords in it."""
    scheme, mark, rest = url.partition("://")
    server = re.split("[/?#]", rest, maxsplit=1)[0]
    credentials, at, host = server.rpartition("@")
    user, colon, _ = credentials.partition(":")
    shown = f"{user}{colon}{'***' if colon else ''}{at}{host}"
    return scheme + mark + shown + _SECRET_OPTION.sub(_masked_option, rest[len(server) :])


def _masked_option(option: re.Match[str]) -> str:
    return f"{option[1]}=***" if "password" in unquote(option[1]).lower() else option[0]

"""Addresses as the configuration takes them: hosts, origins, URLs of databases; and how they are shown."""

import ipaddress
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

_NAME = r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"
_HOST = re.compile(rf"({_NAME}|\[[0-9A-Fa-f:.]+\])(:[1-9][0-9]{{0,4}})?")
_SQLITE = "sqlite:///"
_POSTGRESQL = re.compile(r"postgres(?:ql)?://(?:[^/?#]*@)?[^/?#@]*/[^/?#]+(?:\?[^#]+)?")
_REDIS = re.compile(r"rediss?://(?:[^/?#@]*@)?[^/?#@]+(?:/[0-9]{0,4})?(?:\?[^#]+)?")
_SECRET_OPTION = re.compile(r"(?<=[?&])([^=&#]*)=([^&#]*)")


def is_host(text: str) -> bool:
    """Return whether this may be the address or name of a listener."""
    return _is_ip(text) or re.fullmatch(_NAME, text) is not None


def is_named(text: str) -> bool:
    """Return whether this may stand in a Host header: HOST or HOST:PORT."""
    return _HOST.fullmatch(text) is not None


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
    """Return whether this is empty or `http(s)://HOST[:PORT]`."""
    scheme, _, host = url.partition("://")
    return not url or (scheme in {"http", "https"} and _HOST.fullmatch(host.removesuffix("/")) is not None)


def is_sqlite(url: str) -> bool:
    """Return whether this is `sqlite:///PATH`."""
    return url.isprintable() and re.fullmatch(rf"{_SQLITE}[^?#%]*[^?#%/]", url) is not None


def sqlite_path(url: str) -> Path | None:
    """Return the absolute path that a `sqlite:///` URL names; None for other URLs."""
    return Path("/" + url.removeprefix(_SQLITE).lstrip("/")) if url.startswith(_SQLITE) else None


def is_postgresql(url: str) -> bool:
    """Return whether this is `postgresql://[USER[:PASSWORD]@]HOST[:PORT]/NAME[?OPTIONS]`."""
    return _is_server(url, _POSTGRESQL)


def is_redis(url: str) -> bool:
    """Return whether this is empty or `redis[s]://[USER[:PASSWORD]@]HOST[:PORT][/NUMBER][?OPTIONS]`."""
    return not url or _is_server(url, _REDIS)


def _is_server(url: str, form: re.Pattern[str]) -> bool:
    if not url.isprintable() or " " in url or form.fullmatch(url) is None:
        return False
    try:
        urlsplit(url).port  # noqa: B018 (raises where it is none)
    except ValueError:
        return False
    return True


def is_database(url: str) -> bool:
    """Return whether this is empty or names a database of a kind that there is an engine for."""
    return not url or is_sqlite(url) or is_postgresql(url)


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

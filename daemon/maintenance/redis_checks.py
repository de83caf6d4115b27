"""Checks of the Redis that conversations are shared in."""

from daemon.addresses import masked
from daemon.maintenance.findings import Finding, Patient, failed, ok, warning
from daemon.stores.redis.failures import AwayError
from daemon.stores.redis.keys import Keys
from daemon.stores.redis.link import Link, Look
from daemon.stores.terms import UnfitError

_MEANWHILE = "the database answers for conversations meanwhile"


async def examine(patient: Patient) -> list[Finding]:
    """Can conversations be kept there, and do they stay? Changes nothing."""
    settings = patient.config.conversations
    name = masked(settings.url).partition("?")[0]
    try:
        found = await _look(settings.url, Keys(settings.key_prefix))
    except UnfitError as error:
        detail, _, cure = error.message.partition(": ")
        return [failed("conversations", detail, cure or "let it (ACL SETUSER), or correct the user in the URL")]
    except AwayError as error:
        cure = "start it, or correct host and port in conversations.url"
        return [warning("conversations", f"{name}: {error.reason}; {_MEANWHILE}", cure)]
    return [_writable(name, settings.key_prefix, found), _eviction(found)]


async def _look(url: str, keys: Keys) -> Look:
    link = Link(url)
    try:
        return await link.look(keys.session("doctor"))
    finally:
        await link.close()


def _writable(name: str, prefix: str, found: Look) -> Finding:
    if found.read_only:
        detail = f"{name} is a read-only replica; {_MEANWHILE}"
        return warning("conversations", detail, "name the primary server in conversations.url")
    said = f"Redis {found.server.version} answers in {found.seconds * 1000:.1f} ms"
    return ok("conversations", f"{name}: {said}; every key begins with {prefix}")


def _eviction(found: Look) -> Finding:
    if found.memory and found.policy != "noeviction":
        detail = f"{found.policy}: at {found.memory >> 20} MiB it drops conversations, which the database answers then"
        cure = "give it more memory, or in its configuration: maxmemory-policy noeviction"
        return warning("conversations-memory", detail, cure)
    limit = f"at most {found.memory >> 20} MiB" if found.memory else "no limit"
    return ok("conversations-memory", f"{limit}, nothing is dropped before its time")

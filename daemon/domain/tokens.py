"""What a session token looks like and how it is stored."""

import hashlib

ISSUER = "daemon"
PREFIX = "wai_sess_"
TICKET_PREFIX = "wai_own_"
VERIFIER_PREFIX = "wai_verf_"
MAX_LENGTH = 1024
"""Characters; a token has about 350."""


def token_hash(token: str) -> str:
    """Return the lower-case hex SHA-256 of the whole prefixed token: all that is stored of it."""
    return hashlib.sha256(token.encode()).hexdigest()


def bearer(header: bytes, prefix: str) -> str | None:
    """Return the token of an Authorization header (RFC 6750, section 2.1) if it has the given prefix."""
    if header[:7].lower() != b"bearer " or len(header) > MAX_LENGTH:
        return None
    try:
        token = header[7:].decode("ascii")
    except UnicodeDecodeError:
        return None
    return token if token.startswith(prefix) else None

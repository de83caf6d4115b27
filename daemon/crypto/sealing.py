"""Sealed answers: readable only with the token that the answer replaced."""

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from daemon.domain.views import RenewedSession

NONCE_BYTES = 12
_INFO = b"daemon retry answer v1"
_decode = msgspec.json.Decoder(RenewedSession).decode


def seal(answer: RenewedSession, token: str, nonce: bytes) -> bytes:
    """Encrypt an answer with AES-256-GCM under HKDF-SHA-256 of a token (RFC 5869).

    Args:
        answer: what the lost reply said.
        token: the previous token; whoever holds it may read the answer.
        nonce: twelve random bytes; the key is used once.
    """
    box = _cipher(token).encrypt(nonce, msgspec.json.encode(answer), answer.id.encode())
    return nonce + box


def unseal(box: bytes, token: str, session_id: str) -> RenewedSession | None:
    """Return the answer if `token` opens the box."""
    try:
        text = _cipher(token).decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], session_id.encode())
    except (InvalidTag, ValueError):
        return None
    return _decode(text)


def _cipher(token: str) -> AESGCM:
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=None, info=_INFO).derive(token.encode()))

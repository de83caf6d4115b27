"""The home's own key: seals what must be readable again but not from the database file alone."""

import base64
import hashlib
import hmac
import os
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from daemon.home import HomeError
from daemon.lock import write_private

KEY_BYTES = 32
_NONCE_BYTES = 12
_SHARED = b"daemon seal key shared v1"


class _Sealed(msgspec.Struct):
    """What is stored: which key it needs, and the box."""

    key: str
    box: bytes


_decode = msgspec.json.Decoder(_Sealed).decode


class SealKey:
    """A key in a file of mode 0600, made when something is sealed for the first time.

    Args:
        path: of the file: hexadecimal, newline. The caller holds the home's lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key: bytes | None = None

    def __repr__(self) -> str:
        return "SealKey(***)"

    def seal(self, data: bytes, about: str) -> str:
        """Encrypt with AES-256-GCM (NIST SP 800-38D).

        Args:
            data: what to seal.
            about: the id of what it belongs to; the box opens for no other.

        Raises:
            HomeError: the key's file cannot be written, or holds no key: what it sealed may be saved yet.
        """
        if self._load() is None:
            self.make()
        key = self._load()
        assert key is not None  # noqa: S101 - it was just made
        nonce = os.urandom(_NONCE_BYTES)
        box = nonce + AESGCM(key).encrypt(nonce, data, about.encode())
        return msgspec.json.encode(_Sealed(_fingerprint(key), box)).decode()

    def unseal(self, sealed: str, about: str) -> bytes | None:
        """Return what was sealed; None where this key, or none, does not open it."""
        key = self._load()
        try:
            stored = _decode(sealed)
            if key is None or stored.key != _fingerprint(key):
                return None
            return AESGCM(key).decrypt(stored.box[:_NONCE_BYTES], stored.box[_NONCE_BYTES:], about.encode())
        except (msgspec.MsgspecError, InvalidTag, ValueError):
            return None

    def _load(self) -> bytes | None:
        if self._key is None:
            try:
                key = bytes.fromhex(self._path.read_text().strip())
            except (OSError, ValueError):
                return None
            self._key = key if len(key) == KEY_BYTES else None
        return self._key

    def fingerprint(self) -> str | None:
        """Return what tells this key from others and nothing about it; None where there is none."""
        key = self._load()
        return None if key is None else hmac.digest(key, _SHARED, "sha256").hex()

    def make(self) -> str:
        """Make the key and return its fingerprint.

        Raises:
            HomeError: the key's file cannot be written, or holds no key.
        """
        if self._path.exists():
            raise HomeError(f"{self._path.name} holds no readable key", "restore it, or move it away for a new one")
        key = os.urandom(KEY_BYTES)
        write_private(self._path, f"{key.hex()}\n".encode())
        self._key = key
        return hmac.digest(key, _SHARED, "sha256").hex()

    def discard(self) -> None:
        """Remove the key; the caller made it and nothing was sealed with it."""
        self._path.unlink(missing_ok=True)
        self._key = None


def _fingerprint(key: bytes) -> str:
    return base64.b32encode(hashlib.sha256(b"daemon seal key v1" + key).digest()[:10]).decode().lower()

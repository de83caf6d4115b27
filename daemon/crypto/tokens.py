"""Session tokens: `wai_sess_` and a JWT (RFC 7519) signed with HS256."""

import base64
import hmac

import jwt
import msgspec

from daemon.domain.rows import Session
from daemon.domain.tokens import ISSUER, PREFIX, token_hash

SECRET_BYTES = 32
PREVIOUS_SECRET_SECONDS = 300
"""How long the previous secret classifies tokens after a rotation."""

_HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=") + b"."


class Claims(msgspec.Struct):
    """What a token says of itself; the row is the authority on all of it."""

    iss: str
    sub: str
    agt: str
    gen: int
    jti: str
    iat: int
    exp: int


class Secrets(msgspec.Struct, frozen=True, rename="camel"):
    """The signing secrets as they are stored.

    Args:
        current: signs and classifies.
        previous: classifies until `rotated_at` + 300 s.
        rotated_at: Unix seconds of the last rotation; None before the first.
    """

    current: bytes
    previous: bytes | None = None
    rotated_at: int | None = None

    def __repr__(self) -> str:
        return f"Secrets(rotated_at={self.rotated_at})"


def encode_secrets(secrets: Secrets) -> str:
    """Return the secrets as text for the key-value store."""
    return msgspec.json.encode(secrets).decode()


def decode_secrets(text: str) -> Secrets:
    """Return the secrets that `encode_secrets` made text of."""
    return msgspec.json.decode(text, type=Secrets)


class TokenSigner:
    """Makes tokens and classifies those that match no row.

    The HMAC is keyed once: PyJWT would do it for every token, which alone costs a tenth of a renewal.

    Args:
        secrets: the current ones; assign `secrets` after a rotation.
    """

    def __init__(self, secrets: Secrets) -> None:
        self.secrets = secrets

    @property
    def secrets(self) -> Secrets:
        """The secrets in use."""
        return self._secrets

    @secrets.setter
    def secrets(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._keyed = hmac.new(secrets.current, digestmod="sha256")

    def sign(self, session: Session, jti: str) -> tuple[str, str]:
        """Return the token of the session's current generation, and its hash.

        Args:
            session: the row that the token is for.
            jti: 128 random bits in hex; stored nowhere.
        """
        issued = session.rotated_at or session.created_at
        claims = Claims(ISSUER, session.id, session.agent_id, session.generation, jti, issued, session.expires_at)
        body = _HEADER + _base64url(msgspec.json.encode(claims))
        keyed = self._keyed.copy()
        keyed.update(body)
        token = PREFIX + (body + b"." + _base64url(keyed.digest())).decode()
        return token, token_hash(token)

    def classify(self, token: str, now: int) -> Claims | None:
        """Return the claims of a token that this daemon signed with the current or the previous secret.

        Args:
            token: with its prefix.
            now: Unix seconds; the previous secret counts for 300 s after a rotation.
        """
        keys = [self._secrets.current]
        rotated = self._secrets.rotated_at
        if self._secrets.previous is not None and rotated is not None and now < rotated + PREVIOUS_SECRET_SECONDS:
            keys.append(self._secrets.previous)
        for key in keys:
            try:
                decoded = jwt.decode(
                    token.removeprefix(PREFIX),
                    key,
                    algorithms=["HS256"],
                    issuer=ISSUER,
                    options={"verify_exp": False, "verify_iat": False, "require": ["sub", "gen"]},
                )
                return msgspec.convert(decoded, Claims)
            except (jwt.InvalidTokenError, msgspec.ValidationError, ValueError, RecursionError):
                continue
        return None


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")

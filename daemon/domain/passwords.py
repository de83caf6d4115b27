"""What may be a master password."""

import unicodedata

from daemon.domain.errors import invalid

MIN_BYTES = 12
MAX_BYTES = 1024


def check_password(text: str, path: str = "password") -> str:
    """Return the password in NFC if it may be a master password.

    12–1024 bytes of UTF-8 without leading or trailing blanks or control characters; the lower bound and
    the normalisation follow NIST SP 800-63B, section 5.1.1.2.

    Args:
        text: the password.
        path: the field that an error names.

    Raises:
        DaemonError: VALIDATION_ERROR; the message never quotes the password.
    """
    normal = unicodedata.normalize("NFC", text)
    try:
        size = len(normal.encode())
    except UnicodeEncodeError:
        raise invalid((path, "must be valid UTF-8")) from None
    if not MIN_BYTES <= size <= MAX_BYTES:
        raise invalid((path, f"must have {MIN_BYTES} to {MAX_BYTES} bytes in UTF-8, has {size}"))
    if normal != normal.strip():
        raise invalid((path, "must not begin or end with blanks"))
    if any(unicodedata.category(character) == "Cc" for character in normal):
        raise invalid((path, "must not contain control characters"))
    return normal

"""What every body that the API accepts has in common, and the texts in it."""

from typing import Any

import msgspec
from msgspec import UNSET

ONE_LINE = r"^(?=.*\S)[^\x00-\x1f\x7f-\x9f\u2028\u2029]*(?![\s\S])"
"""No control characters, no line separators, not blank; the look-ahead ends the text for Python and ECMA alike."""

NO_NUL = r"^[^\x00]*$"
"""PostgreSQL stores no NUL in a text."""

MAX_MODEL = 200


class Body(msgspec.Struct, kw_only=True, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Base of everything that is accepted."""

    def problems(self) -> list[tuple[str, str]]:
        """Return what the types cannot say: problems as (dotted path, message)."""
        return []

    def changes(self) -> dict[str, Any]:
        """Return the fields that were sent, by their stored names; JSON objects as text."""
        sent = {name: getattr(self, name) for name in self.__struct_fields__}
        return {
            name: json_text(value) if isinstance(value, dict) else value
            for name, value in sent.items()
            if value is not UNSET
        }


def json_text(value: dict[str, Any]) -> str:
    """Return a JSON object as it is stored."""
    return msgspec.json.encode(value).decode()


def under(path: str, problems: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the problems of a part of a body as problems of the whole."""
    return [(f"{path}.{inner}" if inner else path, message) for inner, message in problems]

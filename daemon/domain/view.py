"""What everything that is answered has in common."""

import msgspec


class View(msgspec.Struct, rename="camel"):
    """Base of everything that is answered."""

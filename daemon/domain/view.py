"""What everything that is answered has in common."""

import msgspec


class View(msgspec.Struct, rename="camel"):
    """Base of everything that is answered."""


class SecretView(View):
    """Base of what shows a credential this once; its repr does not show it."""

    def __repr__(self) -> str:
        shown = (
            f"{name}={'***' if name in _SECRETS else repr(getattr(self, name))}" for name in self.__struct_fields__
        )
        return f"{type(self).__name__}({', '.join(shown)})"


_SECRETS = {"token", "ticket"}

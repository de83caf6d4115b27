"""Text that somebody else chose: made harmless for every client, and escaped for two kinds of Markdown."""

import re
from unicodedata import category

BREAK = "\u200b"
"""ZERO WIDTH SPACE, put where a client would otherwise begin to make a link.

Telegram's and Discord's patterns end at it, and so do Apple's data detectors. Android's, which ntfy uses, takes it for
a letter of a host name but knows no such top-level domain: that is why it stands after a dot, never before one. WORD
JOINER (U+2060) would do the same, but some fonts show a box for it, and lines could no longer be broken there.
"""

_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and marks that show nothing: with them a name could look empty or like another."""
_DROPPED = frozenset({"Cc", "Cf", "Cs"})
"""Controls, format characters (all bidi and zero-width ones are), lone surrogates."""
_SPACES = frozenset({"Zs", "Zl", "Zp"})

_TRIGGER = re.compile(
    r"""(?x)
      [@\#$](?=\S)           # mentions and addresses, hashtags, cashtags
    | (?<![0-9A-Za-z_])/(?=\S)  # bot commands; of `://` both
    | \.(?=\S)               # host names and addresses
    | \+(?=[0-9])            # telephone numbers
    """
)
_MARKDOWN_V2 = re.compile(r"[_*\[\]()~`>#+\-=|{}.!\\]")
_DISCORD = re.compile(r"[\\*_~`|>#+\-\[\]():<@]")


def neutralise(text: str) -> str:
    """Return text as one line in which no client finds a link, mention, hashtag, cashtag or command.

    Controls, bidi and zero-width characters go, line breaks and runs of blanks become one space, and `BREAK` follows
    each character that could start something.
    """
    plain = " ".join("".join(_shown(char) for char in text).split())
    return _TRIGGER.sub(rf"\g<0>{BREAK}", plain)


def markdown_v2(text: str) -> str:
    """Return text that Telegram's MarkdownV2 shows as it is (https://core.telegram.org/bots/api#markdownv2-style)."""
    return _MARKDOWN_V2.sub(r"\\\g<0>", text)


def discord_markdown(text: str) -> str:
    """Return text that Discord shows as it is: no style, no masked link, no `<@id>`, `<t:…>` or `<:emoji:id>`."""
    return _DISCORD.sub(r"\\\g<0>", text)


def _shown(char: str) -> str:
    if " " < char <= "~":
        return char
    kind = category(char)
    if char in "\t\n\v\f\r\x1c\x1d\x1e\x85" or kind in _SPACES:
        return " "
    return "" if kind in _DROPPED or char in _INVISIBLE else char

"""Telegram's MarkdownV2, read as strictly as the Bot API reads it, and what its clients make links of."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

RESERVED = frozenset("_*[]()~`>#+-=|{}.!\n")
PAIRS = {"*": "bold", "_": "italic", "__": "underline", "~": "strikethrough", "||": "spoiler", "[": "link", "`": "code"}
ENDS = {
    **{kind: mark for mark, kind in PAIRS.items()},
    "link": "]",
    "pre": "```",
    "language": "```",
    "emoji": "]",
    "quote": "\n",
}
NAMES = {
    **{kind: kind.capitalize() for kind in PAIRS.values()},
    "link": "TextUrl",
    "pre": "Pre",
    "language": "PreCode",
    "emoji": "CustomEmoji",
}
ORDER = [
    *("blockquote", "expandable_blockquote", "pre", "code", "text_link", "text_mention"),
    *("bold", "italic", "underline", "strikethrough", "spoiler", "custom_emoji"),
]
RAW = ("code", "pre", "language")

WEB_LINK = re.compile(
    r"""(?ix)
    (?P<protocol> \b(?:https?|ftp|tg|ton|tonsite)://[^\s<>]+ )
    | (?P<mail> [\w.+-]+ @ [\w-]+ (?:\.[\w-]+)+ )
    | (?P<domain> [\w-]+ (?:\.[\w-]+)* \. (?:[^\W\d_]{2,}|xn--[a-z0-9-]+) (?![\w]) )
    | (?P<address> (?<![\w.]) \d{1,3}(?:\.\d{1,3}){3} (?![\w]) )
    """
)
NAME_LINK = re.compile(
    r"""(?x)
    (?<!\w) @ [A-Za-z0-9_]{3,}
    | (?<![\w\u200c]) \# (?=[\w\u200c]*[^\W\d_]) [\w\u200c]+
    | (?<![\w$]) \$ [A-Z]{1,8} (?![\w$])
    | (?<![\w/<>]) / [A-Za-z0-9_]{1,64} (?:@[A-Za-z0-9_]{3,32})? (?![\w/<>])
    """
)


class ParseError(Exception):
    """The text is not MarkdownV2; the message is the Bot API's, after `can't parse entities: `."""


@dataclass(frozen=True)
class Entity:
    """A formatted part of the plain text; offset and length in UTF-16 code units, as in the Bot API.

    Args:
        kind: as the Bot API's `MessageEntity.type`.
        url: where a `text_link` leads, or the `tg://user?id=` of a `text_mention`.
    """

    kind: str
    offset_utf16: int
    length_utf16: int
    url: str | None = None


@dataclass(frozen=True)
class Parsed:
    """What a reader sees, and how it is formatted."""

    plain: str
    entities: list[Entity]


@dataclass
class _Open:
    kind: str
    offset: int
    at: int
    start: int


def utf16_length(text: str) -> int:
    """Return the length of a text in UTF-16 code units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def parse(text: str) -> Parsed:
    """Read MarkdownV2.

    Raises:
        ParseError: a reserved character is not escaped, or an entity has no end.
    https://core.telegram.org/bots/api#markdownv2-style
    """
    return _Parser(text).run()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.i = 0
        self.plain: list[str] = []
        self.length = 0
        self.entities: list[Entity] = []
        self.open: list[_Open] = []
        self.line_start = True

    def run(self) -> Parsed:
        while self.i < len(self.text):
            self._step()
        if self.open and self.open[-1].kind == "quote":
            self._close("blockquote")
        if self.open:
            raise ParseError(f"Can't find end of {NAMES[self.open[-1].kind]} entity at byte offset {self.open[-1].at}")
        self.entities.sort(key=lambda entity: (entity.offset_utf16, -entity.length_utf16, ORDER.index(entity.kind)))
        return Parsed("".join(self.plain), self.entities)

    def _step(self) -> None:
        char, top = self.text[self.i], self.open[-1].kind if self.open else ""
        if char == "\\" and "\x01" <= self.text[self.i + 1 : self.i + 2] <= "~":
            self.i += 1
            self._emit(self.text[self.i])
            self.line_start = False
        elif char not in ("`" if top in RAW else RESERVED):
            self._emit(char)
        elif not self._end(top):
            self._begin(char)

    def _emit(self, char: str) -> None:
        self.plain.append(char)
        self.length += utf16_length(char)
        self.i += 1
        self.line_start = char == "\n" or (char == "\r" and self.line_start)

    def _end(self, top: str) -> bool:
        """End the innermost entity, if it ends here."""
        if top == "quote":
            return self._end_quote()
        mark = ENDS.get(top)
        if mark is None or not self.text.startswith(mark, self.i):
            return False
        if top == "italic" and self.text.startswith("__", self.i):
            return False
        self.i += len(mark)
        if top == "link":
            self._close_link()
        elif top == "emoji":
            self._close_emoji()
        else:
            self._close("pre" if top == "language" else top)
        return True

    def _end_quote(self) -> bool:
        expandable = re.compile(r"\|\|(?=[\r\n]|\Z)").match(self.text, self.i)
        if expandable:
            self.i += 2
            while self.text.startswith("\r", self.i):
                self._emit("\r")
            if self.text.startswith("\n", self.i):
                self._emit("\n")
            self._close("expandable_blockquote")
            return True
        if self.text[self.i] != "\n" or self.text.startswith("\n>", self.i):
            return False
        self._emit("\n")
        self._close("blockquote")
        return True

    def _begin(self, char: str) -> None:
        if char == "\n":
            self._newline()
        elif char == ">" and self.line_start:
            self._quote()
        elif self.line_start and self.text.startswith("**>", self.i):
            self.i += 2  # two empty bold marks part two quotes
        elif self.text.startswith("```", self.i):
            self._open_pre()
        elif self.text.startswith("![", self.i):
            self._open("emoji", 2)
        elif (mark := self.text[self.i : self.i + 2]) in ("__", "||"):
            self._open(PAIRS[mark], 2)
        elif char in PAIRS:
            self._open(PAIRS[char], 1)
        else:
            raise ParseError(f"Character '{char}' is reserved and must be escaped with the preceding '\\'")

    def _newline(self) -> None:
        quoted = any(one.kind == "quote" for one in self.open)
        if quoted and not self.text.startswith("\n>", self.i):  # the quote ends, what is open in it does not
            raise ParseError(f"Can't find end of {NAMES[self.open[-1].kind]} entity at byte offset {self.open[-1].at}")
        self._emit("\n")

    def _quote(self) -> None:
        if any(one.kind == "quote" for one in self.open):
            self.i += 1
        else:
            self._open("quote", 1)

    def _open(self, kind: str, marks: int) -> None:
        at = len(self.text[: self.i].encode("utf-8", "surrogatepass"))
        self.open.append(_Open(kind, self.length, at, len(self.plain)))
        self.i += marks

    def _open_pre(self) -> None:
        language = re.compile(r"[^\s`]*").match(self.text, self.i + 3)
        end = language.end() if language else self.i + 3
        named = end > self.i + 3 and self.text[end : end + 1] not in ("", "`")
        self._open("language" if named else "pre", 3)
        if named:
            self.i = end
        if self.text[self.i : self.i + 2] in ("\r\n", "\n\r"):
            self.i += 2
        elif self.text[self.i : self.i + 1] in ("\n", "\r"):
            self.i += 1

    def _close(self, kind: str, url: str | None = None) -> None:
        begun = self.open.pop()
        if self.length > begun.offset:
            self.entities.append(Entity(kind, begun.offset, self.length - begun.offset, url))

    def _close_link(self) -> None:
        given = self.text.startswith("(", self.i)
        url = self._url("a URL") if given else "".join(self.plain[self.open[-1].start :])
        kind = link_kind(url)
        if kind:
            self._close(kind, url)
        else:
            self.open.pop()  # what is no link is shown as its text

    def _close_emoji(self) -> None:
        if not self.text.startswith("(", self.i):
            raise ParseError("Custom emoji entity must contain a tg://emoji URL")
        url = self._url("a custom emoji URL")
        if not re.fullmatch(r"(?i)tg:(//)?emoji/?\?(.*&)?id=[1-9]\d*(&.*)?(#.*)?", url):
            raise ParseError("Invalid custom emoji identifier specified")
        self._close("custom_emoji", url)

    def _url(self, what: str) -> str:
        self.i += 1
        begin = self.i
        found = re.compile(r"((?:\\[\x01-\x7e]|[^)\\]|\\(?![\x01-\x7e]))*)\)", re.DOTALL).match(self.text, begin)
        if not found:
            offset = len(self.text[:begin].encode("utf-8", "surrogatepass"))
            raise ParseError(f"Can't find end of {what} at byte offset {offset}")
        self.i = found.end()
        return re.sub(r"\\([\x01-\x7e])", r"\1", found[1], flags=re.DOTALL)


def link_kind(url: str) -> str | None:
    """Return the kind of entity that a link makes, or None if Telegram shows its text alone."""
    if re.fullmatch(r"(?i)tg:(//)?user/?\?(.*&)?id=\d+(&.*)?", url):
        return "text_mention"
    return "text_link" if is_web_url(url) else None


def is_web_url(url: str) -> bool:
    """Return whether Telegram takes this for a URL: http(s), tg or ton, and a host with a dot in it or an address."""
    try:
        parts = urlsplit(url if re.match(r"(?i)[a-z][a-z0-9+-]*:", url) else f"http://{url}")
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if parts.scheme in ("tg", "ton"):
        return bool(parts.netloc or parts.path)
    if parts.scheme not in ("http", "https", "tonsite") or not host or re.search(r"\s", url):
        return False
    return _is_ipv6(host) or bool(re.fullmatch(r"[^.]+(\.[^.]+)+", host))


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def auto_links(plain: str) -> list[str]:
    """Return what clients turn into links, mentions, hashtags, cashtags, commands and addresses by themselves."""
    found = [(match.start(), match[0]) for one in (WEB_LINK, NAME_LINK) for match in one.finditer(plain)]
    return [text for _, text in sorted(found)]

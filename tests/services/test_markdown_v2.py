"""The MarkdownV2 parser agrees with the Bot API, so that tests may trust its verdict."""

import pytest

from tests.support.services.markdown_v2 import Entity, ParseError, auto_links, parse


@pytest.mark.parametrize(
    ("text", "plain", "entities"),
    [
        ("", "", []),
        ("plain, words; 1 < 2 & 세션", "plain, words; 1 < 2 & 세션", []),
        (r"\_\*\[\]\(\)\~\`\>\#\+\-\=\|\{\}\.\!\\\a", "_*[]()~`>#+-=|{}.!\\a", []),
        ("\\➡️\\", "\\➡️\\", []),
        ("🔄 *세션 갱신*\n에이전트: a", "🔄 세션 갱신\n에이전트: a", [("bold", 3, 5)]),
        ("_i_ ~s~ ||p||", "i s p", [("italic", 0, 1), ("strikethrough", 2, 1), ("spoiler", 4, 1)]),
        ("🏟 🏟_🏟 __🏟___", "🏟 🏟🏟 🏟", [("italic", 5, 5), ("underline", 8, 2)]),
        ("__🏟 _🏟_ __", "🏟 🏟 ", [("underline", 0, 6), ("italic", 3, 2)]),
        ("`_* *_`__* *__", "_* *_ ", [("code", 0, 5), ("bold", 5, 1), ("underline", 5, 1)]),
        ("a`_* >.\\``", "a_* >.`", [("code", 1, 6)]),
        ("```py\nx = 1```", "x = 1", [("pre", 0, 5)]),
        ("``````", "", []),
        ("🏟**", "🏟", []),
        (r"[a\.b](https://e.org?q=\)\\)", "a.b", [("text_link", 0, 3, "https://e.org?q=)\\")]),
        (r"[telegram\.org]", "telegram.org", [("text_link", 0, 12, "telegram.org")]),
        ("[a](localhost)", "a", []),
        ("[a](tg://user?id=12)", "a", [("text_mention", 0, 1, "tg://user?id=12")]),
        (">*b\n>ld*\nend", "b\nld\nend", [("blockquote", 0, 5), ("bold", 0, 4)]),
        (">a\n**>b", "a\nb", [("blockquote", 0, 2), ("blockquote", 2, 1)]),
        (">q||e||w||\nx", "qew\nx", [("expandable_blockquote", 0, 4), ("spoiler", 1, 1)]),
        ("*a\n>b\n>c\nd*", "a\nb\nc\nd", [("bold", 0, 7), ("blockquote", 2, 4)]),
        (">`b\n>c\nd`\n>e\nf", "b\n>c\nd\ne\nf", [("blockquote", 0, 9), ("code", 0, 6)]),
    ],
)
def test_what_the_bot_api_accepts_is_read_as_it_reads_it(
    text: str, plain: str, entities: list[tuple[str, int, int]]
) -> None:
    parsed = parse(text)
    assert (parsed.plain, parsed.entities) == (plain, [Entity(*entity) for entity in entities])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        *(
            (char, f"Character '{char}' is reserved and must be escaped with the preceding '\\'")
            for char in "](){}#+-=|.!"
        ),
        ("a>", "Character '>' is reserved and must be escaped with the preceding '\\'"),
        ("🏟 🏟_abacaba", "Can't find end of Italic entity at byte offset 9"),
        ("🏟 🏟_abac * asd _", "Can't find end of Italic entity at byte offset 21"),
        ("🏟 🏟__🏟 _🏟___", "Can't find end of Italic entity at byte offset 23"),
        ("🏟 🏟_🏟 🏟__", "Can't find end of Underline entity at byte offset 19"),
        ("🏟 🏟`", "Can't find end of Code entity at byte offset 9"),
        ("🏟 🏟```a", "Can't find end of Pre entity at byte offset 9"),
        ("🏟 🏟```a ", "Can't find end of PreCode entity at byte offset 9"),
        ("🏟 🏟||test\\|", "Can't find end of Spoiler entity at byte offset 9"),
        (r"[telegram\.org](asd\)", "Can't find end of a URL at byte offset 16"),
        ("🏟 🏟![👍]", "Custom emoji entity must contain a tg://emoji URL"),
        (">*b\n>ld \n>bo\nld*\nasd", "Can't find end of Bold entity at byte offset 1"),
        (">\n*a*>2", "Character '>' is reserved and must be escaped with the preceding '\\'"),
        (">asd\n>q||e||w||\n||asdad", "Can't find end of Spoiler entity at byte offset 16"),
        (">asd\n>q||e||w__\n||asdad", "Can't find end of Underline entity at byte offset 13"),
    ],
)
def test_what_the_bot_api_refuses_is_refused_in_its_words(text: str, error: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("plain", "links"),
    [
        ("see http://x and https://a.b/c", ["http://x", "https://a.b/c"]),
        ("evil.com, пример.рф", ["evil.com", "пример.рф"]),
        ("ask @owner now", ["@owner"]),
        ("#urgent /start $BTC", ["#urgent", "/start", "$BTC"]),
        ("mail me@evil.org", ["me@evil.org"]),
        ("at 10.0.0.1", ["10.0.0.1"]),
        ("3/30, 27d 12h, 2026-01-02 03:04 UTC, e.g. v1.2, #1, @me, $5, a/b, end. Next", []),
        ("evil\u200b.com @\u200bowner", []),
    ],
)
def test_what_clients_link_by_themselves_is_found(plain: str, links: list[str]) -> None:
    assert auto_links(plain) == links

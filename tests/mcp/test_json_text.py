"""One member is changed, and not a byte of anything else."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.mcp.json_text import TextError, find, put, remove

ENTRY = {"command": "/opt/é/daemon", "args": ["mcp"]}
NAMES = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
)
SERVERS = st.dictionaries(st.sampled_from(["daemon", "a", "mcpServers", "x y"]), JSON, max_size=3)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Return a configuration as some program may have laid it out."""
    whole = draw(st.dictionaries(NAMES, JSON, max_size=4))
    if draw(st.booleans()):
        whole["mcpServers"] = draw(SERVERS)
        names = draw(st.permutations(list(whole)))
        whole = {name: whole[name] for name in names}
    indent = draw(st.sampled_from([None, 0, 1, 2, 4, "\t"]))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,", " : ")]))
    text = json.dumps(whole, indent=indent, separators=separators, ensure_ascii=draw(st.booleans()))
    if draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    return draw(st.sampled_from(["", " ", "\n"])) + text + draw(st.sampled_from(["", "\n"]))


@settings(max_examples=60, deadline=None)
@given(texts())
def test_what_is_put_is_found_last_and_all_else_stays(text: str) -> None:
    before = json.loads(text)
    after = put(text, "mcpServers", "daemon", ENTRY)
    servers = before.get("mcpServers", {})
    wanted = {**before, "mcpServers": {**servers, "daemon": ENTRY}}
    read = json.loads(after)
    assert read == wanted
    assert list(read) == list(wanted)
    assert list(read["mcpServers"]) == list(wanted["mcpServers"])
    assert find(after, "mcpServers", "daemon") == ENTRY
    assert put(after, "mcpServers", "daemon", ENTRY) == after


@settings(max_examples=60, deadline=None)
@given(texts())
def test_what_is_removed_leaves_the_text_as_it_was_before(text: str) -> None:
    text = remove(text, "mcpServers", "daemon")
    before = json.loads(text)
    assert "daemon" not in before.get("mcpServers", {})
    after = remove(put(text, "mcpServers", "daemon", ENTRY), "mcpServers", "daemon")
    if before.get("mcpServers"):
        assert after == text
    assert json.loads(after) == {**before, "mcpServers": before.get("mcpServers", {})}


@settings(max_examples=60, deadline=None)
@given(texts())
def test_a_removal_takes_that_member_alone(text: str) -> None:
    before = json.loads(text)
    after = json.loads(remove(text, "mcpServers", "daemon"))
    before.get("mcpServers", {}).pop("daemon", None)
    assert after == before
    assert list(after) == list(before)


@pytest.mark.parametrize("text", ["", " \n"])
def test_nothing_at_all_is_an_empty_object(text: str) -> None:
    made = put(text, "mcpServers", "daemon", ENTRY)
    assert json.loads(made) == {"mcpServers": {"daemon": ENTRY}}
    assert made.endswith("}\n")
    assert remove(text, "mcpServers", "daemon") == text


def test_the_layout_of_the_file_is_kept() -> None:
    text = '{\n    "a": 1.50,\n    "mcpServers": {\n        "x": {"y":[1,2]}\n    },\n    "b": "\\ud800 \\u00e9"\n}\n'
    assert put(text, "mcpServers", "daemon", {"command": "/d", "args": ["mcp"]}) == (
        '{\n    "a": 1.50,\n    "mcpServers": {\n        "x": {"y":[1,2]},\n'
        '        "daemon": {\n            "command": "/d",\n            "args": [\n                "mcp"\n'
        '            ]\n        }\n    },\n    "b": "\\ud800 \\u00e9"\n}\n'
    )


def test_of_two_members_of_a_name_the_last_counts_and_both_are_removed() -> None:
    text = '{"mcpServers": {"daemon": 1, "x": 2, "daemon": {"args": []}}}'
    assert find(text, "mcpServers", "daemon") == {"args": []}
    assert put(text, "mcpServers", "daemon", {}) == '{"mcpServers": {"daemon": 1, "x": 2, "daemon": {}}}'
    assert remove(text, "mcpServers", "daemon") == '{"mcpServers": {"x": 2}}'


BROKEN: list[tuple[str, str]] = [
    ("{", "is not valid JSON"),
    ('{"a": 1,}', "is not valid JSON"),
    ('{"a": 1} x', "is not valid JSON: Extra data in line 1, column 10"),
    ("{\n  // a comment\n}", "in line 2, column 3"),
    ("\ufeff{}", "is not valid JSON"),
    ("[]", "is not a JSON object"),
    ("null", "is not a JSON object"),
    ('{"mcpServers": []}', "something else than a JSON object as mcpServers"),
    ("[" * 100_000, "is nested too deeply"),
]


@pytest.mark.parametrize(("text", "problem"), BROKEN)
def test_what_is_no_such_text_is_refused_with_one_sentence(text: str, problem: str) -> None:
    def calls(*more: Any) -> None:
        for call in (find, remove):
            with pytest.raises(TextError) as caught:
                call(text, *more)
            assert problem in str(caught.value)
            assert "\n" not in str(caught.value)

    calls("mcpServers", "daemon")
    with pytest.raises(TextError):
        put(text, "mcpServers", "daemon", ENTRY)

"""The laws of usage: it only grows, is added once, and is held against the budget of which most is used."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.domain import usage
from daemon.domain.process_config import Budget
from daemon.domain.usage import Share, Usage

COUNTS = st.integers(0, 10**9)
USAGES = st.builds(
    Usage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.integers(0, 10**12).map(lambda millionths: millionths / 10**6)
)


@given(USAGES, USAGES)
def test_what_was_added_to_a_usage_is_the_difference(before: Usage, added: Usage) -> None:
    after = before.plus(added)
    assert {name: getattr(after, name) - getattr(before, name) for name in ("turns", "input_tokens")} == {
        "turns": added.turns,
        "input_tokens": added.input_tokens,
    }
    since = after.since(before)
    assert msgspec.structs.replace(since, cost_usd=0.0) == msgspec.structs.replace(added, cost_usd=0.0)
    assert since.cost_usd == pytest.approx(added.cost_usd, abs=1e-6)


@given(USAGES, USAGES)
def test_a_command_that_reports_less_than_before_takes_nothing_back(one: Usage, other: Usage) -> None:
    added = one.since(other)
    assert all(getattr(added, name) >= 0 for name in Usage.__struct_fields__)
    assert one.since(one) == Usage()


def test_costs_add_up_without_the_noise_of_floating_point() -> None:
    assert Usage(cost_usd=0.1).plus(Usage(cost_usd=0.2)).cost_usd == 0.3


@given(USAGES)
def test_a_usage_comes_back_as_it_was_stored_in_camel_case(one: Usage) -> None:
    text = msgspec.json.encode(one).decode()
    assert usage.read(text) == one
    assert list(msgspec.json.decode(text)) == [
        "turns", "inputTokens", "outputTokens", "cacheReadTokens", "cacheCreationTokens", "costUsd",
    ]  # fmt: skip


@pytest.mark.parametrize("text", [None, ""])
def test_a_session_that_used_nothing_has_a_usage_of_nothing(text: str | None) -> None:
    assert usage.read(text) == Usage()


def test_a_budget_of_tokens_bounds_all_kinds_of_them() -> None:
    assert Usage(1, 20, 300, 4_000, 50_000, 9.0).tokens == 54_320


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (None, None),
        (Budget(), None),
        (Budget(max_cost_usd=2.0), Share("maxCostUsd", 0.5, 2.0)),
        (Budget(max_tokens=400), Share("maxTokens", 300, 400)),
        (Budget(max_cost_usd=2.0, max_tokens=400), Share("maxTokens", 300, 400)),
        (Budget(max_cost_usd=0.5, max_tokens=400), Share("maxCostUsd", 0.5, 0.5)),
    ],
)
def test_the_budget_of_which_most_is_used_counts(budget: Budget | None, expected: Share | None) -> None:
    assert usage.share(Usage(input_tokens=100, output_tokens=200, cost_usd=0.5), budget) == expected


def test_the_part_of_a_budget_that_is_used_may_be_more_than_all_of_it() -> None:
    assert Share("maxTokens", 300, 400).part == 0.75
    assert Share("maxTokens", 600, 400).part == 1.5

"""What a supervised session has used up: turns, tokens and cost, held against its budget."""

from typing import Literal, NamedTuple

import msgspec

from daemon.domain.process_config import Budget

WARN_AT = 0.8
"""Part of a budget at which the owner is warned."""


class Usage(msgspec.Struct, frozen=True, rename="camel"):
    """What was used, over all runs of the session's process.

    Args:
        turns: that are over.
        input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens: as the command reported them.
        cost_usd: likewise.
    """

    turns: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    cost_usd: float = 0.0

    @property
    def tokens(self) -> int:
        """All of them: what a budget bounds."""
        return self.input_tokens + self.output_tokens + self.cache_read_tokens + self.cache_creation_tokens

    def plus(self, other: "Usage") -> "Usage":
        """Return the sum."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__}
        return Usage(**{**sums, "cost_usd": round(sums["cost_usd"], 6)})

    def since(self, before: "Usage") -> "Usage":
        """Return what was added; less than before counts for nothing."""
        names = self.__struct_fields__
        return Usage(**{name: max(0, getattr(self, name) - getattr(before, name)) for name in names})


_decode = msgspec.json.Decoder(Usage).decode


def read(text: str | None) -> Usage:
    """Return the usage that is stored of a session."""
    return _decode(text) if text else Usage()


class Share(NamedTuple):
    """How much of a budget is used; USD or tokens."""

    budget: Literal["maxCostUsd", "maxTokens"]
    used: float
    limit: float

    @property
    def part(self) -> float:
        """Of the whole: 1.0 is all of it."""
        return self.used / self.limit


def share(usage: Usage, budget: Budget | None) -> Share | None:
    """Return the budget of which the most is used; None where there is none."""
    if budget is None:
        return None
    shares = []
    if budget.max_cost_usd is not None:
        shares.append(Share("maxCostUsd", usage.cost_usd, budget.max_cost_usd))
    if budget.max_tokens is not None:
        shares.append(Share("maxTokens", usage.tokens, budget.max_tokens))
    return max(shares, key=lambda one: one.part, default=None)

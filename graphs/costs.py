"""What a run has cost, and whether its budget allows more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..configs.budget import BudgetSettings, TokenPrice
from ..memory.entries import Cost
from .lockstep import Meter
from .writing import Usage

TOKENS_PER_PRICE = 1_000_000


def to_cost(usage: Usage, meter: Meter, images_usd: float) -> Cost:
    """What an item cost, as the ledger keeps it."""
    return {
        "calls": usage.calls,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "images_usd": images_usd,
        "device_seconds": round(meter.seconds, 4),
    }


def add_costs(first: Cost, second: Cost) -> Cost:
    """What two tries of one item cost together."""
    return {
        "calls": first["calls"] + second["calls"],
        "input_tokens": dict(Counter(first["input_tokens"]) + Counter(second["input_tokens"])),
        "output_tokens": dict(Counter(first["output_tokens"]) + Counter(second["output_tokens"])),
        "images_usd": first["images_usd"] + second["images_usd"],
        "device_seconds": first["device_seconds"] + second["device_seconds"],
    }


@dataclass(slots=True)
class Ledgered:
    """The costs of all finished items, summed from the ledger."""

    prices: Mapping[str, TokenPrice]
    calls: int = 0
    input_tokens: Counter[str] = field(default_factory=Counter)
    output_tokens: Counter[str] = field(default_factory=Counter)
    images_usd: float = 0.0
    device_seconds: float = 0.0

    def add(self, cost: Cost) -> None:
        self.calls += cost["calls"]
        self.input_tokens.update(cost["input_tokens"])
        self.output_tokens.update(cost["output_tokens"])
        self.images_usd += cost["images_usd"]
        self.device_seconds += cost["device_seconds"]

    @property
    def usd(self) -> float:
        """Language models by the recipe's price table, and what hosted painters asked; other models count as free."""
        tokens = sum(self.input_tokens[name] * price.input for name, price in self.prices.items())
        tokens += sum(self.output_tokens[name] * price.output for name, price in self.prices.items())
        return self.images_usd + tokens / TOKENS_PER_PRICE

    def exhausted(self, budget: BudgetSettings) -> str:
        """Which limit is reached, as the user is told it; empty: none is."""
        if budget.usd is not None and self.usd >= budget.usd:
            return f"budget.usd={budget.usd:g} is spent ({self.usd:.2f} USD)"
        minutes = self.device_seconds / 60
        if budget.gpu_minutes is not None and minutes >= budget.gpu_minutes:
            return f"budget.gpu_minutes={budget.gpu_minutes:g} are spent ({minutes:.1f} minutes)"
        return ""

    def as_json(self, num_accepted: int) -> dict[str, float]:
        costs = {
            "usd": round(self.usd, 6),
            "llm_calls": self.calls,
            "input_tokens": self.input_tokens.total(),
            "output_tokens": self.output_tokens.total(),
            "device_seconds": round(self.device_seconds, 2),
        }
        if num_accepted:
            costs["usd_per_accepted"] = round(self.usd / num_accepted, 6)
            costs["device_seconds_per_accepted"] = round(self.device_seconds / num_accepted, 3)
        return costs

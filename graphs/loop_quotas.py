"""The next round's new instances of each class, by what the last round's brought, and the settings that make them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from math import floor

from ..configs.recipe import Recipe
from ..evaluation.gains import judge_gain
from ..evaluation.paired import PairedDifference
from .loop_state import LoopRound
from .work import WorkPlan


def first_shares(work: WorkPlan) -> dict[str, int]:
    """New instances of each class that some agent can make, as the recipe asks for them."""
    quotas = {quota.category.name: quota.num_new for quota in work.quotas}
    return {name: num_new for name, num_new in quotas.items() if num_new and name not in work.without_source}


def share_by_gains(
    shares: Mapping[str, int], gains: Mapping[str, PairedDifference], room: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Deal out a round's budget, the sum of `shares`, anew: n'(c) is proportional to n(c) * f(c).

    f(c) is 1 + gain(c) / largest gain for a class that gained beyond the noise, 0 for one that lost beyond it, and 1
    for any other. Each round starts from the first round's shares, so that noise does not compound: as no factor is
    above 2, a class that did not lose keeps at least half of its share (before rounding), and one that sat a round out
    returns, without the prompts and sources that were retired.

    Args:
        shares: new instances of each class in the first round.
        gains: of the last round, by class; an absent one is unknown.
        room: most that a class can take; an absent one takes any number. What does not fit goes to the others.
    """
    return divide(sum(shares.values()), _weights(shares, gains), room or {})


def _weights(shares: Mapping[str, int], gains: Mapping[str, PairedDifference]) -> dict[str, float]:
    verdicts = {name: judge_gain(gain) for name, gain in gains.items()}
    means = {name: gains[name].mean or 0.0 for name, verdict in verdicts.items() if verdict == "gained"}
    largest = max(means.values(), default=1.0)
    return {
        name: 0.0 if verdicts.get(name) == "lost" else share * (1 + means.get(name, 0.0) / largest)
        for name, share in shares.items()
    }


def divide(total: int, weights: Mapping[str, float], room: Mapping[str, int]) -> dict[str, int]:
    """Whole numbers in proportion to the weights, none above its room; by largest remainder, ties in the given order.

    The sum is `total`, or less where no weighted class has room left.
    """
    dealt = dict.fromkeys(weights, 0)
    open_names = [name for name, weight in weights.items() if weight > 0]
    while open_names:
        left = total - sum(dealt.values())
        ideal = _in_proportion(left, {name: weights[name] for name in open_names})
        full = [name for name in open_names if name in room and ideal[name] >= room[name]]
        if not full:
            return dealt | ideal
        dealt |= {name: room[name] for name in full}
        open_names = [name for name in open_names if name not in full]
    return dealt


def _in_proportion(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    exact = {name: total * weight / sum(weights.values()) for name, weight in weights.items()}
    whole = {name: floor(one) for name, one in exact.items()}
    by_remainder = sorted(exact, key=lambda name: whole[name] - exact[name])
    for name in by_remainder[: total - sum(whole.values())]:
        whole[name] += 1
    return whole


def room_after(rounds: Sequence[LoopRound], recipe: Recipe) -> dict[str, int]:
    """What `plan.max_per_class` leaves of each class after some rounds; empty where it bounds nothing."""
    most = recipe.plan.max_per_class
    if most is None:
        return {}
    return {name: max(0, most - sum(one.quotas.get(name, 0) for one in rounds)) for name in rounds[0].quotas}


def settings_of(rounds: Sequence[LoopRound], recipe: Recipe) -> list[str]:
    """What the last of a loop's first rounds sets above the recipe, as overrides; the very first sets nothing."""
    if len(rounds) == 1:
        return []
    extra = Counter(recipe.plan.extra)
    for one in rounds[1:]:
        extra.update(one.quotas)
    settings = [f"plan.extra={json.dumps(extra)}"]
    if retired := retired_sources(rounds, recipe):
        settings.append(f"agents.image_agent.sources.retired={json.dumps(retired)}")
    return settings


def retired_sources(rounds: Sequence[LoopRound], recipe: Recipe) -> list[int]:
    """Annotation ids that the recipe or a round retired, ascending."""
    agent = recipe.agents.image_agent
    own = agent.sources.retired if agent else ()
    return sorted({*own, *(annotation_id for one in rounds for annotation_id in one.retired_sources)})

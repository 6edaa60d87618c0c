"""How prompts were rethought: prompt, pictures, what was wrong with them, next prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..memory.artifacts import ArtifactStore
from ..memory.entries import Attempt, ItemResult, Round
from ..memory.ledger import Ledger
from .attempts import AttemptPicture, first_and_last, readable_pictures
from .sampling import RethinkSample, is_rescued
from .thumbnails import Colour, class_colour, colour_to_hex

MAX_ROUNDS = 4
"""Rounds shown of an item: its first and its last ones."""
MAX_PICTURES = 6
"""Pictures shown of a round, kept ones first."""


@dataclass(frozen=True, slots=True)
class RoundCard:
    """One prompt and what came of it."""

    number: int
    prompt: str
    strength: float
    rung: str
    shortened: str
    num_kept: int
    num_painted: int
    pictures: tuple[AttemptPicture, ...]
    reasons: tuple[str, ...]
    captions: tuple[str, ...]
    """What a vision model saw in the rejected pictures, as the next prompt's writer was told."""
    num_skipped: int
    """Rounds between the card before and this one that are not shown."""


@dataclass(frozen=True, slots=True)
class RethinkCard:
    """An item whose prompt was rethought at least once."""

    item_id: str
    class_id: int
    class_name: str
    colour: str
    is_rescued: bool
    outcome: str
    rounds: tuple[RoundCard, ...]


@dataclass(frozen=True, slots=True)
class Rethinks:
    """A sample of rethought items, rescued ones first and short histories before long ones."""

    cards: tuple[RethinkCard, ...]
    told: str
    """How many items were rethought and rescued."""


def collect_rethinks(items: Ledger[ItemResult], artifacts: ArtifactStore, sample: RethinkSample) -> Rethinks:
    """Read the sampled items and their pictures; one that does not decode is left out, its round is not.

    Raises:
        BrokenRunError: an entry of the ledger is not what we wrote.
    """
    results = filter(None, map(items.read, sample.item_ids()))
    cards = [_to_card(result, artifacts) for result in results]
    cards.sort(key=lambda card: (not card.is_rescued, len(card.rounds)))
    return Rethinks(tuple(cards), rethinks_to_text(sample))


def rethinks_to_text(sample: RethinkSample) -> str:
    """'16 of 29 items were rethought; 10 were rescued'."""
    rethought, rescued = sample.num_rethought, sample.rescued.num_offered
    items = f"{sample.num_prompted:,} item{'' if sample.num_prompted == 1 else 's'}"
    return f"{_count_were(rethought, f' of {items}')} rethought; {_count_were(rescued)} rescued"


def _count_were(number: int, of: str = "") -> str:
    return f"{number:,}{of} {'was' if number == 1 else 'were'}"


def _to_card(result: ItemResult, artifacts: ArtifactStore) -> RethinkCard:
    item, rounds = result["item"], result["rounds"]
    colour = class_colour(item["category_id"])
    captions = [*(one["captions"] for one in rounds[1:]), []]
    return RethinkCard(
        item_id=item["item_id"],
        class_id=item["category_id"],
        class_name=item["category"],
        colour=colour_to_hex(colour),
        is_rescued=is_rescued(rounds),
        outcome=_outcome(result),
        rounds=tuple(
            _to_round_card(rounds[index], result["attempts"], captions[index], num_skipped, colour, artifacts)
            for index, num_skipped in first_and_last(len(rounds), MAX_ROUNDS)
        ),
    )


def _outcome(result: ItemResult) -> str:
    rounds = result["rounds"]
    if is_rescued(rounds):
        return f"rescued in round {next(one['round'] for one in rounds if one['num_kept'])}"
    if kept := sum(one["num_kept"] for one in rounds):
        return f"{kept} of {sum(one['num_painted'] for one in rounds)} images kept"
    return f"{result['ending']} after {len(rounds)} rounds"


def _to_round_card(
    told: Round,
    attempts: Sequence[Attempt],
    captions: Sequence[str],
    num_skipped: int,
    colour: Colour,
    artifacts: ArtifactStore,
) -> RoundCard:
    painted = [attempt for attempt in attempts if attempt["round"] == told["round"]]
    painted.sort(key=lambda attempt: not attempt["accepted"])
    return RoundCard(
        number=told["round"],
        prompt=told["prompt"],
        strength=told["strength"],
        rung=told["rung"],
        shortened=told["shortened"],
        num_kept=told["num_kept"],
        num_painted=told["num_painted"],
        pictures=tuple(one for _, one in readable_pictures(painted[:MAX_PICTURES], colour, artifacts)),
        reasons=tuple(told["reasons"]),
        captions=tuple(captions),
        num_skipped=num_skipped,
    )

"""What became of the user's instances: source, the edges that guided the painter, every variant, every verdict."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import ImageDecodeError
from ..memory.artifacts import ArtifactStore
from ..memory.entries import Attempt, ItemResult
from ..memory.ledger import Ledger
from .attempts import AttemptPicture, artifact_to_file, first_and_last, readable_pictures
from .sampling import VariantSample
from .thumbnails import (
    ATTEMPT_MAX_BYTES,
    Colour,
    class_colour,
    colour_to_hex,
    edges_to_thumbnail,
    image_to_data_uri,
    instance_to_thumbnail,
)

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
"""Variants shown of an item: its first and its last ones."""
DECISIVE_MEASURES = ("source_likeness", "source_iou", "image_text", "source_difference")


@dataclass(frozen=True, slots=True)
class VariantCard:
    """One variant with what it was painted by and what was measured."""

    round: int
    strength: float
    control_scale: float | None
    """How strongly the edges held; None for a painter that follows none."""
    prompt: str
    """What it was painted from, where that is not what the variant before was painted from."""
    image: AttemptPicture
    measures: tuple[tuple[str, str], ...]
    num_skipped: int
    """Variants between the one before and this one that are not shown."""


@dataclass(frozen=True, slots=True)
class VariantRow:
    """An item from its source to its last verdict. Files are relative to the run folder."""

    item_id: str
    class_id: int
    class_name: str
    colour: str
    is_rescued: bool
    outcome: str
    source_picture: str
    source_file: str
    source_name: str
    edges_picture: str
    """Empty where the painter followed no edges."""
    edges_file: str
    variants: tuple[VariantCard, ...]


@dataclass(frozen=True, slots=True)
class Variants:
    """A sample of items with a source: rescued ones, then lost ones, then those accepted at once."""

    rows: tuple[VariantRow, ...]
    told: str
    """How many items there are, and how they went."""


def collect_variants(items: Ledger[ItemResult], artifacts: ArtifactStore, sample: VariantSample) -> Variants:
    """Read the sampled items and their pictures; what does not decode is left out.

    Raises:
        BrokenRunError: an entry of the ledger is not what we wrote.
    """
    results = filter(None, map(items.read, sample.item_ids()))
    rows = (_to_row(result, artifacts) for result in results)
    return Variants(tuple(row for row in rows if row is not None), variants_to_text(sample))


def variants_to_text(sample: VariantSample) -> str:
    """'40 items: 31 accepted at once, 6 after a rejected round, 3 never'."""
    counts = ((sample.at_once, "at once"), (sample.rescued, "after a rejected round"), (sample.lost, "never"))
    told = [f"{one.num_offered:,} accepted {how}" for one, how in counts if one.num_offered]
    return f"{sample.num_items:,} item{'' if sample.num_items == 1 else 's'}: {', '.join(told)}"


def decisive_measures(attempt: Attempt) -> tuple[tuple[str, str], ...]:
    """(name, value) of the measures that tell a variant from a copy and from a stranger, as far as they were taken."""
    measures = attempt["measures"]
    return tuple((name.replace("_", " "), f"{measures[name]:.3g}") for name in DECISIVE_MEASURES if name in measures)


def outcome_to_text(result: ItemResult) -> str:
    """'accepted in round 2', or how the item ended."""
    accepted = [attempt["round"] for attempt in result["attempts"] if attempt["accepted"]]
    if accepted:
        return f"accepted in round {min(accepted)}"
    rounds = len({attempt["round"] for attempt in result["attempts"]})
    return f"{result['ending']} after {rounds} round{'' if rounds == 1 else 's'}"


def _to_row(result: ItemResult, artifacts: ArtifactStore) -> VariantRow | None:
    item, source = result["item"], result["source"]
    if source is None:
        return None
    colour = class_colour(item["category_id"])
    edges = next((attempt["condition"] for attempt in result["attempts"] if "condition" in attempt), "")
    try:
        source_thumbnail = instance_to_thumbnail(artifacts.get_image(source["artifact"]), colour)
        edges_thumbnail = edges_to_thumbnail(artifacts.get_image(edges)[..., :3]) if edges else None
    except ImageDecodeError as exc:
        logger.warning("left out of the report: %s", exc)
        return None
    accepted = [attempt["round"] for attempt in result["attempts"] if attempt["accepted"]]
    return VariantRow(
        item_id=item["item_id"],
        class_id=item["category_id"],
        class_name=item["category"],
        colour=colour_to_hex(colour),
        is_rescued=bool(accepted) and min(accepted) > 1,
        outcome=outcome_to_text(result),
        source_picture=image_to_data_uri(source_thumbnail, ATTEMPT_MAX_BYTES),
        source_file=artifact_to_file(source["artifact"], artifacts),
        source_name=source["file_name"],
        edges_picture="" if edges_thumbnail is None else image_to_data_uri(edges_thumbnail, ATTEMPT_MAX_BYTES),
        edges_file=artifact_to_file(edges, artifacts) if edges else "",
        variants=tuple(_to_cards(result, colour, artifacts)),
    )


def _to_cards(result: ItemResult, colour: Colour, artifacts: ArtifactStore) -> Iterator[VariantCard]:
    prompts = {told["round"]: told["prompt"] for told in result["rounds"]}
    attempts, before = result["attempts"], ""
    for index, num_skipped in first_and_last(len(attempts), MAX_ATTEMPTS):
        for attempt, image in readable_pictures(attempts[index : index + 1], colour, artifacts):
            prompt = prompts.get(attempt["round"], "")
            yield VariantCard(
                round=attempt["round"],
                strength=attempt["strength"],
                control_scale=attempt.get("control_scale"),
                prompt="" if prompt == before else prompt,
                image=image,
                measures=decisive_measures(attempt),
                num_skipped=num_skipped,
            )
            before = prompt

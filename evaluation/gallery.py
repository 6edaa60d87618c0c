"""The pictures of a report, as cards that a template can show."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.records import Findings
from ..errors import ImageDecodeError
from ..memory.artifacts import ArtifactStore
from ..memory.entries import Attempt, ItemResult, SceneInstance, SceneResult
from ..memory.ledger import Ledger
from .attempts import artifact_to_file, attempt_to_artifact, attempt_to_reasons
from .rethinks import Rethinks, collect_rethinks
from .sampling import ItemSample, Pick, sample_scenes
from .thumbnails import (
    INSTANCE_MAX_BYTES,
    SCENE_MAX_BYTES,
    class_colour,
    colour_to_hex,
    image_to_data_uri,
    instance_to_thumbnail,
    scene_to_thumbnail,
)
from .variants import Variants, collect_variants

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tag:
    """A class name over a scene, at its instance's box; distances from the scene's sides, in percent of them."""

    name: str
    colour: str
    left: float
    right: float
    top: float


@dataclass(frozen=True, slots=True)
class SceneCard:
    """A scene with its outlines. `file` is relative to the run folder; `ratio` is width over height."""

    scene_id: str
    picture: str
    file: str
    ratio: float
    tags: tuple[Tag, ...]
    class_ids: tuple[int, ...]
    num_new: int
    num_real: int
    num_hidden: int
    background: str


@dataclass(frozen=True, slots=True)
class InstanceCard:
    """One painted image beside its source picture or its prompt. `reasons` are why it was rejected."""

    class_id: int
    class_name: str
    colour: str
    source_picture: str
    source_name: str
    prompt: str
    picture: str
    file: str
    round: int
    strength: float
    scores: tuple[tuple[str, str], ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """What a report shows of a run, and of how much it is a sample."""

    scenes: tuple[SceneCard, ...]
    accepted: tuple[InstanceCard, ...]
    rejected: tuple[InstanceCard, ...]
    rethinks: Rethinks
    variants: Variants
    num_scenes: int
    num_accepted: int
    num_rejected: int
    without_image: Findings

    @property
    def classes(self) -> list[tuple[int, str]]:
        """Ids and names of the classes with a picture, by name."""
        classes = {(card.class_id, card.class_name) for card in (*self.accepted, *self.rejected)}
        classes |= {(card.class_id, card.class_name) for card in self.rethinks.cards}
        classes |= {(row.class_id, row.class_name) for row in self.variants.rows}
        return sorted(classes, key=lambda one: (one[1], one[0]))


def collect_gallery(run_folder: Path) -> Gallery:
    """Read a run's ledgers one entry at a time, then the pictures of the sample alone.

    Raises:
        BrokenRunError: an entry of a ledger is not what we wrote.
    """
    items: Ledger[ItemResult] = Ledger(run_folder / "items")
    scenes: Ledger[SceneResult] = Ledger(run_folder / "scenes")
    artifacts = ArtifactStore(run_folder / "artifacts")
    sample = ItemSample()
    for item_id in sorted(items.ids()):
        result = items.read(item_id)
        if result is not None:
            sample.add(result)
    scene_ids = list(scenes.ids())
    shown = (scenes.read(scene_id) for scene_id in sample_scenes(scene_ids))
    return Gallery(
        scenes=tuple(_scene_cards(shown, artifacts, sample.class_names)),
        accepted=tuple(_instance_cards(items, artifacts, sample.accepted.picks())),
        rejected=tuple(_instance_cards(items, artifacts, sample.rejected.picks())),
        rethinks=collect_rethinks(items, artifacts, sample.rethinks),
        variants=collect_variants(items, artifacts, sample.variants),
        num_scenes=len(scene_ids),
        num_accepted=sample.accepted.num_offered,
        num_rejected=sample.rejected.num_offered,
        without_image=sample.without_image,
    )


def _scene_cards(
    scenes: Iterator[SceneResult | None], artifacts: ArtifactStore, class_names: dict[int, str]
) -> Iterator[SceneCard]:
    for scene in scenes:
        if scene is None:
            continue
        try:
            thumbnail = scene_to_thumbnail(artifacts.get_image(scene["artifact"]), scene)
        except ImageDecodeError as exc:
            logger.warning("left out of the report: %s", exc)
            continue
        new = [instance for instance in scene["instances"] if instance["origin"] == "synthetic"]
        yield SceneCard(
            scene_id=scene["scene_id"],
            picture=image_to_data_uri(thumbnail, SCENE_MAX_BYTES),
            file=artifact_to_file(scene["artifact"], artifacts),
            ratio=round(scene["width"] / scene["height"], 4),
            tags=tuple(_to_tag(instance, scene, class_names) for instance in new),
            class_ids=tuple(sorted({instance["category_id"] for instance in new})),
            num_new=len(new),
            num_real=len(scene["instances"]) - len(new),
            num_hidden=len(scene["dropped_originals"]),
            background=scene["background"],
        )


def _to_tag(instance: SceneInstance, scene: SceneResult, class_names: dict[int, str]) -> Tag:
    category_id = instance["category_id"]
    x, y, w, _ = instance["bbox_xywh"]
    return Tag(
        name=class_names.get(category_id, f"class {category_id}"),
        colour=colour_to_hex(class_colour(category_id)),
        left=round(100 * x / scene["width"], 2),
        right=round(100 - 100 * (x + w) / scene["width"], 2),
        top=round(100 * y / scene["height"], 2),
    )


def _instance_cards(
    items: Ledger[ItemResult], artifacts: ArtifactStore, picks: Sequence[Pick]
) -> Iterator[InstanceCard]:
    for item_id, index in picks:
        result = items.read(item_id)
        if result is None:
            continue
        try:
            yield _to_instance_card(result, result["attempts"][index], artifacts)
        except ImageDecodeError as exc:
            logger.warning("left out of the report: %s", exc)


def _to_instance_card(result: ItemResult, attempt: Attempt, artifacts: ArtifactStore) -> InstanceCard:
    item, source = result["item"], result["source"]
    colour = class_colour(item["category_id"])
    picture = attempt_to_artifact(attempt, artifacts)

    def encode(artifact: str) -> str:
        return image_to_data_uri(instance_to_thumbnail(artifacts.get_image(artifact), colour), INSTANCE_MAX_BYTES)

    return InstanceCard(
        class_id=item["category_id"],
        class_name=item["category"],
        colour=colour_to_hex(colour),
        source_picture=encode(source["artifact"]) if source else "",
        source_name=source["file_name"] if source else "",
        prompt=next((told["prompt"] for told in result["rounds"] if told["round"] == attempt["round"]), ""),
        picture=encode(picture),
        file=artifact_to_file(picture, artifacts),
        round=attempt["round"],
        strength=attempt["strength"],
        scores=tuple((name.replace("_", " "), f"{value:.4g}") for name, value in attempt["measures"].items()),
        reasons=attempt_to_reasons(attempt),
    )

"""Scenes from accepted instances: planned from the pool, composed in parallel, kept in the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import cv2
import numpy as np

from ..configs.compose import ComposeSettings
from ..data.images import read_header, read_image, resolve_frame
from ..data.masks import segmentation_to_json
from ..data.records import Annotation, Dataset, ImageRecord, ImageRGB
from ..errors import BrokenRunError, DatasetError, ImageDecodeError
from ..memory.artifacts import ArtifactStore
from ..memory.entries import JsonSegmentation, SceneInstance, SceneResult
from ..memory.ledger import Ledger
from ..tools.composing.harmonization import Harmonizer, Seam
from ..tools.composing.placement import SizeStatistics
from ..tools.composing.scene import CutOut, Scene, SceneAnnotation, ScenePlan, compose_scene, plan_scenes
from .services import Executor, Progress

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
MAX_DEALS = 4
"""Deals of the instances that found no place; from the second on each gets a scene of its own."""


@dataclass(frozen=True, slots=True)
class PooledInstance:
    """What composing needs of an accepted instance; its pixels stay on disk."""

    instance_id: str
    category_id: int
    artifact: str
    truncated_sides: tuple[str, ...]
    side_ratio: float


class Backgrounds:
    """Photographs to paste into, with what is already labelled in them."""

    def __init__(self, dataset: Dataset, source: str) -> None:
        """
        Args:
            source: 'train', or a folder of photographs without objects of the data set's classes.

        Raises:
            DatasetError: the folder does not exist or holds no readable image.
        """
        self._dataset = dataset
        self._indices = [i for i, image in enumerate(dataset.images) if image.split == "train"]
        self._records: list[ImageRecord] = [] if source == "train" else _read_folder(Path(source))
        self._is_folder = source != "train"

    def __len__(self) -> int:
        return len(self._records) if self._is_folder else len(self._indices)

    def record(self, index: int) -> ImageRecord:
        return self._records[index] if self._is_folder else self._dataset.images[self._indices[index]]

    def read(self, index: int) -> tuple[ImageRGB, tuple[Annotation, ...]]:
        annotations = () if self._is_folder else self._dataset.sample(self._indices[index]).annotations
        return read_image(self.record(index)), annotations


def _read_folder(folder: Path) -> list[ImageRecord]:
    if not folder.is_dir():
        raise DatasetError(f"compose.backgrounds is {str(folder)!r}; expected 'train' or an existing folder")
    records: list[ImageRecord] = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES):
        try:
            width, height, transpose = resolve_frame(read_header(path), None)
        except ImageDecodeError:
            continue
        name = path.relative_to(folder).as_posix()
        records.append(ImageRecord(len(records) + 1, name, str(folder), width, height, exif_transpose=transpose))
    if not records:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DatasetError(f"compose.backgrounds: no readable image below {str(folder)!r}; looked for {suffixes}")
    return records


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneServices:
    """What composing needs."""

    settings: ComposeSettings
    seed: int
    backgrounds: Backgrounds
    sizes: SizeStatistics
    harmonizer: Harmonizer
    artifacts: ArtifactStore
    scenes: Ledger[SceneResult]
    executor: Executor
    progress: Progress
    is_stopped: Callable[[], bool]


def make_scenes(pool: Sequence[PooledInstance], services: SceneServices) -> list[str]:
    """Place every instance; returns the scene ids in order. Scenes that stand in the ledger are not made again.

    Scenes of an earlier pool, which nothing refers to any more, are removed.
    """
    by_id = {instance.instance_id: instance for instance in pool}
    scene_ids: list[str] = []
    open_ids = list(by_id)
    for deal in range(MAX_DEALS):
        if not open_ids or services.is_stopped():
            break
        plans = _deal(by_id, open_ids, services, deal)
        named = [(_scene_id(len(scene_ids) + i, plan), plan) for i, plan in enumerate(plans)]
        services.progress.start("compose", len(scene_ids) + len(named))
        open_ids = []
        done = {scene_id: _reread(scene_id, services) for scene_id, _ in named}
        todo = [pair for pair in named if done[pair[0]] is None]
        for _ in range(len(scene_ids) + len(named) - len(todo)):
            services.progress.advance("compose", "placed")
        for scene_id, unplaced in services.executor.map(partial(_make_scene, by_id, services), todo):
            done[scene_id] = unplaced
            services.progress.advance("compose", "placed")
        for scene_id, _ in named:
            open_ids += done[scene_id] or []
            scene_ids.append(scene_id)
    if not services.is_stopped():
        _remove_stale(services, set(scene_ids))
    return scene_ids


def _deal(
    by_id: dict[str, PooledInstance], instance_ids: Sequence[str], services: SceneServices, deal: int
) -> list[ScenePlan]:
    settings = services.settings
    if deal:
        settings = settings.model_copy(update={"placements": 1, "instances_per_scene": (1, 1)})
    pairs = [(instance_id, by_id[instance_id].category_id) for instance_id in instance_ids]
    return plan_scenes(pairs, len(services.backgrounds), settings, services.seed + deal)


def _scene_id(index: int, plan: ScenePlan) -> str:
    """The id names the content too, so that a scene of another pool is never taken for this one."""
    content = "\0".join([str(plan.background_index), str(plan.seed), *plan.instance_ids])
    return f"scene-{index:06d}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


def _reread(scene_id: str, services: SceneServices) -> list[str] | None:
    scene = services.scenes.read(scene_id)
    if scene is None or not services.artifacts.path(scene["artifact"]).is_file():
        return None
    return scene["unplaced"]


def _make_scene(
    by_id: dict[str, PooledInstance], services: SceneServices, named: tuple[str, ScenePlan]
) -> tuple[str, list[str]]:
    scene_id, plan = named
    record, image, originals, unreadable = _open_background(services.backgrounds, plan.background_index)
    scene = compose_scene(
        image,
        originals,
        [_to_cutout(by_id[instance_id], services.artifacts) for instance_id in plan.instance_ids],
        services.sizes,
        services.settings,
        services.harmonizer,
        np.random.default_rng(plan.seed),
    )
    height, width = scene.image_rgb.shape[:2]
    result: SceneResult = {
        "scene_id": scene_id,
        "artifact": services.artifacts.put(_encode(scene, services.settings), f".{services.settings.image_format}"),
        "background": record.file_name,
        "width": width,
        "height": height,
        "instances": [_to_json(annotation) for annotation in scene.annotations],
        "dropped_originals": list(scene.dropped_originals),
        "unplaced": list(scene.unplaced),
        "unreadable_backgrounds": unreadable,
    }
    services.scenes.write(scene_id, result)
    return scene_id, result["unplaced"]


def _open_background(
    backgrounds: Backgrounds, index: int
) -> tuple[ImageRecord, ImageRGB, tuple[Annotation, ...], list[str]]:
    """The background at `index`, or the next one that decodes."""
    unreadable: list[str] = []
    for step in range(len(backgrounds)):
        candidate = (index + step) % len(backgrounds)
        try:
            image, originals = backgrounds.read(candidate)
        except ImageDecodeError:
            unreadable.append(backgrounds.record(candidate).file_name)
            continue
        return backgrounds.record(candidate), image, originals, unreadable
    raise BrokenRunError("no background can be decoded; repair the images or set compose.backgrounds to a folder")


def _to_cutout(instance: PooledInstance, artifacts: ArtifactStore) -> CutOut:
    rgba = artifacts.get_image(instance.artifact)
    return CutOut(instance.instance_id, instance.category_id, rgba, instance.truncated_sides, instance.side_ratio)


def _encode(scene: Scene, settings: ComposeSettings) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, settings.jpeg_quality] if settings.image_format == "jpg" else []
    bgr = cv2.cvtColor(scene.image_rgb, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(f".{settings.image_format}", bgr, options)[1].tobytes())


def _to_json(scene_annotation: SceneAnnotation) -> SceneInstance:
    annotation = scene_annotation.annotation
    return {
        "origin": scene_annotation.origin,
        "source_id": scene_annotation.instance_id or str(annotation.annotation_id),
        "category_id": annotation.category_id,
        # Arrays here, lists once the ledger has written them.
        "segmentation": cast("JsonSegmentation", segmentation_to_json(annotation.segmentation)),
        "bbox_xywh": [float(value) for value in annotation.bbox_xywh],
        "area": float(annotation.area),
        "is_crowd": annotation.is_crowd,
        "seam": _seam_to_json(scene_annotation.seam) if scene_annotation.seam else None,
    }


def _seam_to_json(seam: Seam) -> dict[str, float]:
    return {
        "edge_gradient_before": round(seam.before.edge_gradient, 4),
        "edge_gradient_after": round(seam.after.edge_gradient, 4),
        "colour_gap_before": round(seam.before.colour_gap, 3),
        "colour_gap_after": round(seam.after.colour_gap, 3),
    }


def _remove_stale(services: SceneServices, current: set[str]) -> None:
    entries = {
        scene_id: services.scenes.read(scene_id) for scene_id in services.scenes.ids() if scene_id not in current
    }
    for scene_id, entry in entries.items():
        services.scenes.remove(scene_id)
        if entry is not None:
            services.artifacts.path(entry["artifact"]).unlink(missing_ok=True)

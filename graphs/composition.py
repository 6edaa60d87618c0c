"""Scenes from accepted instances: planned from the pool, composed in parallel, kept in the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import cv2
import numpy as np

from ..configs.compose import ComposeSettings
from ..data.masks import segmentation_to_json
from ..data.records import Annotation, ImageRecord, ImageRGB
from ..errors import BrokenRunError, ImageDecodeError
from ..memory.artifacts import ArtifactStore
from ..memory.entries import Cost, JsonSegmentation, SceneInstance, SceneResult
from ..memory.ledger import Ledger
from ..tools.composing.harmonization import HardPaste, Harmonizer, Seam
from ..tools.composing.placement import SizeStatistics
from ..tools.composing.scene import CutOut, Scene, SceneAnnotation, ScenePlan, compose_scene, plan_scenes
from ..tools.composing.surroundings import MeanRGB
from .backgrounds import Backgrounds
from .scene_validation import SceneJudges
from .services import Executor, Progress

CONTROL_STREAM = 1
"""Of the random numbers that draw the control scenes; the others of a scene's seed stay as they are."""
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
    surround_rgb: MeanRGB | None = None


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
    judges: SceneJudges


def make_scenes(pool: Sequence[PooledInstance], services: SceneServices) -> list[str]:
    """Place every instance; returns the ids of the accepted scenes. Those that stand in the ledger are not made again.

    What a rejected scene held is placed anew, like what found no place. Backgrounds that are yet to be made are made
    first, if there is anything to place. Scenes of an earlier pool, which nothing refers to any more, are removed.

    Raises:
        LanguageModelError: a vision judge cannot be asked.
        BrokenRunError: no background can be made or read, or the disk is full.
    """
    if pool and not services.is_stopped():
        services.backgrounds.prepare(services.progress, services.is_stopped)
    by_id = {instance.instance_id: instance for instance in pool}
    made: dict[str, _Made] = {}
    open_ids = list(by_id)
    for deal in range(MAX_DEALS):
        if not open_ids or services.is_stopped():
            break
        plans = _deal(by_id, open_ids, services, deal)
        named = {_scene_id(len(made) + i, plan): plan for i, plan in enumerate(plans)}
        services.progress.start("compose", len(made) + len(named))
        found = {scene_id: _reread(scene_id, plan, services) for scene_id, plan in named.items()}
        todo = [(scene_id, plan) for scene_id, plan in named.items() if found[scene_id] is None]
        for _ in range(len(made) + len(named) - len(todo)):
            services.progress.advance("compose", "placed")
        for scene_id, new in services.executor.map(partial(_make_scene, by_id, services), todo):
            found[scene_id] = new
            services.progress.advance("compose", "placed")
        made |= {scene_id: one for scene_id in named if (one := found[scene_id]) is not None}
        open_ids = [open_id for scene_id in named if scene_id in made for open_id in made[scene_id].unplaced]
    if not services.is_stopped():
        _remove_stale(services, set(made))
    return [scene_id for scene_id, one in made.items() if one.accepted]


class _Made(NamedTuple):
    accepted: bool
    unplaced: Sequence[str]
    """Instances to be placed elsewhere: all of them, where the scene is rejected."""


def scene_costs(scenes: Ledger[SceneResult]) -> Iterator[Cost]:
    """What judges' looks at each scene cost, the rejected ones too."""
    for scene_id in scenes.ids():
        scene = scenes.read(scene_id)
        if scene is not None and "cost" in scene:
            yield scene["cost"]


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


def _reread(scene_id: str, plan: ScenePlan, services: SceneServices) -> _Made | None:
    scene = services.scenes.read(scene_id)
    if scene is None or not services.artifacts.path(scene["artifact"]).is_file():
        return None
    return _to_made(scene, plan)


def _to_made(scene: SceneResult, plan: ScenePlan) -> _Made:
    if scene.get("rejected", False):
        return _Made(False, plan.instance_ids)
    return _Made(True, scene["unplaced"])


def _make_scene(
    by_id: dict[str, PooledInstance], services: SceneServices, named: tuple[str, ScenePlan]
) -> tuple[str, _Made]:
    scene_id, plan = named
    is_control = is_unharmonized(plan, services.settings.unharmonized_share)
    record, image, originals, unreadable = _open_background(services.backgrounds, plan.background_index)
    scene = compose_scene(
        image,
        originals,
        [_to_cutout(by_id[instance_id], services.artifacts) for instance_id in plan.instance_ids],
        services.sizes,
        services.settings,
        HardPaste() if is_control else services.harmonizer,
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
        "harmonization": "none" if is_control else services.settings.harmonization,
    }
    if services.judges.judges and result["instances"]:
        pasted = [one["category_id"] for one in result["instances"] if one["origin"] == "synthetic"]
        verdict = services.judges.look(scene.image_rgb, pasted)
        result |= {"rejected": not verdict.accepted, "opinions": verdict.opinions, "cost": verdict.cost}
    services.scenes.write(scene_id, result)
    return scene_id, _to_made(result, plan)


def is_unharmonized(plan: ScenePlan, share: float) -> bool:
    """Whether a scene is one of the control scenes; its seed alone decides, and nothing else of it changes."""
    return bool(np.random.default_rng([*plan.seed, CONTROL_STREAM]).random() < share)


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
    return CutOut(
        instance.instance_id,
        instance.category_id,
        rgba,
        instance.truncated_sides,
        instance.side_ratio,
        instance.surround_rgb,
    )


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

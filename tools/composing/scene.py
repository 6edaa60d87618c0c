"""Plan scenes, and compose one: cut-outs over a photograph, with the labels of everything still visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from math import sqrt
from typing import Literal

import numpy as np
import numpy.typing as npt

from ...configs.compose import ComposeSettings
from ...data.masks import flip_sides
from ...data.records import Annotation, ImageRGB, ImageRGBA
from ...errors import EmptyMaskError, RecipeError
from .canvas import Canvas
from .harmonization import Harmonizer, Seam
from .occlusion import crop_to_segmentation, occlude
from .placement import (
    BoxPx,
    SizeStatistics,
    clip_side_px,
    draw_centres,
    draw_side_px,
    fit_cutout,
)
from .surroundings import MeanRGB

SHRINKS = (1.0, 0.7, 0.5, 0.35)
"""Sizes tried in turn where no place is found; from the second on, wholly inside the frame."""


@dataclass(frozen=True, slots=True)
class CutOut:
    """An accepted instance, ready to be pasted."""

    instance_id: str
    category_id: int
    rgba: ImageRGBA
    """(h, w, 4) uint8, straight alpha, tight or not."""
    truncated_sides: tuple[str, ...] = ()
    """Sides (left, top, right, bottom) on which its source photograph's border cut it."""
    source_side_ratio: float | None = None
    """sqrt(mask area / image area) in its source photograph, where it has one."""
    surround_rgb: MeanRGB | None = None
    """Mean colour around it in its source photograph, where it has one."""


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """What goes into one scene. `seed` is for `numpy.random.default_rng`."""

    background_index: int
    instance_ids: tuple[str, ...]
    seed: tuple[int, int]


@dataclass(frozen=True, slots=True)
class SceneAnnotation:
    """A visible instance of a scene.

    A real one keeps its annotation id; synthetic ones count on from the highest, unique in this scene only.
    `pasted_xywh` is the box before later pastes covered some of it.
    """

    annotation: Annotation
    origin: Literal["real", "synthetic"]
    instance_id: str | None = None
    pasted_xywh: BoxPx | None = None
    seam: Seam | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """A composed image, (H, W, 3) uint8, with its labels: originals first, then pastes from bottom to top."""

    image_rgb: ImageRGB
    annotations: tuple[SceneAnnotation, ...]
    dropped_originals: tuple[int, ...]
    """Annotation ids of originals that pastes hide."""
    unplaced: tuple[str, ...]
    """Instance ids for which no place was found."""


def plan_scenes(
    instances: Sequence[tuple[str, int]], num_backgrounds: int, settings: ComposeSettings, seed: int
) -> list[ScenePlan]:
    """Deal every instance to `settings.placements` scenes; never twice to the same one.

    Classes are spread evenly over the scenes, and each background is used once before any is used again.
    The last scene of each deal may hold fewer instances than `instances_per_scene` asks for.

    Args:
        instances: (instance id, category id) pairs.

    Raises:
        RecipeError: there is no background.
    """
    if num_backgrounds < 1:
        raise RecipeError("no background image is left; set `compose.backgrounds` to 'train' or to a folder of images")
    rng = np.random.default_rng(seed)
    category_ids = np.array([category_id for _, category_id in instances], dtype=np.int64)
    groups: list[tuple[str, ...]] = []
    for _ in range(settings.placements):
        dealt = [instances[index][0] for index in _spread(category_ids, rng).tolist()]
        start = 0
        while start < len(dealt):
            end = start + int(rng.integers(*settings.instances_per_scene, endpoint=True))
            groups.append(tuple(dealt[start:end]))
            start = end
    backgrounds = (rng.permutation(num_backgrounds) for _ in count())
    return [
        ScenePlan(int(background), group, (seed, index))
        for index, (group, background) in enumerate(zip(groups, chain.from_iterable(backgrounds), strict=False))
    ]


def _spread(category_ids: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Order in which the members of each class are evenly spaced, and random otherwise."""
    shuffled = rng.permutation(len(category_ids))
    _, group, size = np.unique(category_ids[shuffled], return_inverse=True, return_counts=True)
    by_class = np.argsort(group, kind="stable")
    rank = np.empty(len(group))
    rank[by_class] = np.arange(len(group)) - np.repeat(np.cumsum(size) - size, size)
    position = (rank + rng.random(len(size))[group]) / size[group]
    return shuffled[np.argsort(position, kind="stable")]


def compose_scene(
    background_rgb: ImageRGB,
    originals: Sequence[Annotation],
    cutouts: Sequence[CutOut],
    sizes: SizeStatistics,
    settings: ComposeSettings,
    harmonizer: Harmonizer,
    rng: np.random.Generator,
    *,
    measure_seams: bool = True,
) -> Scene:
    """Paste cut-outs over a photograph; later ones occlude earlier ones and the originals.

    Originals that no paste touches keep their annotation as it is. Masks agree with the pixels: no
    label covers a pixel that shows something else. Only `rng` decides.

    Args:
        background_rgb: (H, W, 3) uint8, sRGB; not changed.
        originals: the photograph's own annotations.
        sizes: from `measure_sizes`.
    """
    canvas = Canvas(background_rgb, [original.bbox_xywh for original in originals], settings)
    placed = [_place(canvas, cutout, sizes, settings, harmonizer, rng, measure_seams) for cutout in cutouts]
    kept = [(original.annotation_id, occlude(original, canvas.owner_hw, settings)) for original in originals]
    first_id = max((original.annotation_id for original in originals), default=0) + 1
    on_canvas = [cutout for cutout, found in zip(cutouts, placed, strict=True) if found]
    return Scene(
        image_rgb=canvas.image_rgb,
        annotations=(
            *(SceneAnnotation(annotation, "real") for _, annotation in kept if annotation),
            *(_annotate(canvas, index, cutout, first_id + index) for index, cutout in enumerate(on_canvas)),
        ),
        dropped_originals=tuple(annotation_id for annotation_id, annotation in kept if annotation is None),
        unplaced=tuple(cutout.instance_id for cutout, found in zip(cutouts, placed, strict=True) if not found),
    )


def _place(
    canvas: Canvas,
    cutout: CutOut,
    sizes: SizeStatistics,
    settings: ComposeSettings,
    harmonizer: Harmonizer,
    rng: np.random.Generator,
    measure: bool,
) -> bool:
    """Paste one cut-out at the first size that finds a place; False where none does."""
    side_px = _draw_side_px(cutout, canvas.frame_hw, sizes, settings, rng)
    aspect = 1 + settings.aspect_jitter * rng.uniform(-1, 1)
    flip = bool(rng.random() < settings.flip_probability)
    flush_sides = flip_sides(cutout.truncated_sides) if flip else cutout.truncated_sides
    spans_xy = {"left", "right"} <= {*flush_sides}, {"top", "bottom"} <= {*flush_sides}
    for shrink in SHRINKS:
        truncation = settings.truncation if shrink == 1 else 0.0
        target_px = max(side_px * shrink, min(side_px, settings.min_side_px))
        try:
            fitted = fit_cutout(
                cutout.rgba,
                target_px,
                canvas.frame_hw,
                aspect=aspect,
                flip=flip,
                max_upscale=settings.max_upscale,
                spans_xy=spans_xy,
                max_side_px=settings.max_side_ratio * sqrt(canvas.frame_hw[0] * canvas.frame_hw[1]),
            )
        except EmptyMaskError:
            return False
        centres = draw_centres(fitted, canvas.frame_hw, flush_sides, truncation, settings.max_tries, rng)
        centre = canvas.find_centre(fitted, centres, truncation)
        if centre is not None:
            lit_from = cutout.surround_rgb if settings.light == "surroundings" else None
            canvas.paste(fitted, centre, harmonizer, measure=measure, lit_from=lit_from)
            return True
    return False


def _draw_side_px(
    cutout: CutOut,
    frame_hw: tuple[int, int],
    sizes: SizeStatistics,
    settings: ComposeSettings,
    rng: np.random.Generator,
) -> float:
    if settings.size == "source" and cutout.source_side_ratio is not None:
        return clip_side_px(cutout.source_side_ratio, frame_hw, settings)
    return draw_side_px(sizes, cutout.category_id, frame_hw, settings, rng)


def _annotate(canvas: Canvas, index: int, cutout: CutOut, annotation_id: int) -> SceneAnnotation:
    (x, y, w, h), mask = canvas.visible(index)
    annotation = Annotation(
        annotation_id=annotation_id,
        category_id=cutout.category_id,
        segmentation=crop_to_segmentation(mask, x, y, canvas.frame_hw),
        bbox_xywh=(float(x), float(y), float(w), float(h)),
        area=float(np.count_nonzero(mask)),
    )
    pasted = canvas.pastes[index]
    return SceneAnnotation(annotation, "synthetic", cutout.instance_id, pasted.box_xywh, pasted.seam)

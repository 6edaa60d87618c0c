"""Size, shape and place of pasted cut-outs, after X-Paste (arXiv 2212.03863) and Simple Copy-Paste."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, inf, sqrt

import cv2
import numpy as np
import numpy.typing as npt

from ...configs.compose import ComposeSettings
from ...data.masks import MASK_ALPHA
from ...data.records import Dataset, ImageRGB, ImageRGBA, MaskHW
from ...errors import EmptyMaskError
from ..cutouts import resize_rgba
from .harmonization import HardPaste, Harmonizer, Mask01, Seam, alpha_to_mask, measure_seam
from .surroundings import MeanRGB, mean_around, relight

BoxPx = tuple[int, int, int, int]
"""(x, y, w, h) in whole pixels."""


@dataclass(frozen=True, slots=True)
class SideDistribution:
    """Mean and standard deviation of s = sqrt(mask area / image area), in 0..1."""

    mean: float
    std: float


UNKNOWN_SIDE = SideDistribution(0.2, 0.1)
"""For a data set without any instance."""


@dataclass(frozen=True, slots=True)
class SizeStatistics:
    """How large each category is in training images; categories never seen get the overall sizes."""

    by_category: Mapping[int, SideDistribution]
    overall: SideDistribution

    def of(self, category_id: int) -> SideDistribution:
        return self.by_category.get(category_id, self.overall)


def measure_sizes(dataset: Dataset, split: str = "train") -> SizeStatistics:
    """Measure s = sqrt(mask area / (H W)) of every category, crowds left out (X-Paste).

    One instance says nothing about spread: such a category keeps its own mean and gets the overall
    ratio of standard deviation to mean.
    """
    table = dataset.annotations
    in_split = (image.width * image.height if image.split == split else 0 for image in dataset.images)
    frame_area = np.fromiter(in_split, dtype=np.float64, count=len(dataset.images))[table.image_index]
    rows = np.flatnonzero((frame_area > 0) & (table.area > 0) & ~table.is_crowd)
    if not len(rows):
        return SizeStatistics({}, UNKNOWN_SIDE)
    side = np.sqrt(table.area[rows] / frame_area[rows])
    category_ids, group, count = np.unique(table.category_id[rows], return_inverse=True, return_counts=True)
    mean = np.bincount(group, side) / count
    std = np.sqrt(np.bincount(group, (side - mean[group]) ** 2) / count)
    overall = SideDistribution(float(side.mean()), float(side.std()))
    std = np.where(count > 1, std, mean * overall.std / overall.mean)
    sides = (SideDistribution(*pair) for pair in zip(mean.tolist(), std.tolist(), strict=True))
    return SizeStatistics(dict(zip(category_ids.tolist(), sides, strict=True)), overall)


def draw_side_px(
    sizes: SizeStatistics,
    category_id: int,
    image_hw: tuple[int, int],
    settings: ComposeSettings,
    rng: np.random.Generator,
) -> float:
    """Draw the square root of a mask area: s sqrt(H W), s = clip(N(μ, σ), min_side_px / H, max_side_ratio)."""
    side = sizes.of(category_id)
    return clip_side_px(rng.normal(side.mean, side.std), image_hw, settings)


def clip_side_px(side_ratio: float, image_hw: tuple[int, int], settings: ComposeSettings) -> float:
    """Bound s = sqrt(mask area / image area) by the settings, and return it in pixels of the image."""
    height, width = image_hw
    bounded = min(max(side_ratio, settings.min_side_px / height), settings.max_side_ratio)
    return bounded * sqrt(height * width)


@dataclass(frozen=True, slots=True)
class FittedCutOut:
    """A cut-out at its final size: (h, w, 4) uint8 straight alpha, its (h, w) mask, and the mask's tight box."""

    rgba: ImageRGBA
    mask: Mask01
    mask_box: BoxPx
    area_px: int


def fit_cutout(
    cutout_rgba: ImageRGBA,
    side_px: float,
    frame_hw: tuple[int, int],
    *,
    aspect: float = 1.0,
    flip: bool = False,
    max_upscale: float = inf,
    spans_xy: tuple[bool, bool] = (False, False),
    max_side_px: float = inf,
) -> FittedCutOut:
    """Resize so that the mask covers `side_px` squared, or less where the box would leave the frame.

    What spans an axis is enlarged until it reaches across, as far as `max_upscale` and `max_side_px` allow, and loses
    equal parts of both ends where it is longer than the frame: its ends are cuts, which must not show.

    Args:
        cutout_rgba: (h, w, 4) uint8, straight alpha, tight or not.
        aspect: factor on width over height; the area stays.
        spans_xy: whether both borders of its photograph cut it, along x and along y.
        max_side_px: most square root of the mask's area to enlarge to.

    Raises:
        EmptyMaskError: no pixel has an alpha of 128 or more, before or after resizing.
    """
    alpha = cv2.extractChannel(cutout_rgba, 3)
    area = cv2.countNonZero(cv2.compare(alpha, MASK_ALPHA, cv2.CMP_GE))
    if not area:
        raise EmptyMaskError(f"a cut-out of {cutout_rgba.shape[1]}x{cutout_rgba.shape[0]} has no opaque pixel")
    x, y, w, h = cv2.boundingRect(alpha)
    scale = min(side_px / sqrt(area), max_upscale)
    box_wh = w * scale * sqrt(aspect), h * scale / sqrt(aspect)
    most = min(max_upscale, max_side_px / sqrt(area)) / scale
    to_frame = _scale_to_frame(box_wh, frame_hw[::-1], spans_xy, most)
    width, height = (max(1, round(length * to_frame)) for length in box_wh)
    rgba = _crop_middle(resize_rgba(cutout_rgba[y : y + h, x : x + w], width, height), frame_hw)
    if flip:
        rgba = cv2.flip(rgba, 1)
    mask = alpha_to_mask(rgba)
    box: BoxPx = cv2.boundingRect(mask)
    if not box[2]:
        raise EmptyMaskError(f"a cut-out of {w}x{h} has no opaque pixel left at {rgba.shape[1]}x{rgba.shape[0]}")
    return FittedCutOut(rgba, mask, box, cv2.countNonZero(mask))


def _scale_to_frame(
    box_wh: tuple[float, float], frame_wh: tuple[int, int], spans_xy: tuple[bool, bool], most: float
) -> float:
    """Factor by which a box fits into the frame where it does not span it, and reaches across where it does."""
    ratios = [frame / length for frame, length in zip(frame_wh, box_wh, strict=True)]
    room = min((ratio for ratio, spans in zip(ratios, spans_xy, strict=True) if not spans), default=inf)
    reach = max([1.0, *(ratio for ratio, spans in zip(ratios, spans_xy, strict=True) if spans)])
    return reach if reach <= min(room, most) else min(1.0, room)


def _crop_middle(rgba: ImageRGBA, frame_hw: tuple[int, int]) -> ImageRGBA:
    """At most (H, W, 4) of it."""
    top, left = (max(0, length - frame) // 2 for length, frame in zip(rgba.shape[:2], frame_hw, strict=True))
    return rgba[top : top + frame_hw[0], left : left + frame_hw[1]]


def draw_centres(
    cutout: FittedCutOut,
    frame_hw: tuple[int, int],
    truncated_sides: tuple[str, ...],
    truncation: float,
    count: int,
    rng: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """Draw (count, 2) centres that leave at most the share `truncation` of the mask's box outside, per axis.

    A cut-out that its source photograph's border cut, on `truncated_sides`, lies flush against the same
    border; of opposite sides bottom and left count, since nothing is stretched.
    """
    x, y, w, h = cutout.mask_box
    height, width = frame_hw
    left, right = _starts(w, width, truncation, {"left": 0, "right": width - w}, truncated_sides)
    top, bottom = _starts(h, height, truncation, {"bottom": height - h, "top": 0}, truncated_sides)
    starts = np.array([left, top]) + rng.random((count, 2)) * np.array([right - left + 1, bottom - top + 1])
    to_centre = np.array([cutout.mask.shape[1] // 2 - x, cutout.mask.shape[0] // 2 - y])
    centres: npt.NDArray[np.int64] = np.floor(starts).astype(np.int64) + to_centre
    return centres


def _starts(
    length: int, frame_length: int, truncation: float, flush: Mapping[str, int], truncated_sides: tuple[str, ...]
) -> tuple[int, int]:
    """Least and most start of a box along one axis; the first side of `flush` that is truncated settles it."""
    for side, start in flush.items():
        if side in truncated_sides:
            return start, start
    outside = floor(truncation * length)
    return -outside, max(frame_length - length, 0) + outside


@dataclass(frozen=True, slots=True)
class Pasted:
    """What a paste put in a scene: its mask, in its tight box, in pixels of the scene."""

    box_xywh: BoxPx
    mask_hw: MaskHW
    seam: Seam | None


def paste(
    scene_rgb: ImageRGB,
    cutout_rgba: ImageRGBA,
    centre_xy: tuple[int, int],
    harmonizer: Harmonizer,
    *,
    measure: bool = True,
    lit_from: MeanRGB | None = None,
) -> Pasted:
    """Composite a cut-out into the scene, in place; parts outside the scene are truncated.

    Args:
        scene_rgb: (H, W, 3) uint8, sRGB; changed.
        cutout_rgba: (h, w, 4) uint8, straight alpha.
        centre_xy: pixels in the scene's frame; may lie outside it.
        measure: compare the seam with a hard paste's.
        lit_from: mean colour around it before, if it is to have the same contrast to what is around it now.

    Raises:
        EmptyMaskError: no visible pixel is left; the scene is unchanged.
    """
    h, w = cutout_rgba.shape[:2]
    left, top = centre_xy[0] - w // 2, centre_xy[1] - h // 2
    margin = harmonizer.margin_px
    x0, y0 = max(left - margin, 0), max(top - margin, 0)
    window = scene_rgb[y0 : max(top + h + margin, 0), x0 : max(left + w + margin, 0)]
    aligned = _align(cutout_rgba, left - x0, top - y0, window.shape[:2])
    mask = alpha_to_mask(aligned) if aligned.size else np.zeros((1, 1), dtype=np.uint8)
    x, y, mask_w, mask_h = cv2.boundingRect(mask)
    if not mask_w:
        raise EmptyMaskError(f"a cut-out of {w}x{h} centred at {centre_xy!r} has no pixel in the scene")
    if lit_from and (around := mean_around(window, mask.view(np.bool_))):
        aligned = relight(aligned, lit_from, around)
    blended = harmonizer.harmonize(window, aligned)
    seam = measure_seam(HardPaste().harmonize(window, aligned), blended, mask) if measure else None
    window[:] = blended
    tight = mask[y : y + mask_h, x : x + mask_w].view(np.bool_)
    return Pasted((x0 + x, y0 + y, mask_w, mask_h), tight, seam)


def _align(cutout_rgba: ImageRGBA, left: int, top: int, window_hw: tuple[int, ...]) -> ImageRGBA:
    """Put a cut-out on a transparent window, its corner at (left, top), which may be negative."""
    h, w = cutout_rgba.shape[:2]
    aligned = np.zeros((*window_hw, 4), dtype=np.uint8)
    aligned[max(top, 0) : max(top + h, 0), max(left, 0) : max(left + w, 0)] = cutout_rgba[
        max(-top, 0) : max(window_hw[0] - top, 0), max(-left, 0) : max(window_hw[1] - left, 0)
    ]
    return aligned

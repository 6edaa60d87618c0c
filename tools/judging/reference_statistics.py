"""What real defects of one name have in common: size, place, contrast, shape and edges, measured on references."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ...data.masks import mask_to_bbox
from ...data.records import ImageRGB, MaskHW
from ...errors import EmptyMaskError, ImageSizeError

PERCENTILES = (10, 50, 90)
MIN_PART_SHARE = 0.2
"""Of a picture's defect pixels; smaller parts are crumbs of another one."""
RING_PX = 8
"""How far around a part its surroundings reach."""
CLEAR_CONCENTRATION = 0.7
"""From which on the parts have a common direction."""
MIN_ELONGATION = 1.5
"""Rounder parts have no direction."""
FEW = 5
"""Fewer parts than this say little of how much they vary: their ranges are widened."""
WIDENING = 1.5
MAX_SHAPES = 200
"""Parts whose shapes are kept one by one; of more, as many evenly from all."""

FloatHW = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """10th, 50th and 90th percentile."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class PartShape:
    """One part of a reference's mask: what statistics over all parts pull apart."""

    size_ratio: float
    elongation: float
    orientation_deg: float
    centre_xy: tuple[float, float]
    """In [0, 1] of the foreground's box."""
    contrast: float
    """In [-1, 1], as `ReferenceStatistics` has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceStatistics:
    """Measured on the parts of the references' masks, those of at least a fifth of a picture's defect pixels."""

    num_images: int
    num_parts: int
    size_ratio: Quantiles
    """Square root of a part's area over that of the foreground."""
    elongation: Quantiles
    """Length over width, at least 1; of bent parts along the bend."""
    contrast: Quantiles
    """Mean grey of a part less that of a ring around it, in [-1, 1]; negative: darker."""
    darker_share: float
    """Of the parts, in [0, 1]."""
    orientation_deg: float
    """Mean direction of long parts, in [0, 180), counter-clockwise from rightward."""
    orientation_concentration: float
    """In [0, 1]: 1 where all long parts lie one way, 0 where they lie any way or none is long."""
    edge_width_px: Quantiles
    """How many pixels the step at the outline takes, at least 1: hard; seen in the mean profile across it."""
    place_weights: tuple[float, ...]
    """9 shares of the parts' centres in the 3x3 cells of the foreground's box, row by row."""
    shapes: tuple[PartShape, ...]
    """Of the parts, at most `MAX_SHAPES`."""

    def plan_ranges(self) -> Mapping[str, tuple[float, float]]:
        """Least and most of a plan's parameters."""
        widening = WIDENING if self.num_parts < FEW else 1.0
        ranges = {
            "size_ratio": _widened(self.size_ratio, widening, 0.001, 1.0),
            "elongation": _widened(self.elongation, widening, 1.0, 500.0),
        }
        if self.orientation_concentration >= CLEAR_CONCENTRATION:
            # Mardia and Jupp, Directional Statistics, 2.3.1: circular deviation; halved, as angles were doubled.
            deviation = float(np.degrees(np.sqrt(-2 * np.log(max(self.orientation_concentration, 1e-6))) / 2))
            start = (self.orientation_deg - deviation) % 180
            ranges["orientation_deg"] = (round(start, 1), round(start + 2 * deviation, 1))
        return ranges

    def describe(self) -> str:
        """In words, for a knowledge base."""
        tone = "darker" if self.darker_share >= 0.5 else "lighter"
        share = max(self.darker_share, 1 - self.darker_share)
        direction = (
            f"Long ones lie at about {self.orientation_deg:.0f} degrees"
            if self.orientation_concentration >= CLEAR_CONCENTRATION
            else "They have no common direction"
        )
        return (
            f"Measured on {self.num_parts} parts in {self.num_images} reference pictures. Typical size ratio "
            f"{self.size_ratio.median:.3f}, length over width {self.elongation.median:.1f}. {share:.0%} are {tone} "
            f"than their surroundings, typically by {abs(self.contrast.median):.0%} of full scale. {direction}. "
            f"Their edges are about {self.edge_width_px.median:.1f} px wide."
        )


def measure_references(
    images_rgb: Sequence[ImageRGB], masks_hw: Sequence[MaskHW], foregrounds_hw: Sequence[MaskHW] | None = None
) -> ReferenceStatistics:
    """Measure reference defects of one name.

    Args:
        images_rgb: (H, W, 3) uint8 each.
        masks_hw: (H, W) bool each, where the defect is; empty ones are left out.
        foregrounds_hw: (H, W) bool each, the object; None: it fills the pictures.

    Raises:
        ValueError: not one mask and one foreground for each picture.
        ImageSizeError: a mask or a foreground is of another size than its picture.
        EmptyMaskError: no mask has a pixel.
    """
    if foregrounds_hw is None:
        foregrounds_hw = [np.ones(image.shape[:2], np.bool_) for image in images_rgb]
    parts: list[_Part] = []
    num_images = 0
    for number, (image, mask, foreground) in enumerate(zip(images_rgb, masks_hw, foregrounds_hw, strict=True)):
        _check_sizes(number, image, mask, foreground)
        of_image = list(_measure_parts(image, mask, foreground))
        parts += of_image
        num_images += bool(of_image)
    if not parts:
        raise EmptyMaskError(f"no defect pixel in {len(masks_hw)} reference masks; give masks that mark the defect")
    return _summarize(parts, num_images)


@dataclass(frozen=True, slots=True)
class _Part:
    shape: PartShape
    edge_width_px: float

    @property
    def cell(self) -> int:
        """Of 3x3, row by row."""
        column, row = (min(2, int(3 * share)) for share in self.shape.centre_xy)
        return 3 * row + column


def _check_sizes(number: int, image: ImageRGB, mask: MaskHW, foreground: MaskHW) -> None:
    for name, other in (("mask", mask), ("foreground", foreground)):
        if other.shape != image.shape[:2]:
            raise ImageSizeError(
                f"reference {number}: its {name} is {other.shape[1]}x{other.shape[0]}, the picture "
                f"{image.shape[1]}x{image.shape[0]}; give both in one size"
            )


def _measure_parts(image: ImageRGB, mask: MaskHW, foreground: MaskHW) -> Iterator[_Part]:
    if not mask.any():
        return
    whole = foreground if foreground.any() else np.ones_like(mask)
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    _, labels, stats, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    for label in 1 + np.flatnonzero(areas >= MIN_PART_SHARE * mask.sum()):
        part = labels == label
        elongation, orientation = _shape(part)
        contrast, edge_width = _across_outline(grey, part, mask)
        size_ratio = min(1.0, float(np.sqrt(part.sum() / whole.sum())))
        yield _Part(PartShape(size_ratio, elongation, orientation, _place(centres[label], whole), contrast), edge_width)


def _shape(part: MaskHW) -> tuple[float, float]:
    """Elongation, and direction of the long axis in degrees."""
    y, x = np.nonzero(part)
    points = np.stack([x, y]).astype(np.float64)
    # Each pixel is a unit square, of variance 1/12; so a single one has a shape too.
    covariance = np.cov(points, bias=True).reshape(2, 2) + np.eye(2) / 12
    variances, axes = np.linalg.eigh(covariance)
    along_x, along_y = axes[:, 1]
    along = axes[:, 1] @ points
    length = float(np.ptp(along)) + 1
    # Exact for straight parts; for bent ones, which fill little of their extent, an ellipse of their length and area.
    elongation = max(float(np.sqrt(variances[1] / variances[0])), np.pi / 4 * length**2 / points.shape[1])
    return max(1.0, elongation), float(np.degrees(np.arctan2(-along_y, along_x)) % 180)


def _across_outline(grey: FloatHW, part: MaskHW, mask: MaskHW) -> tuple[float, float]:
    """Mean grey inside less that of the ring around, and the width of the step between them in pixels."""
    if part.all():
        return 0.0, 1.0
    inside = cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform((~part).astype(np.uint8), cv2.DIST_L2, 5)
    ring = (outside > 0) & (outside <= RING_PX) & ~mask
    contrast = float(grey[part].mean() - grey[ring].mean()) if ring.any() else 0.0
    depth = np.rint(np.where(part, inside, 1 - outside)).astype(np.int64)
    near = (np.abs(depth) <= RING_PX) & (part | ring)
    sums = np.bincount(depth[near] + RING_PX, weights=grey[near], minlength=2 * RING_PX + 1)
    counts = np.bincount(depth[near] + RING_PX, minlength=2 * RING_PX + 1)
    profile = sums[counts > 0] / counts[counts > 0]
    steepest = float(np.abs(np.diff(profile)).max(initial=0))
    return contrast, max(1.0, float(np.ptp(profile)) / steepest) if steepest > 0 else 1.0


def _place(centre_xy: npt.NDArray[np.float64], foreground: MaskHW) -> tuple[float, float]:
    x, y, width, height = mask_to_bbox(foreground)
    place = np.clip([(centre_xy[0] + 0.5 - x) / width, (centre_xy[1] + 0.5 - y) / height], 0, 1)
    return float(place[0]), float(place[1])


def _summarize(parts: Sequence[_Part], num_images: int) -> ReferenceStatistics:
    cells = np.bincount([part.cell for part in parts], minlength=9)
    shapes = [part.shape for part in parts]
    direction, concentration = _mean_direction([shape for shape in shapes if shape.elongation >= MIN_ELONGATION])
    return ReferenceStatistics(
        num_images=num_images,
        num_parts=len(parts),
        size_ratio=_quantiles([shape.size_ratio for shape in shapes]),
        elongation=_quantiles([shape.elongation for shape in shapes]),
        contrast=_quantiles([shape.contrast for shape in shapes]),
        darker_share=float(np.mean([shape.contrast < 0 for shape in shapes])),
        orientation_deg=direction,
        orientation_concentration=concentration,
        edge_width_px=_quantiles([part.edge_width_px for part in parts]),
        place_weights=tuple((cells / cells.sum()).tolist()),
        shapes=tuple(shapes[int(at)] for at in np.linspace(0, len(shapes) - 1, min(len(shapes), MAX_SHAPES))),
    )


def _mean_direction(shapes: Sequence[PartShape]) -> tuple[float, float]:
    """Of axes, not arrows: angles are doubled, averaged as unit vectors, and halved."""
    if not shapes:
        return 0.0, 0.0
    mean = np.mean(np.exp(2j * np.radians([shape.orientation_deg for shape in shapes])))
    return float(np.degrees(np.angle(mean)) / 2 % 180), min(1.0, float(np.abs(mean)))


def _quantiles(values: Sequence[float]) -> Quantiles:
    low, median, high = np.percentile(values, PERCENTILES).tolist()
    return Quantiles(low, median, high)


def _widened(quantiles: Quantiles, factor: float, least: float, most: float) -> tuple[float, float]:
    # Rounded: a note that a person reads, and one text on every machine.
    low, high = max(least, quantiles.low / factor), min(most, quantiles.high * factor)
    return round(low, 4), round(high, 4)

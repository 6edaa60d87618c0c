"""Deterministic numbers about one defect that was made on a normal image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ...data.masks import mask_to_bbox
from ...data.records import ImageRGB, MaskHW
from ...errors import EmptyMaskError, ImageSizeError
from ..composing.harmonization import measure_seam
from ..defects import DefectPlan, Edited, EditRequest
from ..masking.difference import changed_outside
from ..protocols import ImageEmbedder

Floats = npt.NDArray[np.float32]

RING_PX = 8
"""Width of the band around a defect whose texture it has to stand out from."""
SHADING_PX = 8.0
"""Standard deviation of the blur that takes slow shading out of texture."""
OUTLINE_REACH = np.ones((7, 7), np.uint8)
"""Within which an outline's step has its full height."""
HAIRLINE_PX = 2.0
"""Half width below which a defect has no inside for its outline to step to."""
LEAST_STEP = 1.0
"""In CIE units; a lower step has no sharpness to speak of."""
OUTSIDE_LEVELS = 8
"""Of 255: what decoders and encoders change of a pixel that nobody touched."""
CROP_MARGIN = 0.5
"""Of the defect's longer side, on each side of it."""
MIN_CROP_PX = 16
MIN_LOG_SPREAD = 0.35
"""Of the natural logarithm of sides; a few references show less spread than there is."""
LONE_LIKENESS = 0.5
"""How far from a normal surface towards a reference a crop is as like as another real one; with one reference only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefectReference:
    """One real defect."""

    rgb: ImageRGB
    """(H, W, 3) uint8, sRGB."""
    mask_hw: MaskHW
    """(H, W) bool, some pixel of it."""
    foreground_hw: MaskHW
    """(H, W) bool: the object; all True where it fills the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefectStandard:
    """What real defects of one name are like."""

    log_size_mean: float
    """Of the natural logarithm of size ratios, as in `DefectPlan.size_ratio`."""
    log_size_spread: float
    features: npt.NDArray[np.float32]
    """(n, d) float32 of the references' crops, rows of length 1; (0, 0) where nothing embeds."""
    typical_likeness: float
    """Median cosine of a reference to its nearest other one; NaN below two of them."""


def learn_standard(references: Sequence[DefectReference], embedder: ImageEmbedder | None) -> DefectStandard:
    """Measure references of one defect.

    Args:
        references: at least one.
        embedder: None: likeness is not measured.

    Raises:
        ValueError: no reference.
        EmptyMaskError: a reference's mask or foreground is empty.
    """
    if not references:
        raise ValueError("no reference to learn a standard from; leave the standard out for a zero-shot defect")
    logs = [np.log(size_ratio(reference.mask_hw, reference.foreground_hw)) for reference in references]
    spread = float(np.std(logs, ddof=1)) if len(logs) > 1 else 2 * MIN_LOG_SPREAD
    features = np.zeros((0, 0), np.float32)
    if embedder is not None:
        features = embedder.embed([crop_around(reference.rgb, reference.mask_hw) for reference in references])
    cosines = features @ features.T
    np.fill_diagonal(cosines, -1.0)
    return DefectStandard(
        log_size_mean=float(np.mean(logs)),
        log_size_spread=max(spread, MIN_LOG_SPREAD),
        features=features,
        typical_likeness=float(np.median(cosines.max(axis=1))) if len(cosines) > 1 else float("nan"),
    )


def measure_defect(request: EditRequest, edited: Edited, mask_hw: MaskHW) -> dict[str, float]:
    """All measures of one edit that need no reference.

    Args:
        mask_hw: (H, W) bool, at least one pixel.

    Returns:
        on_object, share of the mask on the foreground; off_plan, distance of its middle from the planned place over the
        diagonal of the foreground's box; contrast, mean colour difference (CIE76) inside the mask over 100; texture,
        standard deviation of the object's lightness around and under the mask, its shading taken out, over 100;
        size_ratio, as in the plan; outline_sharpness, height of the outline's steepest step between neighbours
        over the whole step: 0.5 for a cut in one pixel, 0.34 for one that is blurred by a pixel, 0 for a hairline;
        edge_gradient, as `measure_seam` has it; outside_share, share of the pixels outside the mask that changed
        visibly.

    Raises:
        ImageSizeError: images and masks are not of one size.
        EmptyMaskError: the mask or the foreground is empty.
    """
    check_frames(request, edited, mask_hw)
    size = size_ratio(mask_hw, request.foreground_hw)
    original_lab, edited_lab = _to_lab(request.image_rgb), _to_lab(edited.rgb)
    return {
        "on_object": float(request.foreground_hw[mask_hw].mean()),
        "off_plan": _off_plan(request.plan, request.foreground_hw, mask_hw),
        "contrast": float(np.linalg.norm(edited_lab - original_lab, axis=2)[mask_hw].mean() / 100),
        "texture": _texture(original_lab[..., 0], mask_hw, request.foreground_hw) / 100,
        "size_ratio": size,
        "outline_sharpness": _outline_sharpness(edited_lab - original_lab, mask_hw),
        "edge_gradient": measure_seam(request.image_rgb, edited.rgb, mask_hw.astype(np.uint8)).after.edge_gradient,
        "outside_share": changed_outside(request.image_rgb, edited.rgb, mask_hw, tolerance=OUTSIDE_LEVELS),
    }


def measure_likeness(
    original_rgb: ImageRGB, edited_rgb: ImageRGB, mask_hw: MaskHW, standard: DefectStandard, embedder: ImageEmbedder
) -> Mapping[str, float]:
    """How far an edit went from the normal surface towards a real defect.

    Returns:
        likeness, cosine of the edited crop to its nearest reference; likeness_gain, how far that lies between the
        original crop's cosine (0) and that of a real defect to its nearest other one (1); it may lie beyond both.
    """
    crops = [crop_around(image, mask_hw) for image in (original_rgb, edited_rgb)]
    before, after = (embedder.embed(crops) @ standard.features.T).max(axis=1).tolist()
    typical = standard.typical_likeness
    if np.isnan(typical):
        typical = before + LONE_LIKENESS * (1 - before)
    # Where a normal crop is as like as a real defect, the features do not see this kind of defect.
    room = typical - before
    return {"likeness": after, "likeness_gain": (after - before) / room if room > 0.01 else 1.0}


def size_ratio(mask_hw: MaskHW, foreground_hw: MaskHW) -> float:
    """Square root of a defect's area over that of the object, as `DefectPlan.size_ratio` has it.

    Raises:
        EmptyMaskError: one of them has no pixel.
    """
    areas = int(mask_hw.sum()), int(foreground_hw.sum())
    if 0 in areas:
        raise EmptyMaskError(f"defect of {areas[0]} px on an object of {areas[1]} px; expected some of both")
    return float(np.sqrt(areas[0] / areas[1]))


def crop_around(image: ImageRGB, mask_hw: MaskHW) -> ImageRGB:
    """The square around a mask, with what surrounds it, as far as the image goes.

    Raises:
        EmptyMaskError: the mask has no pixel.
    """
    x, y, width, height = mask_to_bbox(mask_hw)
    half = max(MIN_CROP_PX / 2, (0.5 + CROP_MARGIN) * max(width, height))
    middle_x, middle_y = x + width / 2, y + height / 2
    left, top = max(0, int(middle_x - half)), max(0, int(middle_y - half))
    return image[top : int(np.ceil(middle_y + half)), left : int(np.ceil(middle_x + half))]


def check_frames(request: EditRequest, edited: Edited, mask_hw: MaskHW) -> None:
    """Raise ImageSizeError where images and masks are not of one size."""
    frame = request.image_rgb.shape[:2]
    others = {"foreground": request.foreground_hw, "edited image": edited.rgb, "mask": mask_hw}
    for name, pixels in others.items():
        if pixels.shape[:2] != frame:
            raise ImageSizeError(
                f"{name} of {pixels.shape[:2]} for an image of {frame} ({request.item_id!r}); expected one frame"
            )


def _to_lab(rgb: ImageRGB) -> Floats:
    """L in [0, 100], a and b."""
    return np.asarray(cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB))


def _off_plan(plan: DefectPlan, foreground_hw: MaskHW, mask_hw: MaskHW) -> float:
    x, y, width, height = mask_to_bbox(foreground_hw)
    left, top, mask_width, mask_height = mask_to_bbox(mask_hw)
    middle_x, middle_y = left + mask_width / 2, top + mask_height / 2
    planned_x, planned_y = x + plan.centre_xy[0] * width, y + plan.centre_xy[1] * height
    return float(np.hypot(middle_x - planned_x, middle_y - planned_y) / np.hypot(width, height))


def _texture(lightness: Floats, mask_hw: MaskHW, foreground_hw: MaskHW) -> float:
    """On the object alone, whose border is no texture; where the mask is nowhere near it, of everything around."""
    square = np.ones((2 * RING_PX + 1, 2 * RING_PX + 1), np.uint8)
    around = cv2.dilate(mask_hw.astype(np.uint8), square) > 0
    surface = foreground_hw if (around & foreground_hw).any() else np.ones_like(foreground_hw)
    weight = surface.astype(np.float32)
    blurred, total = (cv2.GaussianBlur(field, (0, 0), SHADING_PX) for field in (lightness * weight, weight))
    return float((lightness - blurred / np.maximum(total, 1e-6))[around & surface].std())


def _outline_sharpness(change_lab: Floats, mask_hw: MaskHW) -> float:
    """Median over the outline's pixels that have a step; 0 where none has, and for hairlines, which are all outline."""
    inside = cv2.distanceTransform(np.pad(mask_hw, 1).astype(np.uint8), cv2.DIST_L2, 3)
    if inside.max() < HAIRLINE_PX:
        return 0.0
    change: Floats = np.linalg.norm(change_lab, axis=2)
    across = cv2.filter2D(change, cv2.CV_32F, np.array([[-0.5, 0, 0.5]]))
    down = cv2.filter2D(change, cv2.CV_32F, np.array([[-0.5], [0], [0.5]]))
    step = cv2.dilate(change, OUTLINE_REACH) - cv2.erode(change, OUTLINE_REACH)
    outline = cv2.morphologyEx(mask_hw.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    stepped = outline & (step >= LEAST_STEP)
    if not stepped.any():
        return 0.0
    return float(np.median(cv2.magnitude(across, down)[stepped] / step[stepped]))

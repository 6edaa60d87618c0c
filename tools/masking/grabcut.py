"""The masker that needs no weights: an object on a background of other colours."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ...configs.masking import GrabCutSettings
from ...data.records import MaskHW
from ..protocols import Masked, MaskRequest
from .composites import alpha_to_masked, mask_to_alpha, to_opaque

BoxXYXY = tuple[float, float, float, float]

_SEED = 0
_NUM_COLOURS = 5
"""Components of each colour model in OpenCV; one needs as many pixels."""


class GrabCutMasker:
    """GrabCut (Rother et al. 2004) from a known mask, a known box, or the border. Equal pictures, equal masks."""

    name = "grabcut"
    revision = f"opencv-{cv2.__version__}"

    def __init__(self, settings: GrabCutSettings) -> None:
        self._settings = settings

    def mask(self, requests: Sequence[MaskRequest]) -> list[Masked]:
        return [self._mask(request) for request in requests]

    def _mask(self, request: MaskRequest) -> Masked:
        rgb = to_opaque(request.rgba)
        if request.mask_hw is not None:
            labels = mask_to_labels(request.mask_hw, self._settings)
        else:
            labels = start_labels(rgb.shape[0], rgb.shape[1], request.box_xyxy, self._settings)
        return alpha_to_masked(mask_to_alpha(_cut(rgb, labels, self._settings.iterations)))


def start_labels(height: int, width: int, box_xyxy: BoxXYXY | None, settings: GrabCutSettings) -> npt.NDArray[np.uint8]:
    """What is known of each pixel before the first cut.

    Outside a known box there is only background. Without one, or where it leaves nothing outside, the picture's
    border is background.

    Returns:
        (height, width) uint8 of OpenCV's GC_BGD, GC_PR_BGD and GC_PR_FGD.
    """
    border = cv2.GC_BGD if settings.border_background else cv2.GC_PR_BGD
    if box_xyxy is not None:
        labels = np.full((height, width), cv2.GC_BGD, np.uint8)
        x0, y0, x1, y1 = (max(0, round(edge)) for edge in box_xyxy)
        labels[y0:y1, x0:x1] = cv2.GC_PR_FGD
        if (labels == cv2.GC_BGD).any():
            return labels
    labels = np.full((height, width), border, np.uint8)
    margin = max(1, round(settings.margin_ratio * min(height, width)))
    labels[margin : height - margin, margin : width - margin] = cv2.GC_PR_FGD
    return labels


def mask_to_labels(mask_hw: MaskHW, settings: GrabCutSettings) -> npt.NDArray[np.uint8]:
    """What is known before the first cut where an object like this one stood in the same place.

    Its core is the object, what is far from it background, and a band on both sides of its outline is to be decided.

    Args:
        mask_hw: (h, w) bool.

    Returns:
        (h, w) uint8 of all four of OpenCV's labels; only background for an empty mask.
    """
    mask = mask_hw.astype(np.uint8)
    side = 2 * max(1, round(settings.band_ratio * np.sqrt(mask.sum()))) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    labels = np.where(cv2.dilate(mask, kernel) > 0, np.uint8(cv2.GC_PR_BGD), np.uint8(cv2.GC_BGD))
    labels[mask > 0] = cv2.GC_PR_FGD
    labels[cv2.erode(mask, kernel, borderValue=0) > 0] = cv2.GC_FGD
    return labels


def _cut(rgb: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], iterations: int) -> MaskHW:
    inside = (labels == cv2.GC_PR_FGD) | (labels == cv2.GC_FGD)
    if min(inside.sum(), (~inside).sum()) < _NUM_COLOURS:
        return np.zeros_like(inside)
    cv2.setRNGSeed(_SEED)  # OpenCV's, of this thread: it starts the colour clusters
    models = np.zeros((2, 1, 65))
    cv2.grabCut(rgb, labels, None, models[0], models[1], iterations, cv2.GC_INIT_WITH_MASK)
    return np.asarray((labels == cv2.GC_PR_FGD) | (labels == cv2.GC_FGD))

"""The mask of an edit: the painter's own, the difference from the original, or Segment Anything's in the box of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ...configs.anomaly_agent import AnomalyAgentSettings
from ...data.masks import mask_to_bbox
from ...data.records import ImageRGB, MaskHW
from ...errors import RecipeError
from ...models.checkpoints import find_checkpoint
from ..defects import Edited, EditRequest
from ..judging.measures import mask_iou
from ..naming import no_settings
from ..protocols import Masker, MaskRequest
from .difference import changed_outside, difference_mask

EditMasker = Callable[[EditRequest, Edited], MaskHW]
"""(H, W) bool: what an edit changed; all False where nothing."""
MIN_IOU = 0.5
"""Of a mask with the changed pixels, below which it shows something else that lies in their box."""


def known_or_difference(request: EditRequest, edited: Edited) -> MaskHW:
    """The painter's mask where it knows it."""
    return difference(request, edited) if edited.mask_hw is None else edited.mask_hw


def difference(request: EditRequest, edited: Edited) -> MaskHW:
    """What the pixels tell, whatever the painter knows."""
    return difference_mask(request.image_rgb, edited.rgb)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedBoxMasker:
    """Asks a masker for what lies in the box of the changed pixels (AnomalyAgent's MG, with SAM for MetaUAS).

    An outline follows the defect's edge where the difference only follows its contrast. The difference stays where the
    mask is another thing's, or leaves out more of the change than an edit may have outside its mask.
    """

    masker: Masker
    max_changed_outside: float
    """In [0, 1]: share of the pixels outside the mask that may differ from the original."""
    tolerance_levels: int
    """Of 255: a difference that does not count there."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """One picture at a time on the device."""

    def __call__(self, request: EditRequest, edited: Edited) -> MaskHW:
        """Find one edit's mask; raises as the masker does."""
        changed = difference(request, edited)
        if edited.flaw or not changed.any():
            return changed
        x, y, width, height = (int(value) for value in mask_to_bbox(changed))
        found = np.zeros_like(changed)
        box = np.s_[y : y + height, x : x + width]
        found[box] = self._ask(edited.rgb, request.plan.defect, (x, y, x + width, y + height))[box]
        return found if self._is_plausible(found, changed, request.image_rgb, edited.rgb) else changed

    def _ask(self, rgb: ImageRGB, defect: str, box_xyxy: tuple[int, int, int, int]) -> MaskHW:
        rgba = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
        with self._lock:
            [masked] = self.masker.mask([MaskRequest(rgba=rgba, category=defect, box_xyxy=box_xyxy)])
        return masked.alpha > 127

    def _is_plausible(self, found: MaskHW, changed: MaskHW, original: ImageRGB, edited: ImageRGB) -> bool:
        if mask_iou(found, changed) < MIN_IOU:
            return False
        outside = changed_outside(original, edited, found, tolerance=self.tolerance_levels)
        return outside <= self.max_changed_outside


def build_edit_masker(settings: AnomalyAgentSettings) -> EditMasker:
    """The anomaly agent's way to a mask; a network's weights are looked for here, and loaded for the first edit.

    Raises:
        RecipeError: `sam` has no settings, or is not asked by a box.
        ModelNotFetchedError: its weights are not in the cache.
    """
    if settings.masks != "sam":
        return known_or_difference if settings.masks == "known" else difference
    if settings.sam is None:
        raise no_settings("masker", "sam", "model", "anomaly_agent")
    if "box" not in settings.sam.prompts:
        raise RecipeError(
            f"agents.anomaly_agent.sam.prompts is {list(settings.sam.prompts)}; expected 'box' among them, for `masks: "
            "sam` asks for what lies in the box of the changed pixels"
        )
    find_checkpoint(settings.sam.model, settings.sam.revision)
    from .sam import SamMasker

    return ChangedBoxMasker(
        masker=SamMasker(settings.sam),
        max_changed_outside=settings.max_changed_outside,
        tolerance_levels=settings.tolerance_levels,
    )

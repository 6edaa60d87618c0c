"""Defects by any pipeline of diffusers that takes a picture: SDXL inpainting, FLUX.1 Fill or Kontext, Qwen-Image-Edit.

The model sees a crop around the plan's region, and only the region takes over what it paints, fading out at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ...configs.anomaly import InpaintingEditSettings
from ...data.masks import mask_to_bbox
from ...data.records import ImageRGB, MaskHW
from ..defects import DefectPlan, Edited, EditRequest
from ..protocols import Painted, PaintRequest, SourceView
from .conditioned import ConditionedPainter
from .conditioned_calls import Change
from .plan_region import PlanRegion, keep_edit, plan_to_region, refuse
from .procedural.site import flaw_of

STRENGTH_STEP = 0.05
"""Plans whose strengths agree so far are painted in one call."""


class DefectInpaintingPainter:
    """Paints a defect into its planned region, by its prompt.

    The mask is what the model changed to be seen; every pixel outside it is the original's. Equal settings share
    weights with the other agents' painters.
    """

    name = "inpainting"

    def __init__(self, settings: InpaintingEditSettings) -> None:
        self._settings = settings
        self._crops = _CropPainter(settings)

    @property
    def revision(self) -> str:
        """Model, adaptations and ControlNet, with the versions of their files. Raises as `ConditionedPainter` does."""
        return self._crops.revision

    def paint(self, requests: Sequence[EditRequest]) -> list[Edited]:
        """One edit a request; a plan that lies off its object, and a picture that is none, come back with a flaw.

        Raises:
            PromptError: a request has no prompt.
            SampleError: an image has a side below the model's stride; nothing was painted.
            RecipeError: the settings do not fit the model; nothing was painted.
            ModelNotFetchedError: the model is not here.
            BrokenRunError: damaged files, no such device, or not even one picture fits in its memory.
        """
        flaws = [flaw_of(request) for request in requests]
        crops = [self._crop(request) for request, flaw in zip(requests, flaws, strict=True) if not flaw]
        pictures = (
            zip(crops, self._crops.paint([self._ask(crop) for crop in crops]), strict=True) if crops else iter(())
        )
        return [
            refuse(request, flaw) if flaw else _paste(*next(pictures))
            for request, flaw in zip(requests, flaws, strict=True)
        ]

    def _crop(self, request: EditRequest) -> _Crop:
        region = plan_to_region(request, self._settings.grow_ratio)
        x, y, width, height = mask_to_bbox(region.mask_hw)
        wanted = max(width, height) * (1 + 2 * self._settings.context_ratio)
        side = max(round(wanted), self._settings.min_crop_px)
        rows, columns = region.mask_hw.shape
        across, down = _span(x + width / 2, side, columns), _span(y + height / 2, side, rows)
        return _Crop(request, region, (down, across))

    def _ask(self, crop: _Crop) -> PaintRequest:
        request, least_most = crop.request, self._settings.strength
        return PaintRequest(
            item_id=request.item_id,
            seed=request.seed,
            category=request.plan.defect,
            prompt=request.prompt,
            strength=_strength(request.plan, least_most),
            view=SourceView(crop.rgb, crop.mask_hw),
            control_scale=self._settings.control_scale,
        )


class _CropPainter(ConditionedPainter):
    """Changes what the mask of a view shows, whether or not the pipeline is told of it."""

    change: Change = "instance"

    def __init__(self, settings: InpaintingEditSettings) -> None:
        super().__init__(settings)
        self.task = settings.task


@dataclass(frozen=True, slots=True)
class _Crop:
    """What the model sees of a request's image."""

    request: EditRequest
    region: PlanRegion
    window: tuple[slice, slice]

    @property
    def rgb(self) -> ImageRGB:
        return np.ascontiguousarray(self.request.image_rgb[self.window])

    @property
    def mask_hw(self) -> MaskHW:
        return np.ascontiguousarray(self.region.mask_hw[self.window])


def _span(centre: float, side: int, limit: int) -> slice:
    """A stretch of that length about a centre, moved and shortened to lie in the image."""
    start = int(np.clip(round(centre - side / 2), 0, max(limit - side, 0)))
    return slice(start, min(start + side, limit))


def _strength(plan: DefectPlan, least_most: tuple[float, float]) -> float:
    strength = least_most[0] + (least_most[1] - least_most[0]) * plan.severity
    return round(round(strength / STRENGTH_STEP) * STRENGTH_STEP, 2)


def _paste(crop: _Crop, painted: Painted) -> Edited:
    if painted.flaw:
        return refuse(crop.request, painted.flaw, painted.parameters)
    before = crop.rgb
    height, width = before.shape[:2]
    how = cv2.INTER_AREA if painted.rgba.shape[0] > height else cv2.INTER_CUBIC
    after = cv2.resize(np.ascontiguousarray(painted.rgba[..., :3]), (width, height), interpolation=how)
    alpha = crop.region.alpha_hw[crop.window][..., None]
    mixed = np.rint(before + alpha * (after.astype(np.float32) - before))
    whole = crop.request.image_rgb.copy()
    whole[crop.window] = np.clip(mixed, 0, 255).astype(np.uint8)
    parameters = {**painted.parameters, "crop_px": f"{width}x{height}"}
    return keep_edit(crop.request, whole, parameters, region_hw=crop.region.mask_hw)

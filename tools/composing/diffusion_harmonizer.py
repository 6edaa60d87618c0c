"""The harmonizer `diffusion`: a seam repainted by image to image at low strength, everything else left alone."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from ...configs.compose import SeamDiffusionSettings
from ...configs.conditioning import ConditionedSettings
from ...configs.diffusion import PipelineSettings
from ...data.records import ImageRGB, ImageRGBA
from ...errors import BrokenRunError
from ...models.device import run_in_batches
from ..painting.conditioned_calls import Start, start_arguments
from ..painting.conditioned_pipelines import find_conditioned_class, share_conditioned_pipeline
from ..painting.diffusion import call_arguments, call_pipeline
from ..painting.pipeline_index import find_stride
from ..protocols import PaintRequest
from .harmonization import RING_PX, AlphaBlend, Mask01, alpha_to_mask

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

MIN_STRIDES = 8
"""Least side of what a model is given, in steps of its autoencoder: its denoiser halves a side a few times more."""
_CALL = ("num_inference_steps", "guidance_scale", "negative_prompt")

logger = logging.getLogger(__name__)


class DiffusionHarmonizer:
    """Alpha blending, then diffusion inside a ring around the seam; outside the ring every pixel stays the blend's.

    Its noise comes from the cut-out as it lies in its window, so that equal pastes look equal. Weights and lock are
    shared with painters of the same model. The scene beside the object is repainted too, as far as the ring reaches.
    """

    def __init__(self, settings: SeamDiffusionSettings) -> None:
        """
        Raises:
            RecipeError: there is no such model, or diffusers has no image to image for it.
            ModelNotFetchedError: it is not in the cache.
        """
        self._settings = settings
        self.margin_px = max(RING_PX, settings.ring_px + settings.context_px)
        own = set(PipelineSettings.model_fields) | set(_CALL)
        self._pipeline_settings = ConditionedSettings.model_validate(settings.model_dump(include=own))
        self._pipeline_class = find_conditioned_class(self._pipeline_settings, "image_to_image")
        self._arguments = call_arguments(self._pipeline_class, self._pipeline_settings)

    def harmonize(self, window_rgb: ImageRGB, cutout_rgba: ImageRGBA) -> ImageRGB:
        """Return a new window; see `Harmonizer`. Where the model refuses to paint, the alpha blend stays.

        Raises:
            BrokenRunError: damaged files, no such device, one that is too small, or numbers that are not finite.
        """
        blended = AlphaBlend().harmonize(window_rgb, cutout_rgba)
        weight = ring_weight(alpha_to_mask(cutout_rgba), self._settings.ring_px)
        if not weight.any():
            return blended
        repainted = self._repaint(blended, cutout_to_seed(cutout_rgba))
        if repainted is None:
            return blended
        share = weight[..., None]
        mixed = np.rint(share * repainted + (1 - share) * blended).astype(np.uint8)
        return np.where(share > 0, mixed, blended)

    def _repaint(self, rgb: ImageRGB, seed: int) -> ImageRGB | None:
        """The window by image to image, (h, w, 3) uint8; None where a safety checker blanked it."""
        start = self._prepare(rgb, seed)
        shared = share_conditioned_pipeline(self._pipeline_settings, self._pipeline_class)
        with shared.lock:
            [picture] = run_in_batches(partial(self._call, shared.pipeline), [start], 1)
        if picture is None:
            return None
        if not np.isfinite(picture).all():
            raise BrokenRunError(
                f"model {self._settings.model!r} gave numbers that are not finite for a window of {rgb.shape[1]} by "
                f"{rgb.shape[0]} pixels; set `compose.diffusion.dtype` to float32 or bfloat16."
            )
        height, width = rgb.shape[:2]
        painted = np.rint(picture.clip(0, 1) * 255).astype(np.uint8)
        if painted.shape[:2] != start.rgb.shape[:2]:  # some pipelines choose sizes of their own
            painted = np.asarray(cv2.resize(painted, start.rgb.shape[1::-1], interpolation=cv2.INTER_AREA))
        scaled_width, scaled_height = self._scaled_size(width, height)
        inside = painted[:scaled_height, :scaled_width]
        return inside if inside.shape == rgb.shape else _resize(inside, width, height)

    def _prepare(self, rgb: ImageRGB, seed: int) -> Start:
        """The window at the size to paint, its sides filled up to what the model can divide by repeating the edge."""
        width, height = self._scaled_size(rgb.shape[1], rgb.shape[0])
        scaled = rgb if (width, height) == rgb.shape[1::-1] else _resize(rgb, width, height)
        down, across = (max(-(-side // self._stride), MIN_STRIDES) * self._stride for side in (height, width))
        padded = cv2.copyMakeBorder(scaled, 0, down - height, 0, across - width, cv2.BORDER_REPLICATE)
        everything = np.ones((down, across), dtype=np.bool_)
        request = PaintRequest(
            item_id="seam", seed=seed, category="", prompt=self._settings.prompt, strength=self._settings.strength
        )
        return Start(request=request, rgb=padded, mask_hw=everything, change_hw=everything)

    def _scaled_size(self, width: int, height: int) -> tuple[int, int]:
        longer = max(width, height)
        scale = min(max(longer, self._settings.min_side_px), self._settings.max_side_px) / longer
        return max(1, round(width * scale)), max(1, round(height * scale))

    def _call(self, pipeline: DiffusionPipeline, starts: Sequence[Start]) -> list[npt.NDArray[np.floating] | None]:
        arguments = self._arguments | start_arguments(type(pipeline), starts, self._pipeline_settings)
        output = call_pipeline(pipeline, arguments, [start.request for start in starts], output_type="np")
        blanked = getattr(output, "nsfw_content_detected", None) or [False] * len(starts)
        if any(blanked):
            logger.warning("the safety checker of %r blanked a seam; its alpha blend stays", self._settings.model)
        return [None if taken else picture for picture, taken in zip(output.images, blanked, strict=True)]

    @cached_property
    def _stride(self) -> int:
        return find_stride(self._pipeline_settings)


def ring_weight(mask: Mask01, ring_px: int) -> npt.NDArray[np.float32]:
    """How much of a repainted window counts: most at the seam, nothing `ring_px` away from it, smoothly between.

    Inside the object the ring ends half way to its innermost point, so that small objects keep their middle.

    Args:
        mask: (h, w) uint8, 1 on the object; where it ends at the window's edge there is no seam.

    Returns:
        (h, w) float32 in [0, 1]; all 0 where nothing or everything is object.
    """
    if mask.all() or not mask.any():
        return np.zeros(mask.shape, dtype=np.float32)
    inside, outside = (cv2.distanceTransform(side, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for side in (mask, 1 - mask))
    inner_px = min(float(ring_px), float(inside.max()) / 2)
    away = np.where(mask, inside / inner_px, outside / ring_px)
    weight: npt.NDArray[np.float32] = np.where(away < 1, np.cos(np.pi / 2 * away) ** 2, 0).astype(np.float32)
    return weight


def cutout_to_seed(cutout_rgba: ImageRGBA) -> int:
    """63 bits that depend on the pixels and their place in the window alone."""
    shape = "x".join(str(side) for side in cutout_rgba.shape).encode()
    digest = hashlib.sha256(shape + np.ascontiguousarray(cutout_rgba).tobytes()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _resize(rgb: ImageRGB, width: int, height: int) -> ImageRGB:
    how = cv2.INTER_AREA if width * height < rgb.shape[0] * rgb.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=how))

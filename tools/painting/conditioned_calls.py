"""What a pipeline that starts from a picture is called with, and what becomes of its answer."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from ...configs.conditioning import ConditionedSettings
from ...data.masks import mask_to_bbox
from ...data.records import ImageRGB, MaskHW
from ...errors import EmptyMaskError, SampleError
from ..protocols import Painted, PaintRequest, SourceView

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Change = Literal["everything", "instance", "surroundings"]
_DEFAULT_STEPS = 50
"""Of pipelines that name no default themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What one request starts from, at the size that the pipeline paints."""

    request: PaintRequest
    rgb: ImageRGB
    """(h, w, 3) uint8."""
    mask_hw: MaskHW
    """(h, w) bool: the source instance."""
    change_hw: MaskHW
    """(h, w) bool: what may change."""
    control: ImageRGB | None = None
    """(h, w, 3) uint8: the edges to follow."""

    @property
    def group(self) -> tuple[tuple[int, ...], float, float]:
        """Requests that agree on this go into one call."""
        return (self.rgb.shape, self.request.strength, self.request.control_scale)


def prepare_start(
    request: PaintRequest, *, side_px: int, stride: int, change: Change, grow_ratio: float = 0.0
) -> Start:
    """Bring a request's view to the size to paint, and see what of it may change.

    Args:
        side_px: about what the longer side becomes.
        stride: what both sides become a multiple of.
        grow_ratio: of `instance`: how far the change reaches beyond the mask, of its box's longer side.

    Raises:
        SampleError: no view, one that is smaller than the stride, or nothing of it may change.
        EmptyMaskError: the instance is too thin to be seen at that size.
    """
    view = request.view
    if view is None:
        raise SampleError(f"item {request.item_id!r} has no view; expected the source in its surroundings.")
    width, height = _fit_size(request.item_id, view, side_px, stride)
    shrinks = width * height < view.mask_hw.size
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    rgb = np.asarray(cv2.resize(view.rgb, (width, height), interpolation=how))
    soft = cv2.resize(view.mask_hw.astype(np.float32), (width, height), interpolation=min(how, cv2.INTER_AREA))
    mask_hw = np.asarray(soft >= 0.5)
    if not mask_hw.any():
        raise EmptyMaskError(f"item {request.item_id!r}: the instance has no pixel at {width} by {height} pixels.")
    change_hw = _find_change(mask_hw, change, grow_ratio)
    if not change_hw.any():
        raise SampleError(f"item {request.item_id!r}: the instance fills its view; it has no surroundings to change.")
    return Start(request=request, rgb=rgb, mask_hw=mask_hw, change_hw=change_hw)


def start_arguments(
    pipeline_class: type[DiffusionPipeline], starts: Sequence[Start], settings: ConditionedSettings
) -> dict[str, object]:
    """What a call gets from starts of one group, under the names that this pipeline has for it.

    Pipelines with a `control_mask` (Stable Diffusion 3, Qwen-Image) have ControlNets that read the picture itself.
    """
    known = inspect.signature(pipeline_class.__call__).parameters
    request, (height, width) = starts[0].request, starts[0].rgb.shape[:2]
    pictures = [Image.fromarray(start.rgb) for start in starts]
    masks = [Image.fromarray(start.change_hw.astype(np.uint8) * 255) for start in starts]
    asked: dict[str, object] = {
        "image": pictures,
        "mask_image": masks,
        "control_mask": masks,
        "strength": reachable_strength(pipeline_class, request.strength, settings.num_inference_steps),
        "height": height,
        "width": width,
    }
    if settings.controlnet is not None:
        asked["controlnet_conditioning_scale"] = request.control_scale
    if "control_mask" in known:
        asked["control_image"] = pictures
    elif follows_edges(pipeline_class, settings):
        asked |= _edge_arguments(pipeline_class, starts, settings)
    if settings.ip_adapter is not None:
        asked["ip_adapter_image"] = [Image.fromarray(cut_out_on_white(start)) for start in starts]
    return {name: value for name, value in asked.items() if name in known}


def follows_edges(pipeline_class: type[DiffusionPipeline], settings: ConditionedSettings) -> bool:
    """Whether a pipeline reads edges: with a ControlNet, or by itself, as FLUX.1 Canny does."""
    known = inspect.signature(pipeline_class.__call__).parameters
    return "control_mask" not in known and ("control_image" in known or settings.controlnet is not None)


def reachable_strength(pipeline_class: type[DiffusionPipeline], strength: float, steps: int | None) -> float:
    """The strength that a call gets: pipelines refuse one at which not even a single step is left."""
    default = getattr(inspect.signature(pipeline_class.__call__).parameters.get("num_inference_steps"), "default", None)
    num_steps = steps or (default if isinstance(default, int) else _DEFAULT_STEPS)
    return min(1.0, max(strength, (1 + 1e-6) / num_steps))


def cut_out_on_white(start: Start) -> ImageRGB:
    """The instance alone, cropped to its box: (h, w, 3) uint8."""
    x, y, width, height = (int(value) for value in mask_to_bbox(start.mask_hw))
    box = np.s_[y : y + height, x : x + width]
    return np.where(start.mask_hw[box][..., None], start.rgb[box], np.uint8(255))


def fit_picture(picture: npt.NDArray[np.floating], start: Start) -> npt.NDArray[np.floating]:
    """A picture at its start's size; some pipelines choose sizes of their own."""
    height, width = start.rgb.shape[:2]
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))


def keep_the_rest(painted: Painted, start: Start, change: Change) -> Painted:
    """Put back, byte for byte, what was not to change; of new surroundings, the source's mask is the alpha."""
    rgb = np.where(start.change_hw[..., None], painted.rgba[..., :3], start.rgb)
    alpha = start.mask_hw.astype(np.uint8) * 255 if change == "surroundings" else painted.rgba[..., 3]
    return replace(painted, rgba=np.dstack([rgb, alpha]), covers_view=True, condition=start.control)


def _fit_size(item_id: str, view: SourceView, side_px: int, stride: int) -> tuple[int, int]:
    height, width = view.rgb.shape[:2]
    longer, shorter = max(height, width), min(height, width)
    if min(shorter, shorter * side_px / longer) < stride:
        raise SampleError(
            f"item {item_id!r}: its view of {width} by {height} pixels has a side below {stride} pixels, as it is "
            f"or with its longer side at {side_px}; the model cannot paint it. Raise `padding_ratio` or `side_px`."
        )
    across, down = (max(1, round(side * side_px / longer / stride)) * stride for side in (width, height))
    return across, down


def _find_change(mask_hw: MaskHW, change: Change, grow_ratio: float) -> MaskHW:
    if change == "everything":
        return np.ones_like(mask_hw)
    if change == "surroundings":
        return ~mask_hw
    _, _, width, height = mask_to_bbox(mask_hw)
    distances = cv2.distanceTransform((~mask_hw).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distances <= grow_ratio * max(width, height))


def _edge_arguments(
    pipeline_class: type[DiffusionPipeline], starts: Sequence[Start], settings: ConditionedSettings
) -> dict[str, object]:
    controls = [Image.fromarray(start.control) for start in starts if start.control is not None]
    mode = settings.controlnet.mode if settings.controlnet else None
    if "control_image" not in inspect.signature(pipeline_class.__call__).parameters:
        return {"image": controls}
    if "ControlNetUnion" in pipeline_class.__name__:  # a list of conditions, each with its pictures
        return {"control_image": [controls], "control_mode": [mode]}
    return {"control_image": controls, **({"control_mode": mode} if mode is not None else {})}

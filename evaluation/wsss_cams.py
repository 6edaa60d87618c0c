"""From a network that knows labels to masks: class activation maps, a background threshold, edges of the picture.

The maps are LayerCAM's (Jiang et al., IEEE TIP 2021) by pytorch-grad-cam. Refinement is mean-field inference in a dense
conditional random field (Krähenbühl and Koltun, NeurIPS 2011) whose messages pass through the guided filter (He, Sun
and Tang, TPAMI 2013) in place of a permutohedral lattice: it keeps edges as the bilateral kernel does, costs the same
for any window, and is kept up in kornia, where pydensecrf is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from kornia.filters import guided_blur

from ..data.label_records import ClassMapHW
from ..data.records import ImageRGB
from ..errors import MissingDependencyError
from .wsss_networks import CellEvidence, LabelNetwork, image_to_pixels

CamsCHW = npt.NDArray[np.float32]
"""(n, H, W) float32 in [0, 1], one map for each label of an image, each with a highest value of 1 or all 0."""
CAMS_AT_ONCE = 8
ITERATIONS = 4
"""Of the mean field; the maps hardly change after."""
WINDOW_SHARE = 1 / 14
"""Side of the guided filter's window, over the frame's."""
EDGE_VARIANCE = 1e-3
"""Of levels in [0, 1], below which a window counts as flat (the filter's epsilon)."""
MESSAGE_WEIGHT = 3.0
"""Of the neighbours' word against a pixel's own."""
_LEAST = 1e-4


def find_cams(
    network: LabelNetwork, images: Sequence[ImageRGB], levels: Sequence[Sequence[int]], *, flipped: bool = True
) -> Iterator[CamsCHW]:
    """Where the network sees each label of each image.

    Args:
        images: (H, W, 3) uint8, all of one size.
        levels: of each image, places of its labels in the network's answer.
        flipped: average with what it sees in the mirror.

    Raises:
        MissingDependencyError: pytorch-grad-cam is not installed.
    """
    asked = [(place, level) for place, own in enumerate(levels) for level in own]
    maps: list[npt.NDArray[np.float32]] = []
    for start in range(0, len(asked), CAMS_AT_ONCE):
        chunk = asked[start : start + CAMS_AT_ONCE]
        pixels = torch.stack([image_to_pixels(images[place].copy()) for place, _ in chunk])
        wanted = [level for _, level in chunk]
        found = _layer_cams(network, pixels, wanted)
        if flipped:
            found = found + _layer_cams(network, pixels.flip(3), wanted)[..., ::-1]
        maps.extend(found / np.maximum(found.max(axis=(1, 2), keepdims=True), _LEAST))
    taken = 0
    for place, own in enumerate(levels):
        shape = (0, *images[place].shape[:2])
        yield np.stack(maps[taken : taken + len(own)]) if own else np.zeros(shape, np.float32)
        taken += len(own)


def cams_to_mask(
    cams_chw: CamsCHW, levels: Sequence[int], thresholds: Sequence[float], image_rgb: ImageRGB | None = None
) -> ClassMapHW:
    """Each pixel goes to the label whose map is furthest above its threshold, or to background where none is above.

    Args:
        levels: of the maps, as they stand in the network's answer; in the mask each is one more.
        thresholds: of the maps, each in (0, 1).
        image_rgb: (H, W, 3) uint8, whose edges the mask shall follow; None: as the maps have it.
    """
    if not levels:
        return np.zeros(cams_chw.shape[1:], np.uint8)
    ratios = cams_chw / np.asarray(thresholds, np.float32)[:, None, None]
    scores = np.concatenate([np.ones((1, *cams_chw.shape[1:]), np.float32), ratios])
    if image_rgb is not None:
        scores = refine(scores / scores.sum(axis=0, keepdims=True), image_rgb)
    values = np.array([0, *(level + 1 for level in levels)], np.uint8)
    return np.asarray(values[scores.argmax(axis=0)], np.uint8)


def refine(probabilities_chw: npt.NDArray[np.float32], image_rgb: ImageRGB) -> npt.NDArray[np.float32]:
    """Probabilities that agree with their neighbours across flat parts of the picture, and not across its edges.

    Args:
        probabilities_chw: (levels, H, W) float32, summing to 1 in each pixel.
        image_rgb: (H, W, 3) uint8.

    Returns:
        (levels, H, W) float32, summing to 1 in each pixel.
    """
    height, width = image_rgb.shape[:2]
    guide = torch.from_numpy(image_rgb.copy()).permute(2, 0, 1)[None].float().div_(255)
    window = tuple(2 * max(1, round(WINDOW_SHARE * side / 2)) + 1 for side in (height, width))
    unary = torch.from_numpy(probabilities_chw)[None].clamp(min=_LEAST).log()
    field = unary.exp()
    for _ in range(ITERATIONS):
        messages = guided_blur(guide, field, window, EDGE_VARIANCE, subsample=2, separable=True)
        field = (unary + MESSAGE_WEIGHT * messages).softmax(dim=1)
    refined: npt.NDArray[np.float32] = field[0].numpy()
    return refined


def _layer_cams(network: LabelNetwork, pixels: torch.Tensor, levels: Sequence[int]) -> npt.NDArray[np.float32]:
    """(n, H, W) float32 in [0, 1]."""
    try:
        from pytorch_grad_cam import LayerCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError as exc:
        raise MissingDependencyError(
            "class activation maps need pytorch-grad-cam. Run `pip install 'maskwright[wsss]'`."
        ) from exc
    with LayerCAM(CellEvidence(network), list(network.layers)) as layer_cam:
        maps = layer_cam(pixels, [ClassifierOutputTarget(level) for level in levels])
    return np.asarray(maps, np.float32)

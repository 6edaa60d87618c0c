"""What maskers share: pictures on white, masks found or not, and scorers asked about cut-outs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...data.masks import MASK_ALPHA
from ...data.records import ImageRGB, ImageRGBA, MaskHW
from ..naming import noun_phrase
from ..protocols import Masked, TextScorer

Alpha = npt.NDArray[np.uint8]
"""(h, w) uint8."""


def lay_on_white(rgb: npt.NDArray[np.uint8], alpha: Alpha) -> ImageRGB:
    """Show what an alpha lets through, on white.

    Args:
        rgb: (h, w, 3) uint8.
        alpha: (h, w) uint8.

    Returns:
        (h, w, 3) uint8, C-contiguous.
    """
    if (alpha == 255).all():
        return np.ascontiguousarray(rgb)
    share = alpha[..., None].astype(np.float32) / 255
    return (rgb * share + 255 * (1 - share)).round().astype(np.uint8)


def to_opaque(rgba: ImageRGBA) -> ImageRGB:
    """(h, w, 3) uint8: a painted picture as a network without alpha sees it, on white."""
    return lay_on_white(rgba[..., :3], rgba[..., 3])


def mask_to_alpha(mask_hw: MaskHW) -> Alpha:
    return np.where(mask_hw, np.uint8(255), np.uint8(0))


def alpha_to_masked(alpha: Alpha, score: float = 1.0, num_instances: int | None = None) -> Masked:
    """What was found; an alpha with no pixel more there than not is nothing, with score 0.

    Args:
        score: clipped to [0, 1]; what is not a number counts as 0.
    """
    if not (alpha >= MASK_ALPHA).any():
        return Masked(np.zeros_like(alpha), 0.0, num_instances)
    return Masked(alpha, float(np.clip(np.nan_to_num(score), 0, 1)), num_instances)


def score_names(scorer: TextScorer, images: Sequence[ImageRGB], categories: Sequence[str]) -> npt.NDArray[np.float64]:
    """How well each image is named by its own class.

    Returns:
        (n,) float64 of the scorer's scores; what is not a number comes as -inf, below all others.
    """
    if not images:
        return np.zeros(0)
    texts = [noun_phrase(category) for category in categories]  # the scorer has a template of its own
    columns = list(dict.fromkeys(texts))
    table = scorer.score(images, columns).astype(np.float64)
    own = table[np.arange(len(texts)), [columns.index(text) for text in texts]]
    return np.where(np.isnan(own), -np.inf, own)

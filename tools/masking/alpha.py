"""The masker of pictures that were painted with their alpha: it is the mask."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ...configs.masking import AlphaSettings
from ..protocols import Masked, MaskRequest
from .composites import Alpha, alpha_to_masked


class AlphaMasker:
    """Takes the painted alpha, cleaned by a median filter where its settings say so; of an opaque picture all of it."""

    name = "alpha"
    revision = "1"

    def __init__(self, settings: AlphaSettings | None = None) -> None:
        self._settings = settings or AlphaSettings()

    def mask(self, requests: Sequence[MaskRequest]) -> list[Masked]:
        return [alpha_to_masked(self._clean(request.rgba[..., 3])) for request in requests]

    def _clean(self, alpha: Alpha) -> Alpha:
        """(h, w) uint8, a copy."""
        if not self._settings.median_px:
            return alpha.copy()
        return np.asarray(cv2.medianBlur(np.ascontiguousarray(alpha), self._settings.median_px), dtype=np.uint8)

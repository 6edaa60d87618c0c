"""What judges of whole pictures answer: which of the data set's classes a picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..data.records import ImageRGB


class LabelClassifier(Protocol):
    """A multi-label classifier of the user's classes, trained and calibrated on the user's real images."""

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str:
        """Digest of what it was trained on and how."""
        ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    def score(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float32]:
        """(images, classes) float32 in [0, 1]: calibrated probabilities that an image shows a class.

        Args:
            images: each (H, W, 3) uint8, sRGB; sizes may differ.
        """
        ...


def is_unlearned(auc: float, auc_error: float, min_auc: float) -> bool:
    """Whether a class was not learned: its area under the ROC curve and its standard error together are too low."""
    return auc + auc_error < min_auc

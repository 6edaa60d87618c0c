"""The masker by Segment Anything: a box or points in, the best of three masks out."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...configs.masking import SamSettings
from ...data.records import ImageRGB
from ...errors import RecipeError
from ...models.checkpoints import checkpoint_revision, find_checkpoint
from ...models.device import resolve_device, run_in_batches
from ..protocols import Masked, MaskRequest, TextScorer
from .composites import alpha_to_masked, lay_on_white, mask_to_alpha, score_names, to_opaque
from .inference import inference
from .sam_networks import SamAnswer, SamPrompt, load_sam


class SamMasker:
    """SAM or SAM 2, asked as the settings say. The score is the predicted IoU of the mask that was chosen.

    Among masks with any pixel the network's own favourite wins, or the one whose cut-out on white the scorer finds
    named best. A class that the scorer does not know is left to the network.
    """

    def __init__(self, settings: SamSettings, scorer: TextScorer | None = None) -> None:
        """Loads nothing yet.

        Raises:
            RecipeError: the scorer is to choose, and there is none.
        """
        if settings.choose == "scorer" and scorer is None:
            raise RecipeError("choose 'scorer' needs an image-text scorer; name one, or set `choose: predicted_iou`.")
        self.name = settings.version
        self._settings = settings
        self._scorer = scorer if settings.choose == "scorer" else None

    @functools.cached_property
    def revision(self) -> str:
        return checkpoint_revision(find_checkpoint(self._settings.model, self._settings.revision))

    def mask(self, requests: Sequence[MaskRequest]) -> list[Masked]:
        """One mask a request, in order.

        Raises:
            RecipeError: the model is of another version or type than the settings say.
            ModelNotFetchedError: it is not in the cache.
            BrokenRunError: no such device, or its memory does not hold one picture.
        """
        return run_in_batches(self._mask, requests, self._settings.batch_size)

    def _mask(self, requests: Sequence[MaskRequest]) -> list[Masked]:
        settings = self._settings
        device = resolve_device(settings.device)
        network = load_sam(
            find_checkpoint(settings.model, settings.revision), settings.version, settings.model_type, device
        )
        images = [to_opaque(request.rgba) for request in requests]
        prompts = [ask(request, settings) for request in requests]
        with inference(device, settings.dtype):
            answers = network.predict(images, prompts)
        if settings.prompts == ("corners",):
            answers = [SamAnswer(~answer.masks, answer.predicted_iou) for answer in answers]
        return [self._choose(*triple) for triple in zip(answers, images, requests, strict=True)]

    def _choose(self, answer: SamAnswer, image: ImageRGB, request: MaskRequest) -> Masked:
        visible = np.flatnonzero(answer.masks.any(axis=(1, 2)))
        if not len(visible):
            return alpha_to_masked(mask_to_alpha(answer.masks[0]))
        best = visible[self._qualities(answer, visible, image, request.category).argmax()]
        return alpha_to_masked(mask_to_alpha(answer.masks[best]), float(answer.predicted_iou[best]))

    def _qualities(
        self, answer: SamAnswer, visible: npt.NDArray[np.int64], image: ImageRGB, category: str
    ) -> npt.NDArray[np.float64]:
        if self._scorer is None or not self._scorer.knows(category):
            return np.nan_to_num(answer.predicted_iou[visible].astype(np.float64))
        cutouts = [lay_on_white(image, mask_to_alpha(answer.masks[index])) for index in visible]
        return score_names(self._scorer, cutouts, [category] * len(cutouts))


def ask(request: MaskRequest, settings: SamSettings) -> SamPrompt:
    """Put the settings' prompts for one picture into points and a box, clipped to the picture."""
    height, width = request.rgba.shape[:2]
    x0, y0, x1, y1 = request.box_xyxy or (0, 0, width, height)
    box = (max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1))
    points: list[tuple[float, float, int]] = []
    if "point" in settings.prompts:
        points.append(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, 1))
    if "corners" in settings.prompts:
        label = int(settings.prompts == ("corners",))
        points += [(x, y, label) for y in (0, height - 1) for x in (0, width - 1)]
    table = np.array(points, np.float64).reshape(-1, 3)
    return SamPrompt(table[:, :2], table[:, 2].astype(np.int64), box if "box" in settings.prompts else None)

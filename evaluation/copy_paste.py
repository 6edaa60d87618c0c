"""Plain copy-paste, the control: real instances put hard into real photographs (Ghiasi et al., CVPR 2021).

Their standard scale jittering, a horizontal flip half of the time and no blending, which they found to do no worse.
Unlike theirs each instance goes to a place of its own, and is made beforehand instead of anew in every pass, so that
nothing but the pixels differs from what a run makes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ..configs.compose import ComposeSettings
from ..data.images import read_image
from ..data.records import Annotation, Dataset, Findings, ImageRGB
from ..errors import DatasetError, ImageDecodeError
from ..tools.composing.harmonization import HardPaste
from ..tools.composing.occlusion import segmentation_bounds, segmentation_to_crop
from ..tools.composing.placement import UNKNOWN_SIDE, SizeStatistics
from ..tools.composing.scene import CutOut, compose_scene

SCALE_JITTER: Final = (0.8, 1.25)
"""Standard scale jittering, section 3; a size is that of the mask relative to its image."""
_NO_SIZES: Final = SizeStatistics({}, UNKNOWN_SIDE)


@dataclass(frozen=True, slots=True)
class PastedImage:
    """A training photograph with real instances pasted, (H, W, 3) uint8, and the labels of all that is visible."""

    image_rgb: ImageRGB
    annotations: tuple[Annotation, ...]
    pasted: Mapping[int, int]
    """How many instances of each class were pasted, by category id."""


class CopyPaste:
    """Makes images of a data set's training side alone; a name decides its image, whatever was made before."""

    def __init__(
        self, dataset: Dataset, settings: ComposeSettings, *, seed: int, onto_empty: bool, findings: Findings
    ) -> None:
        """
        Args:
            settings: of the run that is compared with; what is hidden goes by the same rules.
            onto_empty: paste onto images without instances only, as an anomaly run does.
            findings: gets `undecodable_image`, images that nothing was made of; `copy_paste_without_instance`, wanted
                instances of a class that train has none of; `copy_paste_unplaced`, instances that found no place.

        Raises:
            DatasetError: there is no training image to paste onto.
        """
        self._dataset, self._seed, self._findings = dataset, seed, findings
        self._settings = _plain(settings)
        self._rows = _training_rows(dataset)
        self._undecodable: set[int] = set()
        self._backgrounds = [
            index
            for index, image in enumerate(dataset.images)
            if image.split == "train" and not (onto_empty and len(dataset.annotations.rows_of_image(index)))
        ]
        if not self._backgrounds:
            wanted = "normal training image" if onto_empty else "training image"
            raise DatasetError(f"{str(dataset.root)!r} has no {wanted} to paste onto; expected one at least. Add some.")

    def make(self, name: str, wanted: Mapping[int, int]) -> PastedImage:
        """Paste so many random instances of each class, in random order, each wholly inside a random photograph.

        Args:
            name: decides what is drawn.
            wanted: numbers of instances by category id.

        Raises:
            DatasetError: not one training photograph can be decoded.
        """
        rng = np.random.default_rng([self._seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")])
        background, image_rgb = self._draw_background(rng)
        categories = rng.permutation(np.repeat(list(wanted), list(wanted.values()))).tolist()
        drawn = [self._draw_cutout(category_id, rng) for category_id in categories]
        cutouts = [one for one in drawn if one is not None]
        originals = self._dataset.sample(background).annotations
        scene = compose_scene(
            image_rgb, originals, cutouts, _NO_SIZES, self._settings, HardPaste(), rng, measure_seams=False
        )
        if scene.unplaced:
            self._findings.add("copy_paste_unplaced", name, len(scene.unplaced))
        visible = [one.annotation.category_id for one in scene.annotations if one.origin == "synthetic"]
        pasted = {category_id: visible.count(category_id) for category_id in wanted}
        return PastedImage(scene.image_rgb, tuple(one.annotation for one in scene.annotations), pasted)

    def _draw_background(self, rng: np.random.Generator) -> tuple[int, ImageRGB]:
        for index in rng.permutation(self._backgrounds).tolist():
            if (image_rgb := self._read(index)) is not None:
                return index, image_rgb
        raise DatasetError(f"{str(self._dataset.root)!r} has no training image that can be decoded; repair them.")

    def _draw_cutout(self, category_id: int, rng: np.random.Generator) -> CutOut | None:
        """A random instance of a class at a jittered size; None where train has none."""
        for row in rng.permutation(self._rows.get(category_id, ())).astype(np.int64).tolist():
            image_index = int(self._dataset.annotations.image_index[row])
            image_rgb = self._read(image_index)
            if image_rgb is not None and (cutout := self._cut_out(row, image_rgb, float(rng.uniform(*SCALE_JITTER)))):
                return cutout
        name = self._dataset.category(category_id).name
        self._findings.add("copy_paste_without_instance", f"{name!r}; label some in train")
        return None

    def _cut_out(self, row: int, image_rgb: ImageRGB, scale: float) -> CutOut | None:
        table = self._dataset.annotations
        segmentation = table.segmentation(row)
        box = x, y, w, h = segmentation_bounds(segmentation, (image_rgb.shape[0], image_rgb.shape[1]))
        mask_hw = segmentation_to_crop(segmentation, box)
        if not mask_hw.any():  # a box alone
            return None
        alpha = mask_hw.astype(np.uint8)[..., None] * np.uint8(255)
        side_ratio = math.sqrt(np.count_nonzero(mask_hw) / (image_rgb.shape[0] * image_rgb.shape[1]))
        return CutOut(
            instance_id=str(row),
            category_id=int(table.category_id[row]),
            rgba=np.concatenate([image_rgb[y : y + h, x : x + w], alpha], axis=2),
            source_side_ratio=scale * side_ratio,
        )

    def _read(self, index: int) -> ImageRGB | None:
        """An image, or None where it cannot be decoded, which is told once."""
        if index in self._undecodable:
            return None
        try:
            return read_image(self._dataset.images[index])
        except ImageDecodeError as exc:
            self._undecodable.add(index)
            self._findings.add("undecodable_image", str(exc))
            return None


def _plain(settings: ComposeSettings) -> ComposeSettings:
    """Sizes as in the source, the first place that is free of earlier pastes, no care for the photograph's own."""
    return settings.model_copy(
        update={
            "size": "source",
            "min_side_px": 1,
            "max_side_ratio": 1.0,
            "max_upscale": math.inf,
            "aspect_jitter": 0.0,
            "flip_probability": 0.5,
            "truncation": 0.0,
            "min_visible_side_px": 1,
            "max_hidden_originals": math.inf,
        }
    )


def _training_rows(dataset: Dataset) -> dict[int, npt.NDArray[np.int64]]:
    """By category id, rows of training annotations that can be pasted: no crowds, nothing without a mask."""
    table = dataset.annotations
    in_train = np.array([image.split == "train" for image in dataset.images], dtype=np.bool_)
    rows = np.flatnonzero(in_train[table.image_index] & ~table.is_crowd & (table.area > 0))
    by_class = table.category_id[rows]
    return {int(key): rows[by_class == key] for key in np.unique(by_class)}

"""Who learns from which photograph of an item and which ones measure, and a guard that nothing measured is learned."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, Protocol, TypeVar

import numpy as np

from ..errors import DatasetError, LeakError
from .anomaly_groups import Objects, Shared
from .anomaly_records import AnomalyDataset, AnomalyRecord
from .images import read_header, read_image, read_upright
from .records import Findings, ImageRecord, ImageRGB

Side = Literal["normal", "reference", "validation", "test"]
"""Normal images and reference defects are learned from, validation chooses checkpoints, test measures."""
PROTOCOL: Final = "AnomalyDiffusion"


class Photograph(Protocol):
    """What the guard looks at: a record of an anomaly data set, or a labelled image."""

    @property
    def image(self) -> ImageRecord: ...

    @property
    def key(self) -> str: ...


AnyPhotograph = TypeVar("AnyPhotograph", bound=Photograph)
AnySide = TypeVar("AnySide", bound=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitShares:
    """How an item's images are shared out, each in [0, 1)."""

    validation: float
    """Of each defect's reference third."""
    normal_validation: float
    """Of the good images that are left for training."""
    normal_test: float
    """Of the good images, where the data set sets none aside for test."""

    def __post_init__(self) -> None:
        for name in ("validation", "normal_validation", "normal_test"):
            share = getattr(self, name)
            if not 0 <= share < 1:
                raise ValueError(f"{name} is {share!r}; expected a share in [0, 1)")


@dataclass(frozen=True, slots=True)
class AnomalySplit:
    """The sides of one item."""

    item: str
    seed: int
    sides: Mapping[Side, tuple[AnomalyRecord, ...]]
    apart: bool = False
    """Whether photographs of one object were kept on one side."""

    def of(self, side: Side, defect: str | None = None) -> tuple[AnomalyRecord, ...]:
        """Records of a side; of one defect, or of `GOOD`, where it is named."""
        return tuple(one for one in self.sides[side] if defect is None or one.defect == defect)


def split_anomalies(
    dataset: AnomalyDataset, item: str, *, shares: SplitShares, seed: int, apart: bool = False
) -> AnomalySplit:
    """Share out an item as AnomalyDiffusion's evaluation does (arXiv 2312.05767), with a validation part.

    Of each defect's n images the first n // 3 by name are for reference, the others for test. (Its released training
    takes one more, which its test takes too.) Which of the reference and of the good images go to validation, and
    which good ones to test where `test/good` is missing, follows from their names and the seed.

    Args:
        apart: keep photographs of one object together, as `Objects` finds and shares them out. The protocol does not.

    Raises:
        DatasetError: no such item, or no good image is left to learn from.
    """
    records = dataset.of_item(item)
    good = [one for one in records if one.is_good and one.split == "train"]
    good_test = [one for one in records if one.is_good and one.split == "test"]
    objects = Objects.find(records, good_test) if apart else None
    sides: dict[Side, list[AnomalyRecord]] = {"normal": [], "reference": [], "validation": [], "test": []}
    for defect in dataset.defects(item):
        images = sorted((one for one in records if one.defect == defect), key=lambda one: one.key)
        num_learned = len(images) // 3
        learned, tested = objects.share_defects(images) if objects else (images[:num_learned], images[num_learned:])
        left, drawn = _draw_validation(objects, learned, shares.validation, seed)
        sides["reference"] += left
        sides["validation"] += drawn
        sides["test"] += tested
    share = 0.0 if good_test else shares.normal_test
    if objects:
        good, drawn = objects.share_good(good, share, seed)
    else:
        good, drawn = _draw(good, share, seed)
    sides["normal"], validation = _draw_validation(objects, good, shares.normal_validation, seed)
    if not sides["normal"]:
        raise DatasetError(f"{item!r}: no good image is left to learn from; expected one at least. Add some.")
    sides["validation"] = validation + sides["validation"]
    sides["test"] = good_test + drawn + sides["test"]
    return AnomalySplit(item, seed, {side: tuple(found) for side, found in sides.items()}, apart)


def _draw_validation(objects: Objects | None, learned: Sequence[AnomalyRecord], share: float, seed: int) -> Shared:
    return objects.draw_validation(learned, share, seed) if objects else _draw(learned, share, seed)


def _draw(records: Sequence[AnomalyRecord], share: float, seed: int) -> Shared:
    """What is left, and a share of the records, at least one of two; both in their order."""
    num = min(max(round(len(records) * share), int(share > 0)), len(records) - 1)
    ranked = sorted(records, key=lambda one: hashlib.sha256(f"{seed}\0{one.key}".encode()).digest())
    drawn = {one.key for one in ranked[: max(num, 0)]}
    return [one for one in records if one.key not in drawn], [one for one in records if one.key in drawn]


@dataclass(slots=True)
class LeakGuard:
    """Knows the test images by sha256, of their files and of their decoded pixels; consumers of images pass through it.

    It finds copies under other names, in other formats without loss and without metadata, turned upright or not. It
    cannot find scaled, cropped or recompressed ones: show it images before they are changed.
    """

    _name_of_digest: dict[str, str] = field(default_factory=dict)
    checked: dict[str, int] = field(default_factory=dict)
    """Images that each consumer was allowed, for the report."""

    @classmethod
    def of(cls, test: Iterable[Photograph]) -> LeakGuard:
        """Read the test images, one at a time.

        Raises:
            ImageDecodeError: one cannot be decoded.
        """
        guard = cls()
        for record in test:
            for digest in _record_digests(record):
                guard._name_of_digest[digest] = record.key
        return guard

    def admit(self, records: Iterable[AnyPhotograph], *, consumer: str) -> list[AnyPhotograph]:
        """The same records, none of which is a test image.

        Args:
            consumer: who wants them, such as "training", for the message and `checked`.

        Raises:
            LeakError: one of them is.
        """
        admitted = []
        for record in records:
            self._refuse(_record_digests(record), record.key, consumer)
            admitted.append(record)
        return admitted

    def check_files(self, paths: Iterable[Path], *, consumer: str) -> None:
        """Refuse image files that are test images; raises LeakError, ImageDecodeError."""
        for path in paths:
            self._refuse(_file_digests(path), str(path), consumer)

    def check_pixels(self, images: Mapping[str, ImageRGB], *, consumer: str) -> None:
        """Refuse decoded images that are test images; raises LeakError.

        Args:
            images: by name, each (H, W, 3) uint8, sRGB, at full size.
        """
        for name, image_rgb in images.items():
            self._refuse([_pixel_digest(image_rgb)], name, consumer)

    def knows(self, record: Photograph) -> bool:
        """Whether a record is one of the test images, or a copy."""
        return any(digest in self._name_of_digest for digest in _record_digests(record))

    def knows_digest(self, sha256: str) -> bool:
        """Whether this is the digest of a test image's file or pixels."""
        return sha256 in self._name_of_digest

    def _refuse(self, digests: Sequence[str], name: str, consumer: str) -> None:
        for digest in digests:
            if digest in self._name_of_digest:
                raise LeakError(
                    f"{name!r} is test image {self._name_of_digest[digest]!r} and would reach {consumer}; expected "
                    "images of no test side. Take it out, or drop copies of test images from the split."
                )
        self.checked[consumer] = self.checked.get(consumer, 0) + 1


def drop_test_copies(split: AnomalySplit, guard: LeakGuard, findings: Findings) -> AnomalySplit:
    """Leave out of the other sides what is also on the test side; counted as `copy_of_test_image`."""
    return replace(split, sides=without_test_copies(split.sides, guard, findings))


def without_test_copies(
    sides: Mapping[AnySide, tuple[AnyPhotograph, ...]], guard: LeakGuard, findings: Findings
) -> dict[AnySide, tuple[AnyPhotograph, ...]]:
    """Sides as `drop_test_copies` leaves them."""
    kept = dict(sides)
    for side, records in sides.items():
        if side != "test":
            copies = {one.key for one in records if guard.knows(one)}
            for key in sorted(copies):
                findings.add("copy_of_test_image", f"{key!r}, taken from {side}")
            kept[side] = tuple(one for one in records if one.key not in copies)
    return kept


def _record_digests(record: Photograph) -> list[str]:
    path = record.image.path
    digests = _file_digests(path)
    if not record.image.exif_transpose and read_header(path).exif_orientation != 1:
        digests.append(_pixel_digest(read_image(record.image)))
    return digests


def _file_digests(path: Path) -> list[str]:
    pixels = _pixel_digest(read_upright(path)[..., :3])
    return [hashlib.sha256(path.read_bytes()).hexdigest(), pixels]


def _pixel_digest(image_rgb: ImageRGB) -> str:
    """Of size and pixels."""
    digest = hashlib.sha256(f"{image_rgb.shape[:2]}\0".encode())
    digest.update(np.ascontiguousarray(image_rgb).data)
    return digest.hexdigest()

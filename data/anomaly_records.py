"""Records of images with and without a defect: an index of files, whose pixels are read when asked for."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import DatasetError, EmptyMaskError, ImageDecodeError
from .images import FORMATS, read_header, read_image
from .records import Findings, ImageRecord, ImageRGB, MaskHW

GOOD = "good"
"""What takes the place of a defect's name where there is none."""
MASK_LEVEL = 128
"""Least level, of 255, of a mask's pixel that belongs to the defect."""

_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyRecord:
    """One photograph of an item."""

    item: str
    defect: str
    """As the data set calls it; `GOOD` for none."""
    image: ImageRecord
    """Its `file_name` begins with the item's folder; its `split` is the data set's own, `train` or `test`."""
    mask_path: Path | None = None
    """None for good images, and for others where no usable mask was found."""
    mask_level: int = MASK_LEVEL
    """Least level of the mask's pixels that belong to the defect; 1 where the levels number kinds of defects."""

    @property
    def is_good(self) -> bool:
        return self.defect == GOOD

    @property
    def split(self) -> str:
        return self.image.split

    @property
    def image_path(self) -> Path:
        return self.image.path

    @property
    def key(self) -> str:
        """POSIX path from the item's folder on; the same whether the item was read alone or with others."""
        return self.image.file_name

    @property
    def name(self) -> str:
        """File name without its ending."""
        return PurePosixPath(self.image.file_name).stem


@dataclass(frozen=True, slots=True)
class AnomalyDataset:
    """An index of items; only the files' headers were read."""

    root: Path
    records: tuple[AnomalyRecord, ...]
    """Sorted by item, then good before defects, then by path."""
    findings: Findings = field(default_factory=Findings)

    @property
    def items(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(record.item for record in self.records))

    def defects(self, item: str) -> tuple[str, ...]:
        """Names of an item's defects, without `GOOD`."""
        return tuple(dict.fromkeys(one.defect for one in self.of_item(item) if not one.is_good))

    def of_item(self, item: str) -> tuple[AnomalyRecord, ...]:
        """Records of one item.

        Raises:
            DatasetError: there is no such item.
        """
        records = tuple(record for record in self.records if record.item == item)
        if not records:
            raise DatasetError(
                f"{str(self.root)!r}: no item {item!r}; known: {', '.join(self.items)}. Name one of them."
            )
        return records


def read_defect_mask(record: AnomalyRecord, findings: Findings | None = None) -> MaskHW:
    """Decode a mask in the frame of `read_image(record.image)`.

    Grey of 1, 8 or 16 bits is taken as it is, of palettes and colours the brightest channel, all of it faded by its
    alpha. A 16-bit file whose levels end at 255 holds 8 bits.

    Args:
        findings: gets `stray_mask_values`, masks with levels other than 0 and 255, unless levels are numbers.

    Returns:
        (H, W) bool; all False for a good image.

    Raises:
        EmptyMaskError: an image with a defect has no usable mask, or one without a pixel of at least `mask_level`.
        ImageDecodeError: the file is damaged, or of another size than the image.
    """
    size_hw = (record.image.height, record.image.width)
    if record.is_good:
        return np.zeros(size_hw, dtype=np.bool_)
    if record.mask_path is None:
        raise EmptyMaskError(f"{record.key!r} has no usable mask; expected one that marks its {record.defect!r}")
    levels = _read_levels(record.mask_path)
    if levels.shape != size_hw:
        raise ImageDecodeError(
            f"{str(record.mask_path)!r} has {levels.shape[1]}x{levels.shape[0]} pixels, "
            f"expected {size_hw[1]}x{size_hw[0]}"
        )
    stray = np.count_nonzero((levels > 0) & (levels < 255))
    if findings is not None and stray and record.mask_level > 1:
        findings.add("stray_mask_values", f"{str(record.mask_path)!r}: {stray} pixels neither 0 nor 255")
    mask_hw: MaskHW = levels >= record.mask_level
    if not mask_hw.any():
        raise EmptyMaskError(
            f"{str(record.mask_path)!r} is empty: its highest level is {levels.max()}, expected at least "
            f"{record.mask_level} on the defect. Draw the mask, or scale its levels to 255."
        )
    return mask_hw


def _read_levels(path: Path) -> npt.NDArray[np.uint8]:
    """(H, W) uint8."""
    read_header(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.mode.startswith(("I", "F")):
                deep = np.asarray(image)
                return (deep if deep.max() <= 255 else deep / 257).clip(0, 255).astype(np.uint8)
            if image.mode in ("1", "L"):
                return np.asarray(image.convert("L"))
            rgba = np.asarray(image.convert("RGBA"))
    except _DECODE_ERRORS as exc:
        raise ImageDecodeError(f"{str(path)!r} cannot be decoded: {exc}") from exc
    brightest: npt.NDArray[np.uint8] = rgba[..., :3].max(axis=2)
    return (brightest * (rgba[..., 3] / 255)).round().astype(np.uint8)


def audit_pixels(dataset: AnomalyDataset) -> Findings:
    """Decode every image and mask once, one at a time, and count what is odd.

    Returns:
        `unreadable_image`, `unreadable_mask`, `empty_mask`, `stray_mask_values`, and for each item whichever is
        rarer of `grey_among_colour` and `colour_among_grey`, by the pixels and not by how the file stores them.
    """
    findings = Findings()
    is_grey: dict[str, bool] = {}
    for record in dataset.records:
        try:
            image_rgb = read_image(record.image)
        except ImageDecodeError as exc:
            findings.add("unreadable_image", str(exc))
            continue
        is_grey[record.key] = _is_grey(image_rgb)
        if record.mask_path is not None:
            try:
                read_defect_mask(record, findings)
            except EmptyMaskError as exc:
                findings.add("empty_mask", str(exc))
            except ImageDecodeError as exc:
                findings.add("unreadable_mask", str(exc))
    for item in dataset.items:
        _find_odd_colours([one for one in dataset.of_item(item) if one.key in is_grey], is_grey, findings)
    return findings


def _is_grey(image_rgb: ImageRGB) -> bool:
    return bool((image_rgb == image_rgb[..., :1]).all())


def _find_odd_colours(records: list[AnomalyRecord], is_grey: dict[str, bool], findings: Findings) -> None:
    num = Counter(is_grey[record.key] for record in records)
    mostly_grey = num[True] > num[False]
    own, usual = ("colour", "grey") if mostly_grey else ("grey", "colour")
    for record in records:
        if is_grey[record.key] != mostly_grey:
            findings.add(
                f"{own}_among_{usual}", f"{str(record.image_path)!r} is {own}, most of {record.item!r} {usual}"
            )

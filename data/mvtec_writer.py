"""Images with defects and their masks as folders: as MVTec AD has them, and as AnomalyDiffusion does.

Files are written one at a time, each whole or absent, so a killed writer goes on where it stopped: what lies there
already with the same bytes is kept, with other bytes it is refused.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import DatasetError, EmptyMaskError, ImageSizeError, RunFolderError
from .anomaly_records import GOOD
from .files import remove_partials, write_atomically
from .images import read_header, read_upright, safe_join
from .records import ImageRGB, MaskHW

READ_BY_OTHERS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
"""Endings of files that are copied as they are; anomalib reads them in lower case only."""
Picture = Path | ImageRGB
FileFormat = Literal["PNG", "JPEG"]
_ENCODING: dict[FileFormat, tuple[str, dict[str, int]]] = {
    "PNG": (".png", {}),
    "JPEG": (".jpg", {"quality": 95, "subsampling": 0}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalySample:
    """One image to write."""

    item: str
    defect: str
    split: Literal["train", "test"]
    name: str
    """File name without ending; its own within item, split and defect."""
    image: Picture
    """(H, W, 3) uint8, sRGB; or a file, copied byte for byte unless it must be turned upright."""
    mask_hw: MaskHW | None = None
    """(H, W) bool; None for good images."""
    original: Picture | None = None
    """The normal image that the defect was put on."""


@dataclass(slots=True)
class Saved:
    """Files written now, and those that lay there already."""

    written: int = 0
    kept: int = 0


def number_names(samples: Iterable[AnomalySample], digits: int) -> Iterator[AnomalySample]:
    """Name the samples of each item, split and defect 000, 001 and so on, as MVTec AD does.

    Raises:
        DatasetError: more samples than so many digits can name.
    """
    num: dict[tuple[str, str, str], int] = defaultdict(int)
    for sample in samples:
        place = (sample.item, sample.split, sample.defect)
        name = f"{num[place]:0{digits}d}"
        if len(name) > digits:
            raise DatasetError(f"{'/'.join(place)}: {name!r} has over {digits} digits; names of one length sort alike.")
        num[place] += 1
        yield replace(sample, name=name)


def save_mvtec(samples: Iterable[AnomalySample], folder: Path) -> Saved:
    """Write ITEM/train/good/, ITEM/test/DEFECT/ and ITEM/ground_truth/DEFECT/NAME_mask.png.

    anomalib reads it, where item and defects are named in plain ASCII.

    Raises:
        DatasetError: a name that leaves its folder, occurs twice, or sorts otherwise than its mask's; a defect in
            `train`; a good image with a mask.
        EmptyMaskError: a defect without a masked pixel.
        ImageSizeError: a mask of another size than its image.
        ImageDecodeError: an image's file is missing or damaged.
        RunFolderError: a file lies there that is not ours.
    """
    writer = _Writer(folder)
    order: dict[tuple[str, str, str], _Order] = {}
    for sample in samples:
        _check(sample)
        image, suffix = _encode(sample.image)
        place = (sample.item, sample.split, sample.defect)
        names = order.setdefault(place, _Order(has_masks=sample.mask_hw is not None))
        names.add(sample.name, suffix, where="/".join(place))
        if sample.mask_hw is not None:
            mask = _png(_to_levels(sample.mask_hw))
            writer.put([sample.item, "ground_truth", sample.defect, f"{sample.name}_mask.png"], mask)
        writer.put([*place, sample.name + suffix], image)
    return writer.saved


def save_anomaly_diffusion(samples: Iterable[AnomalySample], folder: Path, *, file_format: FileFormat) -> Saved:
    """Write ITEM/DEFECT/{ori,image,mask}/N, counted from 0 in the order given; good images have no place there.

    Args:
        file_format: PNG is exact; AnomalyDiffusion's own training reads only JPEG.

    Raises:
        DatasetError: a name that leaves its folder; no original.
        EmptyMaskError, ImageSizeError, ImageDecodeError, RunFolderError: as `save_mvtec`.
    """
    writer = _Writer(folder)
    num: dict[tuple[str, str], int] = defaultdict(int)
    suffix, options = _ENCODING[file_format]
    for sample in samples:
        _check(sample)
        if sample.mask_hw is None:
            continue
        if sample.original is None:
            raise DatasetError(f"{_where(sample)} has no original; expected the normal image that it was made of.")
        place = (sample.item, sample.defect)
        parts = {
            "ori": _to_rgb(sample.original),
            "mask": _to_levels(sample.mask_hw),
            "image": _to_rgb(sample.image),
        }
        for part, pixels in parts.items():
            buffer = BytesIO()
            Image.fromarray(pixels).save(buffer, file_format, **options)
            writer.put([*place, part, f"{num[place]}{suffix}"], buffer.getvalue())
        num[place] += 1
    return writer.saved


@dataclass(slots=True)
class _Writer:
    folder: Path
    saved: Saved = field(default_factory=Saved)
    _tidied: set[str] = field(default_factory=set)

    def put(self, parts: list[str], content: bytes) -> None:
        """Write one file; `parts` are its folders and name, the first one the item's."""
        for part in parts:
            if not part or "/" in part or part.startswith("."):
                raise DatasetError(f"{'/'.join(parts)!r}: {part!r} is no name of a file or folder. Rename it.")
        path = safe_join(self.folder, "/".join(parts), source="a sample")
        if parts[0] not in self._tidied:
            remove_partials(self.folder / parts[0])
            self._tidied.add(parts[0])
        if not path.exists():
            write_atomically(path, content)
            self.saved.written += 1
        elif path.read_bytes() == content:
            self.saved.kept += 1
        else:
            raise RunFolderError(f"{str(path)!r} exists with other content; expected none. Choose another folder.")


@dataclass(slots=True)
class _Order:
    """Names of one folder in the order of their images and of their masks, which anomalib pairs by position."""

    has_masks: bool
    _images: list[str] = field(default_factory=list)
    _masks: list[str] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)

    def add(self, name: str, suffix: str, *, where: str) -> None:
        if name in self._taken:
            raise DatasetError(f"{where}: {name!r} occurs twice; expected each name once. Rename one of them.")
        self._taken.add(name)
        image, mask = name + suffix, f"{name}_mask.png"
        at, at_mask = bisect_left(self._images, image), bisect_left(self._masks, mask)
        if self.has_masks and at != at_mask:
            raise DatasetError(
                f"{where}: {mask!r} sorts otherwise among the masks than {image!r} among the images, and anomalib "
                "pairs them by position. Give all names one length (`number_names`)."
            )
        insort(self._images, image)
        insort(self._masks, mask)


def _where(sample: AnomalySample) -> str:
    return f"{sample.item}/{sample.split}/{sample.defect}/{sample.name}"


def _check(sample: AnomalySample) -> None:
    if sample.defect == GOOD:
        if sample.mask_hw is not None:
            raise DatasetError(f"{_where(sample)} has a mask; expected none on a good image. Name its defect.")
        return
    if sample.split == "train":
        raise DatasetError(f"{_where(sample)}: a defect in 'train'; expected only {GOOD!r} there. Put it into 'test'.")
    if sample.mask_hw is None or not sample.mask_hw.any():
        raise EmptyMaskError(f"{_where(sample)} has no masked pixel; expected at least one on its defect")
    for picture in (sample.image, *([] if sample.original is None else [sample.original])):
        size_hw = _size_hw(picture)
        if size_hw != sample.mask_hw.shape:
            raise ImageSizeError(
                f"{_where(sample)}: a mask of {sample.mask_hw.shape[1]}x{sample.mask_hw.shape[0]} pixels, "
                f"expected {size_hw[1]}x{size_hw[0]} as its image has"
            )


def _size_hw(picture: Picture) -> tuple[int, int]:
    """Upright."""
    if not isinstance(picture, Path):
        return picture.shape[0], picture.shape[1]
    header = read_header(picture)
    turned = header.exif_orientation >= 5
    return (header.width, header.height) if turned else (header.height, header.width)


def _encode(picture: Picture) -> tuple[bytes, str]:
    """Bytes of a file and its ending."""
    if not isinstance(picture, Path):
        return _png(picture), ".png"
    suffix = picture.suffix.lower()
    if suffix in READ_BY_OTHERS and read_header(picture).exif_orientation == 1:
        return picture.read_bytes(), suffix
    return _png(_to_rgb(picture)), ".png"


def _to_rgb(picture: Picture) -> ImageRGB:
    return np.ascontiguousarray(read_upright(picture)[..., :3]) if isinstance(picture, Path) else picture


def _to_levels(mask_hw: MaskHW) -> npt.NDArray[np.uint8]:
    return mask_hw.astype(np.uint8) * np.uint8(255)


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()

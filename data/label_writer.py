"""Labelled images as a VOC folder that code for weakly supervised segmentation opens without change.

What such code does to the folder decides its form (IRN, ReCAM, MCTformer, AFA, ToCo):

- It opens JPEGImages/NAME.jpg, in IRN by its three channels. So a colour JPEG is copied as it is, and whatever else is
  encoded once, in colour, at quality 95 without subsampling.
- IRN reads names as numbers, 2007_000032 as 2007000032 in 32 bits, others as text. So images are named as VOC's are.
- cls_labels.npy is a dictionary of float32 vectors, by number for IRN and by text for others; it has both.
- Lists are train.txt or train_aug.txt (ToCo), train_aug_id.txt and val_id.txt (MCTformer).

Synthetic images are in the lists for training only, and no image for training has a class map.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ..errors import DatasetError, EmptyMaskError, ImageDecodeError, LeakError, RunFolderError
from .export import MARKER
from .files import remove_partials, write_atomically
from .images import read_header, read_image, read_upright
from .label_folder_files import ListedImage, list_files
from .label_names import free_name
from .label_records import ClassMapHW, LabelledImage, LabelSplit, Side, TruthReader
from .mvtec_writer import Saved
from .records import ImageRecord, ImageRGB
from .voc_maps import index_map_to_png

Picture = ImageRecord | Path | ImageRGB
Part = Literal["train", "val"]
_PART_OF_SIDE: Mapping[Side, Part] = {"train": "train", "held_out": "train", "test": "val"}
_JPEG_OPTIONS = {"quality": 95, "subsampling": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedImage:
    """One image to write."""

    key: str
    """Its own in the export; the name in the folder follows from it."""
    picture: Picture
    """A data set's image, in its frame; a file, turned upright; or (H, W, 3) uint8, sRGB."""
    labels: frozenset[str]
    split: Part
    source: Literal["real", "synthetic"]
    background: str = ""
    """Of a synthetic image: key of the real one whose pixels it holds."""
    prompt: str = ""
    """Id of the prompt that it was painted from."""
    class_map: ClassMapHW | None = None
    """For val only, in the frame of the picture."""


@dataclass(slots=True)
class SavedLabels:
    """What an export wrote."""

    names: dict[str, str] = field(default_factory=dict)
    """Name in the folder, without ending, by key."""
    saved: Saved = field(default_factory=Saved)
    """Files."""
    encoded: int = 0
    """Images that were no colour JPEGs, or had to be turned."""


def split_to_exports(split: LabelSplit, read_truth: TruthReader | None = None) -> Iterator[ExportedImage]:
    """Real images to export: what is held out trains with the others, the test side is val.

    Args:
        read_truth: for the class maps of val, as far as it has them.
    """
    for side, part in _PART_OF_SIDE.items():
        for one in split.of(side):
            truth = _truth(one, read_truth) if part == "val" and read_truth else None
            yield ExportedImage(
                key=one.key, picture=one.image, labels=one.labels, split=part, source="real", class_map=truth
            )


def _truth(image: LabelledImage, read_truth: TruthReader) -> ClassMapHW | None:
    try:
        return read_truth(image)
    except (EmptyMaskError, ImageDecodeError):
        return None


def save_label_folder(folder: Path, classes: Sequence[str], entries: Iterable[ExportedImage]) -> SavedLabels:
    """Write images, XML without boxes, lists, labels.csv, cls_labels.npy, class_names.txt and labelmap.txt.

    Images are written one at a time, each file whole or absent; lists and tables follow. Written again, files keep
    their names and bytes, and images that are no longer among the entries go. What others put there stays.

    Raises:
        DatasetError: an unknown label, a key that occurs twice, no image for training.
        LeakError: a synthetic image, for val; or a class map, for training.
        ImageDecodeError: a picture is missing or damaged.
        RunFolderError: the folder holds something that is not ours.
    """
    writer = _Writer(folder, tuple(classes))
    for entry in entries:
        writer.add(entry)
    writer.finish()
    return writer.result


@dataclass(slots=True)
class _Writer:
    folder: Path
    classes: tuple[str, ...]
    result: SavedLabels = field(default_factory=SavedLabels)
    _listed: list[ListedImage] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)
    _files: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.folder.exists() and any(self.folder.iterdir()) and not (self.folder / MARKER).is_file():
            raise RunFolderError(f"{self.folder}: exists and was not made by maskwright; name another folder")
        remove_partials(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / MARKER).touch()

    def add(self, entry: ExportedImage) -> None:
        self._check(entry)
        name = free_name(entry.key, entry.source, self._taken)
        self.result.names[entry.key] = name
        content, is_own = _to_jpeg(entry.picture)
        self.result.encoded += not is_own
        with Image.open(BytesIO(content)) as image:
            size_wh = image.size
        listed = ListedImage(
            name=name,
            size_wh=size_wh,
            labels=entry.labels,
            split=entry.split,
            source=entry.source,
            background=entry.background,
            prompt=entry.prompt,
            original=entry.key,
        )
        self._put(f"JPEGImages/{name}.jpg", content)
        self._put(f"Annotations/{name}.xml", listed.to_xml())
        if entry.class_map is not None:
            self._put(f"SegmentationClass/{name}.png", index_map_to_png(entry.class_map))
        self._listed.append(listed)

    def _check(self, entry: ExportedImage) -> None:
        if entry.key in self.result.names:
            raise DatasetError(f"{entry.key!r} is to be written twice; expected each key once. Rename one.")
        if unknown := entry.labels - {*self.classes}:
            raise DatasetError(
                f"{entry.key!r} shows {min(unknown)!r}; expected some of {', '.join(self.classes)}. Add the class."
            )
        if entry.source == "synthetic" and entry.split != "train":
            raise LeakError(f"{entry.key!r} is synthetic and would measure; expected it in 'train'. Move it there.")
        if entry.class_map is not None and entry.split != "val":
            raise LeakError(f"{entry.key!r} has a class map and would train; expected maps in 'val'. Leave it out.")

    def finish(self) -> None:
        if not any(one.split == "train" for one in self._listed):
            raise DatasetError(f"{self.folder}: the export would be empty: not one image for training is left")
        for path, content in list_files(self.classes, sorted(self._listed, key=lambda one: one.name)):
            self._put(path, content)
        marker = self.folder / MARKER
        earlier = marker.read_text(encoding="utf-8").split("\n")
        for path in {*earlier} - {*self._files, ""}:
            (self.folder / path).unlink(missing_ok=True)
        write_atomically(marker, "\n".join(sorted(self._files)).encode())

    def _put(self, path: str, content: bytes) -> None:
        self._files.append(path)
        place = self.folder / path
        if place.is_file() and place.read_bytes() == content:
            self.result.saved.kept += 1
            return
        write_atomically(place, content)
        self.result.saved.written += 1


def _to_jpeg(picture: Picture) -> tuple[bytes, bool]:
    """Bytes of a colour JPEG, and whether they are the picture's own."""
    if not isinstance(picture, np.ndarray):
        path = picture.path if isinstance(picture, ImageRecord) else picture
        if _is_colour_jpeg(path):
            return path.read_bytes(), True
        image_rgb = read_image(picture) if isinstance(picture, ImageRecord) else read_upright(path)[..., :3]
    else:
        image_rgb = picture
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(image_rgb)).save(buffer, "JPEG", **_JPEG_OPTIONS)
    return buffer.getvalue(), False


def _is_colour_jpeg(path: Path) -> bool:
    """By its content; one with an orientation does not count, as not every reader turns it."""
    if read_header(path).exif_orientation != 1:
        return False
    with Image.open(path) as image:
        return image.format == "JPEG" and image.mode == "RGB"

"""What the arms' data sets are put together from, and how their files are shared."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import cv2
import yaml

from ..data.files import PARTIAL_SUFFIX, write_atomically
from ..data.images import PlaceImage, place_image
from ..data.records import (
    AnnotationTableBuilder,
    Category,
    Dataset,
    Findings,
    ImageRecord,
    ImageRGB,
    Polygons,
    Sample,
)
from ..errors import ImageDecodeError
from .copy_paste import CopyPaste
from .run_product import SyntheticImage, refuse_shared_names

TRAIN_LIST = "train.txt"
"""Beside the data.yaml of an arm that shows images more than once a pass."""


@dataclass(frozen=True, slots=True)
class RealAnd:
    """A `SampleSource`: the user's data set, and more samples at the end of train, with ids of their own."""

    dataset: Dataset
    more: Callable[[], Iterable[Sample]]

    @property
    def categories(self) -> tuple[Category, ...]:
        return self.dataset.categories

    @property
    def splits(self) -> tuple[str, ...]:
        return self.dataset.splits

    def samples(self, split: str | None = None) -> Iterator[Sample]:
        for name in self.splits if split is None else (split,):
            yield from self.dataset.samples(name)
            if name == "train":
                yield from self._renumbered()

    def _renumbered(self) -> Iterator[Sample]:
        image_ids = count(1 + max(image.image_id for image in self.dataset.images))
        annotation_ids = count(1 + int(self.dataset.annotations.annotation_id.max(initial=0)))
        for sample in self.more():
            annotations = tuple(replace(one, annotation_id=next(annotation_ids)) for one in sample.annotations)
            yield Sample(replace(sample.image, image_id=next(image_ids)), annotations)


def paste_like(
    images: Sequence[SyntheticImage], maker: CopyPaste, folder: Path, dataset: Dataset, jpeg_quality: int
) -> tuple[Dataset, Counter[int]]:
    """Make a copy-paste image for each synthetic one: as many instances of the same classes, the same file format.

    Args:
        folder: that the images are written to, called copy_paste-NAME.
        jpeg_quality: of those whose counterpart is a JPEG; the others are PNG.

    Returns:
        The images, and how many instances were pasted, by category id.
    """
    records: list[ImageRecord] = []
    table, pasted = AnnotationTableBuilder(), Counter[int]()
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"copy_paste-{Path(one.file_name).stem}{_suffix(one.file_name)}" for one in images]
    refuse_shared_names(names, dataset)
    for number, (name, like) in enumerate(zip(names, images, strict=True)):
        made = maker.make(like.file_name, like.instances)
        (folder / name).write_bytes(_encode(made.image_rgb, Path(name).suffix, jpeg_quality))
        height, width = made.image_rgb.shape[:2]
        records.append(ImageRecord(number + 1, name, str(folder), width, height))
        pasted.update(made.pasted)
        for one in made.annotations:
            mask = one.segmentation
            table.add(
                annotation_id=len(table) + 1,
                image_index=number,
                category_id=one.category_id,
                segmentation=[ring.ravel() for ring in mask.rings] if isinstance(mask, Polygons) else mask,
                bbox_xywh=one.bbox_xywh,
                area=one.area,
                is_crowd=one.is_crowd,
            )
    return Dataset(folder, "copy-paste", dataset.categories, records, table.build(len(records))), pasted


def _suffix(file_name: str) -> str:
    return ".jpg" if Path(file_name).suffix.lower() in (".jpg", ".jpeg") else ".png"


def _encode(image_rgb: ImageRGB, suffix: str, jpeg_quality: int) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if suffix == ".jpg" else []
    return bytes(cv2.imencode(suffix, cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), options)[1].tobytes())


def share_images(folders: Sequence[Path], findings: Findings) -> PlaceImage:
    """Place images as `place_image` does, val and test with their own bytes; what a folder has is linked or copied.

    Args:
        folders: that may have an image at images/SPLIT/NAME.
        findings: gets `undecodable_image`, images that had to be turned upright and keep their bytes.
    """

    def place(record: ImageRecord, destination: Path) -> None:
        for folder in folders:
            first = folder / "images" / record.split / record.file_name
            if first != destination and first.is_file():
                _link_or_copy(first, destination)
                return
        try:
            place_image(record, destination, verbatim=record.split != "train")
        except ImageDecodeError as exc:
            findings.add("undecodable_image", str(exc))
            place_image(record, destination, verbatim=True)

    return place


def _link_or_copy(existing: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(existing, destination)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(existing, destination)


@contextmanager
def whole_or_absent(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its name once the block ends without an error; what it had in made/ goes."""
    partial = folder.with_name(folder.name + PARTIAL_SUFFIX)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(partial / "made", ignore_errors=True)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def repeat_train_images(data_yaml: Path, times: Mapping[str, int]) -> None:
    """Let a pass show some training images more than once, in every trainer that reads data.yaml.

    Its key `train` then names a list of images, some of them on several lines, in place of their folder.

    Args:
        times: by file name; images without one come once.
    """
    content = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
    folder = data_yaml.parent / content["train"]
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [f"./{content['train']}/{name}\n" for name in names for _ in range(times.get(name, 1))]
    write_atomically(data_yaml.with_name(TRAIN_LIST), "".join(lines).encode())
    _write_yaml(data_yaml, content | {"train": TRAIN_LIST})


def point_val_at_train(data_yaml: Path) -> None:
    """Let no trainer that reads data.yaml look at the user's val, which may be what is measured."""
    content = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
    _write_yaml(data_yaml, content | {"val": content["train"]})


def _write_yaml(path: Path, content: Mapping[str, object]) -> None:
    write_atomically(path, yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True).encode())

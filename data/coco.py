"""COCO instance files, and the part of reading that LVIS shares."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import msgspec
import numpy as np

from ..errors import DatasetError
from .images import MAX_IMAGE_PIXELS, PlaceImage, check_images, refuse_unsafe_name
from .instance_reader import InstanceReader, JsonCategoryId, JsonId
from .instance_writer import InstanceFormat, save_instances
from .records import AnnotationTableBuilder, Category, Dataset, Findings, Frequency, ImageRecord, SampleSource

_NOT_A_NUMBER = re.compile(rb"(?<=[\[,:\s])-?(?:NaN|Infinity)(?=\s*[,\]}])")
"""What Python's json writes for floats that JSON does not know; lookarounds keep it out of most strings."""

Schema = TypeVar("Schema")
_NonNegative = Annotated[int, msgspec.Meta(ge=0)]


class JsonImage(msgspec.Struct, gc=False):
    """One entry of `images`; LVIS v1 has `coco_url` where COCO has `file_name`."""

    id: JsonId
    file_name: str = ""
    coco_url: str = ""
    width: _NonNegative = 0
    height: _NonNegative = 0
    license: int | str | None = None
    neg_category_ids: tuple[int, ...] = ()
    not_exhaustive_category_ids: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The file's name below its image folder."""
        return self.file_name or urlsplit(self.coco_url).path.lstrip("/")


class JsonCategory(msgspec.Struct, gc=False):
    id: JsonCategoryId
    name: str
    supercategory: str | None = None
    frequency: Frequency | None = None


class JsonLicence(msgspec.Struct, gc=False):
    id: int | str | None = None
    name: str | None = None
    url: str | None = None


class JsonFile(msgspec.Struct):
    images: list[JsonImage]
    annotations: list[msgspec.Raw]
    categories: list[JsonCategory]
    licenses: list[JsonLicence] = []


def load_coco(
    annotation_files: Mapping[str, Path], image_folders: Mapping[str, Path], *, check_images: bool = True
) -> Dataset:
    """Read COCO instance files, keyed by split.

    Args:
        check_images: read every image's header; without, the declared sizes are believed and no file need exist.

    Raises:
        DatasetError: a file is not JSON or not COCO, contradicts itself, or nothing usable is left.
    """
    return load_instances("coco", annotation_files, lambda split, _: image_folders[split], open_images=check_images)


def load_instances(
    format_name: str,
    annotation_files: Mapping[str, Path],
    folder_of: Callable[[str, Sequence[str]], Path],
    *,
    open_images: bool = True,
) -> Dataset:
    """Read files of the COCO family; see `load_coco`.

    A photograph that two splits list stays in the first, and is counted.

    Args:
        folder_of: the image folder, given the split and the file names that its annotation file lists.
    """
    findings, builder = Findings(), AnnotationTableBuilder()
    categories: dict[int, Category] = {}
    images: list[ImageRecord] = []
    split_of: dict[tuple[str, str], str] = {}
    for split, path in annotation_files.items():
        content = read_json(path, JsonFile)
        _add_categories(categories, content.categories, path)
        folder = folder_of(split, [image.name for image in content.images])
        records = _to_records(content, path, folder, split)
        usable = check_images(records, findings) if open_images else _believe(records, path)
        index_of_image = dict.fromkeys((record.image_id for record in records), -1)
        for record in usable:
            if record is None:
                continue
            first = split_of.setdefault((record.folder, record.file_name), split)
            if first != split:
                findings.add(f"{split}_shares_{first}_images", str(record.path))
                continue
            index_of_image[record.image_id] = len(images)
            images.append(record)
        frames_wh = np.array([(image.width, image.height) for image in images], dtype=np.int32).reshape(-1, 2)
        known = {category.id for category in content.categories}
        InstanceReader(str(path), index_of_image, frames_wh, known, builder, findings).read(content.annotations)
    names = ", ".join(str(path) for path in annotation_files.values())
    if not images or not len(builder):
        what = "annotation" if images else "image"
        counts = ", ".join(f"{count} {kind}" for kind, count in findings.counts.items()) or "none listed"
        raise DatasetError(f"{names}: no usable {what} ({counts}). Check the image folder and the annotations.")
    table = builder.build(len(images))
    for index in np.flatnonzero(np.bincount(table.image_index, minlength=len(images)) == 0).tolist():
        findings.add("image_without_label", str(images[index].path))
    root = dataset_root(next(iter(annotation_files.values())))
    return Dataset(root, format_name, tuple(categories.values()), images, table, findings)


def dataset_root(annotation_file: Path) -> Path:
    """The data set's folder, by the custom that its files lie in `annotations/`."""
    folder = annotation_file.parent
    return folder.parent if folder.name == "annotations" else folder


def read_json(path: Path, schema: type[Schema]) -> Schema:
    """Decode a file of the COCO family.

    Raises:
        DatasetError: the file cannot be read, is not JSON, or lacks a key or has one of a wrong type.
    """
    try:
        content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
        try:
            return msgspec.json.decode(content, type=schema)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            return msgspec.json.decode(_NOT_A_NUMBER.sub(b"null", content), type=schema)
    except OSError as exc:
        raise DatasetError(f"{path}: cannot be read: {exc.strerror}. Check the path.") from exc
    except msgspec.ValidationError as exc:
        raise DatasetError(
            f"{path}: not a COCO instances file: {exc}. "
            "Expected an object with the lists images, annotations and categories."
        ) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise DatasetError(f"{path}: not JSON: {exc}. Download or export the file again.") from exc


def _add_categories(known: dict[int, Category], entries: Sequence[JsonCategory], path: Path) -> None:
    """Add a file's categories to those of the other splits."""
    if len({entry.id for entry in entries}) < len(entries):
        raise DatasetError(f"{path}: a category id occurs more than once; expected unique ids. Renumber categories.")
    id_of_name = {category.name: category.category_id for category in known.values()}
    for entry in entries:
        same_id = known.get(entry.id)
        if id_of_name.setdefault(entry.name, entry.id) != entry.id or (same_id and same_id.name != entry.name):
            raise DatasetError(
                f"{path}: category {entry.id} {entry.name!r} repeats the name or id of another one; "
                "expected one id a name, the same in every split. Rename or renumber it."
            )
        known.setdefault(entry.id, Category(entry.id, entry.name, entry.supercategory or "", entry.frequency))


def _to_records(content: JsonFile, path: Path, folder: Path, split: str) -> list[ImageRecord]:
    licences = {licence.id: licence.name or licence.url or "" for licence in content.licenses}
    names: set[str] = set()
    ids: set[int] = set()
    records: list[ImageRecord] = []
    for at, image in enumerate(content.images):
        source = f"{path}: images[{at}]"
        refuse_unsafe_name(folder, image.name, source=source)
        name = posixpath.normpath(image.name)
        if name in names or image.id in ids:
            raise DatasetError(
                f"{source}: id {image.id} or file name {name!r} occurs more than once; expected each once. "
                "Merge the entries."
            )
        names.add(name)
        ids.add(image.id)
        records.append(
            ImageRecord(
                image_id=image.id,
                file_name=name,
                folder=str(folder),
                width=image.width,
                height=image.height,
                split=split,
                not_exhaustive_category_ids=image.not_exhaustive_category_ids,
                neg_category_ids=image.neg_category_ids,
                licence=licences.get(image.license, ""),
            )
        )
    return records


def _believe(records: list[ImageRecord], path: Path) -> list[ImageRecord]:
    for record in records:
        if not 0 < record.width * record.height <= MAX_IMAGE_PIXELS:
            raise DatasetError(
                f"{path}: image {record.image_id} declares a size of {record.width}x{record.height}, expected "
                f"1 to {MAX_IMAGE_PIXELS:,} pixels. Correct width and height."
            )
    return records


def save_coco(source: SampleSource, folder: Path, place: PlaceImage, *, findings: Findings) -> dict[str, Path]:
    """Write `annotations/instances_SPLIT.json` and `images/SPLIT/…`.

    Ids stay where they are unique and at least 1 (pycocotools scores an annotation 0 as missed); area and box are
    the mask's own.

    Args:
        place: called once for every image, with its destination.
        findings: gets what could not be written as it was.

    Returns:
        The annotation file of each split.
    """
    return save_instances(source, folder, place, COCO, findings=findings)


COCO = InstanceFormat(file_prefix="instances_")

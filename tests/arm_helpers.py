"""Small instance data sets, 48x64, where pixels tell what a label covers; and what the arms made of them hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools.coco import COCO

from maskwright.data.masks import mask_to_rle
from maskwright.data.records import AnnotationTableBuilder, Category, Dataset, ImageRecord, ImageRGB, MaskHW
from maskwright.evaluation.arms import COPY_PASTE, OURS, REAL

HEIGHT, WIDTH = 48, 64
BOLT, NUT = 3, 7
CATEGORIES = (Category(BOLT, "Bolzen"), Category(NUT, "Mutter ö"))
GREY = (90, 90, 90)
COLOURS = {BOLT: (250, 10, 10), NUT: (10, 10, 250)}


FOLDERS = {REAL: "real", COPY_PASTE: "copy_paste", OURS: "ours"}


@dataclass(frozen=True)
class Thing:
    """A rectangle: class, (x, y, w, h), and whether it is a crowd or has a box alone."""

    category_id: int
    box: tuple[int, int, int, int]
    is_crowd: bool = False
    has_mask: bool = True


@dataclass(frozen=True)
class Photo:
    name: str
    things: Sequence[Thing] = ()
    split: str = "train"
    noise: bool = False


def draw(photo: Photo, seed: int) -> ImageRGB:
    rng = np.random.default_rng(seed)
    image = np.full((HEIGHT, WIDTH, 3), GREY, dtype=np.uint8)
    if photo.noise:
        image = rng.integers(0, 255, image.shape, dtype=np.uint8)
    for thing in photo.things:
        mask = to_mask(thing)
        image[mask] = image[mask] // 2 + rng.integers(0, 128, 3, dtype=np.uint8) if photo.noise else colour(thing)
    return image


def colour(thing: Thing) -> tuple[int, int, int]:
    return (0, 250, 0) if thing.is_crowd else COLOURS[thing.category_id]


def to_mask(thing: Thing) -> MaskHW:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    x, y, w, h = thing.box
    mask[y : y + h, x : x + w] = True
    return mask


def write_dataset(root: Path, photos: Iterable[Photo], categories: tuple[Category, ...] = CATEGORIES) -> Dataset:
    """Write the pictures below root/images/SPLIT and index them."""
    images, table = [], AnnotationTableBuilder()
    for index, photo in enumerate(photos):
        path = root / "images" / photo.split / photo.name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(photo, index)).save(path)
        images.append(ImageRecord(index + 1, photo.name, str(path.parent), WIDTH, HEIGHT, photo.split))
        for thing in photo.things:
            x, y, w, h = thing.box
            table.add(
                annotation_id=len(table) + 1,
                image_index=index,
                category_id=thing.category_id,
                segmentation=mask_to_rle(to_mask(thing)) if thing.has_mask else [],
                bbox_xywh=(x, y, w, h),
                area=w * h,
                is_crowd=thing.is_crowd,
            )
    return Dataset(root, "coco", categories, images, table.build(len(images)))


def truth(folder: Path, name: str, split: str = "train") -> COCO:
    return COCO(str(folder / FOLDERS[name] / f"coco/annotations/instances_{split}.json"))


def classes_by_image(coco: COCO) -> dict[str, list[str]]:
    """Class names of each image's labels, in order."""
    found: dict[str, list[str]] = {image["file_name"]: [] for image in coco.imgs.values()}
    for one in coco.anns.values():
        found[coco.imgs[one["image_id"]]["file_name"]].append(coco.cats[one["category_id"]]["name"])
    return found


def images_of(folder: Path, name: str, split: str = "train") -> list[Path]:
    return sorted((folder / FOLDERS[name] / "yolo/images" / split).iterdir())

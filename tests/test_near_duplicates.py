"""Copies of held-out images in training: found, told from mere likeness, left out, refused; also inside scenes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from maskwright.data.masks import mask_to_rle
from maskwright.data.records import AnnotationTableBuilder, Category, Dataset, Findings, ImageRecord, ImageRGB
from maskwright.errors import DatasetError, LeakError
from maskwright.evaluation.leaks import find_leaks, read_synthetic, refuse_synthetic, scene_parents
from maskwright.evaluation.looks import CHUNK
from maskwright.evaluation.near_duplicates import NearDuplicate, find_near_duplicates, keep_images
from maskwright.memory.entries import ItemResult, SceneResult

HEIGHT, WIDTH = 48, 64
MAX_BITS, MIN_SIMILARITY = 10, 0.9


@dataclass
class Colours:
    """A stand-in embedder: mean colours of a grid, centred; remembers how many images it was shown."""

    shown: list[int] = field(default_factory=list)
    name: str = "colours"

    def embed(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float32]:
        self.shown.append(len(images))
        rows = [cv2.resize(one, (8, 6), interpolation=cv2.INTER_AREA).astype(np.float32).ravel() for one in images]
        centred = np.array([row - row.mean() for row in rows], np.float32).reshape(len(images), 8 * 6 * 3)
        return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> ImageRGB:
    """A smooth, coloured picture, unlike that of any other seed."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def write(folder: Path, name: str, image_rgb: ImageRGB, split: str = "train", **options: int) -> ImageRecord:
    path = folder / split / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image_rgb).save(path, **options)
    height, width = image_rgb.shape[:2]
    return ImageRecord(1, name, str(path.parent), width, height, split)


def find(
    train: Sequence[ImageRecord],
    held_out: Sequence[ImageRecord],
    *,
    max_bits: int = MAX_BITS,
    min_similarity: float = MIN_SIMILARITY,
    embedder: Colours | None = None,
    findings: Findings | None = None,
) -> list[NearDuplicate]:
    return find_near_duplicates(
        train,
        held_out,
        embedder=embedder or Colours(),
        max_bits=max_bits,
        min_similarity=min_similarity,
        findings=findings or Findings(),
    )


def scaled(image_rgb: ImageRGB) -> ImageRGB:
    return np.asarray(cv2.resize(image_rgb, (36, 27), interpolation=cv2.INTER_AREA), np.uint8)


def brighter(image_rgb: ImageRGB) -> ImageRGB:
    return np.clip(image_rgb * 1.1 + 4, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "changed", "options", "mirrored"),
    [
        pytest.param("jpeg.jpg", picture(1), {"quality": 60}, False, id="recompressed"),
        pytest.param("klein ü.png", scaled(picture(1)), {}, False, id="scaled"),
        pytest.param("hell.png", brighter(picture(1)), {}, False, id="brighter"),
        pytest.param("gespiegelt.jpg", picture(1)[:, ::-1], {"quality": 80}, True, id="mirrored and recompressed"),
    ],
)
def test_changed_copies_are_found(
    tmp_path: Path, name: str, changed: ImageRGB, options: dict[str, int], mirrored: bool
) -> None:
    held_out = [write(tmp_path, f"{seed}.png", picture(seed), "val") for seed in range(5)]
    train = [write(tmp_path, "other.png", picture(9)), write(tmp_path, name, changed, **options)]
    [found] = find(train, held_out)
    assert (found.train, found.held_out, found.mirrored) == (train[1], held_out[1], mirrored)
    assert 0 <= found.bits <= MAX_BITS
    assert MIN_SIMILARITY <= found.similarity <= 1


@pytest.mark.parametrize(("name", "mirrored"), [("图.png", False), ("flipped.bmp", True)])
def test_exact_copies_are_found_whatever_the_limits(tmp_path: Path, name: str, mirrored: bool) -> None:
    held_out = [write(tmp_path, f"{seed}.png", picture(seed), "test") for seed in range(3)]
    copy = write(tmp_path, name, picture(2)[:, ::-1] if mirrored else picture(2))
    [found] = find([copy], held_out, max_bits=0, min_similarity=1)
    assert found == NearDuplicate(copy, held_out[2], 0, 1.0, mirrored=mirrored)


def test_what_only_the_hash_or_only_the_features_take_for_a_copy_is_none(tmp_path: Path) -> None:
    held_out = [write(tmp_path, "grau.png", picture(1), "val")]
    recoloured = write(tmp_path, "rot.png", (picture(1) * np.array([1.0, 0.2, 0.2])).astype(np.uint8))
    assert not find([recoloured], held_out, min_similarity=0.99, max_bits=20)
    assert find([recoloured], held_out, min_similarity=-1, max_bits=20)
    jpeg = write(tmp_path, "a.jpg", scaled(picture(1)), quality=20)
    [found] = find([jpeg], held_out)
    assert found.bits > 0
    assert not find([jpeg], held_out, max_bits=found.bits - 1)


def test_different_pictures_cost_no_features(tmp_path: Path) -> None:
    held_out = [write(tmp_path, f"{seed}.png", picture(seed), "val") for seed in range(4)]
    train = [write(tmp_path, f"{seed}.png", picture(seed)) for seed in range(10, 10 + CHUNK + 3)]
    embedder = Colours()
    assert not find(train, held_out, max_bits=4, embedder=embedder)
    assert sum(embedder.shown) == 0


def test_a_damaged_file_is_compared_by_its_bytes_and_said(tmp_path: Path) -> None:
    image = write(tmp_path, "ganz.png", picture(1), "val")
    half = image.path.read_bytes()[:300]
    for split in ("train", "val"):
        (tmp_path / split).mkdir(exist_ok=True)
        (tmp_path / split / "halb.png").write_bytes(half)
    train, held = (
        ImageRecord(7, "halb.png", str(tmp_path / split), WIDTH, HEIGHT, split) for split in ("train", "val")
    )
    missing = ImageRecord(8, "fehlt.png", str(tmp_path), WIDTH, HEIGHT)
    findings = Findings()
    [found] = find([missing, train], [held], findings=findings)
    assert (found.train, found.held_out) == (train, held)
    assert findings.examples == {"undecodable_image": ["halb.png", "fehlt.png", "halb.png"]}


@pytest.mark.parametrize(("max_bits", "min_similarity"), [(-1, 0.9), (65, 0.9), (8, 1.1)])
def test_limits_have_a_range(max_bits: int, min_similarity: float) -> None:
    with pytest.raises(ValueError, match="expected 0 to 64"):
        find([], [], max_bits=max_bits, min_similarity=min_similarity)


def to_dataset(root: Path, images: Sequence[ImageRecord]) -> Dataset:
    """Two annotations an image, a polygon and an RLE; the id says of which image."""
    builder = AnnotationTableBuilder()
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[5:20, 8:30] = True
    rings = [[8.0, 5.0, 30.0, 5.0, 30.0, 20.0, 8.0, 20.0], [40.0, 5.0, 50.0, 5.0, 50.0, 9.0]]
    for index in range(len(images)):
        for half, segmentation in enumerate((rings, mask_to_rle(mask))):
            builder.add(
                annotation_id=100 * index + half,
                image_index=index,
                category_id=3,
                segmentation=segmentation,  # type: ignore[arg-type]
                bbox_xywh=(8.0, 5.0, 22.0, 15.0),
                area=330.0,
                is_crowd=bool(half),
            )
    return Dataset(root, "coco", (Category(3, "Tasse"),), images, builder.build(len(images)))


def test_training_images_are_left_out_with_their_annotations(tmp_path: Path) -> None:
    images = [
        write(tmp_path, "a.png", picture(1)),
        write(tmp_path, "copy.jpg", picture(2), quality=70),
        write(tmp_path, "a.png", picture(2), "val"),
        write(tmp_path, "b.png", picture(3)),
    ]
    dataset = to_dataset(tmp_path, images)
    kept = keep_images(dataset, [True, False, True, True])
    assert list(kept.images) == [images[0], images[2], images[3]]
    for sample, index in zip(kept.samples(), (0, 2, 3), strict=True):
        assert repr(sample) == repr(dataset.sample(index))


def scene(scene_id: str, background: str, *instances: tuple[str, str]) -> SceneResult:
    entries = [{"origin": origin, "source_id": source_id} for origin, source_id in instances]
    artifact = hashlib.sha256(scene_id.encode()).hexdigest() + ".png"
    return cast(
        SceneResult, {"scene_id": scene_id, "artifact": artifact, "background": background, "instances": entries}
    )


def item(source: str | None, *instance_ids: str) -> ItemResult:
    instances = [{"instance_id": one} for one in instance_ids]
    return cast(ItemResult, {"source": source and {"file_name": source}, "instances": instances})


def test_a_scene_is_made_of_its_background_and_its_instances_sources() -> None:
    scenes = [
        scene("s1", "grund.png", ("synthetic", "i1"), ("real", "i2"), ("synthetic", "words")),
        scene("s2", "wiese ü.png", ("synthetic", "i2")),
    ]
    results = [item("quelle.png", "i1"), item("zweite.png", "i2"), item(None, "words")]
    assert scene_parents(scenes, results) == {
        "s1": {"grund.png", "quelle.png"},
        "s2": {"wiese ü.png", "zweite.png"},
    }


def leaks_of(
    train: Sequence[ImageRecord], held_out: Sequence[ImageRecord], parents: Mapping[str, frozenset[str]]
) -> dict[str, str]:
    return find_leaks(
        train,
        held_out,
        embedder=Colours(),
        max_bits=MAX_BITS,
        min_similarity=MIN_SIMILARITY,
        findings=Findings(),
        parents=parents,
    )


def test_a_scene_made_of_a_copy_is_a_leak_however_much_is_pasted_over_it(tmp_path: Path) -> None:
    held_out = [write(tmp_path, "val.png", picture(1), "val")]
    parent = write(tmp_path, "parent.jpg", picture(1), quality=70)
    pasted = picture(1).copy()
    pasted[4:44, 6:58] = picture(5)[4:44, 6:58]
    scenes = [write(tmp_path, "s1.png", pasted), write(tmp_path, "s2.png", picture(6))]
    assert not find(scenes, held_out)
    parents = scene_parents([scene("s1", "parent.jpg"), scene("s2", "fern.png", ("synthetic", "i"))], [])
    assert leaks_of(scenes, held_out, parents) == {}
    assert leaks_of([parent, *scenes], held_out, parents) == {
        "parent.jpg": "shows 'val.png'",
        "s1.png": "is made of 'parent.jpg', which shows 'val.png'",
    }


def test_a_synthetic_image_never_measures(tmp_path: Path) -> None:
    photograph = write(tmp_path, "foto.png", picture(1), "test")
    by_name = write(tmp_path, "s1.png", picture(2), "val")
    renamed = write(tmp_path, "umbenannt ü.png", picture(3), "val")
    made = {"s1", hashlib.sha256(renamed.path.read_bytes()).hexdigest()}
    refuse_synthetic([photograph], made)
    for one in (by_name, renamed):
        with pytest.raises(LeakError, match=f"1 images of val or test are synthetic: {one.file_name}"):
            refuse_synthetic([photograph, one], made)


def test_many_synthetic_images_are_counted_and_some_named(tmp_path: Path) -> None:
    held_out = [write(tmp_path, f"v{seed}.png", picture(seed), "val") for seed in range(7)]
    with pytest.raises(LeakError, match=r"7 images of val or test are synthetic: .*v4.png; …") as caught:
        refuse_synthetic(held_out, {f"v{seed}" for seed in range(7)})
    assert "v5.png" not in str(caught.value)


def test_synthetic_images_are_known_from_an_export(tmp_path: Path) -> None:
    path = tmp_path / "provenance.jsonl"
    lines = [
        {"source": "synthetic", "scenes": ["s1", "s2"], "artifact": "ab12.png"},
        {"source": "real", "scenes": ["s9"], "artifact": "ffff.png"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert read_synthetic(path) == {"s1", "s2", "ab12"}
    path.write_text('{"source": "synthetic"}')
    with pytest.raises(DatasetError, match="no provenance"):
        read_synthetic(path)
    with pytest.raises(DatasetError, match="no provenance"):
        read_synthetic(tmp_path / "missing.jsonl")

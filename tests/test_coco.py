"""COCO files: what is read, refused and counted, and what is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskwright.data.coco import load_coco, save_coco
from maskwright.data.images import place_image
from maskwright.data.masks import mask_to_rle, segmentation_to_mask
from maskwright.data.records import (
    Annotation,
    AnnotationTableBuilder,
    Category,
    Dataset,
    Findings,
    ImageRecord,
    Polygons,
    Rle,
    Sample,
    Segmentation,
)
from maskwright.errors import DatasetError

HEIGHT, WIDTH = 48, 64
SQUARE = [10, 8, 30, 8, 30, 28, 10, 28]
Json = dict[str, object]


def entry(annotation_id: int = 1, segmentation: object = None, **keys: object) -> Json:
    ring = [SQUARE] if segmentation is None else segmentation
    return {"id": annotation_id, "image_id": 5, "category_id": 3, "segmentation": ring, "iscrowd": 0, **keys}


def coco_json(*annotations: Json, **keys: object) -> Json:
    return {
        "images": [{"id": 5, "file_name": "Größe/図.png", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 3, "name": "cup"}, {"id": 90, "name": "brush", "supercategory": "tool"}],
        "annotations": list(annotations),
        **keys,
    }


def load(folder: Path, content: object, *, check_images: bool = False) -> Dataset:
    path = folder / "annotations" / "instances_train.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return load_coco({"train": path}, {"train": folder / "images"}, check_images=check_images)


def write_image(path: Path, width: int = WIDTH, height: int = HEIGHT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, dtype=np.uint8)).save(path)


def ring_mask_hw() -> np.ndarray:
    """(48, 64) bool: a frame with a hole, and a second part on the border."""
    mask_hw = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask_hw[5:25, 10:40] = True
    mask_hw[10:20, 20:30] = False
    mask_hw[40:, 60:] = True
    return mask_hw


def plain_counts(mask_hw: np.ndarray) -> list[int]:
    flat = mask_hw.ravel(order="F").astype(int)
    changes = np.flatnonzero(np.diff(flat, prepend=0))
    return np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()


def test_polygons_boxes_and_names_are_read(tmp_path: Path) -> None:
    parts = [SQUARE, [40.25, 30.5, 50.75, 30.5, 45, 40]]
    dataset = load(tmp_path, coco_json(entry(7, parts, bbox=[10, 8, 40.5, 32], area=399.5)))
    assert (dataset.format, dataset.root, dataset.splits) == ("coco", tmp_path, ("train",))
    assert dataset.categories == (Category(3, "cup"), Category(90, "brush", "tool"))
    assert dataset.images[0].path == tmp_path / "images" / "Größe" / "図.png"
    annotation = dataset.annotations[0]
    assert (annotation.annotation_id, annotation.category_id, annotation.is_crowd) == (7, 3, False)
    assert (annotation.bbox_xywh, annotation.area) == ((10, 8, 40.5, 32), 399.5)
    assert isinstance(annotation.segmentation, Polygons)
    assert [ring.ravel().tolist() for ring in annotation.segmentation.rings] == parts


@pytest.mark.parametrize("keys", [{}, {"bbox": [], "area": 0}, {"bbox": [1, 2, 0, 0], "area": None}], ids=str)
def test_area_and_box_are_measured_where_they_are_not_declared(tmp_path: Path, keys: Json) -> None:
    triangle = [40, 30, 50, 30, 40, 40]
    annotation = load(tmp_path, coco_json(entry(1, [SQUARE, triangle], **keys))).annotations[0]
    assert annotation.area == 450
    assert annotation.bbox_xywh == (10, 8, 40, 32)


@pytest.mark.parametrize("compressed", [False, True], ids=["counts list", "counts string"])
@pytest.mark.parametrize("crowd", [0, 1], ids=["object", "crowd"])
def test_rle_is_read(tmp_path: Path, compressed: bool, crowd: int) -> None:
    mask_hw = ring_mask_hw()
    counts = mask_to_rle(mask_hw).counts.decode() if compressed else plain_counts(mask_hw)
    rle = {"size": [HEIGHT, WIDTH], "counts": counts}
    annotation = load(tmp_path, coco_json(entry(1, rle, iscrowd=crowd))).annotations[0]
    np.testing.assert_array_equal(segmentation_to_mask(annotation.segmentation, HEIGHT, WIDTH), mask_hw)
    assert (annotation.is_crowd, annotation.area) == (bool(crowd), mask_hw.sum())
    assert annotation.bbox_xywh == (10, 5, 54, 43)


def test_splits_with_the_same_ids_stay_apart(tmp_path: Path) -> None:
    files = {split: tmp_path / f"{split}.json" for split in ("train", "val")}
    for split, x in (("train", 0), ("val", 20)):
        files[split].write_text(json.dumps(coco_json(entry(1, [[x, 0, x + 10, 0, x + 10, 10]]))))
    dataset = load_coco(files, {split: tmp_path / split for split in files}, check_images=False)
    assert dataset.splits == ("train", "val")
    boxes = {s.image.split: [a.bbox_xywh[0] for a in s.annotations] for s in dataset.samples()}
    assert boxes == {"train": [0], "val": [20]}
    assert len(dataset.categories) == 2


def test_many_annotations_keep_their_order_and_image(tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in range(1, 4)]
    annotations = [
        entry(i, [[i % 30, 1, i % 30 + 9, 1, i % 30 + 9, 9]] if i % 5 else [], image_id=i % 3 + 1)
        for i in range(1, 5001)
    ]
    dataset = load(tmp_path, coco_json(*annotations, images=images))
    assert dataset.annotations.annotation_id.tolist() == [i for i in range(1, 5001) if i % 5]
    assert dataset.findings.counts == {"empty_mask": 1000}
    for index in range(3):
        for annotation in dataset.sample(index).annotations:
            assert annotation.annotation_id % 3 == index
            assert annotation.bbox_xywh[0] == annotation.annotation_id % 30


RLE_OK = {"size": [HEIGHT, WIDTH], "counts": mask_to_rle(ring_mask_hw()).counts.decode()}
CASES_REFUSED: dict[str, tuple[object, str]] = {
    "not json": ("{", "not JSON"),
    "empty file": ("", "not JSON"),
    "deep nesting": ("[" * 100_000, "not"),
    "a list": ([], "Expected `object`, got `array`"),
    "no annotations": ({"images": [], "categories": []}, "missing required field `annotations`"),
    "annotations no list": (coco_json() | {"annotations": {}}, r"\$\.annotations"),
    "image id a string": (coco_json(entry(), images=[{"id": "a", "file_name": "a"}]), r"\$\.images\[0\]\.id"),
    "category id negative": (coco_json(entry(), categories=[{"id": -1, "name": "a"}]), r"\$\.categories\[0\]\.id"),
    "flat polygon": (coco_json(entry(1), entry(2, SQUARE)), r"annotations\[1\] is not a COCO annotation.*segmentation"),
    "huge id": (coco_json(entry(2**63)), r"annotations\[0\].*id"),
    "unknown category": (coco_json(entry(7, category_id=4)), "annotation 7 has category_id 4"),
    "unknown image": (coco_json(entry(7, image_id=4)), "annotation 7 has image_id 4"),
    "repeated annotation id": (coco_json(entry(7), entry(7)), "annotation id 7 occurs more than once"),
    "repeated image id": (
        coco_json(entry(), images=[{"id": 5, "file_name": f"{i}", "width": 64, "height": 48} for i in range(2)]),
        r"images\[1\].*id 5",
    ),
    "repeated file name": (
        coco_json(entry(), images=[{"id": 5 + i, "file_name": "a", "width": 64, "height": 48} for i in range(2)]),
        r"images\[1\].*'a'",
    ),
    "repeated category id": (coco_json(entry(), categories=[{"id": 3, "name": n} for n in "ab"]), "category id"),
    "repeated category name": (coco_json(entry(), categories=[{"id": i, "name": "a"} for i in (3, 4)]), "'a' repeats"),
    "no size": (coco_json(entry(), images=[{"id": 5, "file_name": "a"}]), "image 5 declares a size of 0x0"),
    "a size that cannot be": (
        coco_json(entry(), images=[{"id": 5, "file_name": "a", "width": 10**12, "height": 1}]),
        "178,956,970",
    ),
    "unsafe name": (coco_json(entry(), images=[{"id": 5, "file_name": "../a"}]), r"images\[0\]: '\.\./a'"),
    "no file name": (coco_json(entry(), images=[{"id": 5}]), r"images\[0\]: ''"),
    "nothing": (coco_json(), "no usable annotation"),
    "only empty": (coco_json(entry(1, [])), "no usable annotation .*1 empty_mask"),
    "rle of another size": (coco_json(entry(7, RLE_OK | {"size": [64, 48]})), r"annotation 7.*\[64, 48\].*\[48, 64\]"),
    "rle too short": (coco_json(entry(1, RLE_OK | {"counts": [1, 2, 3]})), "cannot be decoded to 3072 pixels"),
    "rle too long": (coco_json(entry(1, RLE_OK | {"counts": [4000]})), "cannot be decoded"),
    "rle negative": (coco_json(entry(1, RLE_OK | {"counts": [4000, -928]})), "cannot be decoded"),
    "rle empty": (coco_json(entry(1, RLE_OK | {"counts": ""})), "cannot be decoded"),
    "rle cut": (coco_json(entry(1, RLE_OK | {"counts": RLE_OK["counts"][:-1]})), "cannot be decoded"),
    "rle runs off": (coco_json(entry(1, RLE_OK | {"counts": "oooo"})), "cannot be decoded"),
    "rle no text": (coco_json(entry(1, RLE_OK | {"counts": "ü ~"})), "cannot be decoded"),
}


@pytest.mark.parametrize(("content", "message"), CASES_REFUSED.values(), ids=CASES_REFUSED.keys())
def test_refused_with_file_and_entry(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        load(tmp_path, content)
    assert "instances_train.json" in str(caught.value)


def test_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read"):
        load_coco({"train": tmp_path / "absent.json"}, {"train": tmp_path})


def test_categories_that_differ_between_splits_are_refused(tmp_path: Path) -> None:
    files = {split: tmp_path / f"{split}.json" for split in ("train", "val")}
    files["train"].write_text(json.dumps(coco_json(entry())))
    files["val"].write_text(json.dumps(coco_json(entry(), categories=[{"id": 3, "name": "plate"}])))
    with pytest.raises(DatasetError, match=r"val\.json: category 3 'plate'"):
        load_coco(files, dict.fromkeys(files, tmp_path), check_images=False)


CASES_COUNTED: dict[str, tuple[object, dict[str, int], int]] = {
    "two points": ([[1, 1, 5, 5], SQUARE], {"short_polygon": 1}, 400),
    "only two points": ([[1, 1, 5, 5]], {"short_polygon": 1, "empty_mask": 1}, 0),
    "odd": ([[1, 1, 5, 5, 5, 9, 3], SQUARE], {"odd_coordinates": 1}, 400),
    "not finite": ([[1, 1, float("nan"), 5, 5, 9], SQUARE], {"not_finite": 1}, 400),
    "infinite": ([[1, 1, float("inf"), 5, 5, 9], SQUARE], {"not_finite": 1}, 400),
    "too large for float32": ([[1, 1, 1e300, 5, 5, 9], SQUARE], {"not_finite": 1}, 400),
    "partly outside": ([[-10, 8, 10, 8, 10, 28, -10, 28]], {"clipped_polygon": 1}, 200),
    "over a corner": ([[54, 38, 74, 38, 74, 58, 54, 58]], {"clipped_polygon": 1}, 100),
    "around the frame": ([[-10, -10, 100, -10, 100, 90, -10, 90]], {"clipped_polygon": 1}, HEIGHT * WIDTH),
    "fully outside": ([[100, 8, 120, 8, 120, 28]], {"clipped_polygon": 1, "empty_mask": 1}, 0),
    "diagonally past a corner": ([[70, -60, 130, 0, 130, -60]], {"clipped_polygon": 1, "empty_mask": 1}, 0),
    "no polygon": ([], {"empty_mask": 1}, 0),
    "box only": (None, {"empty_mask": 1}, 0),
    "a sliver": ([[3, 3.1, 40, 3.1, 40, 3.2, 3, 3.2]], {"empty_mask": 1}, 0),
    "a point": ([[3, 3, 3, 3, 3, 3]], {"empty_mask": 1}, 0),
    "an empty rle": ({"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}, {"empty_mask": 1}, 0),
    "a bow tie": ([[0, 0, 20, 20, 20, 0, 0, 20]], {}, 200),
}


@pytest.mark.parametrize(("segmentation", "counts", "area"), CASES_COUNTED.values(), ids=CASES_COUNTED.keys())
def test_counted_and_clipped(tmp_path: Path, segmentation: object, counts: dict[str, int], area: int) -> None:
    odd = entry(1, bbox=[0, 0, 5, 5]) | {"segmentation": segmentation}
    dataset = load(tmp_path, coco_json(entry(2), odd, entry(3)))
    assert dataset.findings.counts == counts
    rows = {one.annotation_id: one for one in dataset.annotations}
    assert list(rows) == ([2, 1, 3] if area else [2, 3])
    assert rows[2].area == rows[3].area == 400
    assert np.array_equal(np.ravel(rows[3].segmentation.rings), SQUARE)
    if area:
        mask_hw = segmentation_to_mask(rows[1].segmentation, HEIGHT, WIDTH)
        assert abs(int(mask_hw.sum()) - area) <= 24
        assert rows[1].area == pytest.approx(area, abs=24)
    for named in dataset.findings.examples.values():
        assert "annotation 1" in named[0]


def test_nan_in_a_file_name_is_left_alone(tmp_path: Path) -> None:
    images = [{"id": 5, "file_name": "NaN_1.png", "width": WIDTH, "height": HEIGHT}]
    dataset = load(tmp_path, coco_json(entry(1, [[1, 1, float("nan"), 5, 5, 9], SQUARE]), images=images))
    assert dataset.images[0].file_name == "NaN_1.png"


def test_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    assert len(load(tmp_path, "\ufeff" + json.dumps(coco_json(entry()))).annotations) == 1


def test_images_are_checked_and_annotations_without_one_dropped(tmp_path: Path) -> None:
    names = ["good", "small", "text", "absent", "bare"]
    images = [{"id": i, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for i, n in enumerate(names)]
    for name, size in {"good": (WIDTH, HEIGHT), "small": (10, 10), "bare": (WIDTH, HEIGHT)}.items():
        write_image(tmp_path / "images" / f"{name}.png", *size)
    (tmp_path / "images" / "text.png").write_text("no image")
    annotations = [entry(10 + i, image_id=i) for i in range(4)] + [entry(20, image_id=3)]
    dataset = load(tmp_path, coco_json(*annotations, images=images), check_images=True)
    assert [image.file_name for image in dataset.images] == ["good.png", "bare.png"]
    assert dataset.annotations.annotation_id.tolist() == [10]
    assert dataset.findings.counts == {
        "missing_image": 1,
        "size_mismatch": 1,
        "unreadable_image": 1,
        "annotation_without_image": 4,
        "image_without_label": 1,
    }


def test_no_image_that_opens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no usable image \(1 missing_image"):
        load(tmp_path, coco_json(entry()), check_images=True)


def test_undeclared_size_comes_from_the_file(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png")
    dataset = load(tmp_path, coco_json(entry(), images=[{"id": 5, "file_name": "a.png"}]), check_images=True)
    assert (dataset.images[0].width, dataset.images[0].height) == (WIDTH, HEIGHT)


class Source:
    """Samples of one or more images, as a run would hand them to a writer."""

    def __init__(
        self, *samples: Sample, categories: tuple[Category, ...] = (Category(3, "cup"), Category(90, "brush"))
    ):
        self.categories = categories
        self._samples = samples
        self.splits = tuple(dict.fromkeys(sample.image.split for sample in samples))

    def samples(self, split: str | None = None):
        return (sample for sample in self._samples if split in (None, sample.image.split))


def sample(
    folder: Path, *annotations: Annotation, image_id: int = 5, split: str = "train", licence: str = ""
) -> Sample:
    name = f"sub/{split}図{image_id}.png"
    write_image(folder / name)
    return Sample(ImageRecord(image_id, name, str(folder), WIDTH, HEIGHT, split=split, licence=licence), annotations)


def annotation(
    annotation_id: int = 1, segmentation: Segmentation | None = None, category_id: int = 3, *, is_crowd: bool = False
) -> Annotation:
    square = Polygons((np.array(SQUARE, dtype=np.float32).reshape(-1, 2),))
    return Annotation(annotation_id, category_id, segmentation or square, (0, 0, 1, 1), 1, is_crowd)


def save(tmp_path: Path, source: Source) -> tuple[dict[str, Json], Findings]:
    findings = Findings()
    files = save_coco(source, tmp_path / "out", place_image, findings=findings)
    return {split: json.loads(path.read_text()) for split, path in files.items()}, findings


def test_saved_masks_are_exact_and_measured(tmp_path: Path) -> None:
    rle = mask_to_rle(ring_mask_hw())
    written, findings = save(tmp_path, Source(sample(tmp_path / "in", annotation(4), annotation(9, rle, 90))))
    square, ring = written["train"]["annotations"]
    assert square["segmentation"] == [SQUARE]
    assert (square["bbox"], square["area"], square["iscrowd"]) == ([10, 8, 20, 20], 400, 0)
    assert ring["segmentation"] == {"size": [HEIGHT, WIDTH], "counts": rle.counts.decode()}
    assert (ring["bbox"], ring["area"]) == ([10, 5, 54, 43], ring_mask_hw().sum())
    assert [square["id"], ring["id"], ring["image_id"], ring["category_id"]] == [4, 9, 5, 90]
    assert (tmp_path / "out" / "images" / "train" / "sub" / "train図5.png").is_file()
    assert not findings.counts


def test_crowds_are_written_as_rle(tmp_path: Path) -> None:
    written, _ = save(tmp_path, Source(sample(tmp_path / "in", annotation(is_crowd=True))))
    crowd = written["train"]["annotations"][0]
    assert (crowd["iscrowd"], crowd["area"]) == (1, 400)
    assert coco_mask.area(crowd["segmentation"]) == 400


@pytest.mark.parametrize(
    ("ids", "expected", "kind"),
    [
        ([3, 8, 5], [3, 8, 5], None),
        ([0, 8, 5], [1, 2, 3], "annotation_ids_renumbered"),
        ([8, 8, 5], [1, 2, 3], "annotation_ids_renumbered"),
    ],
    ids=["kept", "below one", "repeated"],
)
def test_annotation_ids(tmp_path: Path, ids: list[int], expected: list[int], kind: str | None) -> None:
    source = Source(
        sample(tmp_path, annotation(ids[0])), sample(tmp_path, annotation(ids[1]), annotation(ids[2]), image_id=6)
    )
    written, findings = save(tmp_path, source)
    assert [one["id"] for one in written["train"]["annotations"]] == expected
    assert list(findings.counts) == ([kind] if kind else [])


def test_image_ids_below_one_are_renumbered(tmp_path: Path) -> None:
    source = Source(sample(tmp_path, annotation(1), image_id=0), sample(tmp_path, annotation(2), image_id=1))
    written, findings = save(tmp_path, source)
    assert [one["id"] for one in written["train"]["images"]] == [1, 2]
    assert [one["image_id"] for one in written["train"]["annotations"]] == [1, 2]
    assert findings.counts == {"image_ids_renumbered": 2}


@pytest.mark.parametrize(("first", "shift"), [(0, 1), (1, 0), (7, 0)], ids=["from zero", "from one", "gaps"])
def test_category_ids(tmp_path: Path, first: int, shift: int) -> None:
    categories = (Category(first, "cup"), Category(first + 40, "brush"))
    written, findings = save(
        tmp_path, Source(sample(tmp_path, annotation(1, category_id=first + 40)), categories=categories)
    )
    assert [one["id"] for one in written["train"]["categories"]] == [first + shift, first + 40 + shift]
    assert written["train"]["annotations"][0]["category_id"] == first + 40 + shift
    assert findings.counts == ({"category_ids_shifted": 1} if shift else {})


def test_empty_masks_are_not_written(tmp_path: Path) -> None:
    empty = mask_to_rle(np.zeros((HEIGHT, WIDTH), dtype=bool))
    written, findings = save(tmp_path, Source(sample(tmp_path, annotation(1, empty), annotation(2))))
    assert [one["id"] for one in written["train"]["annotations"]] == [2]
    assert findings.counts == {"empty_mask": 1}


def test_an_image_without_annotations_is_written(tmp_path: Path) -> None:
    written, _ = save(tmp_path, Source(sample(tmp_path, image_id=5), sample(tmp_path, annotation(), split="val")))
    assert len(written["train"]["images"]) == 1
    assert written["train"]["annotations"] == []
    assert len(written["val"]["annotations"]) == 1


def test_licences_survive(tmp_path: Path) -> None:
    images = [{"id": 5, "file_name": "a.png", "width": WIDTH, "height": HEIGHT, "license": 2}]
    licences = [{"id": 1, "name": "CC-BY"}, {"id": 2, "url": "https://example.org/cc0"}]
    write_image(tmp_path / "images" / "a.png")
    dataset = load(tmp_path, coco_json(entry(), images=images, licenses=licences), check_images=True)
    written, _ = save(tmp_path, dataset)
    assert dataset.images[0].licence == "https://example.org/cc0"
    assert written["train"]["licenses"] == [{"id": 1, "name": "https://example.org/cc0"}]
    assert written["train"]["images"][0]["license"] == 1


def test_a_write_that_breaks_leaves_no_annotation_file(tmp_path: Path) -> None:
    def break_down(record: ImageRecord, destination: Path) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_coco(Source(sample(tmp_path, annotation())), tmp_path / "out", break_down, findings=Findings())
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_what_is_written_is_read_back_the_same(tmp_path: Path) -> None:
    rle = mask_to_rle(ring_mask_hw())
    source = Source(
        sample(tmp_path / "in", annotation(4), annotation(9, rle, 90), annotation(11, rle, is_crowd=True)),
        sample(tmp_path / "in", annotation(4), split="val"),
    )
    files = save_coco(source, tmp_path / "out", place_image, findings=Findings())
    dataset = load_coco(files, {split: tmp_path / "out" / "images" / split for split in files})
    assert not dataset.findings.counts
    for before, after in zip(source.samples(), dataset.samples(), strict=True):
        assert (before.image.file_name, before.image.split) == (after.image.file_name, after.image.split)
        for one, other in zip(before.annotations, after.annotations, strict=True):
            assert (one.annotation_id, one.category_id, one.is_crowd) == (
                other.annotation_id,
                other.category_id,
                other.is_crowd,
            )
            np.testing.assert_array_equal(
                segmentation_to_mask(one.segmentation, HEIGHT, WIDTH),
                segmentation_to_mask(other.segmentation, HEIGHT, WIDTH),
            )


def test_pycocotools_scores_an_export_against_itself_at_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Source(
        sample(tmp_path / "in", annotation(0), annotation(1, mask_to_rle(ring_mask_hw()), 90)),
        sample(tmp_path / "in", annotation(0), image_id=0),
    )
    files = save_coco(source, tmp_path / "out", place_image, findings=Findings())
    truth = COCO(str(files["train"]))
    detections = truth.loadRes(
        [
            {
                "image_id": one["image_id"],
                "category_id": one["category_id"],
                "score": 0.9,
                "segmentation": truth.annToRLE(one),
            }
            for one in truth.dataset["annotations"]
        ]
    )
    scores = COCOeval(truth, detections, "segm")
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    capsys.readouterr()
    assert scores.stats[0] == pytest.approx(1.0)


def test_rows_added_as_columns_equal_rows_added_one_by_one() -> None:
    rings = [np.arange(6, dtype=np.float32), np.arange(8, dtype=np.float32) + 3, np.ones(6, dtype=np.float32)]
    rle = Rle(b"PPYo0", HEIGHT, WIDTH)
    one_by_one, as_columns = AnnotationTableBuilder(), AnnotationTableBuilder()
    segmentations: list[list[np.ndarray] | Rle] = [rings[:2], rle, rings[2:]]
    for row, segmentation in enumerate(segmentations):
        one_by_one.add(
            annotation_id=row + 1,
            image_index=0,
            category_id=3,
            segmentation=segmentation,
            bbox_xywh=[0, 0, 1, 1],
            area=2,
        )
    for _ in range(2):  # the second time behind other rows
        as_columns.add_rows(
            annotation_id=np.arange(1, 4),
            image_index=np.zeros(3, dtype=np.int32),
            category_id=np.full(3, 3, dtype=np.int32),
            bbox_xywh=np.tile(np.array([0, 0, 1, 1], dtype=np.float32), (3, 1)),
            area=np.full(3, 2, dtype=np.float32),
            is_crowd=np.zeros(3, dtype=np.bool_),
            coords_xy=np.concatenate(rings).reshape(-1, 2),
            points_per_ring=np.array([3, 4, 3]),
            rings_per_row=np.array([2, 0, 1]),
            rles={1: rle},
        )
    expected, table = one_by_one.build(1), as_columns.build(1)
    for row in range(6):
        assert str(table[row]) == str(expected[row % 3])

"""Photographs and annotations as they come: any colour mode and any turn, boxes and polygons that leave the image."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import pytest
from PIL import Image

from maskwright.data.coco import load_coco
from maskwright.data.records import Dataset
from maskwright.errors import DatasetError, RecipeError
from maskwright.graphs.pipeline import plan_recipe, run_recipe
from maskwright.memory.artifacts import ArtifactStore
from maskwright.tools import registry
from maskwright.tools.painting.variation import VariationPainter
from maskwright.tools.protocols import Painted, PaintRequest

HEIGHT, WIDTH = 48, 64
TOP, BOTTOM, LEFT, RIGHT = 8, 40, 10, 50
"""Of the one instance of each photograph; off the middle, so that no turn maps it to itself."""
SETTINGS = ["agents.image_agent.sources.min_area_px=1", "budget.workers=2"]
Pixels = npt.NDArray[np.uint8]


def _colours() -> Pixels:
    """(48, 64, 3) uint8, 64 colours in blocks, each pixel of the frame's quarters another."""
    ys, xs = np.mgrid[:HEIGHT, :WIDTH] // 8
    return np.stack([40 + 20 * xs, 200 - 25 * ys, 30 + 9 * (xs + 3 * ys)], axis=2).astype(np.uint8)


def _grey() -> Pixels:
    return _colours()[..., 0]


def _encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _rotated_png() -> bytes:
    exif = Image.Exif()
    exif[274] = 6  # shown a quarter turn clockwise
    return _encode(Image.fromarray(np.ascontiguousarray(np.rot90(_colours()))), "PNG", exif=exif)


def _with_alpha() -> bytes:
    alpha = np.where(np.arange(WIDTH) % 2, 255, 0) * np.ones((HEIGHT, 1))
    return _encode(Image.fromarray(np.dstack([_grey(), alpha.astype(np.uint8)]), "LA"), "PNG")


def _cmyk() -> bytes:
    cyan_magenta_yellow = 255 - _colours()
    return _encode(Image.fromarray(np.dstack([cyan_magenta_yellow, 0 * _grey()]), "CMYK"), "TIFF")


def _three_times(grey: Pixels) -> Pixels:
    return np.stack([grey] * 3, axis=2)


PHOTOGRAPHS: Mapping[str, tuple[Callable[[], bytes], Callable[[], Pixels]]] = {
    "grau ü.png": (lambda: _encode(Image.fromarray(_grey()), "PNG"), lambda: _three_times(_grey())),
    "alpha.png": (_with_alpha, lambda: _three_times(_grey())),
    "16 bit.png": (
        lambda: _encode(Image.fromarray(_grey().astype(np.uint16) * 257), "PNG"),
        lambda: _three_times(_grey()),
    ),
    "palette.png": (lambda: _encode(Image.fromarray(_colours()).quantize(64), "PNG"), _colours),
    "druck.tif": (_cmyk, _colours),
    "gedreht 図.png": (_rotated_png, _colours),
}
"""File name to the bytes of a photograph, and the pixels that a viewer shows."""


def _write(
    folder: Path, files: Mapping[str, bytes], segmentation: Sequence[float] | None = None, **fields: object
) -> Path:
    """A COCO folder of one class; each photograph has one annotation, the rectangle unless told otherwise."""
    (folder / "images/train").mkdir(parents=True)
    (folder / "annotations").mkdir()
    ring = segmentation or [LEFT, TOP, RIGHT, TOP, RIGHT, BOTTOM, LEFT, BOTTOM]
    images, annotations = [], []
    for number, (name, content) in enumerate(files.items(), start=1):
        (folder / "images/train" / name).write_bytes(content)
        images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        entry = {"id": number, "image_id": number, "category_id": 1, "segmentation": [ring]}
        annotations.append({**entry, "bbox": [LEFT, TOP, RIGHT - LEFT, BOTTOM - TOP], "iscrowd": 0, **fields})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "Dübel"}]}
    (folder / "annotations/instances_train.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def _plain() -> dict[str, bytes]:
    return {"bild ü.png": _encode(Image.fromarray(_colours()), "PNG")}


def _load(folder: Path) -> Dataset:
    return load_coco({"train": folder / "annotations/instances_train.json"}, {"train": folder / "images/train"})


def test_photographs_of_any_mode_and_turn_are_sources_of_right_pixels(tmp_path: Path) -> None:
    data = _write(tmp_path / "daten", {name: encode() for name, (encode, _) in PHOTOGRAPHS.items()})
    outcome = run_recipe("instances", data=data, out=tmp_path / "run", overrides=[*SETTINGS, "plan.at_least=12"])
    results = [orjson.loads(path.read_bytes()) for path in (tmp_path / "run/items").rglob("*.json")]
    assert outcome.exit_code == 0
    assert sorted(result["source"]["file_name"] for result in results) == sorted(PHOTOGRAPHS)
    artifacts = ArtifactStore(tmp_path / "run/artifacts")
    for result in results:
        name = result["source"]["file_name"]
        expected = PHOTOGRAPHS[name][1]()[TOP:BOTTOM, LEFT:RIGHT]
        source = np.asarray(Image.open(artifacts.path(result["source"]["artifact"])))
        assert source.shape == (*expected.shape[:2], 4), name
        assert (source[..., 3] == 255).all(), name
        assert np.abs(source[..., :3].astype(int) - expected).max() <= 1, name
    exported = Image.open(tmp_path / "run/dataset/coco/images/train/gedreht 図.png")
    assert np.array_equal(np.asarray(exported), _colours())


@pytest.mark.parametrize(
    "bbox",
    [
        pytest.param([100, 100, 20, 20], id="outside"),
        pytest.param([-30, -30, 10, 10], id="at negative coordinates"),
        pytest.param([40, 8, 40, 32], id="partly outside"),
        pytest.param([10, 8, -40, 32], id="of negative width"),
        pytest.param([10, 8, 0, 0], id="of no area"),
    ],
)
def test_a_box_that_cannot_be_true_is_counted_and_the_mask_s_is_used(bbox: list[float], tmp_path: Path) -> None:
    dataset = _load(_write(tmp_path / "daten", _plain(), bbox=bbox))
    assert dataset.annotations.bbox_xywh.tolist() == [[LEFT, TOP, RIGHT - LEFT, BOTTOM - TOP]]
    assert dataset.findings.counts == {"wrong_box": 1}
    [example] = dataset.findings.examples["wrong_box"]
    assert "instances_train.json: annotation 1" in example
    assert str([float(value) for value in bbox]) in example


def test_a_box_that_rounding_moved_out_is_believed(tmp_path: Path) -> None:
    dataset = _load(_write(tmp_path / "daten", _plain(), bbox=[-0.5, 0, 64.9, 48.5]))
    assert dataset.findings.counts == {}
    assert dataset.annotations.bbox_xywh[0, 0] == -0.5


@pytest.mark.parametrize(
    ("ring", "finding", "box"),
    [
        pytest.param([50, 8, 90, 8, 90, 40, 50, 40], "clipped_polygon", [50, 8, 14, 32], id="partly outside"),
        pytest.param([-9, -9, 20, -9, 20, 20, -9, 20], "clipped_polygon", [0, 0, 20, 20], id="at negative coordinates"),
    ],
)
def test_a_polygon_is_clipped_to_its_image(ring: list[float], finding: str, box: list[float], tmp_path: Path) -> None:
    dataset = _load(_write(tmp_path / "daten", _plain(), ring))
    assert dataset.findings.counts == {finding: 1}
    assert dataset.annotations.bbox_xywh.tolist() == [box]


def test_a_polygon_outside_its_image_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"instances_train\.json: no usable annotation .*1 empty_mask"):
        _load(_write(tmp_path / "daten", _plain(), [70, 50, 90, 50, 90, 60, 70, 60]))


class _Vanishing(VariationPainter):
    """A painter whose augmentation leaves no pixel of the object."""

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        return [Painted(np.zeros((HEIGHT, WIDTH, 4), np.uint8), {}) for _ in requests]


def test_a_mask_that_vanishes_is_rejected_and_breaks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.PAINTERS, "variation", lambda settings: _Vanishing(settings.variation))
    data = _write(tmp_path / "daten", _plain())
    overrides = [*SETTINGS, "plan.at_least=2", "agents.image_agent.max_rounds=2"]
    outcome = run_recipe("instances", data=data, out=tmp_path / "run", overrides=overrides)
    [entry] = [path.read_bytes() for path in (tmp_path / "run/items").rglob("*.json")]
    assert (outcome.exit_code, outcome.content["accepted"], orjson.loads(entry)["ending"]) == (3, 0, "exhausted")
    assert b"has no pixel" in entry


def test_a_source_of_one_pixel_breaks_nothing(tmp_path: Path) -> None:
    data = _write(tmp_path / "daten", _plain(), [20, 20, 21, 20, 21, 21, 20, 21], bbox=[20, 20, 1, 1])
    outcome = run_recipe("instances", data=data, out=tmp_path / "run", overrides=[*SETTINGS, "plan.at_least=3"])
    assert outcome.content["items"] == {
        "planned": 2,
        "accepted": 0,
        "exhausted": 2,
        "failed": 0,
        "held": 0,
        "spared": 0,
    }


def test_an_unknown_class_is_named_with_those_that_exist(tmp_path: Path) -> None:
    data = _write(tmp_path / "daten", _plain())
    with pytest.raises(RecipeError, match=r"plan\.classes names 'Dubel'.*it has Dübel"):
        plan_recipe("instances", data=data, overrides=['plan.classes=["Dubel"]'])


def test_a_photograph_cut_short_costs_only_its_own_source(tmp_path: Path) -> None:
    whole = _plain()["bild ü.png"]
    data = _write(tmp_path / "daten", {"bild ü.png": whole, "halb.png": whole[: len(whole) // 2]})
    outcome = run_recipe("instances", data=data, out=tmp_path / "run", overrides=[*SETTINGS, "plan.at_least=4"])
    results = [orjson.loads(path.read_bytes()) for path in (tmp_path / "run/items").rglob("*.json")]
    assert [r["unreadable_image"] for r in results if r["unreadable_image"]] == ["halb.png"]
    assert outcome.content["findings"]["undecodable_image"]["count"] == 1  # type: ignore[index]
    assert outcome.content["accepted"] == 1

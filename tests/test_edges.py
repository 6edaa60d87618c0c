"""Edges of pictures whose edges are known, and the library's networks with random weights, saved and loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from controlnet_aux.hed import ControlNetHED_Apache2, HEDdetector
from controlnet_aux.pidi import PidiNetDetector
from controlnet_aux.pidi.model import pidinet

from maskwright.configs.conditioning import EdgesSettings
from maskwright.data.records import ImageRGB
from maskwright.errors import BrokenRunError, MissingDependencyError, RecipeError, SampleError
from maskwright.tools.painting import edges as edges_module
from maskwright.tools.painting.edges import EdgeDetector, edges_to_control


@pytest.fixture(scope="module")
def annotators(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("Kanten ü")
    torch.manual_seed(0)
    torch.save(ControlNetHED_Apache2().state_dict(), folder / "ControlNetHED.pth")
    state = {f"module.{name}": value for name, value in pidinet().state_dict().items()}
    torch.save({"state_dict": state}, folder / "table5_pidinet.pth")
    return folder


def square(height: int = 48, width: int = 64) -> ImageRGB:
    rgb = np.full((height, width, 3), 60, np.uint8)
    rgb[height // 4 : -height // 4, width // 4 : -width // 4] = (200, 180, 90)
    return rgb


def detector(annotators: Path | None = None, **weights: float) -> EdgeDetector:
    path = str(annotators) if annotators else None
    return EdgeDetector(EdgesSettings.model_validate({"annotators": path, "device": "cpu", **weights}))


def test_canny_finds_the_outline_and_nothing_else() -> None:
    edges = detector().detect(square())
    assert edges.shape == (48, 64)
    assert edges.dtype == np.float32
    assert edges[24, 14:18].max() == pytest.approx(1, abs=0.05)
    assert edges[24, 32] == edges[3, 3] == 0
    assert ((edges[24, 12:20] > 0.05) & (edges[24, 12:20] < 0.95)).any(), "soft sides"
    assert not detector().detect(np.full((48, 64, 3), 77, np.uint8)).any()


@pytest.mark.parametrize("name", ["hed", "pidinet"])
def test_a_network_finds_what_its_library_does(name: str, annotators: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    library = {"hed": HEDdetector, "pidinet": PidiNetDetector}[name].from_pretrained(str(annotators))
    expected = library(rgb, detect_resolution=64, image_resolution=64, output_type="np")[..., 0]
    found = detector(annotators, canny=0, **{name: 1}).detect(rgb)
    assert np.abs(found * 255 - expected).max() < 2
    assert found.std() > 0


def test_the_fusion_is_the_weighted_mean(annotators: Path) -> None:
    hed, canny = detector(annotators, hed=1, canny=0).detect(square()), detector().detect(square())
    both = detector(annotators, hed=0.5, canny=0.25).detect(square())
    assert np.allclose(both, (2 * hed + canny) / 3, atol=1e-6)


@pytest.mark.parametrize(
    "rgb",
    [
        pytest.param(np.full((1, 1, 3), 9, np.uint8), id="one pixel"),
        pytest.param(square(1, 64), id="one row"),
        pytest.param(square(50, 3), id="narrow"),
        pytest.param(np.zeros((20, 20, 3), np.uint8), id="black"),
        pytest.param(square()[::-1, ::-1], id="not contiguous"),
    ],
)
def test_any_picture_has_edges_of_its_own_size(rgb: ImageRGB, annotators: Path) -> None:
    edges = detector(annotators, hed=1, pidinet=1, canny=1).detect(rgb)
    assert edges.shape == rgb.shape[:2]
    assert np.isfinite(edges).all()
    assert 0 <= edges.min() <= edges.max() <= 1


@pytest.mark.parametrize(
    ("rgb", "says"),
    [
        pytest.param(np.zeros((4, 5), np.uint8), r"\(4, 5\)", id="no channels"),
        pytest.param(np.zeros((0, 5, 3), np.uint8), "not empty", id="empty"),
        pytest.param(np.zeros((4, 5, 3), np.float32), "float32", id="float"),
        pytest.param(np.broadcast_to(np.uint8(0), (5000, 5000, 3)), "5000 by 5000", id="huge"),
    ],
)
def test_what_is_no_picture_is_said(rgb: ImageRGB, says: str) -> None:
    with pytest.raises(SampleError, match=says):
        detector().detect(rgb)


def test_the_control_image_is_white_on_black() -> None:
    control = edges_to_control(np.array([[0, 0.5, 1]], np.float32))
    assert control.tolist() == [[[0] * 3, [128] * 3, [255] * 3]]
    assert control.dtype == np.uint8


def test_no_network_is_loaded_twice(annotators: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector(annotators, hed=1).detect(square())
    monkeypatch.setattr(edges_module, "_load_network", None)
    detector(annotators / ".." / annotators.name, hed=0.5).detect(square())


def test_the_revision_names_what_counts(annotators: Path) -> None:
    assert detector().revision == "canny*1"
    revision = detector(annotators, hed=0.5, canny=0).revision
    assert revision.startswith("hed@")
    assert revision.endswith("*0.5")


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("made by a pickle"),))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        pytest.param(None, RecipeError, "'ControlNetHED.pth' is not in", id="missing"),
        pytest.param(b"x" * 99, BrokenRunError, "cannot be read as hed's", id="damaged"),
        pytest.param({"norm": torch.zeros(1)}, BrokenRunError, "cannot be read as hed's", id="another's"),
        pytest.param(Payload(), BrokenRunError, "cannot be read as hed's", id="a pickle that runs code"),
    ],
)
def test_weights_that_cannot_be_used_are_named(
    content: object, error: type[Exception], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "ControlNetHED.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(error, match=says):
        detector(tmp_path, hed=1).detect(square())
    assert not Path("made by a pickle").exists()


def test_without_the_extra_only_canny_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ControlNetHED.pth").touch()
    monkeypatch.setitem(sys.modules, "controlnet_aux.hed", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'maskwright\[edges\]'"):
        detector(tmp_path, hed=1).detect(square())
    assert detector().detect(square()).any()

"""Scores of generated defects, against formulas by hand and against torchmetrics, and which network they are by."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchvision.models import squeezenet1_1
from torchvision.models.vgg import cfgs, make_layers

from maskwright.data.records import ImageRGB
from maskwright.errors import MissingDependencyError, ModelNotFetchedError
from maskwright.evaluation import generation_extractors
from maskwright.evaluation.generation_extractors import (
    INCEPTION_FILE,
    LPIPS_FILES,
    SIDE_PX,
    InceptionLpipsExtractor,
    Lite0Extractor,
    choose_extractor,
    stages_to_rows,
)
from maskwright.evaluation.generation_metrics import (
    GenerationScores,
    ic_distance,
    inception_score,
    mean_scores,
    score_generation,
)

HEIGHT, WIDTH = 48, 64


class LevelExtractor:
    """Sees the mean level alone, and as many classes as there are levels."""

    name = "level"

    def classify(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float64]:
        return np.eye(256)[[int(image.mean()) for image in images]]

    def embed(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float32]:
        return np.array([[image.mean()] for image in images], np.float32)


def plain(*levels: int) -> list[ImageRGB]:
    return [np.full((HEIGHT, WIDTH, 3), level, np.uint8) for level in levels]


@pytest.mark.parametrize(
    ("samples", "references", "expected"),
    [
        pytest.param(plain(1, 2, 4), plain(0), (1 + 9 + 4) / 3, id="one cluster"),
        pytest.param(plain(1, 3, 101, 105), plain(0, 100), (4 + 16) / 2, id="two clusters"),
        pytest.param(plain(1, 3, 101), plain(0, 100), 4 / 2, id="a lone sample is no distance"),
        pytest.param(plain(7, 7, 7), plain(7), 0, id="copies"),
        pytest.param(plain(1, 3, *[3] * 48, 200), plain(0), 49 * 4 / (50 * 49 / 2), id="the first fifty"),
    ],
)
def test_clusters_are_as_various_as_their_pairs(
    samples: list[ImageRGB], references: list[ImageRGB], expected: float
) -> None:
    assert ic_distance(samples, references, LevelExtractor()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        pytest.param(np.eye(4), 4, id="clear and various"),
        pytest.param(np.full((4, 4), 0.25), 1, id="unclear"),
        pytest.param(np.eye(4)[[1, 1, 1]], 1, id="clear and alike"),
        pytest.param(np.array([[0.9, 0.1], [0.1, 0.9]]), np.exp(0.9 * np.log(1.8) + 0.1 * np.log(0.2)), id="by hand"),
    ],
)
def test_the_inception_score_counts_kinds(probabilities: npt.NDArray[np.float64], expected: float) -> None:
    assert inception_score(probabilities) == pytest.approx(expected)


def test_rows_are_as_far_apart_as_lpips_says() -> None:
    stages = [torch.randn(2, 5, 6, 8), torch.randn(2, 7, 3, 4)]
    one, other = stages_to_rows(stages)
    unit = [stage / stage.norm(dim=1, keepdim=True) for stage in stages]
    expected = sum((stage[0] - stage[1]).square().sum(dim=0).mean() for stage in unit)
    assert (one - other).square().sum() == pytest.approx(float(expected), rel=1e-4)


def test_scores_carry_their_extractor_and_do_not_mix() -> None:
    scores = score_generation(plain(1, 3), plain(0), LevelExtractor())
    assert scores == GenerationScores("level", 2, pytest.approx(2.0), pytest.approx(4.0))
    mean = mean_scores([scores, GenerationScores("level", 4, 1.0, 0.0)])
    assert mean == GenerationScores("level", 6, pytest.approx(1.5), pytest.approx(2.0))
    with pytest.raises(ValueError, match="one extractor"):
        mean_scores([scores, GenerationScores("inception", 2, 1.0, 0.0)])
    with pytest.raises(ValueError, match="no sample"):
        score_generation([], plain(0), LevelExtractor())


def test_without_references_there_is_no_distance() -> None:
    scores = score_generation(plain(1, 3), [], LevelExtractor())
    assert scores == GenerationScores("level", 2, pytest.approx(2.0), None)
    assert mean_scores([scores]).ic_distance is None
    assert mean_scores([scores, GenerationScores("level", 4, 1.0, 0.5)]).ic_distance == 0.5


def test_the_embedded_extractor_finds_noise_unlike_plain() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    lite0 = Lite0Extractor(batch_size=2)
    images = [*plain(90, 92), noise]
    rows = lite0.embed(images)
    distances = {pair: float(((rows[pair[0]] - rows[pair[1]]) ** 2).sum()) for pair in combinations(range(3), 2)}
    assert distances[0, 1] < 0.5 * min(distances[0, 2], distances[1, 2])
    probabilities = lite0.classify(images)
    assert probabilities.shape == (3, 1000)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(3))


@pytest.fixture(scope="module")
def torch_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Torch hub's cache with the published files' names and layers; the numbers are drawn at random."""
    inception = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    pytest.importorskip("torchmetrics")
    home = tmp_path_factory.mktemp("hub ü")
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save({}, folder / "empty.pth")

    class Unloaded(inception.FeatureExtractorInceptionV3):  # type: ignore[misc,name-defined]
        def load_state_dict(self, state_dict: object) -> None:
            """Keeps what was drawn."""

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        unloaded = Unloaded("inception", ["logits_unbiased"], folder / "empty.pth")
        torch.save(unloaded.state_dict(), folder / INCEPTION_FILE)
        torch.save(squeezenet1_1(weights=None).state_dict(), folder / LPIPS_FILES["squeeze"])
    return home


def noise_pictures(num: int) -> list[ImageRGB]:
    """Grain of a strength and colour of its own for each."""
    rng = np.random.default_rng(2)
    return [
        np.clip(rng.normal(rng.uniform(60, 200, 3), 10 * (1 + i), (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
        for i in range(num)
    ]


def to_squares(images: Sequence[ImageRGB]) -> torch.Tensor:
    """(n, 3, 256, 256) uint8."""
    squares = [cv2.resize(image, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA) for image in images]
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)


def test_present_weights_are_used_and_measure_as_their_packages_do(
    torch_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

    monkeypatch.setenv("TORCH_HOME", str(torch_home))
    extractor, why = choose_extractor(net="squeeze")
    assert (extractor.name, why) == ("inception-v3, lpips-squeeze", "")
    images = noise_pictures(5)
    pixels = to_squares(images)
    path = torch_home / "hub" / "checkpoints" / INCEPTION_FILE
    logits = FeatureExtractorInceptionV3("x", ["logits_unbiased"], str(path))(pixels)[0]
    np.testing.assert_allclose(extractor.classify(images), logits.softmax(dim=1), rtol=1e-4)
    distances = {
        (i, j): float(
            learned_perceptual_image_patch_similarity(
                pixels[[i]].float() / 127.5 - 1, pixels[[j]].float() / 127.5 - 1, net_type="squeeze"
            )
        )
        for i, j in combinations(range(5), 2)
    }
    rows = extractor.embed(images)
    for (i, j), expected in distances.items():
        assert np.square(rows[i] - rows[j]).sum() == pytest.approx(expected, rel=1e-3)
    of_samples = [distance for (i, _), distance in distances.items() if i > 0]
    assert ic_distance(images[1:], images[:1], extractor) == pytest.approx(np.mean(of_samples), rel=1e-3)


def test_vgg16_is_the_default_and_its_layers_are_those_of_the_file(torch_home: Path, tmp_path: Path) -> None:
    shutil.copy(torch_home / "hub" / "checkpoints" / INCEPTION_FILE, tmp_path)
    layers = make_layers(cfgs["D"]).state_dict()
    torch.save(
        {f"features.{name}": torch.zeros_like(one) for name, one in layers.items()}, tmp_path / LPIPS_FILES["vgg"]
    )
    extractor, _ = choose_extractor(tmp_path)
    assert extractor.name == "inception-v3, lpips-vgg"
    rows = extractor.embed(noise_pictures(1))
    assert rows.shape == (1, sum(width * (256 >> i) ** 2 for i, width in enumerate((64, 128, 256, 512, 512))))
    assert not rows.any()


def test_absent_weights_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "leer ü"))
    extractor, why = choose_extractor()
    assert extractor.name == "efficientnet-lite0"
    assert INCEPTION_FILE in why
    with pytest.raises(ModelNotFetchedError, match="inception"):
        choose_extractor(tmp_path)


def test_absent_packages_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for name in (INCEPTION_FILE, LPIPS_FILES["vgg"]):
        (folder / name).touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(generation_extractors, "find_spec", lambda name: None)
    extractor, why = choose_extractor()
    assert (extractor.name, why) == ("efficientnet-lite0", "torch_fidelity is not installed")
    with pytest.raises(MissingDependencyError, match=r"maskwright\[metrics\]"):
        choose_extractor(folder)


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", [INCEPTION_FILE, LPIPS_FILES["squeeze"]])
@pytest.mark.parametrize("content", ["code", "other layers", "no file of weights"])
def test_files_that_are_no_weights_are_named_and_run_nothing(
    torch_home: Path, tmp_path: Path, name: str, content: str
) -> None:
    folder = tmp_path / "Gewichte ü"
    shutil.copytree(torch_home / "hub" / "checkpoints", folder, copy_function=os.symlink)
    (folder / name).unlink()
    if content == "code":
        torch.save(Bomb(tmp_path / "exploded"), folder / name)
    elif content == "other layers":
        torch.save({"features.0.weight": torch.zeros(2)}, folder / name)
    else:
        (folder / name).write_bytes(b"<html>404</html>")
    with pytest.raises(ModelNotFetchedError, match=name):
        InceptionLpipsExtractor(folder, net="squeeze")
    assert not (tmp_path / "exploded").exists()

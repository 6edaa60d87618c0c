"""The classifier of the label agent: what it learns, calibrates, keeps and refuses, on a tiny random network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch
from model_helpers import fetched
from PIL import Image
from scipy.special import expit

from maskwright.configs.label_agent import LabelClassifierSettings
from maskwright.data.images import read_image
from maskwright.data.label_records import LabelledImage
from maskwright.data.records import ImageRecord
from maskwright.errors import DatasetError, InputError, ModelNotFetchedError, RecipeError
from maskwright.tools.judging import label_features, label_training
from maskwright.tools.judging.label_cache import digest_teaching
from maskwright.tools.judging.label_calibration import (
    auc_error,
    auc_within_folds,
    calibrate,
    calibration_error,
    fit_platt,
    prior_shift,
    share_folds,
)
from maskwright.tools.judging.label_classifier import TrainedLabelClassifier
from maskwright.tools.judging.label_training import train_label_classifier
from maskwright.tools.labels import LabelClassifier

CLASSES = ("Fleck ü", "Strich")
SETTINGS = LabelClassifierSettings(backbone="test_resnet", image_px=64, steps=60)
Kinds = Sequence[frozenset[str]]
SPOT, LINE, BOTH, GOOD = frozenset(CLASSES[:1]), frozenset(CLASSES[1:]), frozenset(CLASSES), frozenset[str]()


@pytest.fixture(scope="module", autouse=True)
def created() -> Iterator[list[str]]:
    """Networks of timm are random ones, the same each time; records the names that were asked for."""
    names: list[str] = []
    create = timm.create_model

    def create_random(name: str, *, pretrained: bool, features_only: bool) -> torch.nn.Module:
        assert pretrained
        names.append(name)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return create(name, pretrained=False, features_only=features_only)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_features.timm, "create_model", create_random)
        yield names


def _draw(labels: frozenset[str], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """48x64 noise; with a small red spot, a blue line, or both."""
    pixels = rng.integers(90, 140, (48, 64, 3)).astype(np.uint8)
    if CLASSES[0] in labels:
        y, x = rng.integers(0, 38), rng.integers(0, 54)
        pixels[y : y + 10, x : x + 10] = (230, 20, 20)
    if CLASSES[1] in labels:
        x = rng.integers(0, 60)
        pixels[:, x : x + 4] = (20, 20, 230)
    return pixels


def _images(folder: Path, kinds: Kinds, seed: int = 0) -> list[LabelledImage]:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for number, labels in enumerate(kinds):
        name = f"bild {seed}-{number} ü.png"
        Image.fromarray(_draw(labels, rng)).save(folder / name)
        images.append(LabelledImage(image=ImageRecord(number, name, str(folder), 64, 48), labels=labels))
    return images


@pytest.fixture(scope="module")
def taught_from(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[LabelledImage], list[LabelledImage]]:
    folder = tmp_path_factory.mktemp("bilder ü")
    kinds = [SPOT, LINE, GOOD, GOOD, BOTH, GOOD]
    return _images(folder, kinds * 6, 1), _images(folder, kinds * 2, 2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(taught_from: tuple[list[LabelledImage], list[LabelledImage]], cache: Path) -> TrainedLabelClassifier:
    return train_label_classifier(*taught_from, CLASSES, SETTINGS, cache)


def test_it_finds_every_class_of_a_picture_and_no_other(trained: TrainedLabelClassifier) -> None:
    classifier: LabelClassifier = trained
    rng = np.random.default_rng(9)
    kinds = [SPOT, LINE, GOOD, BOTH] * 8
    scores = classifier.score([_draw(labels, rng) for labels in kinds])
    assert scores.shape == (32, 2)
    assert scores.dtype == np.float32
    assert ((scores >= 0) & (scores <= 1)).all()
    truth = np.array([[name in labels for name in CLASSES] for labels in kinds])
    assert ((scores >= 0.5) == truth).mean() > 0.9
    assert classifier.score([]).shape == (0, 2)


def test_scores_do_not_depend_on_the_batch_or_on_its_sizes(trained: TrainedLabelClassifier) -> None:
    rng = np.random.default_rng(3)
    shapes = [(48, 64, 3), (64, 48, 3), (1, 1, 3), (48, 64, 3), (200, 20, 3), (31, 97, 3)]
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    alone = np.concatenate([trained.score([image]) for image in images])
    np.testing.assert_allclose(trained.score(images), alone, atol=1e-5)
    np.testing.assert_allclose(trained.score(images[::-1]), alone[::-1], atol=1e-5)


def test_the_report_counts_and_measures_each_class(trained: TrainedLabelClassifier) -> None:
    content = json.loads(json.dumps(trained.report.as_json()))
    assert content["revision"] == trained.revision
    assert content["images"] == [36, 12]
    assert list(content["classes"]) == list(CLASSES)
    for figures in content["classes"].values():
        assert (figures["train"], figures["held_out"], figures["shared"]) == (12, 4, False)
        assert figures["auc"] > 0.8
        assert 0 <= figures["calibration_error"] <= figures["brier"] ** 0.5 + 0.05


def test_it_is_trained_once(
    taught_from: tuple[list[LabelledImage], list[LabelledImage]], trained: TrainedLabelClassifier, cache: Path
) -> None:
    steps: list[int] = []
    again = train_label_classifier(*taught_from, CLASSES, SETTINGS, cache, on_steps=steps.append)
    assert steps == []
    assert again.report == trained.report
    picture = read_image(taught_from[0][0].image)
    np.testing.assert_array_equal(again.score([picture]), trained.score([picture]))


def test_a_kept_classifier_is_measured_by_the_recipe_of_today(
    taught_from: tuple[list[LabelledImage], list[LabelledImage]], trained: TrainedLabelClassifier, cache: Path
) -> None:
    weakest = min(one.auc + one.auc_error for one in trained.report.classes.values())
    impossible = SETTINGS.model_copy(update={"min_auc": weakest + 0.01})
    with pytest.raises(DatasetError, match="cannot learn"):
        train_label_classifier(*taught_from, CLASSES, impossible, cache)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        pytest.param("head.safetensors", b"", id="empty head"),
        pytest.param("head.safetensors", None, id="no head"),
        pytest.param("head.safetensors", -1, id="one bit of the head turned"),
        pytest.param("report.json", b"{", id="half a report"),
        pytest.param("report.json", b'{"head_sha256": "", "report": {}}', id="report without figures"),
    ],
)
def test_a_damaged_cache_is_trained_anew_to_the_same_bytes(
    file: str, content: bytes | int | None, briefly: Callable[[], tuple[Path, int]]
) -> None:
    folder, steps = briefly()
    assert steps == 2 * (label_training.FOLDS + 1)
    path = folder / file
    whole = path.read_bytes()
    path.unlink()
    if isinstance(content, int):
        content = whole[:content] + bytes([whole[content] ^ 1])
    if content is not None:
        path.write_bytes(content)
    assert briefly() == (folder, steps)
    assert path.read_bytes() == whole
    assert {one.name for one in folder.iterdir()} == {"head.safetensors", "report.json"}
    assert briefly() == (folder, 0)


@pytest.fixture
def briefly(tmp_path: Path) -> Callable[[], tuple[Path, int]]:
    """Trains two steps, or reads the cache; returns the cache's folder and the steps done."""
    images = _images(tmp_path / "bilder", [SPOT, GOOD] * 3)
    settings = SETTINGS.model_copy(update={"steps": 2, "min_auc": 0})

    def train() -> tuple[Path, int]:
        steps: list[int] = []
        found = train_label_classifier(
            images[:4], images[4:], CLASSES[:1], settings, tmp_path / "cache", on_steps=steps.append
        )
        return tmp_path / "cache" / found.revision, sum(steps)

    return train


def test_what_it_is_taught_decides_on_its_revision(tmp_path: Path) -> None:
    [first, second, third] = _images(tmp_path, [SPOT, LINE, GOOD])
    backbone = label_features.load_backbone("test_resnet")
    plain = digest_teaching([first, second], [third], CLASSES, SETTINGS, backbone)
    others = {
        digest_teaching([first], [second, third], CLASSES, SETTINGS, backbone),
        digest_teaching([first, second], [third], CLASSES[::-1], SETTINGS, backbone),
        digest_teaching([replace(first, labels=BOTH), second], [third], CLASSES, SETTINGS, backbone),
        digest_teaching([first, second], [third], CLASSES, SETTINGS.model_copy(update={"steps": 61}), backbone),
        digest_teaching([first, second], [third], CLASSES, SETTINGS, replace(backbone, digest="other")),
    }
    assert len(others - {plain}) == 5
    first.path.write_bytes(second.path.read_bytes())
    assert digest_teaching([first, second], [third], CLASSES, SETTINGS, backbone) != plain


def test_labels_that_tell_nothing_are_refused(tmp_path: Path) -> None:
    """A spot is drawn on no picture; half of them are said to show one."""
    images = _images(tmp_path, [GOOD] * 40)
    named = np.random.default_rng(4).permutation(40)[:20]
    said = [replace(one, labels=SPOT if number in named else GOOD) for number, one in enumerate(images)]
    settings = SETTINGS.model_copy(update={"min_auc": 0.9})
    with pytest.raises(InputError, match=r"'Fleck ü' \(AUC 0\.\d+ ± .* images\).*agents\.label_agent\.filter=false"):
        train_label_classifier(said[:30], said[30:], CLASSES[:1], settings, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("train", "held_out", "classes", "says"),
    [
        pytest.param([SPOT, GOOD], [GOOD], CLASSES[:1], r"'Fleck ü' \(1 of 3\)", id="one image"),
        pytest.param([GOOD, GOOD], [SPOT, SPOT], CLASSES[:1], r"'Fleck ü' \(2 of 4\)", id="none to learn from"),
        pytest.param([SPOT, SPOT], [GOOD], CLASSES, r"'Strich' \(0 of 3\)", id="an empty class"),
        pytest.param([SPOT, SPOT], [SPOT], CLASSES[:1], "every one of 3 images shows 'Fleck ü'", id="nothing else"),
        pytest.param([SPOT, SPOT], [SPOT], (), "no class to learn", id="no class"),
    ],
)
def test_what_cannot_teach_is_refused_before_a_network_is_loaded(
    train: Kinds, held_out: Kinds, classes: Sequence[str], says: str, tmp_path: Path, created: list[str]
) -> None:
    images = _images(tmp_path, [*train, *held_out])
    created.clear()
    with pytest.raises(DatasetError, match=says):
        train_label_classifier(images[: len(train)], images[len(train) :], classes, SETTINGS, tmp_path / "cache")
    assert created == []


@pytest.mark.parametrize(
    ("name", "raised", "error", "says"),
    [
        pytest.param("no_such_net", None, RecipeError, "unknown backbone 'no_such_net'", id="unknown"),
        pytest.param(
            "test_resnet", OSError("offline"), ModelNotFetchedError, "'test_resnet'.*offline", id="no weights"
        ),
        pytest.param(
            "test_resnet", RuntimeError("no features"), RecipeError, "gives no feature maps", id="no features"
        ),
    ],
)
def test_a_backbone_that_cannot_serve_says_why(
    name: str, raised: Exception | None, error: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_settings: object) -> None:
        assert raised
        raise raised

    monkeypatch.setattr(label_features.timm, "create_model", refuse)
    with pytest.raises(error, match=says):
        label_features.load_backbone(name)


def test_the_embedded_network_gives_places_of_three_stages() -> None:
    fetched("lite0")
    backbone = label_features.load_backbone(label_features.EMBEDDED)
    [look] = backbone.look([np.zeros((48, 64, 3), np.uint8)], 128)
    assert look.places.shape == (6 * 8, 2 * 40 + 112 + 320)
    assert look.pooled.shape == (3 * (40 + 112 + 320),)


def test_platt_finds_the_scale_that_drew_the_labels() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, 20_000)
    shown = rng.random(20_000) < expit(0.5 * logits - 1)
    assert fit_platt(logits, shown) == pytest.approx((0.5, -1), abs=0.08)
    assert calibration_error(expit(0.5 * logits - 1), shown) < 0.02
    assert calibration_error(expit(3 * logits - 1), shown) > 0.05


def test_a_calibration_never_turns_the_order_round() -> None:
    slope, offset = fit_platt(np.array([3.0, 2, -2, -3]), np.array([False, False, True, True]))
    assert slope == 0
    assert expit(offset) == pytest.approx(0.5, abs=1e-3)


def test_platt_stays_finite_where_classes_are_apart() -> None:
    slope, offset = fit_platt(np.array([5.0, 5, -5, -5]), np.array([True, True, False, False]))
    assert expit(5 * slope + offset) == pytest.approx(0.75, abs=0.02)  # (2 + 1) / (2 + 2), Platt's target


def test_a_class_of_few_images_shares_its_calibration() -> None:
    logits = np.array([[4.0, 1], [3, -1], [2, -3], [-4, -2], [-3, -1], [1, -2]])
    shown = np.array([[1, 1], [1, 0], [1, 0], [0, 0], [0, 0], [0, 0]], dtype=np.bool_)
    [(_, _, own), (slope, offset, shared)] = calibrate(logits, shown)
    assert (own, shared) == (False, True)
    assert (slope, offset) == fit_platt(logits.ravel(), shown.ravel())


def test_another_prior_moves_probabilities_by_the_odds() -> None:
    shown = np.arange(100) < 20
    assert prior_shift(shown, None) == 0
    assert prior_shift(shown, 0.5) == pytest.approx(np.log(4), abs=0.05)


def test_pairs_of_two_folds_are_not_compared() -> None:
    logits, shown = np.array([0.0, 1, 10, 11]), np.array([False, True, False, True])
    assert auc_within_folds(logits, shown, np.array([0, 0, 1, 1])) == 1
    assert auc_within_folds(logits, shown, np.array([0, 1, 1, 0])) == 0.5
    assert auc_within_folds(logits, shown, np.array([0, 1, 2, 3])) == 0.5


def test_the_error_of_an_auc_by_chance_is_that_of_the_rank_test() -> None:
    """Mann & Whitney's variance without a difference: (m + n + 1) / 12mn."""
    assert auc_error(0.5, 7, 31) == pytest.approx((39 / (12 * 7 * 31)) ** 0.5)
    assert auc_error(0.5, 7, 31) > auc_error(0.5, 70, 310)


def test_folds_keep_groups_whole_and_classes_even() -> None:
    groups = np.repeat(np.arange(12), 3)
    shown = np.stack([groups % 4 == 0, groups % 4 == 1], axis=1)
    folds = share_folds(shown, groups.tolist(), 3)
    assert all(len(set(folds[groups == group])) == 1 for group in range(12))
    assert [int(shown[folds == fold].sum()) for fold in range(3)] == [6, 6, 6]
    assert [int(shown[folds == fold, 0].sum()) for fold in range(3)] == [3, 3, 3]

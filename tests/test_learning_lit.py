"""Training and measuring the image-text heads, on made-up features; the locked networks stand outside."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from maskwright.learning import lit as learning_lit
from maskwright.learning import lit_data, lit_report
from maskwright.learning.lit import HeadsTrainer, Training, calibrate, cosines_with_names, save_heads
from maskwright.learning.lit_captions import PHRASINGS, Captions, caption_objects, colourless
from maskwright.learning.lit_data import ASIDE_VIEWS, OWN_TONE, VIEWS, Views, load_views, random_view
from maskwright.learning.lit_report import Trial, area_under, calibration_error, draw_roc, roc, top_share, trial_row
from maskwright.learning.pictures import ObjectPicture
from maskwright.models import lit
from maskwright.models.embeddings import TEXT_DIM
from maskwright.models.image_features import IMAGE_DIM
from maskwright.models.lit import NUM_CLASSES
from maskwright.models.sprites.tones import TONES

OBJECTS = 24
SHORT = Training(steps=60, batch=32, rate=3e-3, warmup=5, class_batch=16)


def _picture(label: str = "thing", size: int = 64) -> ObjectPicture:
    rgba = np.zeros((size, size, 4), np.uint8)
    rgba[10:-10, 16:-16] = (200, 40, 30, 255)
    return ObjectPicture("0", label, ("tag",), rgba)


BACKGROUNDS = [np.full((40, 50, 3), 90, np.uint8)]


def test_a_view_follows_from_its_seed() -> None:
    views = [random_view(_picture().rgba, np.random.default_rng(seed), BACKGROUNDS) for seed in range(40)]
    again = [random_view(_picture().rgba, np.random.default_rng(seed), BACKGROUNDS) for seed in range(40)]
    for view, same in zip(views, again, strict=True):
        np.testing.assert_array_equal(view, same)
        assert view.dtype == np.uint8
        assert 48 <= max(view.shape[:2]) <= 360
        assert view.shape[2] == 3 or view[..., 3].max() == 255
    assert {view.shape[2] for view in views} == {3, 4}
    assert len({view.tobytes() for view in views}) == len(views)


def test_a_stopped_run_sees_only_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def pool(images: list[np.ndarray]) -> np.ndarray:
        seen.append(len(images))
        return np.array([np.full(IMAGE_DIM, image.mean()) for image in images], np.float32)

    monkeypatch.setattr(lit_data, "pool_features", pool)
    monkeypatch.setattr(lit_data, "OBJECTS_A_FILE", 2)
    pictures = [_picture(str(number), 64 + number) for number in range(5)]
    first = load_views(pictures, tmp_path, seed=0)
    assert seen == [2 * VIEWS, 2 * VIEWS, VIEWS]
    assert first.features.shape == (5, VIEWS, IMAGE_DIM)
    assert first.tones.min() == OWN_TONE
    assert first.tones.max() < len(TONES)

    files = sorted(tmp_path.iterdir())
    files[0].unlink()
    files[2].write_bytes(b"half")
    again = load_views(pictures, tmp_path, seed=0)
    assert seen[3:] == [2 * VIEWS, VIEWS]
    torch.testing.assert_close(again.features, first.features)
    assert not torch.equal(load_views(pictures, tmp_path, seed=1).features, first.features)


@pytest.mark.parametrize(
    ("names", "plain"),
    [
        (("bicycle", "bicycle, bike"), "bicycle"),
        (("green apple", "apple", "green apple, fruit"), "apple"),
        (("orange book", "book", "orange book, read"), "book"),
        (("white flower", "white flower, bloom"), "flower"),
        (("orange", "orange, fruit"), "orange"),
    ],
)
def test_a_name_gives_its_colour_up(names: tuple[str, ...], plain: str) -> None:
    assert colourless(names) == plain


def test_pictures_of_one_class_share_its_name() -> None:
    texts: list[str] = []

    def embed(batch: list[str]) -> np.ndarray:
        texts.extend(batch)
        return np.eye(TEXT_DIM, dtype=np.float32)[np.arange(len(batch)) % TEXT_DIM]

    pictures = [_picture("red apple"), _picture("green apple"), _picture("gear")]
    captions = caption_objects(pictures, SimpleNamespace(embed=embed))  # type: ignore[arg-type]
    names = texts[:: len(PHRASINGS)][: captions.positives.shape[1]]
    bearers = {name: captions.positives[:, number].tolist() for number, name in enumerate(names)}
    assert bearers["apple"] == [True, True, False]
    assert bearers["red apple"] == [True, False, False]
    assert bearers["gear"] == [False, False, True]
    assert "a photo of a gear" in texts
    assert "blue apple" in texts
    assert captions.toned.shape == (3, len(TONES), TEXT_DIM)
    assert captions.class_names.shape == (NUM_CLASSES, TEXT_DIM)


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> tuple[Views, Captions]:
    """Features that follow from the names by a hidden map, with noise."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    names = normalize(draw(OBJECTS, TEXT_DIM), dim=-1)
    classifier = torch.nn.Linear(IMAGE_DIM, NUM_CLASSES).requires_grad_(False)
    monkeypatch.setattr(learning_lit, "load_network", lambda device: SimpleNamespace(classifier=classifier))
    centres = (names @ draw(TEXT_DIM, IMAGE_DIM))[:, None]
    features = (centres + 0.5 * draw(OBJECTS, VIEWS, IMAGE_DIM)).abs()
    captions = Captions(
        positives=torch.eye(OBJECTS, dtype=torch.bool),
        names=names[:, None].expand(-1, len(PHRASINGS), -1),
        toned=normalize(draw(OBJECTS, len(TONES), TEXT_DIM), dim=-1),
        class_names=normalize(draw(NUM_CLASSES, TEXT_DIM), dim=-1),
    )
    tones = torch.full((OBJECTS, VIEWS), OWN_TONE)
    tones[::5, 0] = 3
    return Views(features, tones), captions


def test_training_finds_names_of_views_that_it_has_not_seen(task: tuple[Views, Captions]) -> None:
    views, captions = task
    heads = HeadsTrainer(views, captions, torch.arange(OBJECTS), SHORT).train()
    cosines = cosines_with_names(heads, views.features[:, -ASIDE_VIEWS:].flatten(0, 1), captions)
    best = cosines.argmax(dim=1)
    assert (best == torch.arange(OBJECTS).repeat_interleave(ASIDE_VIEWS)).float().mean() > 0.9


def test_training_never_looks_at_other_objects_or_views_kept_aside(task: tuple[Views, Captions]) -> None:
    views, captions = task
    ours = torch.arange(0, OBJECTS, 2)
    changed = views.features.clone()
    changed[1::2] += 100
    changed[:, -ASIDE_VIEWS:] += 100
    settings = Training(steps=3, batch=8, class_batch=4)
    first = HeadsTrainer(views, captions, ours, settings).train()
    second = HeadsTrainer(Views(changed, views.tones), captions, ours, settings).train()
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_calibrated_heads_survive_the_disk(
    task: tuple[Views, Captions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views, captions = task
    settings = Training(steps=20, batch=16, rate=3e-3, warmup=2, class_batch=8)
    heads = learning_lit.train(views, captions, torch.arange(OBJECTS), settings)
    assert heads.calibration[0] > 0
    save_heads(heads, tmp_path)
    monkeypatch.setattr(lit, "locate_model", lambda name: tmp_path)
    loaded = lit.load_heads(torch.device("cpu"))
    for name, tensor in heads.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, atol=1e-2, rtol=1e-3)


def test_calibration_finds_the_odds_whatever_the_share_of_wrong_names() -> None:
    generator = torch.Generator().manual_seed(0)
    cosines = torch.rand(4000, 1, generator=generator) * 2 - 1
    right = torch.rand(4000, 1, generator=generator) < torch.sigmoid(6 * cosines - 1)
    calibration = calibrate(cosines, right)
    assert calibration[0] == pytest.approx(6, rel=0.1)
    more_wrong = torch.cat([cosines, *([cosines[~right].unsqueeze(1)] * 9)])
    flags = torch.cat([right, torch.zeros(len(more_wrong) - len(right), 1, dtype=torch.bool)])
    torch.testing.assert_close(calibrate(more_wrong, flags), calibration, atol=0.02, rtol=0.01)


@pytest.mark.parametrize(
    ("right", "wrong", "area"),
    [
        pytest.param([2, 3], [0, 1], 1.0, id="apart"),
        pytest.param([0, 1], [2, 3], 0.0, id="reversed"),
        pytest.param([1, 1], [1, 1, 1], 0.5, id="all-tied"),
        pytest.param([0, 2], [1], 0.5, id="half"),
        pytest.param([1, 2], [1, 0], 0.875, id="one-tie"),
    ],
)
def test_area_is_the_chance_that_right_beats_wrong(right: list[float], wrong: list[float], area: float) -> None:
    assert area_under(roc(np.array(right, np.float32), np.array(wrong, np.float32))) == pytest.approx(area)


@pytest.mark.parametrize(
    ("logit_right", "logit_wrong", "error"),
    [
        pytest.param(50, -50, 0.0, id="sure-and-right"),
        pytest.param(-50, 50, 1.0, id="sure-and-wrong"),
        pytest.param(0, 0, 0.0, id="undecided"),
        pytest.param(0, -50, 0.25, id="doubts-what-is-right"),
    ],
)
def test_calibration_error_weighs_right_and_wrong_alike(logit_right: float, logit_wrong: float, error: float) -> None:
    right = np.eye(5, dtype=bool)
    logits = np.where(right, logit_right, logit_wrong).astype(np.float32)
    assert calibration_error(logits, right) == pytest.approx(error)


def test_the_table_and_the_picture_say_what_was_measured() -> None:
    right = np.eye(6, dtype=bool)
    logits = np.where(right, 2, -2).astype(np.float32)
    logits[0] = [-3, *[-2] * 5]
    trial = Trial(logits, right, np.roll(right, 1, axis=1), np.arange(6))
    assert top_share(trial, 1) == pytest.approx(5 / 6)
    assert top_share(trial, 6) == 1
    row = trial_row("boxes", trial)
    assert row.startswith("| boxes | 6 | 6 | 0.833 | 0.833 | 83 % |")
    [table_row] = lit_report.class_rows(Trial(logits[:1], right[:1], right[1:2], np.array([0])), ["gear"], {"gear"})
    assert table_row == "| gear | 1 | yes | 0.00 | 0 % |"
    picture = Image.open(io.BytesIO(draw_roc({"one": trial, "two": trial, "three": trial})))
    assert picture.getextrema()[0][0] < 100

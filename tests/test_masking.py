"""Maskers without a network: the painted alpha, GrabCut, and the vote."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import BaseModel, ValidationError

from maskwright.configs.masking import BestOfSettings, BirefnetSettings, GrabCutSettings, SamSettings
from maskwright.data.records import ImageRGB
from maskwright.tools.masking.alpha import AlphaMasker
from maskwright.tools.masking.composites import alpha_to_masked, lay_on_white, score_names
from maskwright.tools.masking.grabcut import GrabCutMasker
from maskwright.tools.masking.vote import BestOfMasker
from maskwright.tools.naming import noun_phrase
from maskwright.tools.protocols import Masked, MaskRequest

HEIGHT, WIDTH = 48, 64
NAN = float("nan")


class ScriptedScorer:
    """Gives each image the score that a function of its pixels says, and remembers what it was asked."""

    name = "scripted"
    revision = "1"

    def __init__(self, score: Callable[[ImageRGB], float], known: Sequence[str] | None = None) -> None:
        self._score = score
        self._known = known
        self.images: list[ImageRGB] = []
        self.texts: list[str] = []

    def score(self, images: Sequence[ImageRGB], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.images += images
        self.texts += texts
        return np.array([[self._score(image)] * len(texts) for image in images], np.float32)

    def knows(self, category: str) -> bool:
        return self._known is None or category in self._known


class ScriptedMasker:
    """Answers every request with the same mask."""

    revision = "7"

    def __init__(self, name: str, columns: int, *, score: float = 1.0, num_instances: int | None = None) -> None:
        self.name = name
        alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
        alpha[:, :columns] = 255
        self.masked = Masked(alpha, score, num_instances)

    def mask(self, requests: Sequence[MaskRequest]) -> list[Masked]:
        return [self.masked] * len(requests)


def _picture(
    background: int = 200, *, rows: slice = slice(10, 38), noise: float = 6.0
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """An opaque (48, 64, 4) picture of a red block on a noisy background, and where the block is."""
    rng = np.random.default_rng(3)
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[rows, 18:50] = True
    pixels = np.full((HEIGHT, WIDTH, 3), background, np.float64)
    pixels[mask] = (180, 30, 40)
    rgb = (pixels + rng.normal(0, noise, pixels.shape)).clip(0, 255)
    return np.dstack([rgb, np.full((HEIGHT, WIDTH), 255)]).astype(np.uint8), mask


def _overlap(alpha: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> float:
    found = alpha >= 128
    return float((found & mask).sum() / (found | mask).sum())


@pytest.mark.parametrize(
    ("levels", "expected_score"),
    [
        pytest.param((0, 90, 255), 1.0, id="soft"),
        pytest.param((255, 255, 255), 1.0, id="opaque"),
        pytest.param((0, 0, 0), 0.0, id="empty"),
        pytest.param((0, 127, 3), 0.0, id="never more there than not"),
    ],
)
def test_the_painted_alpha_is_the_mask(levels: tuple[int, int, int], expected_score: float) -> None:
    rgba = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    rgba[..., 3] = np.array(levels, np.uint8)[np.arange(WIDTH) % 3]
    [masked] = AlphaMasker().mask([MaskRequest(rgba=rgba, category="bolt")])
    np.testing.assert_array_equal(masked.alpha, rgba[..., 3] if expected_score else np.zeros((HEIGHT, WIDTH)))
    assert masked.score == expected_score
    assert masked.num_instances is None


@pytest.mark.parametrize(
    "box_xyxy",
    [
        pytest.param(None, id="no box"),
        pytest.param((14.2, 6.0, 55.0, 42.7), id="box"),
        pytest.param((-20.0, -5.0, 55.0, 42.0), id="box beyond the picture"),
        pytest.param((0.0, 0.0, 64.0, 48.0), id="box around all"),
    ],
)
@pytest.mark.parametrize("noise", [0.0, 20.0])
def test_grabcut_finds_an_object_of_other_colours(
    box_xyxy: tuple[float, float, float, float] | None, noise: float
) -> None:
    rgba, mask = _picture(noise=noise)
    masker = GrabCutMasker(GrabCutSettings())
    [masked] = masker.mask([MaskRequest(rgba=rgba, category="bolt", box_xyxy=box_xyxy)])
    assert masked.alpha.shape == (HEIGHT, WIDTH)
    assert masked.alpha.dtype == np.uint8
    assert _overlap(masked.alpha, mask) > 0.97
    assert masked.score == 1.0


def test_grabcut_sees_painted_alpha_on_white() -> None:
    rgba, mask = _picture(background=60)
    rgba[~mask, 3] = 0
    [masked] = GrabCutMasker(GrabCutSettings()).mask([MaskRequest(rgba=rgba, category="bolt")])
    assert _overlap(masked.alpha, mask) > 0.97


@pytest.mark.parametrize(("border_background", "reaches"), [(True, False), (False, True)])
def test_an_object_may_reach_the_border_where_the_settings_allow_it(border_background: bool, reaches: bool) -> None:
    rgba, mask = _picture(rows=slice(0, 38))
    settings = GrabCutSettings(border_background=border_background, margin_ratio=0.1)
    [masked] = GrabCutMasker(settings).mask([MaskRequest(rgba=rgba, category="bolt")])
    assert bool(masked.alpha[0].any()) is reaches
    assert (_overlap(masked.alpha, mask) > 0.97) is reaches


@pytest.mark.parametrize(
    ("shape", "box_xyxy"),
    [
        pytest.param((48, 64), None, id="blank"),
        pytest.param((1, 1), None, id="one pixel"),
        pytest.param((2, 3), None, id="smaller than its border"),
        pytest.param((48, 64), (70.0, 50.0, 90.0, 60.0), id="box outside"),
        pytest.param((48, 64), (-9.0, -9.0, -2.0, -3.0), id="box before"),
        pytest.param((48, 64), (20.0, 9.0, 20.0, 30.0), id="box of no width"),
    ],
)
def test_grabcut_that_finds_nothing_says_so(
    shape: tuple[int, int], box_xyxy: tuple[float, float, float, float] | None
) -> None:
    rgba = np.full((*shape, 4), 255, np.uint8)
    [masked] = GrabCutMasker(GrabCutSettings()).mask([MaskRequest(rgba=rgba, category="bolt", box_xyxy=box_xyxy)])
    assert masked.alpha.shape == shape
    assert not masked.alpha.any()
    assert masked.score == 0.0


def test_grabcut_depends_on_nothing_but_the_picture() -> None:
    requests = [MaskRequest(rgba=_picture(background)[0], category="bolt") for background in (200, 90, 150)]
    masker = GrabCutMasker(GrabCutSettings(iterations=1))
    together = masker.mask(requests)
    alone = [masker.mask([request])[0] for request in reversed(requests)][::-1]
    for first, second in zip(together, alone, strict=True):
        np.testing.assert_array_equal(first.alpha, second.alpha)


def _vote(scorer: ScriptedScorer, *maskers: ScriptedMasker, category: str = "traffic_light") -> Masked:
    request = MaskRequest(rgba=_picture()[0], category=category)
    [masked] = BestOfMasker(maskers, scorer).mask([request])
    return masked


def _shown_columns(image: ImageRGB) -> int:
    return int((image != 255).any(axis=(0, 2)).sum())


@pytest.mark.parametrize(
    ("scores", "columns", "expected_columns", "expected_score"),
    [
        pytest.param({10: 0.2, 30: 0.7, 50: 0.4}, (10, 30, 50), 30, 0.7, id="best"),
        pytest.param({10: 0.5, 30: 0.5}, (30, 10), 30, 0.5, id="tie to the first"),
        pytest.param({0: 0.9, 30: 0.1}, (0, 30), 30, 0.1, id="no mask does not stand"),
        pytest.param({10: NAN, 30: 0.1}, (10, 30), 30, 0.1, id="not a number loses"),
        pytest.param({10: -0.4, 30: -0.2}, (10, 30), 30, 0.0, id="cosine under zero"),
        pytest.param({10: NAN, 30: NAN}, (10, 30), 10, 0.0, id="nothing but not-a-number"),
        pytest.param({10: 24.0, 30: 21.0}, (30, 10), 10, 1.0, id="logits over one"),
    ],
)
def test_the_vote_keeps_the_mask_whose_cutout_is_named_best(
    scores: dict[int, float], columns: tuple[int, ...], expected_columns: int, expected_score: float
) -> None:
    scorer = ScriptedScorer(lambda image: scores[_shown_columns(image)])
    masked = _vote(scorer, *(ScriptedMasker(f"m{count}", count) for count in columns))
    assert int(masked.alpha.any(axis=0).sum()) == expected_columns
    assert masked.score == pytest.approx(expected_score)


def test_the_scorer_sees_cutouts_on_white_and_the_class_as_one_says_it() -> None:
    scorer = ScriptedScorer(lambda image: 0.5)
    _vote(scorer, ScriptedMasker("a", 40))
    [image] = scorer.images
    np.testing.assert_array_equal(image[:, :40], _picture()[0][:, :40, :3])
    assert (image[:, 40:] == 255).all()
    assert scorer.texts == ["traffic light"]


def test_a_class_that_the_scorer_does_not_know_goes_to_the_first_that_found_something() -> None:
    scorer = ScriptedScorer(lambda image: 0.5, known=("bolt",))
    maskers = (ScriptedMasker("a", 0), ScriptedMasker("b", 10, score=0.6), ScriptedMasker("c", 30, score=0.9))
    masked = _vote(scorer, *maskers)
    assert int(masked.alpha.any(axis=0).sum()) == 10
    assert masked.score == 0.6
    assert not scorer.images


@pytest.mark.parametrize("columns", [(0, 0), (20, 30)])
def test_a_count_survives_the_vote_whoever_wins(columns: tuple[int, int]) -> None:
    scorer = ScriptedScorer(_shown_columns)
    masked = _vote(scorer, ScriptedMasker("concept", columns[0], num_instances=3), ScriptedMasker("a", columns[1]))
    assert masked.num_instances == 3
    assert int(masked.alpha.any(axis=0).sum()) == columns[1]
    assert (masked.score == 0) is (columns[1] == 0)


def test_a_vote_names_all_that_decided() -> None:
    masker = BestOfMasker([ScriptedMasker("a", 1), ScriptedMasker("b", 2)], ScriptedScorer(lambda image: 0))
    assert (masker.name, masker.revision) == ("best_of", "a@7+b@7+scripted@1")
    assert masker.mask([]) == []


def test_each_image_is_scored_by_its_own_name() -> None:
    class Table(ScriptedScorer):
        def score(self, images: Sequence[ImageRGB], texts: Sequence[str]) -> npt.NDArray[np.float32]:
            assert list(texts) == ["bolt", "nut"]
            return np.array([[1, 2], [3, 4], [5, NAN]], np.float32)

    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    scores = score_names(Table(lambda image: 0), [image] * 3, ["bolt", "bolt", "nut"])
    assert scores.tolist() == [1, 3, -np.inf]


@pytest.mark.parametrize(
    ("category", "phrase"),
    [("dog", "dog"), ("traffic_light", "traffic light"), ("  bow_(ribbon) ", "bow (ribbon)"), ("Löwe", "Löwe")],
)
def test_a_class_is_named_as_one_says_it(category: str, phrase: str) -> None:
    assert noun_phrase(category) == phrase


def test_white_stands_where_alpha_is_not() -> None:
    rgb = np.full((1, 3, 3), 100, np.uint8)
    shown = lay_on_white(rgb, np.array([[0, 51, 255]], np.uint8))
    assert shown[0, :, 0].tolist() == [255, 224, 100]


@pytest.mark.parametrize(("score", "expected"), [(0.3, 0.3), (1.2, 1.0), (-0.1, 0.0), (NAN, 0.0)])
def test_scores_are_confidences(score: float, expected: float) -> None:
    assert alpha_to_masked(np.full((HEIGHT, WIDTH), 255, np.uint8), score).score == expected


@pytest.mark.parametrize(
    ("settings", "values", "message"),
    [
        pytest.param(SamSettings, {"prompts": ["box", "box"]}, "name one twice", id="prompt twice"),
        pytest.param(SamSettings, {"prompts": []}, "at least 1 item", id="no prompt"),
        pytest.param(SamSettings, {"prompts": ["scribble"]}, "'box', 'point' or 'corners'", id="unknown prompt"),
        pytest.param(SamSettings, {"version": "sam2", "model_type": "vit_b"}, "leave it out", id="type of SAM 2"),
        pytest.param(BestOfSettings, {"maskers": ["a"]}, "at least 2 items", id="vote of one"),
        pytest.param(BestOfSettings, {"maskers": ["a", "a"]}, "name one twice", id="masker twice"),
        pytest.param(BirefnetSettings, {"side_px": 1000}, "multiple of 32", id="side"),
        pytest.param(GrabCutSettings, {"margin": 3}, "Extra inputs", id="unknown key"),
    ],
)
def test_settings_say_what_is_wrong(settings: type[BaseModel], values: dict[str, object], message: str) -> None:
    needed = {"model": "owner/name"} if "model" in settings.model_fields else {}
    with pytest.raises(ValidationError, match=message):
        settings.model_validate(needed | values)

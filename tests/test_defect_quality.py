"""The measuring judge: each fault costs the score and is named with what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from maskwright.data.records import ImageRGB, ImageRGBA, MaskHW
from maskwright.errors import EmptyMaskError, ImageSizeError
from maskwright.tools.defects import PASSING_SUM, DefectPlan, Edited, EditRequest, Quality, QualityJudge
from maskwright.tools.judging.defect_measures import (
    DefectReference,
    crop_around,
    learn_standard,
    measure_defect,
    size_ratio,
)
from maskwright.tools.judging.defect_quality import (
    HINTS,
    KEEP_THE_REST,
    KEEP_TO_PLAN,
    LARGER,
    LOWER_SEVERITY,
    MORE_LIKE_REFERENCES,
    MOVE_ONTO_OBJECT,
    RAISE_SEVERITY,
    SMALLER,
    SOFTER_EDGE,
    MeasuredQualityJudge,
    hints_of,
)

HEIGHT, WIDTH = 96, 128
OBJECT = np.s_[8:88, 16:112]
CENTRE_XY = (64, 48)
SIZE_RATIO = 0.2


def surface(grain: float = 2.0, seed: int = 2) -> ImageRGB:
    rng = np.random.default_rng(seed)
    grey = 25 + rng.normal(0, 1, (HEIGHT, WIDTH))
    grey[OBJECT] = 150 + cv2.GaussianBlur(rng.normal(0, 2.5 * grain, (80, 96)), (0, 0), 0.7)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def foreground() -> MaskHW:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[OBJECT] = True
    return mask


def plan(**changes: Any) -> DefectPlan:
    settings = {"defect": "Lunker ü", "family": "hole", "centre_xy": (0.5, 0.5), "size_ratio": SIZE_RATIO}
    return DefectPlan(**(settings | changes))


def request(grain: float = 2.0, **changes: Any) -> EditRequest:
    return EditRequest(item_id="a", seed=1, plan=plan(**changes), image_rgb=surface(grain), foreground_hw=foreground())


def disc(centre_xy: tuple[int, int] = CENTRE_XY, ratio: float = SIZE_RATIO) -> MaskHW:
    """A disc whose area is that of a defect of a size ratio."""
    radius = ratio * np.sqrt(80 * 96 / np.pi)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.asarray((x - centre_xy[0]) ** 2 + (y - centre_xy[1]) ** 2 <= radius**2)


def darken(image: ImageRGB, where: MaskHW, levels: float = 45, blur_px: float = 1.0) -> tuple[ImageRGB, MaskHW]:
    """Something dark, and the mask of all that it visibly changed."""
    weight = where.astype(np.float32)
    if blur_px:
        weight = cv2.GaussianBlur(weight, (0, 0), blur_px)
    edited = np.clip(image - levels * weight[..., None], 0, 255).round().astype(np.uint8)
    return edited, np.asarray(weight * abs(levels) >= 5) if blur_px else where


def judge(where: MaskHW, asked: EditRequest | None = None, judge: QualityJudge | None = None, **how: float) -> Quality:
    asked = asked or request()
    edited, mask = darken(asked.image_rgb, where, **how)
    return (judge or MeasuredQualityJudge()).judge(asked, Edited(edited, mask, {}), mask)


def test_a_good_defect_passes_without_a_word() -> None:
    verdict = judge(disc())
    assert verdict.passes
    assert verdict.location == pytest.approx(5)
    assert verdict.quality > 4
    assert verdict.review == ""
    assert set(verdict.measures) == {
        "on_object",
        "off_plan",
        "contrast",
        "texture",
        "size_ratio",
        "outline_sharpness",
        "edge_gradient",
        "outside_share",
    }


FAULTS = [
    pytest.param(lambda: judge(disc(), levels=6), RAISE_SEVERITY, id="faint"),
    pytest.param(lambda: judge(disc(), request(grain=14), levels=18), RAISE_SEVERITY, id="lost-in-texture"),
    pytest.param(lambda: judge(disc(), request(severity=0.0), levels=150), LOWER_SEVERITY, id="glaring"),
    pytest.param(lambda: judge(disc(), levels=60, blur_px=0), SOFTER_EDGE, id="cut-out"),
    pytest.param(lambda: judge(disc(ratio=0.6)), SMALLER, id="three-times-the-plan"),
    pytest.param(lambda: judge(disc(ratio=0.06)), LARGER, id="a-third-of-the-plan"),
    pytest.param(lambda: judge(disc((17, 48)), levels=20), MOVE_ONTO_OBJECT, id="half-beside-the-object"),
]


@pytest.mark.parametrize(("make", "hint"), FAULTS)
def test_a_fault_fails_and_is_named(make: Callable[[], Quality], hint: str) -> None:
    verdict = make()
    assert hint in hints_of(verdict.review)
    assert not verdict.passes
    assert 0 <= verdict.location <= 5
    assert 0 <= verdict.quality <= 5


def test_a_place_far_from_the_plan_costs_location_only() -> None:
    planned, elsewhere = judge(disc()), judge(disc((28, 20)))
    assert hints_of(elsewhere.review) == {KEEP_TO_PLAN}
    assert 2.5 <= elsewhere.location < 4 < planned.location
    assert elsewhere.quality == pytest.approx(planned.quality, abs=0.5)


def test_one_step_of_advice_makes_it_better() -> None:
    totals = [judge(disc(), levels=levels).total for levels in (6, 9, 14, 30)]
    assert totals == sorted(totals)
    assert totals[0] < PASSING_SUM < totals[-1]


def test_a_changed_rest_is_named() -> None:
    asked = request()
    edited, mask = darken(asked.image_rgb, disc())
    edited[:, :60] = np.where(mask[:, :60, None], edited[:, :60], edited[:, :60] + 20)
    verdict = MeasuredQualityJudge().judge(asked, Edited(edited, mask, {}), mask)
    assert hints_of(verdict.review) == {KEEP_THE_REST}
    assert not verdict.passes


@pytest.mark.parametrize(
    ("edit", "mask", "review"),
    [
        pytest.param(lambda image: image.copy(), disc(), "changed nothing", id="nothing-in-a-mask"),
        pytest.param(lambda image: image.copy(), np.zeros_like(disc()), "changed nothing", id="nothing"),
        pytest.param(lambda image: 255 - image, ~np.zeros_like(disc()), "changed 100% of", id="everything"),
        pytest.param(lambda image: image + 20, np.zeros_like(disc()), "changed 100% of", id="brightness"),
        pytest.param(lambda image: image + 1, disc(), "is nothing", id="one-level"),
    ],
)
def test_an_edit_of_nothing_or_everything_is_worth_nothing(
    edit: Callable[[ImageRGB], ImageRGB], mask: MaskHW, review: str
) -> None:
    asked = request()
    verdict = MeasuredQualityJudge().judge(asked, Edited(edit(asked.image_rgb), None, {}), mask)
    assert (verdict.location, verdict.quality, verdict.passes) == (0, 0, False)
    assert review in verdict.review


def test_a_flawed_edit_is_worth_nothing() -> None:
    verdict = MeasuredQualityJudge().judge(request(), Edited(surface(), None, {}, flaw="all black"), disc())
    assert (verdict.total, verdict.review) == (0, "this is no edit: all black")


# -- against references


def reference(ratio: float, levels: float = 45, seed: int = 5) -> DefectReference:
    edited, mask = darken(surface(seed=seed), disc(ratio=ratio), levels)
    return DefectReference(rgb=edited, mask_hw=mask, foreground_hw=foreground())


@dataclass
class DarknessEmbedder:
    """Sees how dark the middle of a picture is, and nothing else; remembers what it was shown."""

    name: str = "darkness"
    seen: list[tuple[int, ...]] = field(default_factory=list)

    def embed(self, images: Sequence[ImageRGB | ImageRGBA]) -> npt.NDArray[np.float32]:
        self.seen += [image.shape for image in images]
        angles = [float(image[image.shape[0] // 2, image.shape[1] // 2, 0]) / 255 * np.pi for image in images]
        return np.array([[np.cos(angle), np.sin(angle)] for angle in angles], np.float32)


@pytest.mark.parametrize(
    ("ratio", "hints"),
    [
        pytest.param(0.25, frozenset(), id="as-references"),
        pytest.param(0.7, frozenset({SMALLER}), id="larger-than-any"),
        pytest.param(0.06, frozenset({LARGER}), id="smaller-than-any"),
    ],
)
def test_size_is_held_against_references(ratio: float, hints: frozenset[str]) -> None:
    standard = learn_standard([reference(size) for size in (0.2, 0.25, 0.3)], None)
    checked = MeasuredQualityJudge(standards={"Lunker ü": standard})
    verdict = judge(disc(ratio=ratio), judge=checked)
    assert hints_of(verdict.review) & {SMALLER, LARGER} == hints
    assert verdict.passes == (not hints)
    other = judge(disc(), request(defect="Kratzer"), checked)
    assert other.passes
    assert "likeness" not in other.measures


@pytest.mark.parametrize(
    ("levels", "is_like"),
    [pytest.param(80, True, id="dark-like-the-references"), pytest.param(-70, False, id="bright")],
)
@pytest.mark.parametrize("num_references", [1, 3])
def test_likeness_counts(levels: float, is_like: bool, num_references: int) -> None:
    embedder = DarknessEmbedder()
    references = [reference(SIZE_RATIO, 75 + 5 * number, seed=number) for number in range(num_references)]
    checked = MeasuredQualityJudge(standards={"Lunker ü": learn_standard(references, embedder)}, embedder=embedder)
    verdict = judge(disc(), judge=checked, levels=levels)
    assert (MORE_LIKE_REFERENCES not in hints_of(verdict.review)) == is_like
    assert verdict.passes == is_like
    assert (verdict.measures["likeness_gain"] > 0) == is_like
    assert len(embedder.seen) == num_references + 2


def test_a_standard_is_that_of_its_references() -> None:
    standard = learn_standard([reference(0.1), reference(0.2)], None)
    logs = [np.log(size_ratio(one.mask_hw, one.foreground_hw)) for one in (reference(0.1), reference(0.2))]
    assert standard.log_size_mean == pytest.approx(np.mean(logs))
    assert standard.log_size_spread == pytest.approx(np.std(logs, ddof=1))
    with pytest.raises(ValueError, match="zero-shot"):
        learn_standard([], None)


# -- measures


def test_measures_are_what_was_drawn() -> None:
    asked = request(grain=0.0)
    edited, mask = darken(asked.image_rgb, disc(), 40, blur_px=0)
    measures = measure_defect(asked, Edited(edited, mask, {}), mask)
    lightness = [cv2.cvtColor(np.full((1, 1, 3), v / 255, np.float32), cv2.COLOR_RGB2LAB)[0, 0, 0] for v in (150, 110)]
    assert measures["contrast"] == pytest.approx((lightness[0] - lightness[1]) / 100, abs=1e-3)
    assert measures["size_ratio"] == pytest.approx(SIZE_RATIO, rel=0.02)
    assert measures["texture"] == pytest.approx(0, abs=1e-3)
    assert measures["outline_sharpness"] == pytest.approx(0.5, abs=0.05)
    assert (measures["on_object"], measures["outside_share"]) == (1, 0)
    assert measures["off_plan"] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("blur_px", [0.0, 0.7, 1.2])
def test_sharpness_falls_with_blur(blur_px: float) -> None:
    asked = request()
    sharpness = []
    for blur in (blur_px, blur_px + 0.7):
        edited, mask = darken(asked.image_rgb, disc(), 60, blur)
        sharpness.append(measure_defect(asked, Edited(edited, mask, {}), mask)["outline_sharpness"])
    assert sharpness[0] > sharpness[1] + 0.02


def test_a_hairline_has_no_hard_outline() -> None:
    line = np.zeros((HEIGHT, WIDTH), np.bool_)
    line[48, 40:90] = True
    verdict = judge(line, request(size_ratio=0.085), levels=60, blur_px=0)
    assert verdict.measures["outline_sharpness"] == 0
    assert verdict.passes


@pytest.mark.parametrize(
    ("mask", "shape"),
    [
        pytest.param(np.s_[40:50, 60:80], (40, 40, 3), id="inside"),
        pytest.param(np.s_[0:4, 0:2], (10, 9, 3), id="corner"),
        pytest.param(np.s_[:, :], (HEIGHT, WIDTH, 3), id="whole"),
    ],
)
def test_a_crop_shows_the_surroundings(mask: tuple[slice, slice], shape: tuple[int, ...]) -> None:
    where = np.zeros((HEIGHT, WIDTH), np.bool_)
    where[mask] = True
    assert crop_around(surface(), where).shape == shape


def test_frames_must_agree() -> None:
    asked = request()
    with pytest.raises(ImageSizeError, match=r"edited image of \(64, 48\).*'a'"):
        MeasuredQualityJudge().judge(asked, Edited(np.zeros((64, 48, 3), np.uint8), None, {}), disc())
    with pytest.raises(ImageSizeError, match="mask"):
        MeasuredQualityJudge().judge(asked, Edited(surface(), None, {}), disc().T)
    nothing = replace(asked, foreground_hw=np.zeros_like(foreground()))
    with pytest.raises(EmptyMaskError, match="0 px"):
        judge(disc(), nothing)


@pytest.mark.parametrize("hint", HINTS)
def test_a_hint_is_read_back(hint: str) -> None:
    assert hints_of(f"The rest is fine. {hint.capitalize()}: it is off.") == {hint}
    assert hints_of("") == frozenset()

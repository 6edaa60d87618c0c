"""A judge that knows the defect: what contradicts the notes cannot pass, guesses decide nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from anomaly_helpers import HEIGHT, HIGH, WIDTH, ScriptedQuality, knowledge, square, tile

from maskwright.graphs.anomaly_judging import LOOK_UP, InformedQualityJudge
from maskwright.graphs.anomaly_planner import PlanDrawer
from maskwright.tools.defects import EditRequest, Family, Quality
from maskwright.tools.judging.defect_quality import LARGER, SMALLER, hints_of

KNOWN = replace(knowledge(), ranges={"size_ratio": (0.15, 0.2)})
"""A square of 10 pixels on the tile has 0.18."""


def judge(known: object, family: Family = "hole") -> Quality:
    plan = replace(PlanDrawer((0.3, 0.8)).draw("blowhole", 0), family=family)
    foreground = np.ones((HEIGHT, WIDTH), np.bool_)
    request = EditRequest(item_id="a", seed=0, plan=plan, image_rgb=tile(), foreground_hw=foreground)
    edited = square(request)
    assert edited.mask_hw is not None
    informed = InformedQualityJudge(ScriptedQuality([HIGH]), lambda _: known)  # type: ignore[arg-type, return-value]
    return informed.judge(request, edited, edited.mask_hw)


def test_what_agrees_keeps_its_scores() -> None:
    assert judge(KNOWN) == HIGH


@pytest.mark.parametrize(
    ("sizes", "hint"),
    [pytest.param((0.02, 0.05), SMALLER, id="too large"), pytest.param((0.4, 0.6), LARGER, id="too small")],
)
def test_an_impossible_size_cannot_pass_and_is_told(sizes: tuple[float, float], hint: str) -> None:
    quality = judge(replace(KNOWN, ranges={"size_ratio": sizes}))
    assert not quality.passes
    assert hint in hints_of(quality.review)


def test_another_kind_of_defect_sends_the_planner_to_the_notes() -> None:
    quality = judge(KNOWN, family="thread")
    assert not quality.passes
    assert f"{LOOK_UP}: blowhole is hole, not thread" in quality.review


def test_guesses_and_notes_without_sizes_cap_nothing() -> None:
    assert judge(replace(KNOWN, is_guess=True, families=("stain",), ranges={"size_ratio": (0.5, 0.6)})) == HIGH
    assert judge(replace(KNOWN, ranges={})) == HIGH

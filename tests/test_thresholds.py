"""Thresholds that follow a class's scores: each mode by hand-made numbers, and nothing passes for want of a score."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from maskwright.configs.judging import ThresholdSettings
from maskwright.tools.judging.thresholds import class_threshold, judge_score, judge_scores
from maskwright.tools.protocols import Verdict

NAN = math.nan
X_PASTE = ThresholdSettings(mode="class_max_minus_margin", margin=1, ceiling=21)


@pytest.mark.parametrize(
    ("settings", "scores", "threshold"),
    [
        pytest.param(ThresholdSettings(value=0.3), [0.9, 0.1], 0.3, id="fixed"),
        pytest.param(ThresholdSettings(value=0.3), [], 0.3, id="fixed-without-scores"),
        pytest.param(ThresholdSettings(value=0.3, floor=0.5), [0.9], 0.3, id="fixed-has-no-floor"),
        pytest.param(X_PASTE, [18.0, 25.5, 3.0], 21, id="x-paste-good-class"),
        pytest.param(X_PASTE, [18.0, 15.5], 17, id="x-paste-hard-class"),
        pytest.param(X_PASTE, [NAN, 18.0, None, math.inf], 17, id="x-paste-not-finite"),
        pytest.param(X_PASTE.model_copy(update={"floor": 20.0}), [18.0], 20, id="x-paste-floor"),
        pytest.param(X_PASTE, [], 21, id="x-paste-without-scores"),
        pytest.param(X_PASTE.model_copy(update={"ceiling": None}), [NAN], math.inf, id="neither-score-nor-ceiling"),
        pytest.param(ThresholdSettings(mode="best_share", share=0.5), [0.1, 0.4, 0.3, 0.2], 0.3, id="best-half"),
        pytest.param(ThresholdSettings(mode="best_share", share=0.5), [0.1, 0.3, 0.2], 0.2, id="best-half-of-three"),
        pytest.param(ThresholdSettings(mode="best_share", share=0.01), [0.1, 0.3], 0.3, id="best-keeps-one"),
        pytest.param(ThresholdSettings(mode="best_share", share=1), [0.1, NAN, 0.3], 0.1, id="all-that-are-numbers"),
        pytest.param(
            ThresholdSettings(mode="best_share", share=0.07), [n / 100 for n in range(100)], 0.93, id="seven-of-hundred"
        ),
        pytest.param(
            ThresholdSettings(mode="best_share", share=0.5, floor=0.25), [0.1, 0.2], 0.25, id="best-half-over-floor"
        ),
    ],
)
def test_the_threshold_of_a_class(settings: ThresholdSettings, scores: list[float | None], threshold: float) -> None:
    assert class_threshold(settings, scores) == pytest.approx(threshold)
    assert class_threshold(settings, scores[::-1]) == class_threshold(settings, scores)


@pytest.mark.parametrize(
    ("score", "outcome", "reason"),
    [
        pytest.param(0.5, "meet", "", id="on-it"),
        pytest.param(0.4999, "fail", "image_text 0.4999 is under 0.5", id="under"),
        pytest.param(NAN, "abstain", "image_text could not be scored", id="nan"),
        pytest.param(math.inf, "abstain", "image_text could not be scored", id="infinite"),
        pytest.param(None, "abstain", "image_text could not be scored", id="none"),
    ],
)
def test_one_score(score: float | None, outcome: str, reason: str) -> None:
    criterion = judge_score("image_text", score, 0.5)
    assert (criterion.outcome, criterion.reason) == (outcome, reason)
    assert math.isfinite(criterion.score)
    assert Verdict((criterion,)).accepted == (outcome == "meet")


def test_a_class_is_judged_by_its_own_best_whenever_that_came() -> None:
    assert [c.outcome for c in judge_scores("image_text", X_PASTE, [15.5, 17.0, NAN], [18.0])] == [
        "fail",
        "meet",
        "abstain",
    ]
    assert [c.outcome for c in judge_scores("image_text", X_PASTE, [15.5, 17.0, 18.0])] == ["fail", "meet", "meet"]


def test_stored_scores_are_judged_again_under_other_settings() -> None:
    scores = [0.2, 0.6, 0.9]
    strict, kind = ThresholdSettings(value=0.8), ThresholdSettings(mode="best_share", share=0.6)
    assert [c.outcome for c in judge_scores("image_text", strict, scores)] == ["fail", "fail", "meet"]
    assert [c.outcome for c in judge_scores("image_text", kind, scores)] == ["fail", "meet", "meet"]


def test_ties_of_the_last_one_kept_are_kept() -> None:
    criteria = judge_scores("image_text", ThresholdSettings(mode="best_share", share=0.25), [0.5, 0.5, 0.5, 0.1])
    assert [c.outcome for c in criteria] == ["meet", "meet", "meet", "fail"]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"floor": 0.5, "ceiling": 0.4}, id="floor-above-ceiling"),
        pytest.param({"value": NAN}, id="nan"),
        pytest.param({"ceiling": math.inf}, id="infinite"),
        pytest.param({"margin": -1}, id="negative-margin"),
        pytest.param({"share": 0}, id="nothing-kept"),
        pytest.param({"mode": "class_mean"}, id="unknown-mode"),
        pytest.param({"threshold": 0.5}, id="unknown-key"),
    ],
)
def test_settings_that_make_no_threshold_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ThresholdSettings.model_validate(values)

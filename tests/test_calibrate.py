"""Thresholds from an audit: the least that reaches a precision, and what is said where none can be had."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from review_helpers import ReviewRun, criterion

from maskwright.configs.recipe import load_recipe
from maskwright.errors import InputError, RunFolderError
from maskwright.graphs.calibrate import Scored, calibrate_run, least_threshold


def _scored(*pairs: tuple[float, bool], rest: bool = True) -> list[Scored]:
    return [Scored(score, rest, keep) for score, keep in pairs]


@pytest.mark.parametrize(
    ("samples", "precision", "value", "kept", "recall"),
    [
        pytest.param(_scored((0.9, True), (0.5, True), (0.2, False)), 1.0, 0.5, 2, 1.0, id="all good ones"),
        pytest.param(_scored((0.9, True), (0.5, True), (0.2, False)), 0.6, 0.2, 3, 1.0, id="everything will do"),
        pytest.param(
            _scored((0.9, True), (0.8, False), (0.7, True), (0.6, True)), 0.75, 0.6, 4, 1.0, id="past a bad one"
        ),
        pytest.param(_scored((0.9, True), (0.5, True), (0.5, False)), 1.0, 0.9, 1, 0.5, id="equal scores go together"),
        pytest.param(_scored((0.9, False), (0.5, True)), 0.9, None, 2, 1.0, id="none reaches it"),
        pytest.param(_scored((0.9, True), rest=False), 0.5, None, 0, 0.0, id="all miss another limit"),
        pytest.param(_scored((-0.1, True), (-0.3, False)), 1.0, -0.1, 1, 1.0, id="negative scores"),
        pytest.param(_scored((0.123456, True), (0.12345, False)), 1.0, 0.123456, 1, 1.0, id="close scores"),
    ],
)
def test_least_threshold(
    samples: list[Scored], precision: float, value: float | None, kept: int, recall: float
) -> None:
    found = least_threshold("image_text", samples, precision)
    assert found.value == value
    assert (found.precision.n, found.recall.value) == (kept, recall)
    if found.value is not None:
        assert sum(one.score >= found.value for one in samples) == kept
    assert found.precision.low < found.precision.high


def _fill(run: ReviewRun, agent: str = "text_agent", **scores: float) -> None:
    """24 audited images, of which the best 16 by `image_text` are good."""
    for number in range(24):
        likeness = 0.305 + 0.02 * number
        unmet = criterion("image_text", "fail", "image_text 0.4 is under 0.6") if likeness < 0.6 else None
        run.add(
            number,
            agent=agent,
            measures={"image_text": likeness, **scores},
            criteria=(criterion("sharpness"), unmet or criterion("image_text")),
            person=number >= 8,
        )


def test_a_run_is_calibrated_and_rejudge_understands_it(tmp_path: Path) -> None:
    run = ReviewRun(tmp_path / "lauf ü")
    _fill(run)
    calibration = calibrate_run(run.folder, precision=0.95)
    [text_agent, image_agent] = calibration.agents
    assert text_agent.chosen is not None
    assert text_agent.chosen.value == 0.46
    assert (text_agent.chosen.precision.value, text_agent.chosen.recall.value) == (1.0, 1.0)
    assert text_agent.chosen.precision.low == pytest.approx(0.806, abs=1e-3)
    assert text_agent.chosen.num_samples == 24
    assert "0 audited images" in image_agent.problem
    changed = load_recipe(str(run.folder / "recipe.yaml"), calibration.overrides).agents.text_agent
    assert changed is not None
    assert (changed.similarity.image_text.mode, changed.similarity.image_text.value) == ("fixed", 0.46)
    written = json.loads((run.folder / "calibration.json").read_text())
    assert written == json.loads(json.dumps(calibration.as_json()))
    assert written["overrides"] == list(calibration.overrides)


def test_the_i_agent_is_calibrated_by_the_text_score_alone(tmp_path: Path) -> None:
    run = ReviewRun(tmp_path / "run")
    _fill(run, agent="image_agent", image_image=0.5)
    calibration = calibrate_run(run.folder, precision=0.95)
    assert calibration.overrides == (
        "agents.image_agent.similarity.image_text.mode=fixed",
        "agents.image_agent.similarity.image_text.value=0.46",
    )


def test_a_validated_folder_is_judged_by_the_t_agents_settings(tmp_path: Path) -> None:
    run = ReviewRun(tmp_path / "run")
    _fill(run, agent="validation_agent")
    assert "agents.text_agent.similarity.image_text.value=0.46" in calibrate_run(run.folder, precision=0.95).overrides


def test_of_two_scores_the_one_that_keeps_more_is_chosen(tmp_path: Path) -> None:
    run = ReviewRun(tmp_path / "run")
    for number in range(24):
        good = number % 3 > 0
        measures = {"image_text": number / 24, "image_image": 0.5 if good else 0.1}
        run.add(number, measures=measures, person=good)
    [text_agent, _] = calibrate_run(run.folder, precision=1.0).agents
    assert [one.score for one in text_agent.thresholds] == ["image_text", "image_image"]
    assert text_agent.chosen == text_agent.thresholds[1]


def test_a_precision_that_nothing_reaches_is_said(tmp_path: Path) -> None:
    run = ReviewRun(tmp_path / "run")
    for number in range(24):
        run.add(number, measures={"image_text": number / 24}, person=number % 2 == 0)
    calibration = calibrate_run(run.folder, precision=0.99)
    assert calibration.overrides == ()
    assert "no threshold reaches a precision of 0.99" in calibration.agents[0].problem


@pytest.mark.parametrize(
    ("count", "measures", "says"),
    [
        pytest.param(19, {"image_text": 0.5}, "--set agents.text_agent.validation.audit_share=0.1", id="too few"),
        pytest.param(20, {}, "only 0 have a similarity score", id="no score"),
        pytest.param(20, {"image_text": float("nan")}, "only 0 have a similarity score", id="scores that are none"),
    ],
)
def test_too_little_is_refused(count: int, measures: dict[str, float], says: str, tmp_path: Path) -> None:
    run = ReviewRun(tmp_path / "run")
    for number in range(count):
        run.add(number, measures=measures, person=True)
    with pytest.raises(InputError, match=says):
        calibrate_run(run.folder, precision=0.9)
    assert not (run.folder / "calibration.json").exists()


@pytest.mark.parametrize("precision", [0.0, 1.2, float("nan")])
def test_a_precision_is_a_share(precision: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--precision"):
        calibrate_run(tmp_path, precision=precision)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no run of ours"):
        calibrate_run(tmp_path, precision=0.9)

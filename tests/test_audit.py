"""The audit's figures against counts by hand and Wilson's published interval; the book of people's verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest
from review_helpers import ReviewRun, criterion, opinion

from maskwright.evaluation.audit import Audit, Rate, audit, read_audited, to_rate
from maskwright.memory.ledger import Ledger

FAILS = (criterion("sharpness", "fail", "too blurred"),)


@pytest.mark.parametrize(
    ("count", "n", "expected"),
    [
        pytest.param(0, 0, Rate(None, 0.0, 1.0, 0), id="nothing known"),
        pytest.param(0, 10, Rate(0.0, 0.0, 0.2775, 10), id="none"),
        pytest.param(10, 10, Rate(1.0, 0.7225, 1.0, 10), id="all"),
        pytest.param(1, 10, Rate(0.1, 0.0179, 0.4042, 10), id="few"),
        pytest.param(81, 263, Rate(0.308, 0.2553, 0.3662, 263), id="Newcombe 1998, table I"),
        pytest.param(1, 29, Rate(0.0345, 0.0061, 0.1718, 29), id="Newcombe 1998, table I, near 0"),
    ],
)
def test_wilson_interval(count: int, n: int, expected: Rate) -> None:
    rate = to_rate(count, n)
    assert rate.value == (expected.value if expected.value is None else pytest.approx(expected.value, abs=5e-5))
    assert (rate.low, rate.high) == pytest.approx((expected.low, expected.high), abs=5e-5)
    assert rate.n == expected.n


def _audit(run: ReviewRun) -> Audit:
    ledger: Ledger = Ledger(run.folder / "items")
    return audit(read_audited((ledger.read(item_id) for item_id in ledger.ids()), run.book))


def test_counts_by_class_and_by_judge(tmp_path: Path) -> None:
    run = ReviewRun(tmp_path / "lauf ü")
    yes, no = opinion("vlm", keep=True), opinion("vlm", keep=False)
    run.add(1, opinions=(yes,), person=True)
    run.add(2, opinions=(yes,), person=True)
    run.add(3, opinions=(yes,), person=False)
    run.add(4, opinions=(no,), person=True, category="nut")
    run.add(5, opinions=(no,), person=False, category="nut")
    run.add(6, criteria=FAILS, person=True, category="nut")
    figures = _audit(run)
    overall, nuts, judge = figures.overall, figures.classes["nut"], figures.judges["vlm"]
    assert (overall.both_keep, overall.only_judge_keeps, overall.only_person_keeps, overall.neither_keeps) == (
        (2, 1, 2, 1)
    )
    assert (overall.precision.value, overall.recall.value) == (pytest.approx(2 / 3), 0.5)
    assert (nuts.precision, nuts.recall.value, nuts.n) == (Rate(None, 0.0, 1.0, 0), 0.0, 3)
    assert list(figures.classes) == ["bolt", "nut"]
    assert (judge.n, judge.recall.value) == (5, pytest.approx(2 / 3))  # the blurred one it was never shown


def test_only_decided_images_of_the_audit_count(tmp_path: Path) -> None:
    run = ReviewRun(tmp_path / "run")
    run.add(1, held="disagreement", person=True)
    run.add(2)
    run.add(3, held="", person=True)
    assert _audit(run).overall.n == 0


def test_a_verdict_counts_the_same_once_the_run_has_taken_it_in(tmp_path: Path) -> None:
    run = ReviewRun(tmp_path / "run")
    entry_id = run.add(1, person=True)
    before = _audit(run)
    result = run.items.read("text_agent-3-0001")
    review = run.book.read(entry_id)
    assert result is not None
    assert review is not None
    result["attempts"][0]["review"] = review
    result["attempts"][0]["accepted"] = True
    run.items.write("text_agent-3-0001", result)
    run.book.undo(entry_id, "Eva")
    assert _audit(run) == before
    assert before.overall.both_keep == 1

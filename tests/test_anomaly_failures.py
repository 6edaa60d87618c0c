"""Anomaly runs whose painter makes no edit, or whose painter or judge breaks down in the middle."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from anomaly_folders import patch_mask
from anomaly_plates import entries, run, write_plates

from maskwright.errors import MaskwrightError, ModelOutageError
from maskwright.tools.defects import Edited, EditRequest, Quality
from maskwright.tools.judging.defect_quality import MeasuredQualityJudge
from maskwright.tools.painting.procedural.painter import ProceduralPainter


@pytest.fixture
def plates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_plates(tmp_path / "daten ü" / "Blech")


def unchanged(request: EditRequest) -> Edited:
    return Edited(request.image_rgb.copy(), None, {})


def inverted(request: EditRequest) -> Edited:
    return Edited(255 - request.image_rgb, None, {})


def beyond_its_mask(request: EditRequest) -> Edited:
    rgb, mask = request.image_rgb.copy(), patch_mask()
    rgb[mask] = 60
    rgb[40:, :] = 255
    return Edited(rgb, mask, {})


@pytest.mark.parametrize(
    ("script", "looped"),
    [
        pytest.param(unchanged, "true", id="nothing, judged"),
        pytest.param(inverted, "false", id="everything, unjudged"),
        pytest.param(beyond_its_mask, "true", id="more than the mask says, judged"),
        pytest.param(beyond_its_mask, "false", id="more than the mask says, unjudged"),
    ],
)
def test_an_edit_of_nothing_or_of_everything_is_never_a_sample(
    script: Callable[[EditRequest], Edited], looped: str, plates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProceduralPainter, "paint", lambda _, requests: [script(request) for request in requests])
    tight = ["agents.anomaly_agent.max_tries_ratio=1", "agents.anomaly_agent.max_turns=2"]
    outcome = run(plates, *tight, f"agents.anomaly_agent.loop={looped}", count=1)
    assert (outcome.exit_code, outcome.content["accepted"]) == (3, 0)
    assert not (outcome.folder / "dataset").exists()
    [entry] = entries(outcome)
    assert entry["ending"] == "exhausted"
    assert "change" in str(entry["reason"])


USD = 0.25
TIGHT = ["agents.anomaly_agent.max_tries_ratio=1", "agents.anomaly_agent.severity=[0.7,0.8]"]


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seeds of what was painted, each at `USD`."""
    paint, seeds = ProceduralPainter.paint, list[int]()

    def charging(self: ProceduralPainter, requests: Sequence[EditRequest]) -> list[Edited]:
        seeds.extend(request.seed for request in requests)
        return [replace(edited, usd=USD) for edited in paint(self, requests)]

    monkeypatch.setattr(ProceduralPainter, "paint", charging)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return seeds


def judging(scores: Sequence[Quality | MaskwrightError]) -> Callable[..., Quality]:
    """Scores by script, the last one again and again."""
    left = list(scores)

    def judge(*_: object) -> Quality:
        score = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(score, MaskwrightError):
            raise score
        return score

    return judge


DOWN = ModelOutageError("the judge at http://127.0.0.1:9 gives no answer")
LOW, HIGH = Quality(1.0, 1.0, "raise severity", {}), Quality(4.0, 4.0, "", {})


def test_a_judge_that_breaks_down_in_the_middle_fails_the_item_which_goes_on_from_there(
    plates: Path, priced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MeasuredQualityJudge, "judge", judging([LOW, DOWN]))
    broken = run(plates, *TIGHT, count=1)
    assert (broken.exit_code, broken.content["items"]["failed"]) == (3, 1)  # type: ignore[index, call-overload]
    [entry] = entries(broken)
    assert (entry["ending"], len(priced)) == ("failed", 2)
    assert "gives no answer" in str(entry["reason"])
    monkeypatch.setattr(MeasuredQualityJudge, "judge", judging([LOW, HIGH]))
    resumed = run(plates, *TIGHT, count=1)
    assert (resumed.exit_code, resumed.content["items"]["failed"]) == (0, 0)  # type: ignore[index, call-overload]
    [entry] = entries(resumed)
    assert len(set(priced)) == len(priced) == 3, "no edit was made twice"
    assert entry["cost"]["images_usd"] == 3 * USD  # type: ignore[index, call-overload]
    shutil.rmtree(resumed.folder)
    monkeypatch.setattr(MeasuredQualityJudge, "judge", judging([LOW, LOW, HIGH]))
    [whole] = entries(run(plates, *TIGHT, count=1))
    for part in ("edits", "messages", "flags", "ending"):
        assert entry[part] == whole[part], "as if nothing had happened"


def test_an_outage_before_the_first_edit_starts_over(
    plates: Path, priced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    paint = ProceduralPainter.paint

    def down(*_: object) -> list[Edited]:
        raise ModelOutageError("the painter gives no answer")

    monkeypatch.setattr(ProceduralPainter, "paint", down)
    broken = run(plates, *TIGHT, count=1)
    assert [entry["ending"] for entry in entries(broken)] == ["failed"]
    monkeypatch.setattr(ProceduralPainter, "paint", paint)
    monkeypatch.setattr(MeasuredQualityJudge, "judge", judging([HIGH]))
    [entry] = entries(run(plates, *TIGHT, count=1))
    assert (entry["ending"], len(priced)) == ("accepted", 1)

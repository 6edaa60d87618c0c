"""Another class of the data set that fits a picture better than its own: measured, judged, switched off."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from text_helpers import draw

from maskwright.configs.judging import PaintedLimits, SimilaritySettings, ThresholdSettings
from maskwright.graphs.similarity import DualSimilarity
from maskwright.tools.judging.painted import measure_painted
from maskwright.tools.judging.painted_judge import PaintedJudge
from maskwright.tools.judging.similarity import rival_lead

SCORES = {"cup": 0.5, "mug": 0.7, "spoon": 0.1}


class FixedScorer:
    """Fits every picture to each name as `SCORES` says."""

    name = "fixed"
    revision = "1"

    def score(self, images: Sequence[object], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.array([[SCORES[text] for text in texts]] * len(images), dtype=np.float32)

    def knows(self, category: str) -> bool:
        return category in SCORES


class NoCrops:
    """No class has real instances."""

    embedder = type("Embedder", (), {"embed": staticmethod(lambda images: np.zeros((len(images), 2), np.float32))})

    def of(self, category: str) -> npt.NDArray[np.float32]:
        return np.zeros((0, 2), np.float32)


@pytest.mark.parametrize(
    ("category", "names", "lead"),
    [
        pytest.param("cup", ["cup", "mug", "spoon"], 0.2, id="another fits better"),
        pytest.param("mug", ["cup", "mug", "spoon"], -0.2, id="its own fits best"),
        pytest.param("cup", ["cup"], None, id="no other"),
    ],
)
def test_the_lead_of_the_best_rival(category: str, names: list[str], lead: float | None) -> None:
    found = rival_lead([SCORES[name] for name in names], names, category)
    assert found == (None if lead is None else pytest.approx(lead))


@pytest.mark.parametrize(
    ("rivals", "lead"),
    [pytest.param(("cup", "mug", "spoon"), 0.2, id="a data set of three"), pytest.param((), None, id="not asked")],
)
def test_it_is_measured_against_the_data_sets_classes(rivals: tuple[str, ...], lead: float | None) -> None:
    similarity = DualSimilarity(FixedScorer(), NoCrops(), None, rivals)  # type: ignore[arg-type]
    alone = similarity.score([(draw(1), "cup")])[0].get("rival_lead")
    together = similarity.score([(draw(1), "cup"), (draw(2), "mug")])[0].get("rival_lead")
    assert alone == together == (None if lead is None else pytest.approx(lead))


@pytest.mark.parametrize(
    ("margin", "accepted"), [(0.3, True), (0.1, False), (None, True)], ids=["small lead", "large lead", "switched off"]
)
def test_too_great_a_lead_rejects(margin: float | None, accepted: bool) -> None:
    similarity = SimilaritySettings(rival_margin=margin, image_text=ThresholdSettings(value=0.4), wholeness=None)
    measures = {**measure_painted(draw(1), ()), "image_text": 0.5, "rival_lead": 0.2}
    [verdict] = PaintedJudge(PaintedLimits(), similarity).judge([measures])
    assert verdict.accepted == accepted
    assert [one.name for one in verdict.rejections] == ([] if accepted else ["rival_lead"])


def test_stored_measures_without_it_can_be_judged() -> None:
    measures = {**measure_painted(draw(1), ()), "image_text": 0.5}
    [verdict] = PaintedJudge(PaintedLimits(), SimilaritySettings(wholeness=None)).judge([measures])
    assert verdict.accepted

"""The judge of wholeness: what it looks at, what it answers, and how its answer reaches a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from model_helpers import fetched
from PIL import Image
from safetensors.torch import load_file
from text_crew import build_crew, make
from text_helpers import ScriptedEmbedder, ScriptedMasker, ScriptedScorer

from maskwright.configs.agents import TextAgentSettings
from maskwright.configs.judging import PaintedLimits, SimilaritySettings, WholenessSettings
from maskwright.data.records import ImageRGBA
from maskwright.errors import BrokenRunError, EmptyMaskError, SampleError
from maskwright.graphs.folder_pictures import FolderPicture, PictureMeasurer, judge_of
from maskwright.graphs.similarity import ClassCrops, DualSimilarity
from maskwright.learning.wholeness_spoilers import SPOILERS, Scenery, place
from maskwright.memory.artifacts import ArtifactStore
from maskwright.models import wholeness
from maskwright.models.heads import CONFIG_NAME
from maskwright.models.wholeness import (
    FEATURE_DIM,
    HEAD_NAME,
    SIDE,
    WholenessScorer,
    crop_square,
    draw_outline,
    find_regions,
    load_head,
)
from maskwright.tools.cutouts import crop_to_mask
from maskwright.tools.judging.painted import measure_painted
from maskwright.tools.judging.painted_judge import PaintedJudge
from maskwright.tools.judging.registry import build_wholeness

UNSEEN = {"owl": "1f989", "pear": "1f350", "strawberry": "1f353", "penguin": "1f427"}
"""Pictures of the bank that the head did not learn from."""


def cut_out(seed: int = 0) -> ImageRGBA:
    """(48, 64, 4): coarse noise in an ellipse that reaches the frame's upper border."""
    rng = np.random.default_rng(seed)
    rgb = np.kron(rng.integers(20, 230, (12, 16, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    y, x = np.mgrid[:48, :64]
    return np.dstack([rgb, np.where(((x - 30) / 20) ** 2 + ((y - 14) / 18) ** 2 < 1, 255, 0).astype(np.uint8)])


@dataclass
class ScriptedWholeness:
    """Believes what it is told, and remembers how many it was asked about at once."""

    answer: float = 0.9
    name: str = "scripted"
    revision: str = "1"
    asked: list[int] = field(default_factory=list)

    def score(self, images: Sequence[ImageRGBA]) -> npt.NDArray[np.float32]:
        self.asked.append(len(images))
        return np.full(len(images), self.answer, np.float32)


@pytest.fixture(scope="module")
def scorer() -> WholenessScorer:
    fetched("lite0")
    return WholenessScorer(batch_size=2)


def test_the_head_is_read_from_safetensors() -> None:
    tensors = load_file(fetched("wholeness") / HEAD_NAME)
    head = load_head(torch.device("cpu"))
    assert not head.training
    for name, tensor in head.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), tensors[name].float().numpy())


@pytest.mark.parametrize("damaged", [HEAD_NAME, CONFIG_NAME])
def test_a_damaged_head_says_so(damaged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "Gewichte ä"
    folder.mkdir()
    for name in (HEAD_NAME, CONFIG_NAME):
        (folder / name).write_bytes((fetched("wholeness") / name).read_bytes())
    (folder / damaged).write_bytes(b"{")
    monkeypatch.setattr(wholeness, "locate_model", lambda _: folder)
    with pytest.raises(BrokenRunError, match="install maskwright again"):
        load_head(torch.device("cpu"))


def test_the_square_holds_the_object_and_knows_the_frame() -> None:
    view, outline = crop_square(cut_out()), draw_outline(crop_square(cut_out()))
    assert view.shape == (SIDE, SIDE, 5)
    frame = view[..., 4] >= 128
    assert not frame[:8].any(), "above the frame's upper border"
    assert frame[SIDE // 2 :, 20:-20].all()
    assert set(np.unique(outline[:, 2]).tolist()) <= {0, wholeness.GREY}
    assert outline.max() == 255


def test_rim_and_core_share_no_pixel_and_lie_in_the_object() -> None:
    view = crop_square(cut_out())
    rim, core = find_regions(view).astype(bool)
    assert rim.any() and core.any()  # noqa: PT018
    assert not (rim & core).any()
    assert not ((rim | core) & (view[..., 3] < 128)).any()


def test_scores_do_not_depend_on_the_batch_and_repeat(scorer: WholenessScorer) -> None:
    images = [cut_out(0), cut_out(1)[:, 4:], cut_out(2)]
    together = scorer.score(images)
    assert together.shape == (3,)
    assert together.dtype == np.float32
    assert ((together >= 0) & (together <= 1)).all()
    np.testing.assert_allclose(together, np.concatenate([scorer.score([one]) for one in images]), atol=1e-5)
    np.testing.assert_array_equal(together, scorer.score(images))


def test_no_picture_has_no_score(scorer: WholenessScorer) -> None:
    assert scorer.score([]).shape == (0,)
    assert wholeness.see_cut_outs([]).shape == (0, FEATURE_DIM)


@pytest.mark.parametrize(
    ("rgba", "error"),
    [
        pytest.param(np.zeros((48, 64, 4), np.uint8), EmptyMaskError, id="nothing visible"),
        pytest.param(np.zeros((48, 64, 3), np.uint8), SampleError, id="no alpha"),
        pytest.param(np.zeros((48, 64, 4), np.float32), SampleError, id="float"),
    ],
)
def test_what_is_no_cut_out_is_refused(scorer: WholenessScorer, rgba: ImageRGBA, error: type[Exception]) -> None:
    with pytest.raises(error):
        scorer.score([rgba])


def test_a_whole_object_scores_above_its_spoilt_versions(scorer: WholenessScorer) -> None:
    bank = fetched("sprites") / "bank"
    objects = [crop_to_mask(np.array(Image.open(bank / f"{code}.webp").convert("RGBA"))) for code in UNSEEN.values()]
    scenery = Scenery([np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)], objects)
    kinds = ("twins", "fragments", "ragged rim", "whole frame")
    whole = scorer.score([place(one, np.random.default_rng(0)) for one in objects])
    for name, rgba, score in zip(UNSEEN, objects, whole, strict=True):
        spoilt = [SPOILERS[kind].spoil(rgba, rgba, np.random.default_rng(3), scenery) for kind in kinds]
        assert (scorer.score(spoilt) < score).all(), name


@pytest.mark.parametrize(
    ("measured", "settings", "accepted"),
    [
        pytest.param({"wholeness": 0.9}, WholenessSettings(), True, id="whole"),
        pytest.param({"wholeness": 0.01}, WholenessSettings(), False, id="spoilt"),
        pytest.param({}, WholenessSettings(), True, id="not measured, as in earlier runs"),
        pytest.param({"wholeness": 0.01}, None, True, id="switched off"),
    ],
)
def test_the_measure_decides_where_it_was_taken(
    measured: dict[str, float], settings: WholenessSettings | None, accepted: bool
) -> None:
    judge = PaintedJudge(PaintedLimits(max_border_contact=1), SimilaritySettings(wholeness=settings))
    [verdict] = judge.judge([measure_painted(cut_out(), ()) | {"image_text": 1.0} | measured])
    assert verdict.accepted == accepted
    assert [one.name for one in verdict.rejections] == ([] if accepted else ["wholeness"])


def test_switched_off_nothing_is_built_or_measured() -> None:
    assert build_wholeness(None) is None
    crops = ClassCrops(ScriptedEmbedder(), sources=None, rows={}, max_crops=1)  # type: ignore[arg-type]
    [score] = DualSimilarity(ScriptedScorer(), crops).score([(cut_out(), "bolt")])
    assert set(score) == {"image_text"}


@pytest.mark.parametrize(("answer", "outcome"), [(0.9, "meet"), (0.01, "fail")])
def test_the_measure_reaches_verdict_and_ledger(tmp_path: Path, answer: float, outcome: str) -> None:
    judge = ScriptedWholeness(answer)
    crops = ClassCrops(ScriptedEmbedder(), sources=None, rows={}, max_crops=1)  # type: ignore[arg-type]
    [result] = make(build_crew(tmp_path, similarity=DualSimilarity(ScriptedScorer(), crops, judge)))
    attempt = result["attempts"][0]
    assert attempt["measures"]["wholeness"] == pytest.approx(answer)
    assert [one["outcome"] for one in attempt["criteria"] if one["name"] == "wholeness"] == [outcome]
    assert judge.asked[0] >= 1


@pytest.mark.parametrize(("kind", "asked"), [("cut_out", [2]), ("edit", []), ("scene", [])])
def test_a_folders_cut_outs_are_asked_at_once(tmp_path: Path, kind: str, asked: list[int]) -> None:
    settings = TextAgentSettings.model_validate({"validation": {"kind": kind}})
    pictures = []
    for number in range(2):
        path = tmp_path / f"bolt ü {number}.png"
        Image.fromarray(cut_out(number)).save(path)
        pictures.append(FolderPicture(path, path.name, "bolt", 1))
    judge, scorer = ScriptedWholeness(0.0), ScriptedScorer()
    artifacts = ArtifactStore(tmp_path / "artifacts")
    measurer = PictureMeasurer(ScriptedMasker(), scorer, settings.validation.kind, artifacts, judge)
    measured = [one["measures"] for one in measurer.measure(pictures)]
    assert judge.asked == asked
    verdicts = judge_of(settings, ["bolt"], scorer)[1].judge(measured)
    rejected = ["wholeness" in {one.name for one in verdict.rejections} for verdict in verdicts]
    assert rejected == [kind == "cut_out"] * 2

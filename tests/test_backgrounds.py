"""Backgrounds: painted ones are free of the data set's classes, made once, and never lost; control scenes."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from run_helpers import QUICK
from tiny_pipelines import save_sd

from maskwright.configs.backgrounds import GeneratedSettings
from maskwright.configs.recipe import load_recipe
from maskwright.data.load import load_dataset
from maskwright.data.records import ImageRGB, ImageRGBA
from maskwright.errors import BrokenRunError, ModelOutageError, RecipeError, UnparseableAnswerError
from maskwright.graphs import backgrounds as backgrounds_module
from maskwright.graphs.backgrounds import build_generated, build_scene_painter
from maskwright.graphs.composition import is_unharmonized
from maskwright.graphs.generated_backgrounds import (
    BackgroundEntry,
    GeneratedBackgrounds,
    limit_side,
    overlapping_crops,
)
from maskwright.graphs.pipeline import RunOutcome, run_recipe
from maskwright.memory.artifacts import ArtifactStore
from maskwright.memory.ledger import Ledger
from maskwright.tools.composing.scene import ScenePlan
from maskwright.tools.judging.vision import ChatVisionJudge, fill_question
from maskwright.tools.protocols import Criterion, Opinion, Outcome, Painted, PaintRequest

HEIGHT, WIDTH = 48, 64
OBJECT_RED = 200
"""What the scripted painter paints of an object, and the scripted scorer sees."""


@dataclass
class ScriptedPainter:
    """Grey noise by the seed; the pictures whose numbers are listed show a small red object, or have a flaw."""

    with_object: frozenset[int] = frozenset()
    flawed: Mapping[int, str] = field(default_factory=dict)
    outage_at: int = -1
    alpha: int = 255
    requests: list[PaintRequest] = field(default_factory=list)
    name = "scripted"
    revision = "1"
    max_tokens = None

    def knows(self, category: str) -> bool:
        return bool(category)

    def count_tokens(self, prompt: str) -> int:
        return len(prompt.split())

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        number = len(self.requests)
        if number == self.outage_at:
            raise ModelOutageError("the server is down.")
        self.requests += requests
        rgba = np.full((HEIGHT, WIDTH, 4), self.alpha, dtype=np.uint8)
        rgba[..., :3] = np.random.default_rng(requests[0].seed).integers(90, 130, (HEIGHT, WIDTH, 3))
        if number in self.with_object:
            rgba[2:6, 56:62, :3] = (OBJECT_RED, 0, 0)
        return [Painted(rgba, {}, usd=0.25, flaw=self.flawed.get(number, ""))]


@dataclass
class ScriptedScorer:
    """Scores a picture for `cat` by the share of it that is red, so that a small object shows in a crop only."""

    known: frozenset[str] = frozenset({"cat", "Mütze"})
    name = "scripted"
    revision = "1"

    def knows(self, category: str) -> bool:
        return category in self.known

    def score(self, images: Sequence[ImageRGB | ImageRGBA], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        red = [float(((image[..., 0] == OBJECT_RED) & (image[..., 1] == 0)).mean()) for image in images]
        return np.array([[share * 20 if text == "cat" else 0.1 for text in texts] for share in red], np.float32)


@dataclass
class ScriptedJudge:
    """Answers what the script says, one picture after another."""

    outcomes: list[Outcome]
    asked: list[str] = field(default_factory=list)
    name = "openai:judge"
    version = "judge-1"

    def judge(self, picture: ImageRGB | ImageRGBA, category: str) -> Opinion:
        assert picture.shape[2] == 3
        self.asked.append(category)
        if len(self.asked) > len(self.outcomes):
            raise UnparseableAnswerError("no answer fits")
        criterion = Criterion("empty", self.outcomes[len(self.asked) - 1], 1.0, "a cat on the wall")
        return Opinion(
            judge=self.name,
            version=self.version,
            description="a road",
            criteria=(criterion,),
            rung="json_schema",
            raw_text="{}",
            calls=1,
            input_tokens=1,
            output_tokens=1,
        )


@dataclass
class Counting:
    """Progress that counts."""

    total: int = 0
    outcomes: list[str] = field(default_factory=list)

    def start(self, stage: str, total: int) -> None:
        assert stage == "backgrounds"
        self.total = total

    def advance(self, stage: str, outcome: str = "", count: int = 1) -> None:
        assert (stage, count) == ("backgrounds", 1)
        self.outcomes.append(outcome)


def backgrounds(
    folder: Path,
    painter: ScriptedPainter,
    *,
    scorer: ScriptedScorer | None = None,
    judge: ScriptedJudge | None = None,
    classes: tuple[str, ...] = ("cat", "Mütze", "gizmo"),
    **settings: object,
) -> GeneratedBackgrounds:
    given = {"diffusion": {"model": "unused"}, "count": 3, "prompts": ["a road", "an empty hall"], "max_tries": 2}
    return GeneratedBackgrounds(
        settings=GeneratedSettings.model_validate({**given, "max_object_score": 0.5, **settings}),
        run_seed=7,
        painter=painter,
        scorer=scorer or ScriptedScorer(),
        classes=classes,
        judges=(judge,) if judge else (),
        artifacts=ArtifactStore(folder / "artifacts"),
        ledger=Ledger(folder / "backgrounds"),
    )


def prepare(made: GeneratedBackgrounds, stop: threading.Event | None = None) -> Counting:
    progress = Counting()
    made.prepare(progress, (stop or threading.Event()).is_set)
    return progress


def entries(folder: Path) -> dict[str, BackgroundEntry]:
    ledger: Ledger[BackgroundEntry] = Ledger(folder / "backgrounds")
    found = {entry_id: ledger.read(entry_id) for entry_id in sorted(ledger.ids())}
    return {entry_id: entry for entry_id, entry in found.items() if entry is not None}


def test_every_background_is_kept_with_how_it_came_about(tmp_path: Path) -> None:
    painter = ScriptedPainter()
    made = backgrounds(tmp_path, painter)
    assert prepare(made).outcomes == ["accepted"] * 3
    assert len(made) == 3
    assert [request.prompt for request in painter.requests] == ["a road", "an empty hall", "a road"]
    assert len({request.seed for request in painter.requests}) == 3
    first = entries(tmp_path)["background-000000"]
    assert first["unknown_classes"] == ["gizmo"]
    assert first["tries"][0]["scores"] == {"cat": 0.0, "Mütze": 0.1}
    assert first["tries"][0]["usd"] == 0.25
    assert first["painter"] == {"name": "scripted", "revision": "1"}
    picture, annotations = made.read(0)
    assert (picture.shape, annotations) == ((HEIGHT, WIDTH, 3), ())
    assert made.record(2).file_name == "background-000002.png"


REJECTIONS = [
    pytest.param({"with_object": frozenset({0})}, "cat .* is over 0.5", id="a small object that only a crop shows"),
    pytest.param({"flawed": {0: "black"}}, "black", id="no picture at all"),
    pytest.param({"alpha": 254}, "partly transparent", id="transparent"),
]


@pytest.mark.parametrize(("script", "reason"), REJECTIONS)
def test_a_picture_that_is_no_empty_place_is_painted_again_with_another_seed(
    script: dict[str, object], reason: str, tmp_path: Path
) -> None:
    painter = ScriptedPainter(**script)  # type: ignore[arg-type]
    made = backgrounds(tmp_path, painter, count=1)
    if painter.alpha < 255:
        with pytest.raises(BrokenRunError, match=reason):
            prepare(made)
    else:
        prepare(made)
        assert len(made) == 1
    [entry] = entries(tmp_path).values()
    assert re.search(reason, entry["tries"][0]["reason"])
    assert len(entry["tries"]) == 2
    assert len({tried["seed"] for tried in entry["tries"]}) == 2
    assert {request.prompt for request in painter.requests} == {"a road"}


def test_those_that_stay_bad_are_left_out_and_not_paid_for_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = backgrounds(tmp_path, ScriptedPainter(with_object=frozenset({1, 2})))
    assert prepare(made).outcomes == ["accepted", "exhausted", "accepted"]
    assert [made.record(i).file_name for i in range(len(made))] == ["background-000000.png", "background-000002.png"]
    assert "2 of 3" in caplog.text
    again = ScriptedPainter()
    prepare(backgrounds(tmp_path, again))
    assert again.requests == []


def test_all_rejected_stops_the_run_with_the_scores_and_what_to_change(tmp_path: Path) -> None:
    made = backgrounds(tmp_path, ScriptedPainter(with_object=frozenset(range(99))))
    with pytest.raises(BrokenRunError, match=r"none of 3 .* cat 0\.6\d* is over 0\.5.*max_object_score.*prompts"):
        prepare(made)


@pytest.mark.parametrize(
    ("outcomes", "is_accepted", "num_tries"),
    [
        pytest.param(["meet"], True, 1, id="free"),
        pytest.param(["fail", "meet"], True, 2, id="seen, then free"),
        pytest.param(["abstain", "fail"], False, 2, id="cannot tell, then seen"),
        pytest.param(["fail"], False, 2, id="seen, then no answer that fits"),
    ],
)
def test_a_vision_judge_has_the_last_word(
    outcomes: list[Outcome], is_accepted: bool, num_tries: int, tmp_path: Path
) -> None:
    judge = ScriptedJudge(outcomes)
    made = backgrounds(tmp_path, ScriptedPainter(), judge=judge, count=1)
    if is_accepted:
        prepare(made)
    else:
        with pytest.raises(BrokenRunError, match="a cat on the wall"):
            prepare(made)
    assert judge.asked == ["cat or Mütze or gizmo"] * num_tries, "also of a class that the scorer does not know"


def test_a_judge_is_not_asked_about_what_the_scorer_rejected(tmp_path: Path) -> None:
    judge = ScriptedJudge(["meet"])
    prepare(backgrounds(tmp_path, ScriptedPainter(with_object=frozenset({0})), judge=judge, count=1))
    assert len(judge.asked) == 1


def test_an_outage_loses_nothing_that_was_made(tmp_path: Path) -> None:
    with pytest.raises(BrokenRunError, match=r"server is down.*goes on"):
        prepare(backgrounds(tmp_path / "a", ScriptedPainter(outage_at=2)))
    assert list(entries(tmp_path / "a")) == ["background-000000", "background-000001"]
    rest = ScriptedPainter()
    prepare(backgrounds(tmp_path / "a", rest))
    assert len(rest.requests) == 1
    prepare(backgrounds(tmp_path / "b", ScriptedPainter()))
    assert entries(tmp_path / "a") == entries(tmp_path / "b"), "as if nothing had happened"


def test_a_picture_that_is_gone_is_painted_again(tmp_path: Path) -> None:
    prepare(backgrounds(tmp_path, ScriptedPainter()))
    before = entries(tmp_path)
    ArtifactStore(tmp_path / "artifacts").path(before["background-000001"]["artifact"]).unlink()
    prepare(backgrounds(tmp_path, painter := ScriptedPainter()))
    assert len(painter.requests) == 1
    assert entries(tmp_path) == before


def test_stopping_starts_nothing_new(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    painter = ScriptedPainter()
    prepare(backgrounds(tmp_path, painter), stop)
    assert painter.requests == []


def test_nobody_who_could_tell_is_refused_before_anything_is_painted(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"knows none of the classes gizmo.*clip or siglip"):
        backgrounds(tmp_path, ScriptedPainter(), classes=("gizmo",))
    backgrounds(tmp_path, ScriptedPainter(), classes=("gizmo",), judge=ScriptedJudge([]))


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 61), (1, 1), (2, 9)])
def test_crops_cover_the_picture_and_overlap(height: int, width: int) -> None:
    numbered = np.arange(height * width, dtype=np.int64).reshape(height, width)
    rgb = np.repeat((numbered % 251).astype(np.uint8)[..., None], 3, axis=2)
    crops = overlapping_crops(rgb)
    assert len(crops) == 9
    assert {crop.shape for crop in crops} == {((height + 1) // 2, (width + 1) // 2, 3)}
    np.testing.assert_array_equal(crops[0], rgb[: (height + 1) // 2, : (width + 1) // 2])
    np.testing.assert_array_equal(crops[8], rgb[height // 2 :, width // 2 :])


@pytest.mark.parametrize(
    ("side_px", "expected"), [(None, (48, 64)), (100, (48, 64)), (64, (48, 64)), (32, (24, 32))], ids=str
)
def test_large_pictures_are_made_smaller_and_small_ones_left(side_px: int | None, expected: tuple[int, int]) -> None:
    assert limit_side(np.zeros((48, 64, 3), np.uint8), side_px).shape[:2] == expected


@pytest.mark.parametrize(
    ("section", "says"),
    [
        pytest.param(["compose.backgrounds=generated"], r"compose\.generated\.diffusion\.model", id="no settings"),
        pytest.param(["compose.generated.painter=embedded:sprites"], "expected diffusion or hosted", id="sprites"),
        pytest.param(["compose.generated.painter=layer_diffusion"], "expected diffusion or hosted", id="layers"),
        pytest.param(["compose.generated.painter=hosted"], "`hosted`; expected at least its `model`", id="no model"),
        pytest.param(["compose.generated.count=0", "compose.generated.hosted.model=m"], "count", id="none"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    section: list[str], says: str, photographs: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=says):
        run_recipe("instances", data=photographs, out=tmp_path / "run", overrides=[*QUICK, *section])
    assert not (tmp_path / "run").exists()


def test_a_hosted_painter_is_asked_for_opaque_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(backgrounds_module, "build_text_painter", asked.append)
    build_scene_painter(GeneratedSettings.model_validate({"painter": "hosted", "hosted": {"model": "m"}}))
    [settings] = asked
    assert settings.hosted.background == "opaque"  # type: ignore[attr-defined]


def test_the_recipe_s_judges_are_asked_whether_the_place_is_empty(photographs: Path, tmp_path: Path) -> None:
    model = save_sd(tmp_path / "model")
    judge = '{"model": "openai:gpt-test", "base_url": "http://127.0.0.1:9/v1"}'
    overrides = [f"data.path={photographs}", f"llm.judge={judge}", f"compose.generated.diffusion.model={model}"]
    recipe = load_recipe("instances", overrides)
    dataset = load_dataset(photographs)
    made = build_generated(recipe, dataset, tmp_path / "run", ArtifactStore(tmp_path / "run" / "artifacts"))
    [built] = made.judges
    assert isinstance(built, ChatVisionJudge)
    assert built.names == ("empty",)
    assert "empty background" in fill_question(built.question, built.criteria, "cat or traffic_light")
    assert made.classes == ("bolt", "Mutter ö")


def _run(data: Path, out: Path, *overrides: str) -> RunOutcome:
    return run_recipe("instances", data=data, out=out, overrides=[*QUICK, "budget.items=4", *overrides])


def _scenes(outcome: RunOutcome) -> list[dict[str, object]]:
    return [json.loads(path.read_bytes()) for path in sorted((outcome.folder / "scenes").rglob("*.json"))]


def test_a_run_paints_its_backgrounds_with_a_real_pipeline_and_once(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backgrounds_module, "build_text_scorer", lambda _: ScriptedScorer(frozenset({"bolt"})))
    model = save_sd(tmp_path / "Modell ü")
    painting = {"model": str(model), "device": "cpu", "width": 64, "height": 48, "num_inference_steps": 1}
    generated = {"diffusion": painting, "count": 2, "max_object_score": 0.5}
    overrides = ["compose.backgrounds=generated", f"compose.generated={json.dumps(generated)}"]
    outcome = _run(photographs, tmp_path / "run", *overrides)
    assert outcome.exit_code == 0
    scenes = _scenes(outcome)
    made = entries(outcome.folder)
    assert {scene["background"] for scene in scenes} <= {f"{name}.png" for name in made}
    assert {entry["painter"]["name"] for entry in made.values()} == {"diffusion"}
    assert {(scene["height"], scene["width"]) for scene in scenes} == {(48, 64)}
    assert {part["origin"] for scene in scenes for part in scene["instances"]} == {"synthetic"}  # type: ignore[attr-defined]
    painted = {path: path.stat().st_mtime_ns for path in (outcome.folder / "backgrounds").rglob("*.json")}
    longer = _run(photographs, tmp_path / "run", *overrides, "budget.items=6")
    assert longer.content["accepted"] == 6
    assert painted == {path: path.stat().st_mtime_ns for path in (outcome.folder / "backgrounds").rglob("*.json")}


def test_control_scenes_are_drawn_by_the_seed_and_change_nothing_but_the_blending(
    photographs: Path, tmp_path: Path
) -> None:
    whole, mixed, hard = (
        _run(photographs, tmp_path / str(share), f"compose.unharmonized_share={share}", "compose.placements=3")
        for share in (0, 0.5, 1)
    )
    of = {run.folder.name: {scene["scene_id"]: scene for scene in _scenes(run)} for run in (whole, mixed, hard)}
    assert {scene["harmonization"] for scene in of["0"].values()} == {"alpha"}
    assert {scene["harmonization"] for scene in of["0.5"].values()} == {"alpha", "none"}
    assert {scene["harmonization"] for scene in of["1"].values()} == {"none"}
    for scene_id, scene in of["0.5"].items():
        same = of["0" if scene["harmonization"] == "alpha" else "1"][scene_id]
        assert scene == same

        def without_seams(entry: dict[str, object]) -> list[dict[str, object]]:
            return [{**part, "seam": None} for part in entry["instances"]]  # type: ignore[attr-defined]

        assert without_seams(of["0"][scene_id]) == without_seams(of["1"][scene_id])


def test_the_share_of_control_scenes_is_the_one_asked_for() -> None:
    plans = [ScenePlan(0, ("a",), (3, index)) for index in range(1000)]
    drawn = [sum(is_unharmonized(plan, share) for plan in plans) for share in (0.0, 0.3, 1.0)]
    assert (drawn[0], drawn[2]) == (0, 1000)
    assert 250 < drawn[1] < 350

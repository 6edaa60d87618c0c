"""Judging a run again: other verdicts over the same images, exact both ways, whole after a kill."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import orjson
import pytest
from pycocotools.coco import COCO
from run_helpers import QUICK, snapshot
from text_helpers import ScriptedTextPainter, draw, register
from vision_helpers import build_validator

from maskwright import cli
from maskwright.configs.recipe import load_recipe
from maskwright.errors import BrokenRunError, InputError, RecipeError, RunFolderError
from maskwright.graphs import rejudge, verdicts
from maskwright.graphs.pipeline import run_recipe
from maskwright.graphs.rejudge import Rejudged, rejudge_run
from maskwright.memory.artifacts import ArtifactStore
from maskwright.memory.entries import Attempt, ItemResult
from maskwright.memory.ledger import Ledger
from maskwright.tools.painting.variation import VariationPainter
from maskwright.tools.protocols import Painted, PaintRequest

VALUE = "agents.text_agent.similarity.image_text.value"
LOOSER, TIGHTER, NONE = f"{VALUE}=0.3", f"{VALUE}=0.8", f"{VALUE}=0.99"
AS_PAINTED = f"{VALUE}=0.6"


def _any_likeness(request: PaintRequest) -> Painted:
    """Of ten pictures one is blank; the others' likenesses lie between 0.2 and 0.95."""
    rng = np.random.default_rng(request.seed)
    likeness, flaw = rng.uniform(0.2, 0.95), "blank" if rng.uniform() < 0.1 else ""
    return Painted(draw(request.seed, likeness), {}, flaw=flaw)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of a run of both agents with a scripted writer, painter and scorer."""
    scripted = register(monkeypatch, ScriptedTextPainter([_any_likeness]))
    return [*QUICK, *scripted, AS_PAINTED, "memory.enabled=false", "agents.text_agent.max_rounds=2"]


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made once") / "run"


@pytest.fixture
def finished(
    settings: list[str], photographs: Path, tmp_path: Path, made_once: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of such a run, over this test's own photographs, after which nobody can paint."""
    if not made_once.exists():
        assert run_recipe("instada", data=photographs, out=made_once, overrides=settings).exit_code == 0
    run = tmp_path / "lauf ü"
    shutil.copytree(made_once, run)
    moved = load_recipe(str(run / "recipe.yaml"), [f"data.path={json.dumps(str(photographs))}"])
    (run / "recipe.yaml").write_text(moved.to_yaml(), encoding="utf-8")
    monkeypatch.setattr(ScriptedTextPainter, "paint", None)
    monkeypatch.setattr(VariationPainter, "paint", None)
    return run


def _begun(folder: Path, recipe: str) -> Path:
    """A run folder as it is when nothing is made yet."""
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"fingerprint": "f", "recipe": recipe, "status": "running"}))
    (folder / "recipe.yaml").write_text(load_recipe(recipe).to_yaml(), encoding="utf-8")
    return folder


def _accepted(rejudged: Rejudged) -> int:
    accepted = rejudged.outcome.content["accepted"]
    assert isinstance(accepted, int)
    return accepted


def _results(folder: Path) -> list[ItemResult]:
    return [orjson.loads(path.read_bytes()) for path in sorted((folder / "items").rglob("*.json"))]


def _placed(folder: Path) -> set[str]:
    scenes = [orjson.loads(path.read_bytes()) for path in (folder / "scenes").rglob("*.json")]
    return {one["source_id"] for scene in scenes for one in scene["instances"] if one["origin"] == "synthetic"}


def _instance_ids(folder: Path) -> set[str]:
    return {instance["instance_id"] for result in _results(folder) for instance in result["instances"]}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        pytest.param(LOOSER, lambda a: a["measures"].get("image_text", 0) >= 0.3, id="looser"),
        pytest.param(TIGHTER, lambda a: a["measures"].get("image_text", 0) >= 0.8, id="tighter"),
    ],
)
def test_the_ledger_the_scenes_and_the_data_set_follow_the_threshold(
    setting: str, expected: Callable[[Attempt], bool], finished: Path
) -> None:
    before = len(_instance_ids(finished))
    again = rejudge_run(finished, overrides=[setting])
    ids = _instance_ids(finished)
    assert again.num_before == before
    assert _accepted(again) == len(ids) != before
    assert (len(ids) > before) is (setting == LOOSER)
    for result in _results(finished):
        if result["item"]["agent"] == "text_agent":
            assert [a["accepted"] for a in result["attempts"]] == [expected(a) for a in result["attempts"]]
        kept = [(a["round"], a["index"]) for a in result["attempts"] if a["accepted"]]
        assert [(i["round"], i["index"]) for i in result["instances"]] == kept
        assert result["ending"] == ("accepted" if kept else "exhausted")
        assert bool(result["reason"]) is not bool(kept)
        assert sum(one["num_kept"] for one in result["rounds"]) == (len(kept) if result["rounds"] else 0)
    assert _placed(finished) == ids
    coco = COCO(str(finished / "dataset/coco/annotations/instances_train.json"))
    assert {category["name"] for category in coco.cats.values()} == {"bolt", "Mutter ö"}
    assert len(coco.imgs) == 6 + len(list((finished / "scenes").rglob("*.json")))
    lines = (finished / "dataset/provenance.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["instance_id"] for line in lines} == ids


def test_new_instances_are_tight_and_stand_on_disk(finished: Path) -> None:
    known = _instance_ids(finished)
    rejudge_run(finished, overrides=[LOOSER])
    artifacts = ArtifactStore(finished / "artifacts")
    new = [i for result in _results(finished) for i in result["instances"] if i["instance_id"] not in known]
    assert new
    for instance in new:
        visible = artifacts.get_image(instance["artifact"])[..., 3] > 0
        assert visible[[0, -1]].any(axis=1).all()
        assert visible[:, [0, -1]].any(axis=0).all()


@pytest.mark.parametrize("there", [LOOSER, TIGHTER], ids=["looser", "tighter"])
def test_there_and_back_is_as_it_was(there: str, finished: Path) -> None:
    before = snapshot(finished, "items", "scenes", "dataset")
    rejudge_run(finished, overrides=[there])
    assert snapshot(finished, "items", "scenes", "dataset") != before
    rejudge_run(finished, overrides=[AS_PAINTED])
    assert snapshot(finished, "items", "scenes", "dataset") == before


def test_the_image_agent_s_limits_are_judged_again_too(finished: Path) -> None:
    before = snapshot(finished, "items", "dataset")
    key = "agents.image_agent.limits.min_source_difference"
    rejudge_run(finished, overrides=[f"{key}=0.15"])
    attempts = [a for r in _results(finished) if r["item"]["agent"] == "image_agent" for a in r["attempts"]]
    assert attempts
    for attempt in attempts:
        assert attempt["accepted"] is (attempt["measures"]["source_difference"] >= 0.15)
    rejudge_run(finished, overrides=[f"{key}=0.01"])
    assert snapshot(finished, "items", "dataset") == before


def test_a_class_s_own_threshold_follows_all_its_scores(finished: Path) -> None:
    section = "agents.text_agent.similarity.image_text"
    rejudge_run(finished, overrides=[f"{section}.mode=best_share", f"{section}.share=0.25"])
    by_class: dict[str, list[Attempt]] = {}
    for result in _results(finished):
        if result["item"]["agent"] == "text_agent":
            measured = [attempt for attempt in result["attempts"] if "image_text" in attempt["measures"]]
            by_class.setdefault(result["item"]["category"], []).extend(measured)
    assert by_class.keys() == {"bolt", "Mutter ö"}
    for attempts in by_class.values():
        best = sorted((a["measures"]["image_text"] for a in attempts), reverse=True)[: -(-len(attempts) // 4)]
        assert sorted((a["measures"]["image_text"] for a in attempts if a["accepted"]), reverse=True) == best


def test_where_nothing_passes_the_data_set_goes_and_others_files_stay(finished: Path) -> None:
    (finished / "dataset/yolo/notes.txt").write_text("mine")
    again = rejudge_run(finished, overrides=[NONE, "agents.image_agent.limits.min_sharpness=1000000"])
    assert (again.outcome.exit_code, _accepted(again)) == (3, 0)
    left = [path.relative_to(finished).as_posix() for path in (finished / "dataset").rglob("*")]
    assert sorted(left) == ["dataset/.maskwright", "dataset/yolo", "dataset/yolo/notes.txt"]
    assert not list((finished / "scenes").rglob("*.json"))
    back = rejudge_run(finished, overrides=[AS_PAINTED, "agents.image_agent.limits.min_sharpness=2"])
    assert (back.num_before, _accepted(back)) == (0, len(_instance_ids(finished)))
    assert (finished / "dataset/yolo/notes.txt").read_text() == "mine"
    assert (finished / "dataset/yolo/data.yaml").is_file()


def _breaking_after(calls: int, function: Callable[..., object]) -> Callable[..., object]:
    left = iter(range(calls))

    def breaks(*arguments: object, **options: object) -> object:
        if next(left, None) is None:
            raise BrokenRunError("killed")
        return function(*arguments, **options)

    return breaks


@pytest.mark.parametrize(
    ("where", "name", "calls", "by"),
    [
        pytest.param(rejudge, "write_or_stop", 0, "rejudge", id="between run.json and recipe.yaml"),
        pytest.param(Ledger, "write", 3, "rejudge", id="in the middle of the items"),
        pytest.param(Ledger, "write", 3, "run", id="in the middle of the items, finished by the run"),
        pytest.param(rejudge, "go_on", 0, "rejudge", id="before the scenes"),
    ],
)
def test_a_killed_rejudge_is_finished_by_itself_and_by_the_run(
    where: object,
    name: str,
    calls: int,
    by: str,
    finished: Path,
    settings: list[str],
    photographs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    num_before = len(_instance_ids(finished))
    with monkeypatch.context() as kill:
        kill.setattr(where, name, _breaking_after(calls, getattr(where, name)))
        with pytest.raises(BrokenRunError, match="killed"):
            rejudge_run(finished, overrides=[LOOSER])
    assert json.loads((finished / "run.json").read_bytes())["status"] == "running"
    if by == "run":
        again = run_recipe("instada", data=photographs, out=finished, overrides=[*settings, LOOSER])
    else:
        rejudged = rejudge_run(finished, overrides=[LOOSER])
        assert rejudged.num_before == num_before
        again = rejudged.outcome
    assert again.content["status"] == "done"
    mended = snapshot(finished, "items", "scenes", "dataset")
    rejudge_run(finished, overrides=[AS_PAINTED])
    rejudge_run(finished, overrides=[LOOSER])
    assert snapshot(finished, "items", "scenes", "dataset") == mended
    assert "rejudging" not in json.loads((finished / "run.json").read_bytes())


def test_a_rejudged_run_is_complete_under_its_new_settings_and_refused_under_the_old(
    finished: Path, settings: list[str], photographs: Path
) -> None:
    rejudge_run(finished, overrides=[LOOSER])
    again = run_recipe("instada", data=photographs, out=finished, overrides=[*settings, LOOSER])
    assert again.exit_code == 0
    with pytest.raises(RunFolderError, match="other settings"):
        run_recipe("instada", data=photographs, out=finished, overrides=settings)


def test_failed_items_stay_failed_and_are_not_painted(
    settings: list[str], photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(request: PaintRequest) -> Painted:
        if "-0001" in request.item_id:
            raise RuntimeError("out of luck")
        return _any_likeness(request)

    settings += register(monkeypatch, ScriptedTextPainter([late]))
    run = run_recipe("instada", data=photographs, out=tmp_path / "run", overrides=settings)
    failed = {r["item"]["item_id"]: r["reason"] for r in _results(run.folder) if r["ending"] == "failed"}
    assert failed
    monkeypatch.setattr(ScriptedTextPainter, "paint", None)
    again = rejudge_run(run.folder, overrides=[TIGHTER])
    assert {r["item"]["item_id"]: r["reason"] for r in _results(run.folder) if r["ending"] == "failed"} == failed
    assert again.outcome.exit_code == 3


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        pytest.param(["plan.seed=3"], r"plan\.seed: it needs more than judging.*image_text\.\*", id="seed"),
        pytest.param(["agents.text_agent.painter=hosted"], "agents.text_agent.painter: it needs more", id="painter"),
        pytest.param(["memory.novelty=0.5", LOOSER], "memory.novelty: it needs more", id="one of two"),
        pytest.param(["agents.text_agent.sam.model=x"], "agents.text_agent.sam", id="a section that was not there"),
        pytest.param(["agents.image_agent.limits.min_area_px=9"], "chooses the sources too", id="sources"),
        pytest.param([f"{VALUE[:-5]}valeu=0.3"], "did you mean `value`", id="misspelt"),
        pytest.param([f"{VALUE}=often"], "'often'", id="no number"),
        pytest.param(["agents.text_agent.limits.min_area_share=0.99"], "min_area_share 0.99 is above", id="contrary"),
        pytest.param([VALUE], "expected key.sub=value", id="no value"),
    ],
)
def test_a_wrong_setting_leaves_the_run_untouched(overrides: list[str], says: str, tmp_path: Path) -> None:
    run = _begun(tmp_path / "run", "instada")
    before = {path: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(RecipeError, match=says):
        rejudge_run(run, overrides=overrides)
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_an_agent_that_took_no_part_is_not_judged(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"agents\.text_agent: it took no part"):
        rejudge_run(_begun(tmp_path, "instances"), overrides=[LOOSER])


def test_other_data_is_refused_and_moved_data_is_found(finished: Path, photographs: Path) -> None:
    moved = photographs.rename(photographs.with_name("umgezogen ü"))
    with pytest.raises(InputError, match="photographs"):
        rejudge_run(finished, overrides=[LOOSER])
    assert rejudge_run(finished, overrides=[LOOSER], data=moved).outcome.exit_code == 0
    path = moved / "annotations" / "instances_train.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["annotations"].pop()
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RunFolderError, match="bring back the data"):
        rejudge_run(finished, overrides=[AS_PAINTED])


@pytest.mark.parametrize("missing", ["run.json", "recipe.yaml"])
def test_a_folder_that_is_no_run_is_refused(missing: str, tmp_path: Path) -> None:
    (_begun(tmp_path, "instada") / missing).unlink()
    with pytest.raises(RunFolderError, match=f"no run of ours, it has no {missing}"):
        rejudge_run(tmp_path)


def test_a_stop_leaves_a_run_that_the_same_call_finishes(finished: Path) -> None:
    stop = threading.Event()
    stop.set()
    assert rejudge_run(finished, overrides=[LOOSER], stop=stop).outcome.exit_code == 130
    again = rejudge_run(finished, overrides=[LOOSER])
    assert again.outcome.exit_code == 0
    assert _placed(finished) == _instance_ids(finished)


def test_a_reason_that_came_of_no_verdict_stays() -> None:
    broken: Mapping[str, object] = {
        "item": {"agent": "text_agent"},
        "ending": "exhausted",
        "reason": "paint: PromptError: empty",
        "attempts": [],
        "instances": [],
        "rounds": [],
    }
    [judged] = verdicts.judge_class([broken], lambda measures: [], build_validator(), ArtifactStore(Path()))  # type: ignore[list-item]
    assert judged == broken


def test_the_command_says_how_many_were_accepted_before_and_now(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def maskwright(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["maskwright", *arguments])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        captured = capfd.readouterr()
        return exit_info.value.code, captured.out + captured.err

    before = len(_instance_ids(finished))
    exit_code, printed = maskwright("rejudge", str(finished), "--set", LOOSER)
    assert exit_code == 0
    assert f"{before} accepted before, {len(_instance_ids(finished))} now" in printed
    exit_code, printed = maskwright("rejudge", str(finished), "--set", "plan.seed=1")
    assert exit_code == 2
    assert "Traceback" not in printed
    exit_code, printed = maskwright("rejudge", "--help")
    assert f"maskwright rejudge runs/instada-1 --set {AS_PAINTED}" in " ".join(printed.split())

"""What a run's product is worth: arms at equal settings, resumable, summed up; one true training at the end."""

from __future__ import annotations

import errno
import importlib.util
import json
import math
import re
import shutil
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from detector_helpers import (
    SETTINGS,
    Colours,
    Killed,
    ScriptedDetector,
    Training,
    copy_of,
    make_run,
    open_made,
    ours_is_better,
    script,
)

from maskwright.configs.evaluation import EvaluationSettings, MixingSettings
from maskwright.errors import BrokenRunError, RecipeError, RunFolderError
from maskwright.evaluation.detectors import DetectorTraining, Trained, usable_threads
from maskwright.evaluation.gains import GainMeter
from maskwright.evaluation.yolo_detector import YoloDetector
from maskwright.evaluation.yolo_evaluation import evaluate_yolo, train_product, trainings_at_once
from maskwright.evaluation.yolo_gains import YoloGainMeter
from maskwright.evaluation.yolo_report import build_yolo_report
from maskwright.evaluation.yolo_summary import YoloSummary

EPOCHS, STEPS, PASTED, OURS = "real, equal epochs", "real, equal steps", "real + copy-paste", "real + ours"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("ü"))


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """The run and its data, in a folder of the test's own."""
    return copy_of(made, tmp_path)


def settings_with(**changes: object) -> EvaluationSettings:
    return SETTINGS.model_copy(update=changes)


def read_summary(root: Path) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """By arm, its figures."""
    content = orjson.loads((root / "lauf/evaluation/yolo.json").read_bytes())
    return {arm["label"]: arm for arm in content["arms"]}


def figures_of(summary: YoloSummary) -> list[dict[str, object]]:
    """Of each arm all but how long it took."""
    arms = json.loads(json.dumps(summary.as_json()["arms"]))
    return [{name: value for name, value in arm.items() if name != "seconds"} for arm in arms]


def test_arms_are_trained_alike(root: Path) -> None:
    comparison = open_made(root)
    detector = script(comparison)
    evaluate_yolo(comparison, detector)
    num_all = 6 + len(comparison.product.images)
    equal_steps = [("real", 6, 10), ("copy_paste", num_all, 10), ("ours", num_all, 10)]
    equal_epochs = ("real", 6, round(10 * 6 / num_all))
    trained = [(one.arm, one.num_images, one.training.steps) for one in detector.trained]
    assert trained == [*equal_steps, *equal_steps, equal_epochs, equal_epochs]  # the longest first
    assert Counter(one.training.seed for one in detector.trained) == {0: 4, 1: 4}
    shared = {replace(one.training, seed=0, steps=10) for one in detector.trained}
    assert [(one.model, one.image_px, one.batch) for one in shared] == [("yolo11n-seg.yaml", 64, 2)]
    assert len({one.folder for one in detector.trained}) == 8


def test_equal_epochs_count_how_often_real_images_are_drawn(root: Path) -> None:
    comparison = open_made(root, settings_with(mixing=MixingSettings(real_share=0.8)))
    detector = script(comparison)
    evaluate_yolo(comparison, detector)
    assert len(comparison.product.images) == 5
    assert [one.training.steps for one in detector.trained] == [*[10] * 6, 8, 8]  # 20 of 25 drawn are real


def test_figures_differences_and_what_they_mean(root: Path) -> None:
    comparison = open_made(root)
    summary = evaluate_yolo(comparison, script(comparison))
    content = orjson.loads((root / "lauf/evaluation/yolo.json").read_bytes())
    arms = read_summary(root)
    assert list(arms) == [EPOCHS, STEPS, PASTED, OURS]
    assert arms[OURS]["overall"]["mask"]["ap"] == {"n": 2, "mean": pytest.approx(1), "deviation": 0}
    assert arms[STEPS]["classes"]["Bolzen"]["box"]["ap50"]["mean"] == pytest.approx(0.5, abs=0.01)
    assert arms[OURS]["classes"]["Mutter ö"]["mask"]["ap"] == {"n": 0, "mean": None, "deviation": None}
    assert arms[OURS]["groups"]["r"]["mask"]["ap"]["mean"] == pytest.approx(1)
    assert arms[OURS]["images"] == {"real": 6, "synthetic": len(comparison.product.images)}
    assert arms[PASTED]["synthetic_instances"] == arms[OURS]["synthetic_instances"] != {}
    assert [one["minus"] for one in content["differences"]] == [STEPS, PASTED, EPOCHS]
    real, pasted, _ = (one["overall"]["mask"]["ap"] for one in content["differences"])
    assert (real["answer"], real["wins"]) == ("better", 2)
    assert (pasted["answer"], pasted["n"]) == ("no difference shown", 2)
    assert re.match(
        r"real \+ ours: mask AP 1\.000, 1\.9\d times the 0\.5\d\d of real, equal steps\.", summary.verdict[0]
    )
    assert "more seeds would tell" in summary.verdict[2]
    assert summary.verdict[-1] == "Not measured, since val has no instance of it: Mutter ö."
    assert content["versions"]["scripted"] == "1"
    assert "NaN" not in json.dumps(content)


@pytest.mark.parametrize(
    ("settings", "share", "says"),
    [
        ({"seeds": 1}, 0.5, "+0.000 on one seed, which cannot tell it from noise; raise --seeds"),
        ({}, 0.0, "Real images alone have mask AP 0.000, under 0.05: too little"),
        ({"task": "detect"}, 0.5, "real + ours: box AP 0.5"),
    ],
    ids=["one seed", "noise", "boxes"],
)
def test_what_cannot_be_told_is_said(root: Path, settings: dict[str, object], share: float, says: str) -> None:
    comparison = open_made(root, settings_with(**settings))
    verdict = evaluate_yolo(comparison, script(comparison, lambda _: share)).verdict
    assert any(says in sentence for sentence in verdict), verdict


def test_a_killed_call_goes_on_and_a_finished_one_only_answers(root: Path) -> None:
    comparison = open_made(root)
    detector = script(comparison)
    detector.killed_at = 5
    with pytest.raises(Killed):
        evaluate_yolo(comparison, detector)
    assert len(list((root / "lauf/evaluation/yolo/results").iterdir())) == 5
    first = evaluate_yolo(comparison, detector).as_json()
    assert len(detector.trained) == 8
    fresh = script(comparison)
    assert evaluate_yolo(open_made(root), fresh).as_json() == first
    assert fresh.trained == []


def test_two_at_once_find_what_one_after_the_other_finds(root: Path) -> None:
    comparison = open_made(root)
    one_by_one = figures_of(evaluate_yolo(comparison, script(comparison)))
    shutil.rmtree(comparison.results / "results")
    shutil.rmtree(comparison.results / "trainings")
    together = threading.Barrier(2, timeout=60)

    def meet(asked: Training) -> float:
        together.wait()
        return ours_is_better(asked)

    two = open_made(root, settings_with(at_once=2))
    assert figures_of(evaluate_yolo(two, script(two, meet))) == one_by_one


def test_a_failure_ends_what_is_under_way_beside_it(root: Path) -> None:
    begun, ended = threading.Event(), list[int]()

    class Failing(ScriptedDetector):
        """The first training goes on until the second one has failed."""

        def train(self, data_yaml: Path, training: DetectorTraining, folder: Path, **told: Any) -> Trained:
            if not begun.is_set():
                begun.set()
                for step in range(6000):
                    ended.append(step)
                    told["on_step"](step)
                    time.sleep(0.01)
            raise BrokenRunError("the disk is full")

    comparison = open_made(root, settings_with(at_once=2))
    with pytest.raises(BrokenRunError, match="the disk is full"):
        evaluate_yolo(comparison, Failing(comparison.dataset, lambda _: 1.0))
    assert ended
    assert max(ended) < 5999


def test_a_machine_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for cores in (1, 2, 4, 16, 64):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        found[cores] = trainings_at_once("cpu")
        together = found[cores] * usable_threads(found[cores])
        assert cores // 2 <= together <= cores
    assert found == {1: 1, 2: 2, 4: 1, 16: 2, 64: 8}


@pytest.mark.parametrize(
    ("change", "num_new"),
    [({"seeds": 3}, 4), ({"image_px": 96}, 8), ({"steps": 11}, 8), ({"model": "yolo26n-seg.yaml"}, 8)],
    ids=["another seed", "size", "steps", "model"],
)
def test_what_decides_a_result_is_in_its_name(root: Path, change: dict[str, object], num_new: int) -> None:
    comparison = open_made(root)
    evaluate_yolo(comparison, script(comparison))
    other = open_made(root, settings_with(**change))
    detector = script(other)
    evaluate_yolo(other, detector)
    assert len(detector.trained) == num_new


def test_a_curriculum_ends_on_real_images_with_the_weights_of_the_first_phase(root: Path) -> None:
    comparison = open_made(root, settings_with(mixing=MixingSettings(curriculum=0.7), seeds=1))
    detector = script(comparison)
    evaluate_yolo(comparison, detector)
    by_arm = [(one.arm, one.training.steps, Path(one.training.model).name) for one in detector.trained]
    share = 6 / (6 + len(comparison.product.images))
    assert by_arm == [
        ("real", 10, "yolo11n-seg.yaml"),
        ("copy_paste", 7, "yolo11n-seg.yaml"),
        ("real", 3, "detector.pt"),
        ("ours", 7, "yolo11n-seg.yaml"),
        ("real", 3, "detector.pt"),
        ("real", round(7 * share + 3), "yolo11n-seg.yaml"),
    ]
    pasted, after_pasted, ours, after_ours = detector.trained[1:5]
    assert Path(after_ours.training.model).parent == ours.folder
    assert Path(after_pasted.training.model).parent == pasted.folder
    assert after_pasted.folder != after_ours.folder


def test_each_ratio_is_an_arm_and_real_ones_are_trained_once(root: Path) -> None:
    comparison = open_made(root, settings_with(seeds=1))
    detector = script(comparison)
    summary = evaluate_yolo(comparison, detector, ratios=(1.0, 0.5))
    labels, num_all = [arm.plan.label for arm in summary.arms], len(comparison.product.images)
    assert labels == [EPOCHS, STEPS, *(f"{arm}, ratio {ratio}" for ratio in ("1", "0.5") for arm in (PASTED, OURS))]
    assert [arm.plan.num_synthetic for arm in summary.arms] == [0, 0, num_all, num_all, 3, 3]
    assert [(one.arm.plan.label, one.minus.plan.label) for one in summary.differences[3:5]] == [
        (f"{OURS}, ratio 0.5", STEPS),
        (f"{OURS}, ratio 0.5", f"{PASTED}, ratio 0.5"),
    ]
    evaluate_yolo(comparison, detector)
    assert Counter((one.arm, one.training.steps) for one in detector.trained)["real", 10] == 1
    page = build_yolo_report(summary).read_text(encoding="utf-8")
    assert "synthetic images for each real one" in page
    with pytest.raises(RecipeError, match=r"ratio -1\.0; expected"):
        evaluate_yolo(comparison, detector, ratios=(-1.0,))


def test_a_disk_that_fills_breaks_the_run_and_the_next_call_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    comparison = open_made(root)
    detector = script(comparison)
    comparison.arms(None)
    with monkeypatch.context() as disk:
        disk.setattr("maskwright.memory.artifacts.write_atomically", full)
        with pytest.raises(BrokenRunError, match="No space left on device; free some space"):
            evaluate_yolo(comparison, detector)
    evaluate_yolo(comparison, detector)
    assert len(detector.trained) == 8


def test_a_training_that_diverged_is_named(root: Path) -> None:
    comparison = open_made(root)
    detector = script(comparison)
    detector.score = math.nan
    with pytest.raises(BrokenRunError, match=r"real, equal steps, seed 0: .* Has the training diverged\? Remove '"):
        evaluate_yolo(comparison, detector)


def test_a_damaged_result_is_named(root: Path) -> None:
    comparison = open_made(root)
    evaluate_yolo(comparison, script(comparison))
    damaged = min((root / "lauf/evaluation/yolo/results").iterdir())
    damaged.write_text('{"label":')
    with pytest.raises(RunFolderError, match=f"{damaged.name}.* is no result of ours"):
        evaluate_yolo(comparison, script(comparison))


def test_a_trained_product_serves_the_comparison_too(root: Path) -> None:
    comparison = open_made(root, measures=False)
    detector = script(comparison)
    trained = train_product(comparison, detector)
    assert trained.weights.is_file()
    [arms] = (root / "lauf/evaluation/yolo/arms").iterdir()
    assert {path.name for path in arms.iterdir()} == {"arms.sha256", "real", "ours"}
    evaluate_yolo(open_made(root), detector)
    assert [one.arm for one in detector.trained[:4]] == ["ours", "real", "copy_paste", "real"]
    assert len(detector.trained) == 8


def test_a_loop_measures_its_rounds_and_trains_on_real_images_once(root: Path) -> None:
    detector = script(open_made(root))
    shutil.copytree(root / "lauf", root / "schleife/round-1")
    shutil.copytree(root / "lauf", root / "schleife/round-2")
    edited = root / "schleife/round-2/dataset/provenance.jsonl"
    edited.write_bytes(edited.read_bytes().replace(b"{", b"{ ", 1))  # another product
    for number in (1, 2):
        recipe = root / f"schleife/round-{number}/recipe.yaml"
        recipe.write_text(re.sub(r"(?m)^  (seeds|steps): .*$", r"  \1: 2", recipe.read_text(encoding="utf-8")))
    meter: GainMeter = YoloGainMeter(detector, Colours(), data=root / "daten ü")
    first, second = (meter.measure(root / f"schleife/round-{number}", number) for number in (1, 2))
    assert first == second
    assert first.overall.with_synthetic == {0: pytest.approx(1), 1: pytest.approx(1)}
    assert first.overall.real_alone == {0: pytest.approx(0.5, abs=0.01), 1: pytest.approx(0.5, abs=0.01)}
    assert first.classes["Mutter ö"].with_synthetic == {0: None, 1: None}
    assert Counter(one.arm for one in detector.trained) == {"real": 2, "ours": 4}


def test_two_loops_share_the_results_of_a_round_that_they_have_in_common(root: Path) -> None:
    detector = script(open_made(root))
    meter = YoloGainMeter(detector, Colours(), data=root / "daten ü", results=root / "ergebnisse")
    rounds = [root / loop / "round-1" for loop in ("schleife", "kontrolle")]
    for folder in rounds:
        shutil.copytree(root / "lauf", folder)
    first, second = (meter.measure(folder, 1) for folder in rounds)
    assert first == second
    assert Counter(one.arm for one in detector.trained) == dict.fromkeys(("real", "ours"), EvaluationSettings().seeds)
    assert not (root / "schleife/evaluation").exists()


@pytest.fixture
def summary(root: Path) -> YoloSummary:
    comparison = open_made(root)
    return evaluate_yolo(comparison, script(comparison))


def test_the_page_needs_nothing_but_itself(root: Path, summary: YoloSummary) -> None:
    path = build_yolo_report(summary)
    assert path == root / "lauf/evaluation/yolo.html"
    page = path.read_text(encoding="utf-8")
    assert "1.000 ± 0.000" in page
    assert page.count("<polyline") == 4
    assert "sem loss" not in page
    assert "<b>1</b> class without instances to find" in page
    assert re.findall(r'class="(gain|loss)" x="50(?:\.0)?" width="(\d+\.\d)"', page)[0] == ("gain", "50.0")
    assert not re.search(r'(src|href)="(?!#|data:)', page)


@pytest.mark.slow
def test_yolo_itself_is_trained_and_measured(root: Path) -> None:
    if importlib.util.find_spec("ultralytics") is None:
        pytest.skip("ultralytics is an extra (AGPL-3.0): pip install 'maskwright[yolo]'")
    settings = settings_with(seeds=1, steps=3, mixing=MixingSettings(curriculum=0.7))
    summary = evaluate_yolo(open_made(root, settings), YoloDetector(), device="cpu")
    assert [sum(one.steps for one in arm.results) for arm in summary.arms][1:] == [3, 3, 3]
    assert [row["step"] for row in summary.arms[3].results[0].curve] == [1, 2, 3]
    again = evaluate_yolo(open_made(root, settings), YoloDetector(worker=["false"]), device="cpu")
    assert again.as_json() == summary.as_json()
    assert "seg loss" in build_yolo_report(summary).read_text(encoding="utf-8")

"""A run opened to be compared: what leaks is out of every arm, what cannot be measured is refused before a training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from anomaly_plates import DEFECT, write_plates
from anomaly_plates import run as run_anomalies
from arm_helpers import BOLT, Photo, Thing
from detector_helpers import (
    RING,
    SETTINGS,
    THREE_CLASSES,
    Colours,
    ScriptedDetector,
    copy_of,
    make_run,
    open_made,
    photographs,
)

from maskwright.configs.data import DataSettings
from maskwright.configs.datasets import open_dataset
from maskwright.data.records import ImageRecord
from maskwright.errors import DatasetError, LeakError, MaskwrightError, RecipeError, RunFolderError
from maskwright.evaluation.arms import REAL
from maskwright.evaluation.comparison import Comparison, open_comparison, read_recipe
from maskwright.evaluation.leaks import read_synthetic, refuse_equal_files
from maskwright.evaluation.yolo_evaluation import evaluate_yolo


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("ü"))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Val has no nut, and a ring that train lacks; test shows nothing."""
    photos = photographs()
    photos[-1] = replace(photos[-1], things=())
    photos[-2] = replace(photos[-2], things=[*photos[-2].things, Thing(RING, (48, 10, 12, 18))])
    return make_run(tmp_path_factory.mktemp("ö"), photos, THREE_CLASSES)


@pytest.fixture(scope="module")
def defects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An anomaly run at lauf, made from daten/Platte ü."""
    folder = tmp_path_factory.mktemp("ß")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data = write_plates(folder / "daten" / "Platte ü")
        run_anomalies(data, f"agents.anomaly_agent.defects=[{json.dumps(DEFECT, ensure_ascii=False)}]")
    return folder


def scenes_of(run: Path, photograph: str) -> set[str]:
    """Names without ending of the scenes that a photograph is in, by what the run says of its scenes."""
    lines = [orjson.loads(line) for line in (run / "dataset/provenance.jsonl").read_bytes().splitlines()]
    found = {scene for one in lines if one["parent"]["file_name"] == photograph for scene in one["scenes"]}
    scenes = [orjson.loads(path.read_bytes()) for path in (run / "scenes").rglob("*.json")]
    return found | {one["scene_id"] for one in scenes if one["background"] == photograph}


def test_a_clean_run_is_compared_whole(made: Path) -> None:
    comparison = open_made(made)
    assert comparison.left_out == {}
    assert (comparison.num_real, len(comparison.measured)) == (6, 2)
    assert comparison.train_images == {BOLT: 6, 7: 6}
    assert comparison.findings.counts == {"class_without_instances_to_find": 1}


def test_a_photograph_that_val_shows_too_is_out_with_all_that_is_made_of_it(made: Path, tmp_path: Path) -> None:
    root = copy_of(made, tmp_path)
    shutil.copy(root / "daten ü/images/val/bild 1 ü.png", root / "daten ü/images/train/bild 2 ü.png")
    comparison = open_made(root)
    scenes = scenes_of(root / "lauf", "bild 2 ü.png")
    assert scenes
    assert {Path(name).stem for name in comparison.left_out} == {"bild 2 ü", *scenes}
    assert comparison.left_out["bild 2 ü.png"] == "shows 'bild 1 ü.png'"
    assert comparison.num_real == 5
    arms, _ = comparison.arms(None)
    for arm in arms:
        names = {path.stem for path in (arm.phases[0].data_yaml.parent / "images/train").iterdir()}
        assert not {name.removeprefix("copy_paste-") for name in names} & {"bild 2 ü", *scenes}
        assert len(names) == 5 + arm.num_synthetic
    (arms[0].phases[0].data_yaml.parent / "images/train/unter").mkdir()
    assert comparison.arms(None)[0] == arms
    assert comparison.findings.counts["near_duplicate_of_held_out"] == 1 + len(scenes)
    assert ("many_left_out" in comparison.findings.counts) == (
        1 + len(scenes) > 0.2 * (6 + len(comparison.product.images))
    )


def test_a_side_that_plays_no_part_may_be_known(made: Path, tmp_path: Path) -> None:
    root = copy_of(made, tmp_path)
    shutil.copy(root / "daten ü/images/test/bild 0 ü.png", root / "daten ü/images/train/bild 2 ü.png")
    measured = SETTINGS.model_copy(update={"hold_out": "measured"})
    assert "bild 2 ü.png" in open_made(root).left_out
    assert open_made(root, measured).left_out == {}
    assert open_made(root, measured.model_copy(update={"split": "test"})).left_out
    assert open_made(root, measured, measures=False).left_out


def show_val_everywhere(root: Path) -> None:
    for path in (root / "daten ü/images/train").iterdir():
        shutil.copy(root / "daten ü/images/val/bild 0 ü.png", path)


def measure_a_scene(root: Path) -> None:
    scene = min((root / "lauf/dataset/coco/images/train").glob("scene*"))
    shutil.copy(scene, root / "daten ü/images/val/bild 0 ü.png")


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (show_val_everywhere, LeakError, "each of 6 real training images .* Split the data set by scene"),
        (measure_a_scene, LeakError, "1 images of val or test are synthetic: bild 0 ü.png"),
        (lambda root: shutil.rmtree(root / "lauf/dataset"), RunFolderError, "does not tell what a run made"),
        (lambda root: (root / "lauf/recipe.yaml").unlink(), RunFolderError, "no folder of a run"),
    ],
    ids=["nothing left", "a scene measures", "nothing exported", "no run"],
)
def test_what_cannot_be_compared_is_refused(
    made: Path, tmp_path: Path, spoil: Callable[[Path], None], error: type[MaskwrightError], says: str
) -> None:
    root = copy_of(made, tmp_path)
    spoil(root)
    with pytest.raises(error, match=says):
        open_made(root)


def test_classes_that_one_side_lacks_are_said(odd: Path) -> None:
    comparison = open_made(odd, SETTINGS.model_copy(update={"seeds": 1}))
    examples = comparison.findings.examples
    assert examples["class_without_instances_to_find"] == ["Mutter ö"]
    assert examples["class_without_training_images"] == ["Ring ß"]
    verdict = evaluate_yolo(comparison, ScriptedDetector(comparison.dataset, lambda _: 0.9)).verdict
    assert verdict[-2:] == [
        "Not measured, since val has no instance of it: Mutter ö.",
        "In val, but no real image to train on shows it: Ring ß.",
    ]


def test_a_side_that_shows_nothing_measures_nothing(odd: Path) -> None:
    with pytest.raises(DatasetError, match="split 'test' has no instance"):
        open_made(odd, SETTINGS.model_copy(update={"split": "test"}))


def test_without_a_side_to_measure_on_there_is_still_something_to_train(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    photos = [one for one in photographs() if one.split == "train"]
    root = make_run(tmp_path_factory.mktemp("ä"), [*photos, Photo("leer.png", noise=True)])
    with pytest.raises(DatasetError, match=r"has no 'val' to measure on; it has 'train'\. .* data\.val_share=0\.2"):
        open_made(root)
    comparison = open_made(root, measures=False)
    [real, ours], _ = comparison.arms(None, (REAL, "real + ours"))
    assert comparison.num_real == 7
    assert ours.num_synthetic == len(comparison.product.images) > real.num_synthetic == 0


def open_defects(root: Path) -> Comparison:
    settings = SETTINGS.model_copy(update={"split": "test", "max_bits": 0, "min_similarity": 1})
    return open_comparison(root / "lauf", root / "daten/Platte ü", settings, Colours())


def test_one_class_is_compared_too(defects: Path, tmp_path: Path) -> None:
    comparison = open_defects(shutil.copytree(defects, tmp_path / "ß"))
    detector = ScriptedDetector(comparison.dataset, lambda asked: 0.3 if asked.arm == "real" else 0.6)
    summary = evaluate_yolo(comparison, detector)
    real = summary.differences[0].of(summary.main)
    assert (real.answer, real.n) == ("better", 2)
    assert [one.name for one in summary.arms[3].results[0].figures.classes] == [DEFECT]
    assert summary.arms[3].plan.instances == {DEFECT: 2}


def test_samples_of_a_normal_photograph_that_test_shows_too_are_out(defects: Path, tmp_path: Path) -> None:
    assert open_defects(defects).left_out == {}
    root = shutil.copytree(defects, tmp_path / "ß")
    provenance = root / "lauf/dataset/provenance.jsonl"
    first, second = (orjson.loads(line) for line in provenance.read_bytes().splitlines())
    assert read_synthetic(provenance) >= {first["id"], Path(first["artifact"]).stem}
    assert first["normal"] != second["normal"]
    split = orjson.loads((root / "lauf/split.json").read_bytes())["sides"]
    measured = next(key for key in split["test"] if DEFECT in key)
    shutil.copy(root / "daten" / measured, root / "daten" / first["normal"])
    assert open_defects(root).left_out.keys() == {"good_" + Path(first["normal"]).name, first["id"] + ".png"}
    shutil.copy(root / "daten" / measured, root / "daten" / second["normal"])
    with pytest.raises(LeakError, match=r"each of 2 synthetic .* agents\.anomaly_agent\.splits\.apart=true"):
        open_defects(root)


def test_a_training_file_with_a_held_out_one_s_bytes_is_refused(made: Path) -> None:
    train = sorted((made / "daten ü/images/train").iterdir())
    held_out = [ImageRecord(1, "val.png", str(made), 64, 48, "val", stored_as="daten ü/images/val/bild 0 ü.png")]
    refuse_equal_files(train, held_out)
    with pytest.raises(LeakError, match=r"has the bytes of 'val\.png', which measures"):
        refuse_equal_files([*train, held_out[0].path], held_out)


def test_flags_stand_above_the_run_s_settings(made: Path) -> None:
    read = read_recipe(made / "lauf", ["evaluation.steps=7", "evaluation.mixing.curriculum=0.5"]).evaluation
    assert (read.steps, read.mixing.curriculum, read.seeds) == (7, 0.5, 3)


def test_the_data_set_of_a_recipe_is_found() -> None:
    assert len(open_dataset(DataSettings(path="quickstart")).images) > 1
    with pytest.raises(RecipeError, match="add --data PATH"):
        open_dataset(DataSettings())

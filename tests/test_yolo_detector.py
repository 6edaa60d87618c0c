"""What a YOLO detector asks of its process: exact lengths, folders that resume, errors that keep their class."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml
from yolo_helpers import (
    TRAINED,
    TRAINING,
    WRITE_WEIGHTS,
    ScriptedWorker,
    validation_images,
    write_data,
)

from maskwright.errors import (
    BrokenRunError,
    DatasetError,
    MaskwrightError,
    MissingDependencyError,
    ModelNotFetchedError,
    RecipeError,
    RunFolderError,
)
from maskwright.evaluation.detectors import DetectorTraining, Trained
from maskwright.evaluation.yolo_detector import YoloDetector
from maskwright.evaluation.yolo_models import resolve_model
from maskwright.evaluation.yolo_protocol import ImageToRead
from maskwright.evaluation.yolo_schedule import EndlessOrder, Schedule, plan_rounds
from maskwright.evaluation.yolo_worker import batches_within


@pytest.fixture
def scripted(tmp_path: Path) -> ScriptedWorker:
    return ScriptedWorker(tmp_path)


@pytest.fixture
def data_yaml(tmp_path: Path) -> Path:
    return write_data(tmp_path / "daten ü")


@pytest.mark.parametrize(
    ("size", "batch", "epochs", "steps", "expected"),
    [
        pytest.param(5, 2, 10, None, Schedule(5, 2, 10, 5, 30), id="epochs: a round is a pass"),
        pytest.param(5, 2, None, 6, Schedule(5, 2, 6, 2, 6), id="few steps: a round each"),
        pytest.param(5, 16, None, 600, Schedule(5, 16, 100, 96, 600), id="a hundred rounds"),
        pytest.param(5000, 16, None, 600, Schedule(5000, 16, 100, 96, 600), id="the same of a larger data set"),
        pytest.param(5, 2, None, 250, Schedule(5, 2, 84, 6, 250), id="the last round cut short"),
    ],
)
def test_a_training_in_steps_does_not_know_the_size_of_its_data(
    size: int, batch: int, epochs: int | None, steps: int | None, expected: Schedule
) -> None:
    assert plan_rounds(size, batch, epochs=epochs, steps=steps) == expected


@pytest.mark.parametrize(
    ("epochs", "steps", "by_step"),
    [
        pytest.param(2, None, {1: 1, 3: 1, 4: 2, 6: 2}, id="epochs: the third batch holds one picture"),
        pytest.param(None, 6, {1: 1, 2: 1, 3: 2, 5: 2, 6: 3}, id="steps: every batch is full"),
    ],
)
def test_passes_are_counted(epochs: int | None, steps: int | None, by_step: dict[int, int]) -> None:
    schedule = plan_rounds(5, 2, epochs=epochs, steps=steps)
    assert {step: schedule.passes_begun(step) for step in by_step} == by_step


def test_every_pass_holds_every_picture_once_in_its_own_order() -> None:
    order = EndlessOrder(5, 3, seed=0)
    drawn = [index for _ in range(5) for index in order]
    passes = [tuple(drawn[first : first + 5]) for first in (0, 5, 10)]
    assert [sorted(one) for one in passes] == [[0, 1, 2, 3, 4]] * 3
    assert len(set(passes)) > 1
    other = EndlessOrder(5, 3, seed=1)
    assert drawn != [index for _ in range(5) for index in other]


def test_an_order_that_goes_on_leaves_out_what_was_seen() -> None:
    whole, rest = EndlessOrder(5, 3, seed=4), EndlessOrder(5, 3, seed=4)
    rounds = [list(whole) for _ in range(4)]
    rest.begin_at(2)
    assert [list(rest), list(rest)] == rounds[2:]


@pytest.mark.parametrize(
    ("sides", "batch", "expected"),
    [
        pytest.param([10, 10, 10], 2, [2, 1], id="by count"),
        pytest.param([10, 10, 10], 9, [2, 1], id="by pixels"),
        pytest.param([50, 10], 9, [1, 1], id="a larger one alone"),
        pytest.param([], 9, [], id="none"),
    ],
)
def test_pictures_of_a_batch_fit_in_memory(sides: list[int], batch: int, expected: list[int]) -> None:
    images: list[ImageToRead] = [{"path": "", "width": s, "height": s, "exif_transpose": False} for s in sides]
    assert [len(run) for run in batches_within(images, batch, 200)] == expected


def test_training_hands_over_absolute_paths_and_class_names(
    tmp_path: Path, data_yaml: Path, scripted: ScriptedWorker
) -> None:
    steps: list[int] = []
    detector = scripted.detector({"event": "step", "step": 1}, {"event": "step", "step": 2}, WRITE_WEIGHTS, TRAINED)
    trained = detector.train(data_yaml, TRAINING, tmp_path / "läuft", on_step=steps.append)
    assert (steps, trained.steps, trained.epochs) == ([1, 2], 6, 4)
    job = scripted.starts[0]["job"]
    assert isinstance(job, dict)
    assert job["names"] == ["bolt", "Mutter ö"]
    listed = Path(job["images"]).read_text(encoding="utf-8").splitlines()
    assert listed == [str(path) for path in sorted((data_yaml.parent / "images" / "train").iterdir())]


def test_the_process_computes_with_as_many_threads_as_asked(
    tmp_path: Path, data_yaml: Path, scripted: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    write = f"open({str(tmp_path / 'threads')!r}, 'w').write(os.environ['OMP_NUM_THREADS'])"
    scripted.detector(write, WRITE_WEIGHTS, TRAINED).train(data_yaml, replace(TRAINING, threads=5), tmp_path / "läuft")
    assert (tmp_path / "threads").read_text() == "5"
    again = scripted.detector().train(data_yaml, replace(TRAINING, threads=1), tmp_path / "läuft")
    assert again.steps == TRAINED["steps"]  # they do not decide what is learned


def test_an_image_that_is_listed_twice_is_trained_on_twice(
    tmp_path: Path, data_yaml: Path, scripted: ScriptedWorker
) -> None:
    images = sorted((data_yaml.parent / "images" / "train").iterdir())
    names = [f"./images/train/{path.name}" for path in (images[0], images[1], images[0])]
    data_yaml.with_name("train.txt").write_text("\n".join(names), encoding="utf-8")
    content = yaml.safe_load(data_yaml.read_text(encoding="utf-8")) | {"train": "train.txt"}
    data_yaml.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    scripted.detector(WRITE_WEIGHTS, TRAINED).train(data_yaml, TRAINING, tmp_path / "läuft")
    listed = Path(scripted.starts[0]["job"]["images"]).read_text(encoding="utf-8").splitlines()
    assert listed == [str(path) for path in (images[0], images[1], images[0])]
    data_yaml.with_name("train.txt").write_text("\n".join(names[:2]), encoding="utf-8")
    with pytest.raises(RunFolderError, match="of another training"):
        scripted.detector().train(data_yaml, TRAINING, tmp_path / "läuft")


def test_a_finished_training_only_answers(tmp_path: Path, data_yaml: Path, scripted: ScriptedWorker) -> None:
    first = scripted.detector(WRITE_WEIGHTS, TRAINED).train(data_yaml, TRAINING, tmp_path / "läuft")
    again = scripted.detector().train(data_yaml, replace(TRAINING, device="cuda", workers=7), tmp_path / "läuft")
    assert again == first
    assert len(scripted.starts) == 1


def test_seconds_are_those_of_all_calls_and_a_repeated_round_counts_once(
    tmp_path: Path, data_yaml: Path, scripted: ScriptedWorker
) -> None:
    folder = tmp_path / "läuft"
    rows = [{"round": 1, "seconds": 1000.0}, {"round": 2, "seconds": 50.0}, {"round": 2, "seconds": 500.0}]
    write_curve = f"open('curve.jsonl', 'w').write({''.join(json.dumps(row) + chr(10) for row in rows)!r} + '{{\"rou')"
    with pytest.raises(BrokenRunError, match="without a result"):
        scripted.detector(write_curve).train(data_yaml, TRAINING, folder)
    trained = scripted.detector(WRITE_WEIGHTS, TRAINED).train(data_yaml, TRAINING, folder)
    assert [row["seconds"] for row in trained.curve] == [1000.0, 500.0]
    assert 1500 < trained.seconds < 1600


def _add_label_row(data_yaml: Path) -> None:
    label = min((data_yaml.parent / "labels" / "train").iterdir())
    label.write_text(label.read_text() + "0 0.1 0.1 0.2 0.1 0.2 0.2\n")


@pytest.mark.parametrize(
    ("training", "change_label"),
    [
        pytest.param(replace(TRAINING, seed=1), False, id="seed"),
        pytest.param(replace(TRAINING, steps=7), False, id="steps"),
        pytest.param(replace(TRAINING, model="yolo26n-seg.yaml"), False, id="model"),
        pytest.param(replace(TRAINING, precision="bfloat16"), False, id="precision"),
        pytest.param(replace(TRAINING, optimizer="MuSGD"), False, id="optimizer"),
        pytest.param(replace(TRAINING, hyperparameters={"mosaic": 0}), False, id="a hyperparameter"),
        pytest.param(TRAINING, True, id="a label"),
    ],
)
def test_the_folder_of_another_training_is_refused(
    tmp_path: Path, data_yaml: Path, scripted: ScriptedWorker, training: DetectorTraining, change_label: bool
) -> None:
    scripted.detector(WRITE_WEIGHTS, TRAINED).train(data_yaml, TRAINING, tmp_path / "läuft")
    if change_label:
        _add_label_row(data_yaml)
    with pytest.raises(RunFolderError, match="another training"):
        scripted.detector(WRITE_WEIGHTS, TRAINED).train(data_yaml, training, tmp_path / "läuft")


def test_a_folder_of_something_else_is_refused(tmp_path: Path, data_yaml: Path, scripted: ScriptedWorker) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(RunFolderError, match=r"chapter\.tex"):
        scripted.detector(WRITE_WEIGHTS, TRAINED).train(data_yaml, TRAINING, tmp_path / "thesis")
    assert not scripted.starts


def test_one_process_trains_in_a_folder(tmp_path: Path, data_yaml: Path, scripted: ScriptedWorker) -> None:
    def train_beside(_: int) -> None:
        with pytest.raises(RunFolderError, match="another process"):
            YoloDetector().train(data_yaml, TRAINING, tmp_path / "läuft")

    detector = scripted.detector({"event": "step", "step": 1}, WRITE_WEIGHTS, TRAINED)
    assert detector.train(data_yaml, TRAINING, tmp_path / "läuft", on_step=train_beside).steps == 6


@pytest.mark.parametrize(
    ("replies", "error", "message"),
    [
        pytest.param(
            [{"event": "error", "kind": "BrokenRunError", "message": "the disk is full"}],
            BrokenRunError,
            "the disk is full",
            id="a full disk",
        ),
        pytest.param(
            [{"event": "error", "kind": "RecipeError", "message": "no such model"}],
            RecipeError,
            "no such model",
            id="an error of ours keeps its class",
        ),
        pytest.param(
            [{"event": "error", "kind": "annotations", "message": "strange"}],
            BrokenRunError,
            "strange",
            id="a kind that is no error",
        ),
        pytest.param(["os.kill(os.getpid(), signal.SIGKILL)"], BrokenRunError, "SIGKILL.*smaller `batch`", id="killed"),
        pytest.param(["sys.exit('unheard of: ü')"], BrokenRunError, "(?s)exit code 1.*unheard of: ü", id="its log"),
        pytest.param([TRAINED], BrokenRunError, r"detector\.pt' is missing", id="no weights"),
    ],
)
def test_what_breaks_a_training(
    tmp_path: Path,
    data_yaml: Path,
    scripted: ScriptedWorker,
    replies: Sequence[Mapping[str, object] | str],
    error: type[MaskwrightError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        scripted.detector(*replies).train(data_yaml, TRAINING, tmp_path / "läuft")


def test_without_ultralytics_nothing_happens(
    tmp_path: Path, scripted: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'maskwright\[yolo\]'"):
        scripted.detector().train(tmp_path / "not there.yaml", TRAINING, tmp_path / "läuft")
    assert not (tmp_path / "läuft").exists()


@pytest.mark.parametrize("model", ["yolo11n.pt", "folder/yolo11n-seg.yaml", "yolo11n", "https://example.com/a.pt"])
def test_weights_are_never_downloaded(tmp_path: Path, data_yaml: Path, scripted: ScriptedWorker, model: str) -> None:
    with pytest.raises(RecipeError, match="is no file"):
        scripted.detector(TRAINED).train(data_yaml, replace(TRAINING, model=model), tmp_path / "läuft")
    assert not scripted.starts


def test_a_data_set_without_training_images_is_refused(tmp_path: Path, data_yaml: Path) -> None:
    data_yaml.write_text("val: images/val\nnames: [bolt, Mutter ö]\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="no training images"):
        YoloDetector().train(data_yaml, TRAINING, tmp_path / "läuft")


def _found(class_index: int) -> dict[str, object]:
    return {"class_index": class_index, "score": 0.5, "bbox": [1.0, 2.0, 3.0, 4.0]}


def _train_scripted(scripted: ScriptedWorker, data_yaml: Path, folder: Path) -> Trained:
    return scripted.detector(WRITE_WEIGHTS, TRAINED).train(data_yaml, TRAINING, folder)


def test_detections_have_the_ids_of_the_data_set(tmp_path: Path, data_yaml: Path, scripted: ScriptedWorker) -> None:
    trained = _train_scripted(scripted, data_yaml, tmp_path / "läuft")
    images = validation_images(data_yaml)
    detector = scripted.detector(
        {"event": "image", "detections": [_found(1), _found(0)]},
        {"event": "image", "detections": [_found(0)]},
        {"event": "detected"},
    )
    results = list(detector.detect(trained, images, TRAINING))
    first, second = (image.image_id for image in images)
    assert [(one["image_id"], one["category_id"]) for one in results] == [(first, 3), (first, 7), (second, 7)]


def test_an_image_that_was_left_out_is_an_error(tmp_path: Path, data_yaml: Path, scripted: ScriptedWorker) -> None:
    trained = _train_scripted(scripted, data_yaml, tmp_path / "läuft")
    detector = scripted.detector({"event": "image", "detections": []}, {"event": "detected"})
    with pytest.raises(BrokenRunError, match="bild 6"):
        list(detector.detect(trained, validation_images(data_yaml), TRAINING))


def test_whoever_stops_listening_leaves_no_process(tmp_path: Path, data_yaml: Path, scripted: ScriptedWorker) -> None:
    trained = _train_scripted(scripted, data_yaml, tmp_path / "läuft")
    detector = scripted.detector({"event": "image", "detections": [_found(0)]}, "time.sleep(60)")
    results = detector.detect(trained, validation_images(data_yaml), TRAINING)
    next(results)
    pid = scripted.starts[-1]["pid"]
    assert isinstance(pid, int)
    assert psutil.pid_exists(pid)
    del results
    assert not psutil.pid_exists(pid)


def test_an_unknown_hyperparameter_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"unknown hyperparameter 'epochs'; known: lr0, lrf"):
        DetectorTraining(steps=1, hyperparameters={"epochs": 9})


@pytest.mark.parametrize("ratio", [0, 1.5, 3, -2])
def test_a_mask_ratio_that_is_none_is_refused(ratio: float) -> None:
    with pytest.raises(RecipeError, match=rf"mask_ratio is {ratio}; expected 1, 2 or 4"):
        DetectorTraining(steps=1, hyperparameters={"mask_ratio": ratio})


def test_a_model_of_ours_needs_its_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Path(resolve_model("yolo11n-lite0-seg.yaml")).is_file()
    monkeypatch.setenv("MASKWRIGHT_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFetchedError, match="maskwright models fetch lite0"):
        resolve_model("yolo11n-lite0-seg.yaml")

"""Training and running YOLO: exact lengths, folders that resume, and a process of its own that may die."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaml
from PIL import Image

from maskwright.data.records import ImageRecord
from maskwright.data.yolo import load_yolo
from maskwright.errors import (
    BrokenRunError,
    DatasetError,
    MaskwrightError,
    MissingDependencyError,
    ModelNotFetchedError,
    RecipeError,
    RunFolderError,
)
from maskwright.evaluation.detectors import CocoResult, DetectorTraining, Trained
from maskwright.evaluation.yolo_detector import YoloDetector
from maskwright.evaluation.yolo_models import resolve_model
from maskwright.evaluation.yolo_protocol import ImageToRead
from maskwright.evaluation.yolo_schedule import EndlessOrder, Schedule, plan_rounds
from maskwright.evaluation.yolo_worker import batches_within
from maskwright.models.image_features import load_network

HEIGHT, WIDTH = 48, 64
TRAINING = DetectorTraining(steps=6, image_px=64, batch=2, device="cpu")
CATEGORY_IDS = [7, 3]

REPLIES = """
import json, os, signal, sys, time
job = json.loads(sys.stdin.readline())
with open({seen!r}, "a") as file:
    print(json.dumps({{"job": job, "pid": os.getpid()}}), file=file)
for reply in {replies!r}:
    if isinstance(reply, dict):
        print(json.dumps(reply), flush=True)
    else:
        exec(reply)
"""
WRITE_WEIGHTS = "open(os.path.join(job['folder'], 'detector.pt'), 'wb').close()"
TRAINED = {"event": "trained", "steps": 6, "epochs": 4}


class ScriptedWorker:
    """A process that answers a job with what it is told: events, or statements to execute."""

    def __init__(self, folder: Path) -> None:
        self._script, self._seen = folder / "worker.py", folder / "seen.jsonl"

    def detector(self, *replies: Mapping[str, object] | str) -> YoloDetector:
        text = REPLIES.format(seen=str(self._seen), replies=list(replies))
        self._script.write_text(text, encoding="utf-8")
        return YoloDetector(worker=[sys.executable, str(self._script)])

    @property
    def starts(self) -> list[dict[str, object]]:
        lines = self._seen.read_text().splitlines() if self._seen.exists() else []
        return [json.loads(line) for line in lines]


@pytest.fixture
def scripted(tmp_path: Path) -> ScriptedWorker:
    return ScriptedWorker(tmp_path)


def write_data(folder: Path, num_images: int = 5) -> Path:
    """Two squares of two classes a picture, and a validation picture of each EXIF turn that matters."""
    rng = np.random.default_rng(0)
    for number in range(num_images + 2):
        split = "train" if number < num_images else "val"
        pixels, rows = rng.integers(0, 80, (HEIGHT, WIDTH, 3), dtype=np.uint8), []
        for index, x in enumerate((4, 36)):
            y = int(rng.integers(4, 20))
            pixels[y : y + 20, x : x + 20, 2 * index] = 220
            corners = ((x, y), (x + 20, y), (x + 20, y + 20), (x, y + 20))
            rows.append(" ".join([str(index), *(f"{a / WIDTH:.5f} {b / HEIGHT:.5f}" for a, b in corners)]))
        image, label = (folder / room / split / f"bild {number} ü" for room in ("images", "labels"))
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if number == num_images:
            exif[274] = 6
        Image.fromarray(pixels).save(image.with_suffix(".jpg"), exif=exif, quality=95)
        label.with_suffix(".txt").write_text("\n".join(rows) + "\n")
    content = {"train": "images/train", "val": "images/val", "names": ["bolt", "Mutter ö"]}
    data_yaml = folder / "data.yaml"
    data_yaml.write_text(yaml.safe_dump({**content, "maskwright_category_ids": CATEGORY_IDS}, allow_unicode=True))
    return data_yaml


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


def _validation_images(data_yaml: Path) -> list[ImageRecord]:
    return [image for image in load_yolo(data_yaml).images if image.split == "val"]


def _train_scripted(scripted: ScriptedWorker, data_yaml: Path, folder: Path) -> Trained:
    return scripted.detector(WRITE_WEIGHTS, TRAINED).train(data_yaml, TRAINING, folder)


def test_detections_have_the_ids_of_the_data_set(tmp_path: Path, data_yaml: Path, scripted: ScriptedWorker) -> None:
    trained = _train_scripted(scripted, data_yaml, tmp_path / "läuft")
    images = _validation_images(data_yaml)
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
        list(detector.detect(trained, _validation_images(data_yaml), TRAINING))


def test_whoever_stops_listening_leaves_no_process(tmp_path: Path, data_yaml: Path, scripted: ScriptedWorker) -> None:
    trained = _train_scripted(scripted, data_yaml, tmp_path / "läuft")
    detector = scripted.detector({"event": "image", "detections": [_found(0)]}, "time.sleep(60)")
    results = detector.detect(trained, _validation_images(data_yaml), TRAINING)
    next(results)
    pid = scripted.starts[-1]["pid"]
    assert isinstance(pid, int)
    assert psutil.pid_exists(pid)
    del results
    assert not psutil.pid_exists(pid)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _kill_worker(_: int) -> None:
    for child in psutil.Process().children(recursive=True):
        child.kill()


@pytest.mark.slow
def test_a_killed_training_goes_on_and_finds_objects(tmp_path: Path, data_yaml: Path) -> None:
    before, folder, detector = _contents(data_yaml.parent), tmp_path / "läuft ü", YoloDetector(checkpoint_s=0)
    with pytest.raises(BrokenRunError, match="SIGKILL"):
        detector.train(data_yaml, TRAINING, folder, on_step=lambda step: _kill_worker(step) if step == 4 else None)

    steps: list[int] = []
    trained = detector.train(data_yaml, TRAINING, folder, on_step=steps.append)
    assert steps[0] in (4, 5)  # whether the kill came before or after the fourth round's checkpoint
    assert steps[-1] == trained.steps == 6
    assert [row["step"] for row in trained.curve] == [1, 2, 3, 4, 5, 6]

    images = _validation_images(data_yaml)
    results = list(detector.detect(trained, images, TRAINING))
    assert results
    assert {one["category_id"] for one in results} <= set(CATEGORY_IDS)
    assert {(image.height, image.width) for image in images} == {(WIDTH, HEIGHT), (HEIGHT, WIDTH)}
    _assert_in_frame(results, images)
    assert _contents(data_yaml.parent) == before


def _assert_in_frame(results: Sequence[CocoResult], images: Sequence[ImageRecord]) -> None:
    by_id = {image.image_id: image for image in images}
    assert {one["image_id"] for one in results} == set(by_id)
    for one in results:
        image = by_id[one["image_id"]]
        assert one["segmentation"]["size"] == [image.height, image.width]
        x, y, width, height = one["bbox"]
        assert min(x, y) >= 0
        assert x + width <= image.width + 0.01
        assert y + height <= image.height + 0.01


@pytest.mark.slow
def test_equal_steps_are_equal_whatever_the_size(tmp_path: Path) -> None:
    training = replace(TRAINING, model="yolo11n.yaml", task="detect", steps=4)
    small, large = write_data(tmp_path / "three", 3), write_data(tmp_path / "nine", 9)
    runs = [("one", small), ("again", small), ("large", large)]
    one, again, other = (YoloDetector().train(data, training, tmp_path / name) for name, data in runs)
    assert (one.steps, other.steps) == (4, 4)
    assert (one.epochs, other.epochs) == (3, 1)
    rates = [[row["lr/pg0"] for row in trained.curve] for trained in (one, other)]
    assert rates[0] == rates[1]
    losses = [[row["train/box_loss"] for row in trained.curve] for trained in (one, again)]
    assert losses[0] == losses[1]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_breaks_the_training(tmp_path: Path, data_yaml: Path, scripted: ScriptedWorker) -> None:
    with pytest.raises(BrokenRunError, match="without a result"):
        scripted.detector().train(data_yaml, TRAINING, tmp_path / "läuft")
    (tmp_path / "läuft" / "curve.jsonl").symlink_to("/dev/full")
    with pytest.raises(BrokenRunError, match=r"the disk is full \(.*\)\. Free space and run again"):
        YoloDetector().train(data_yaml, TRAINING, tmp_path / "läuft")


@pytest.mark.slow
def test_a_training_killed_after_its_last_step_is_not_done_again(tmp_path: Path, data_yaml: Path) -> None:
    training = replace(TRAINING, steps=None, epochs=2, model="yolo26n-seg.yaml")
    in_the_way, steps = tmp_path / "läuft" / "trained.json", list[int]()
    with pytest.raises(BrokenRunError, match="cannot be written"):
        YoloDetector().train(data_yaml, training, tmp_path / "läuft", on_step=lambda _: in_the_way.mkdir(exist_ok=True))
    in_the_way.rmdir()
    trained = YoloDetector().train(data_yaml, training, tmp_path / "läuft", on_step=steps.append)
    assert steps == []
    assert (trained.steps, trained.epochs, len(trained.curve)) == (6, 2, 2)
    assert not list(trained.weights.parent.rglob("*.partial"))


@pytest.mark.slow
def test_a_worker_does_not_outlive_who_started_it(tmp_path: Path, data_yaml: Path) -> None:
    code = f"""
import os, psutil, signal
from pathlib import Path
from maskwright.evaluation.detectors import DetectorTraining
from maskwright.evaluation.yolo_detector import YoloDetector

def die(step):
    [worker] = psutil.Process().children()
    print(worker.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

training = DetectorTraining(steps=500, image_px=64, batch=2, device="cpu")
YoloDetector().train(Path({str(data_yaml)!r}), training, Path({str(tmp_path / "läuft")!r}), on_step=die)
"""
    starter = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert starter.returncode == -signal.SIGKILL, starter.stderr
    worker = int(starter.stdout)
    if psutil.pid_exists(worker):
        psutil.Process(worker).wait(timeout=10)
    assert not psutil.pid_exists(worker)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "task", "message"),
    [
        pytest.param("yolo11n.yaml", "segment", "ends in Detect", id="no masks"),
        pytest.param("yolo99z-seg.yaml", "segment", "not known to ultralytics", id="unknown"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(
    tmp_path: Path, data_yaml: Path, model: str, task: str, message: str
) -> None:
    training = replace(TRAINING, model=model, task=task)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=message):
        YoloDetector().train(data_yaml, training, tmp_path / "läuft")


@pytest.mark.slow
def test_precision_and_hyperparameters_reach_ultralytics(tmp_path: Path, data_yaml: Path) -> None:
    chosen = {"mosaic": 0.0, "lr0": 0.003}
    plain, half, other = (
        YoloDetector().train(data_yaml, training, tmp_path / str(number))
        for number, training in enumerate(
            [
                TRAINING,
                replace(TRAINING, precision="bfloat16"),
                replace(TRAINING, optimizer="MuSGD", hyperparameters=chosen),
            ]
        )
    )
    losses = [[row["train/box_loss"] for row in trained.curve] for trained in (plain, half, other)]
    assert losses[0][0] != losses[1][0] == pytest.approx(losses[0][0], rel=0.3)  # and later steps drift apart
    assert losses[2] != losses[0]
    arguments = yaml.safe_load((other.weights.parent / "args.yaml").read_text(encoding="utf-8"))
    assert {name: arguments[name] for name in (*chosen, "optimizer")} == {**chosen, "optimizer": "MuSGD"}
    found = list(YoloDetector().detect(half, _validation_images(data_yaml), TRAINING))
    assert found  # its weights are plain float32 ones


def test_an_unknown_hyperparameter_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"unknown hyperparameter 'epochs'; known: lr0, lrf"):
        DetectorTraining(steps=1, hyperparameters={"epochs": 9})


STATES_OF = """
import sys, torch
from ultralytics import YOLO
network = YOLO(sys.argv[1])
network.predict(sys.argv[2], imgsz=64, verbose=False, save=False)
torch.save(network.model.model[0].stages.state_dict(), sys.argv[3])
"""


@pytest.mark.slow
@pytest.mark.parametrize("task", ["segment", "detect"])
def test_the_first_stages_of_a_backbone_that_knows_imagenet_do_not_learn(
    tmp_path: Path, data_yaml: Path, task: str
) -> None:
    model = "yolo11n-lite0-seg.yaml" if task == "segment" else "yolo11n-lite0.yaml"
    training = replace(TRAINING, model=model, task=task, precision="bfloat16")  # type: ignore[arg-type]
    detector, folder = YoloDetector(checkpoint_s=0), tmp_path / "läuft ü"
    with pytest.raises(BrokenRunError, match="SIGKILL"):
        detector.train(data_yaml, training, folder, on_step=lambda step: _kill_worker(step) if step == 4 else None)
    trained = detector.train(data_yaml, training, folder)
    images = _validation_images(data_yaml)
    found = list(detector.detect(trained, images, training))
    assert found
    assert all(("segmentation" in one) == (task == "segment") for one in found)

    command = [sys.executable, "-c", STATES_OF, str(trained.weights), str(images[0].path), str(tmp_path / "states.pt")]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    kept, imagenet = torch.load(tmp_path / "states.pt", weights_only=True), load_network(torch.device("cpu")).blocks
    kept = {name.replace("conv_dw.convolution.", "conv_dw."): tensor.float() for name, tensor in kept.items()}
    unchanged = {
        name for name, tensor in imagenet.state_dict().items() if torch.allclose(kept[name], tensor.half().float())
    }
    frozen = {name for name in imagenet.state_dict() if name[0] in "012" or "running" in name or "num_batches" in name}
    assert frozen <= unchanged
    assert {name for name in imagenet.state_dict() if name.endswith("conv_dw.weight")} - frozen
    assert not {name for name in unchanged - frozen if name.endswith(("conv_dw.weight", "conv_pw.weight"))}


def test_a_model_of_ours_needs_its_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Path(resolve_model("yolo11n-lite0-seg.yaml")).is_file()
    monkeypatch.setenv("MASKWRIGHT_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFetchedError, match="maskwright models fetch lite0"):
        resolve_model("yolo11n-lite0-seg.yaml")

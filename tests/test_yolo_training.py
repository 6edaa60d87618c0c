"""ultralytics itself, in its process: killed and going on, equal steps, a disk that fills, models that do not fit."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from yolo_helpers import (
    CATEGORY_IDS,
    HEIGHT,
    TRAINING,
    WIDTH,
    ScriptedWorker,
    validation_images,
    write_data,
)

from maskwright.data.records import ImageRecord
from maskwright.errors import (
    BrokenRunError,
    RecipeError,
)
from maskwright.evaluation.detectors import CocoResult
from maskwright.evaluation.yolo_detector import YoloDetector
from maskwright.evaluation.yolo_layers import fuse_batch_norms
from maskwright.models.image_features import load_network

pytestmark = pytest.mark.slow


@pytest.fixture
def data_yaml(tmp_path: Path) -> Path:
    return write_data(tmp_path / "daten ü")


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _kill_worker(_: int) -> None:
    for child in psutil.Process().children(recursive=True):
        child.kill()


def test_a_killed_training_goes_on_and_finds_objects(tmp_path: Path, data_yaml: Path) -> None:
    before, folder, detector = _contents(data_yaml.parent), tmp_path / "läuft ü", YoloDetector(checkpoint_s=0)
    with pytest.raises(BrokenRunError, match="SIGKILL"):
        detector.train(data_yaml, TRAINING, folder, on_step=lambda step: _kill_worker(step) if step == 4 else None)

    steps: list[int] = []
    trained = detector.train(data_yaml, TRAINING, folder, on_step=steps.append)
    assert steps[0] in (4, 5)  # whether the kill came before or after the fourth round's checkpoint
    assert steps[-1] == trained.steps == 6
    assert [row["step"] for row in trained.curve] == [1, 2, 3, 4, 5, 6]

    images = validation_images(data_yaml)
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_breaks_the_training(tmp_path: Path, data_yaml: Path) -> None:
    with pytest.raises(BrokenRunError, match="without a result"):
        ScriptedWorker(tmp_path).detector().train(data_yaml, TRAINING, tmp_path / "läuft")
    (tmp_path / "läuft" / "curve.jsonl").symlink_to("/dev/full")
    with pytest.raises(BrokenRunError, match=r"the disk is full \(.*\)\. Free space and run again"):
        YoloDetector().train(data_yaml, TRAINING, tmp_path / "läuft")


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
    found = list(YoloDetector().detect(half, validation_images(data_yaml), TRAINING))
    assert found  # its weights are plain float32 ones


THREADS_OF = """
import torch
from maskwright.evaluation import yolo_training
torch.set_num_threads(3)
yolo_training.tame()
from ultralytics.utils.torch_utils import select_device
select_device("cpu")
print("threads:", torch.get_num_threads())
"""


def test_ultralytics_leaves_no_core_idle(tmp_path: Path) -> None:
    environment = {**os.environ, "YOLO_CONFIG_DIR": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-c", THREADS_OF], env=environment, capture_output=True, text=True, check=True
    )
    assert "threads: 3" in found.stdout


STATES_OF = """
import sys, torch
from ultralytics import YOLO
network = YOLO(sys.argv[1])
network.predict(sys.argv[2], imgsz=64, verbose=False, save=False)
torch.save(network.model.model[0].stages.state_dict(), sys.argv[3])
"""


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
    images = validation_images(data_yaml)
    found = list(detector.detect(trained, images, training))
    assert found
    assert all(("segmentation" in one) == (task == "segment") for one in found)

    command = [sys.executable, "-c", STATES_OF, str(trained.weights), str(images[0].path), str(tmp_path / "states.pt")]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    kept = torch.load(tmp_path / "states.pt", weights_only=True)
    kept = {name.replace("conv_dw.convolution.", "conv_dw."): tensor.float() for name, tensor in kept.items()}
    stages = copy.deepcopy(load_network(torch.device("cpu")).blocks)
    fuse_batch_norms(stages[:3])
    imagenet = stages.state_dict()
    unchanged = {name for name, tensor in imagenet.items() if torch.allclose(kept[name], tensor.half().float())}
    frozen = {name for name in imagenet if name[0] in "012" or "running" in name or "num_batches" in name}
    assert frozen <= unchanged
    assert {name for name in imagenet if name.endswith("conv_dw.weight")} - frozen
    assert not {name for name in unchanged - frozen if name.endswith(("conv_dw.weight", "conv_pw.weight"))}

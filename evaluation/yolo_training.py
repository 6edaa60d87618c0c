"""A training by ultralytics of exactly so many steps. Only `yolo_worker` imports this, in a process of its own.

ultralytics (AGPL-3.0) replaces `PIL.Image.open` when imported, keeps settings, may download fonts and weights, reports
its use, repairs JPEGs in place and leaves pickled caches beside the labels. `tame` ends all of that.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from ultralytics import settings as ultralytics_settings
from ultralytics.data import dataset as ultralytics_dataset
from ultralytics.data import utils as ultralytics_data_utils
from ultralytics.data.build import InfiniteDataLoader, seed_worker
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.nn.tasks import BaseModel, load_checkpoint
from ultralytics.utils import callbacks as ultralytics_callbacks
from ultralytics.utils import nms as ultralytics_nms
from ultralytics.utils import torch_utils as ultralytics_torch_utils
from ultralytics.utils.torch_utils import init_seeds, strip_optimizer

from ..data.files import PARTIAL_SUFFIX, sync
from ..errors import RecipeError
from ..models.device import resolve_device
from .yolo_backbone import register as register_backbone
from .yolo_protocol import CHECKPOINT, CURVE, WEIGHTS, StepEvent, TrainedEvent, TrainJob
from .yolo_schedule import EndlessOrder, Schedule, plan_rounds

if TYPE_CHECKING:
    from torch import nn

RAM_CACHE_BYTES = 2 * 2**30
"""Most bytes of decoded training images that are kept in memory."""


def tame() -> None:
    """Keep ultralytics from the network and from writing anywhere but into the training's folder."""
    integrations = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
    ultralytics_settings.update({"sync": False, "vscode_msg": False, **dict.fromkeys(integrations, False)})
    ultralytics_callbacks.add_integration_callbacks = _do_nothing
    ultralytics_data_utils._replace_image = _do_nothing
    # A label cache is a pickle beside the user's labels: neither read, because it may come with the data, nor written.
    ultralytics_dataset.load_dataset_cache_file = _find_no_cache
    ultralytics_dataset.save_dataset_cache_file = _save_no_cache
    # Its limit of 2 seconds a batch would drop detections without an error where the machine is busy.
    ultralytics_nms.non_max_suppression = partial(ultralytics_nms.non_max_suppression, max_time_img=math.inf)
    # It computes with all cores but one: with one of two.
    ultralytics_torch_utils.NUM_THREADS = torch.get_num_threads()
    register_backbone()


def _do_nothing(*_: object) -> None:
    return None


def _find_no_cache(path: Path) -> None:
    raise FileNotFoundError(path)


def _save_no_cache(_prefix: str, _path: Path, content: dict[str, object], version: str) -> None:
    content["version"] = version  # which its reader expects


def train(job: TrainJob, report: Callable[[StepEvent], None]) -> TrainedEvent:
    """Train, or go on at the last round whose checkpoint is whole; writes `WEIGHTS` into the folder.

    Raises:
        RecipeError: the model is unknown, or of another task.
        BrokenRunError: there is no such device.
    """
    if job["precision"] == "bfloat16" and resolve_device(job["device"]).type == "cpu":
        _compute_in_bfloat16()
    images = Path(job["images"]).read_text(encoding="utf-8").splitlines()
    schedule = plan_rounds(len(images), job["batch"], epochs=job["epochs"], steps=job["steps"])
    steps = _steps_of_finished(job, schedule.rounds)
    if steps is None:
        trainer = (_SegmentTrainer if job["task"] == "segment" else _ExactTrainer)(job, schedule, report)
        trainer.train()
        schedule, steps = trainer.schedule, int(trainer.ema.updates)
    _export(job)
    return {"event": "trained", "steps": steps, "epochs": schedule.passes_begun(steps)}


def _compute_in_bfloat16() -> None:
    """For this process: ultralytics' own `amp` knows only GPUs. What comes out, and so the loss, is float32."""
    plain = BaseModel._predict_once

    def predict(model: BaseModel, x: torch.Tensor, *args: object, **options: object) -> object:
        with torch.autocast("cpu", torch.bfloat16):
            found = plain(model, x.contiguous(memory_format=torch.channels_last), *args, **options)
        return _to_float32(found)

    BaseModel._predict_once = predict


def _to_channels_last(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


def _to_float32(found: object) -> object:
    """Tensors of a tree of dictionaries and sequences; gradients come back to feature maps in their own layout."""
    if isinstance(found, torch.Tensor):
        if found.requires_grad and found.ndim == 4:  # else ten times the time in the batch norm before
            found.register_hook(_to_channels_last)  # type: ignore[no-untyped-call]
        return found.float() if found.is_floating_point() else found
    if isinstance(found, Mapping):
        return {name: _to_float32(one) for name, one in found.items()}
    return type(found)(map(_to_float32, found)) if isinstance(found, list | tuple) else found


def _steps_of_finished(job: TrainJob, rounds: int) -> int | None:
    """Steps of a training that was killed after its last checkpoint; None where rounds are left."""
    path = Path(job["folder"], CHECKPOINT)
    if not path.is_file():
        return None
    _, checkpoint = load_checkpoint(path)
    return int(checkpoint["updates"]) if checkpoint["epoch"] + 1 >= rounds else None


def _export(job: TrainJob) -> None:
    """The averaged weights of the last checkpoint without what going on needs."""
    partial = Path(job["folder"], WEIGHTS + PARTIAL_SUFFIX)
    strip_optimizer(Path(job["folder"], CHECKPOINT), partial)
    _move_synced(partial, partial.with_name(WEIGHTS))


def _settings(job: TrainJob, schedule: Schedule) -> dict[str, object]:
    device = resolve_device(job["device"])
    bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    bfloat16 &= job["precision"] != "float32"
    rounds, pixels = schedule.rounds, schedule.size * job["image_px"] ** 2
    checkpoint = Path(job["folder"], CHECKPOINT)
    own: dict[str, object] = {
        "model": job["model"],
        "data": job["images"],
        "save_dir": job["folder"],
        "resume": str(checkpoint) if checkpoint.is_file() else False,
        "epochs": rounds,
        "imgsz": job["image_px"],
        "batch": job["batch"],
        "nbs": job["batch"],  # no accumulation: a batch is a step
        "seed": job["seed"],
        "deterministic": True,
        "device": str(device),
        "workers": job["workers"],
        "cache": "ram" if 3 * pixels <= RAM_CACHE_BYTES else False,
        # float16 would skip steps, and has a check that downloads weights.
        "amp": "bf16" if bfloat16 else False,
        # With the rates that ultralytics chooses; left to it, the data set's size would choose the optimizer.
        "optimizer": job["optimizer"],
        "lr0": round(0.002 * 5 / (4 + len(job["names"])), 6) if job["optimizer"] == "AdamW" else 0.01,
        "momentum": 0.9,
        "warmup_bias_lr": 0.0,
        # Its defaults, 3 and 10 of 100 epochs, as shares of the training.
        "warmup_epochs": 0.03 * rounds,
        "close_mosaic": round(0.1 * rounds),
        "patience": 0,
        "val": False,
        "plots": False,
        # Merged masks would give the overlap of two instances to the smaller one.
        "overlap_mask": False,
    }
    given: dict[str, float] = dict(job["hyperparameters"])
    if "mask_ratio" in given:
        given["mask_ratio"] = int(given["mask_ratio"])  # ultralytics takes no 2.0
    return own | given


class _ExactTrainer(DetectionTrainer):  # type: ignore[misc]  # ultralytics has no types
    """Stops after exactly the planned steps, never looks at val, and keeps the newest weights, not the luckiest."""

    last: Path

    def __init__(self, job: TrainJob, schedule: Schedule, report: Callable[[StepEvent], None]) -> None:
        self._job, self.schedule, self._report = job, schedule, report
        self._step, self._round_began, self._saved = 0, time.monotonic(), time.monotonic()
        super().__init__(overrides=_settings(job, schedule))
        self.add_callback("on_train_start", _ExactTrainer._begin)
        self.add_callback("on_train_epoch_start", _ExactTrainer._begin_round)
        self.add_callback("on_train_batch_end", _ExactTrainer._count_step)

    def get_dataset(self) -> dict[str, object]:
        """What data.yaml would say; ultralytics' own reading of it may download, and run code that it holds."""
        images, names = self._job["images"], self._job["names"]
        return {"train": images, "val": images, "names": dict(enumerate(names)), "nc": len(names), "channels": 3}

    def setup_model(self) -> object:
        task = self._job["task"]
        try:
            checkpoint = super().setup_model()
        except FileNotFoundError as exc:
            raise RecipeError(f"model {self._job['model']!r} is not known to ultralytics: {exc}") from exc
        except (AttributeError, TypeError, IndexError) as exc:
            raise RecipeError(f"model {self._job['model']!r} cannot be built for the task {task!r}: {exc}") from exc
        head: nn.Module = self.model.model[-1]
        if ("segment" in type(head).__name__.lower()) != (task == "segment"):
            raise RecipeError(
                f"model {self._job['model']!r} ends in {type(head).__name__}; expected one for the task {task!r}, "
                "such as yolo11n-seg.yaml for 'segment' and yolo11n.yaml for 'detect'."
            )
        return checkpoint

    def build_optimizer(self, *arguments: object, **options: object) -> object:
        optimizer = super().build_optimizer(*arguments, **options)
        for group in optimizer.param_groups:
            if "fused" in group:
                group["fused"] = True  # the same steps in a fifth of the time on CPUs
        return optimizer

    def get_dataloader(self, dataset_path: str, batch_size: int, rank: int, mode: str) -> object:  # noqa: ARG002
        if mode != "train":
            return self.train_loader
        dataset = self.build_dataset(dataset_path, mode, batch_size)
        epochs, steps = self._job["epochs"], self._job["steps"]
        # Without the pictures that ultralytics refuses.
        self.schedule = plan_rounds(len(dataset), batch_size, epochs=epochs, steps=steps)
        self._order = EndlessOrder(len(dataset), self.schedule.samples_a_round, self._job["seed"])
        workers = min(self.args.workers, os.cpu_count() or 1)
        return InfiniteDataLoader(
            dataset,
            batch_size=batch_size,
            sampler=self._order,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            pin_memory=self.device.type == "cuda",
            collate_fn=dataset.collate_fn,
            worker_init_fn=seed_worker,
            generator=torch.Generator().manual_seed(self._job["seed"]),
        )

    def _begin(self) -> None:
        self.best_fitness = 0.0  # so that no epoch is the best one, and no best.pt is written
        self._order.begin_at(self.start_epoch)
        if self.start_epoch:  # else the augmentations of the first rounds would come again
            init_seeds(self._job["seed"] + 1 + self.start_epoch, deterministic=True)

    def _begin_round(self) -> None:
        self._step, self._round_began = self.epoch * self.schedule.steps_a_round, time.monotonic()
        self._oom_retries = 3  # as if spent: halving the batch would make a step mean less than in other trainings

    def _count_step(self) -> None:
        self._step += 1
        self._report({"event": "step", "step": self._step})
        self.stop = self._step >= self.schedule.steps

    def validate(self) -> tuple[dict[str, float], None]:
        """Not done: val is for measuring the result alone."""
        return {}, None

    def save_metrics(self, metrics: dict[str, float]) -> None:
        figures = {name: value for name, value in metrics.items() if name.startswith(("train/", "lr/"))}
        row = {
            "round": self.epoch + 1,
            "step": self._step,
            "epoch": self.schedule.passes_begun(self._step),
            "seconds": time.monotonic() - self._round_began,
            **figures,
        }
        with open(Path(self._job["folder"], CURVE), "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def save_model(self) -> bool:
        """Write the checkpoint, where one is due, aside first: a kill half-way leaves the one before."""
        if not self.stop and time.monotonic() - self._saved < self._job["checkpoint_s"]:
            return False
        whole = self.last
        self.last = whole.with_name(whole.name + PARTIAL_SUFFIX)
        try:
            super().save_model()
            _move_synced(self.last, whole)
        finally:
            self.last = whole
        self._saved = time.monotonic()
        return True

    def final_eval(self) -> None:
        """Not done, for the same reason."""


class _SegmentTrainer(_ExactTrainer, SegmentationTrainer):  # type: ignore[misc]  # ultralytics has no types
    """With the model and the loss of segmentation."""


def _move_synced(source: Path, destination: Path) -> None:
    sync(source)
    os.replace(source, destination)

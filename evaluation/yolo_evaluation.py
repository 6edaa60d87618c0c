"""What a run's product is worth to a detector: equal trainings on each arm, several seeds, measured on the user's side.

Arms: the real images at equal epochs and at equal steps, these and plain copy-paste, these and ours. Each training and
each measurement is on disk once it is done, named by everything that decides it, so that a killed call goes on.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import orjson

from .. import __version__
from ..data.splits import dataset_digest
from ..errors import BrokenRunError, RunFolderError
from ..memory.artifacts import write_or_stop
from ..models.device import resolve_device
from .anomaly_evaluation import Progress, Silence
from .arm_plans import PlannedArm, plan_arms, plan_pair
from .comparison import Comparison
from .detection_metrics import DetectionFigures, measure_detections
from .detectors import MAX_THREADS, CocoResult, Detector, DetectorTraining, Trained, usable_threads
from .yolo_models import identify_model, resolve_model
from .yolo_summary import ArmResult, YoloSummary, summarize

SUMMARY = "evaluation/yolo.json"
"""Below a run's folder."""


def evaluate_yolo(
    comparison: Comparison,
    detector: Detector,
    *,
    ratios: Sequence[float] = (),
    device: str = "auto",
    on_result: Callable[[ArmResult], None] = lambda _: None,
    progress: Progress | None = None,
) -> YoloSummary:
    """Train and measure every arm by every seed, and write RUN/evaluation/yolo.json; a killed call goes on.

    Args:
        ratios: of synthetic to real images, each an arm of its own beside one of copy-paste; by the first one's length
            the real images are trained at equal epochs. None given: the settings' own.
        progress: hears of the stages `trainings` and `steps`.

    Raises:
        MissingDependencyError: the detector's library is not installed.
        InputError: the arms cannot be built, the model is unknown, or a folder is of something else.
        BrokenRunError: the disk is full, the device is gone, or a training died or diverged.
    """
    planned = plan_arms(comparison, ratios)
    results = measure_arms(comparison, planned, detector, device=device, on_result=on_result, progress=progress)
    summary = summarize(planned, results, comparison, versions(detector))
    content = orjson.dumps(summary.as_json(), option=orjson.OPT_INDENT_2)
    write_or_stop(comparison.run_folder / SUMMARY, content)
    return summary


def measure_arms(
    comparison: Comparison,
    planned: Sequence[PlannedArm],
    detector: Detector,
    *,
    device: str = "auto",
    on_result: Callable[[ArmResult], None] = lambda _: None,
    progress: Progress | None = None,
) -> list[ArmResult]:
    """Each arm by each seed, seeds outermost; the longest trainings go first. A killed call goes on.

    Raises:
        MissingDependencyError, InputError, BrokenRunError: as `evaluate_yolo` raises them.
    """
    progress, settings = progress or Silence(), comparison.settings
    wanted = [(arm, seed) for seed in range(settings.seeds) for arm in planned]
    at_once = min(len(wanted), settings.at_once or trainings_at_once(device))
    bench = _Bench(comparison, detector, device, progress, usable_threads(at_once))
    progress.start("trainings", len(wanted))
    progress.start("steps", sum(arm.steps for arm, _ in wanted))
    with ThreadPoolExecutor(at_once) as pool:
        # A long one that begins last would leave the other cores without work.
        longest_first = sorted(range(len(wanted)), key=lambda at: -wanted[at][0].steps)
        measured = {at: pool.submit(bench.measure, *wanted[at]) for at in longest_first}
        for one in measured.values():
            one.add_done_callback(bench.stop_if_failed)
        try:
            for one in as_completed(measured.values()):
                with suppress(_StoppedError):  # the one that failed says why
                    result = one.result()
                    progress.advance("trainings")
                    on_result(result)
        finally:
            bench.stop()
    return [measured[at].result() for at in range(len(wanted))]


def train_product(
    comparison: Comparison, detector: Detector, *, device: str = "auto", progress: Progress | None = None
) -> Trained:
    """Train one detector on the real images and the run's, by seed 0, as `evaluate_yolo` would; a killed call goes on.

    Args:
        progress: hears of the stage `steps`.

    Raises:
        MissingDependencyError, InputError, BrokenRunError: as `evaluate_yolo` raises them.
    """
    progress, arm = progress or Silence(), plan_pair(comparison)[1]
    progress.start("steps", arm.steps)
    return _Bench(comparison, detector, device, progress, usable_threads(1)).train(arm, 0)[-1][1]


def versions(detector: Detector) -> dict[str, str]:
    """Of what trained and measured."""
    own = {"maskwright": __version__, detector.name: detector.revision}
    return own | {name: importlib.metadata.version(name) for name in ("torch", "pycocotools")}


class _StoppedError(Exception):
    """Another training failed."""


class _Bench:
    """Trains and measures, in several threads; what is on disk already is only read."""

    def __init__(
        self, comparison: Comparison, detector: Detector, device: str, progress: Progress, threads: int
    ) -> None:
        self._comparison, self._detector, self._progress = comparison, detector, progress
        settings = comparison.settings
        self._training = DetectorTraining(
            model=settings.model,
            task=settings.task,
            steps=settings.steps,
            image_px=settings.image_px,
            batch=settings.batch,
            precision=settings.precision,
            optimizer=settings.optimizer,
            hyperparameters=settings.hyperparameters,
            device=device,
            threads=threads,
        )
        self._made_by = [detector.name, detector.revision]
        self._stopped = threading.Event()
        self._in_folder: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def stop(self) -> None:
        """End what is under way at its next step; the next call goes on there."""
        self._stopped.set()

    def stop_if_failed(self, measured: Future[ArmResult]) -> None:
        """Called in the thread that measured, before it takes up the next one."""
        if measured.exception() is not None:
            self.stop()

    def measure(self, arm: PlannedArm, seed: int) -> ArmResult:
        """One detector's figures, or what an earlier call found them to be."""
        if self._stopped.is_set():
            raise _StoppedError
        settings = self._comparison.settings
        decides = [self._keys(arm, seed)[-1], settings.split, dataset_digest(self._comparison.dataset)]
        path = self._comparison.results / "results" / f"{_digest(decides)}.json"
        if path.is_file():
            self._progress.advance("steps", count=arm.steps)
            return replace(_read_result(path), label=arm.label)
        phases = self.train(arm, seed)
        began = time.monotonic()
        figures = self._detect(*phases[-1], f"{arm.label}, seed {seed}")
        result = ArmResult(
            label=arm.label,
            seed=seed,
            steps=sum(trained.steps for _, trained in phases),
            epochs=sum(trained.epochs for _, trained in phases),
            seconds=sum(trained.seconds for _, trained in phases) + time.monotonic() - began,
            curve=list(_join(trained.curve for _, trained in phases)),
            figures=figures,
        )
        write_or_stop(path, msgspec.json.encode(result))
        return result

    def train(self, arm: PlannedArm, seed: int) -> list[tuple[DetectorTraining, Trained]]:
        """Each phase with how it was trained."""
        done: list[tuple[DetectorTraining, Trained]] = []
        for phase, key in zip(arm.phases, self._keys(arm, seed), strict=True):
            training = replace(self._training, seed=seed, steps=phase.steps)
            if done:
                training = replace(training, model=str(done[-1][1].weights))
            folder = self._comparison.results / "trainings" / key
            steps = _Steps(self._progress, self._stopped)
            with self._in_folder[key]:  # two arms may have a training in common
                trained = self._detector.train(phase.data_yaml, training, folder, on_step=steps)
            steps(phase.steps)
            done.append((training, trained))
        return done

    def _keys(self, arm: PlannedArm, seed: int) -> list[str]:
        """Of each phase's training, by everything that decides it: not by device, workers and threads."""
        keys: list[str] = []
        settings = self._training
        for phase in arm.phases:
            model = keys[-1] if keys else identify_model(resolve_model(settings.model))
            how = [model, settings.task, settings.image_px, settings.batch, seed, phase.steps]
            how += [settings.precision, settings.optimizer, dict(settings.hyperparameters)]
            keys.append(_digest([self._made_by, phase.data_id, how]))
        return keys

    def _detect(self, training: DetectorTraining, trained: Trained, told: str) -> DetectionFigures:
        comparison = self._comparison
        found = self._until_stopped(self._detector.detect(trained, comparison.measured, training))
        try:
            return measure_detections(
                comparison.dataset,
                found,
                task=comparison.settings.task,
                train_images=comparison.train_images,
                split=comparison.settings.split,
            )
        except ValueError as exc:
            raise BrokenRunError(f"{told}: {exc} Remove {str(trained.weights.parent)!r} to train again.") from exc

    def _until_stopped(self, found: Iterator[CocoResult]) -> Iterator[CocoResult]:
        for one in found:
            if self._stopped.is_set():
                raise _StoppedError
            yield one


def trainings_at_once(device: str) -> int:
    """How many trainings fill a machine. On two cores, two of a thread each do more steps than one after the other."""
    cores = os.cpu_count() or 1
    if resolve_device(device).type != "cpu":
        return 1
    return 2 if cores == 2 else max(1, cores // MAX_THREADS)


@dataclass(slots=True)
class _Steps:
    """Tells of steps as they are done, and ends a training that is to stop."""

    progress: Progress
    stopped: threading.Event
    done: int = 0

    def __call__(self, step: int) -> None:
        if self.stopped.is_set():
            raise _StoppedError
        self.progress.advance("steps", count=step - self.done)
        self.done = step


def _join(curves: Iterable[Sequence[Mapping[str, float]]]) -> Iterator[dict[str, float]]:
    """Rows of all phases, without what is no number; steps go on counting."""
    before = 0.0
    for curve in curves:
        for row in curve:
            yield {name: value for name, value in row.items() if math.isfinite(value)} | {"step": before + row["step"]}
        before += curve[-1]["step"] if curve else 0


def _digest(decides: object) -> str:
    return hashlib.sha256(orjson.dumps(decides, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def _read_result(path: Path) -> ArmResult:
    try:
        return msgspec.json.decode(path.read_bytes(), type=ArmResult)
    except msgspec.MsgspecError as exc:
        raise RunFolderError(f"{str(path)!r} is no result of ours ({exc}); remove it and run again.") from exc

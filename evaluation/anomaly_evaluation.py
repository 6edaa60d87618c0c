"""What a run's made-up defects are worth: one network a source, trained at equal steps, measured on real test images.

Arms: Perlin noise on the normal images (DRAEM's recipe, the control), the run's samples, and, where the data set has
reference defects, these alone and with each of the two. In every arm the checkpoint that does best on the validation
side counts; where that side has no defect or no good image, the last one of every arm.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import orjson

from ..data.anomaly_records import AnomalyRecord
from ..data.anomaly_split_files import load_split
from ..data.anomaly_splits import AnomalySplit, LeakGuard
from ..data.files import write_atomically
from ..data.mvtec import load_anomalies
from ..errors import DatasetError, RunFolderError
from ..models.device import resolve_device
from .anomaly_baselines import PerlinSampler
from .anomaly_metrics import AnomalyMetrics
from .anomaly_samplers import DefectSampler, FolderSampler, MixedSampler
from .anomaly_training import UNetTraining, measure_unet, train_unet
from .anomaly_unet import AnomalyUNet

PERLIN, OURS, REFERENCE = "perlin", "ours", "reference"
FIGURES = ("pixel_ap", "image_ap", "pixel_auroc", "image_auroc", "pro")
ChosenBy = Literal["validation", "last step", "last epoch"]


class Progress(Protocol):
    """What is told how far the work is."""

    def start(self, stage: str, total: int) -> None: ...

    def advance(self, stage: str, outcome: str = "", count: int = 1) -> None: ...


class Silence:
    """Progress that nobody watches."""

    def start(self, stage: str, total: int) -> None: ...

    def advance(self, stage: str, outcome: str = "", count: int = 1) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyRun:
    """A run's samples and the sides of its data set. Nothing but `test` holds a test image; a guard compared them."""

    folder: Path
    normals: Sequence[AnomalyRecord]
    samples: Sequence[AnomalyRecord]
    references: Sequence[AnomalyRecord]
    """With a mask, and of defects that there are samples of; as in `validation` and `test`."""
    validation: Sequence[AnomalyRecord]
    test: Sequence[AnomalyRecord]

    @property
    def defects(self) -> tuple[str, ...]:
        return tuple(sorted({one.defect for one in self.samples}))

    @property
    def results(self) -> Path:
        """Folder of what was measured."""
        return self.folder / "evaluation"


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One network, trained and measured."""

    arm: str
    seed: int
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """An arm over all seeds: mean and standard deviation of each figure."""

    arm: str
    num_seeds: int
    means: Mapping[str, float]
    deviations: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class DetectionSummary:
    """All arms, and what chose their checkpoints, in all of them alike."""

    chosen_by: ChosenBy
    arms: Sequence[ArmSummary]


def open_run(run_folder: Path, data: Path) -> AnomalyRun:
    """Read what a run made and, by RUN/split.json, the data set that it was made of.

    Raises:
        RunFolderError: no anomaly run, or one without samples.
        DatasetError: the data set is another.
        LeakError: a test image is among what would be learned from or chosen by.
    """
    made, split = _read_run(run_folder, data)
    guard = LeakGuard.of(split.of("test"))
    samples = guard.admit([one for one in made if not one.is_good], consumer="the run's samples")
    defects = {one.defect for one in samples}
    masked = {
        side: [one for one in split.of(side) if one.is_good or (one.defect in defects and one.mask_path)]
        for side in ("reference", "validation")
    }
    return AnomalyRun(
        folder=run_folder,
        normals=guard.admit(split.of("normal"), consumer="normal images"),
        samples=samples,
        references=guard.admit(masked["reference"], consumer="references"),
        validation=guard.admit(masked["validation"], consumer="validation"),
        test=[one for one in split.of("test") if one.is_good or one.defect in defects],
    )


def evaluate_anomalies(
    run: AnomalyRun,
    training: UNetTraining,
    *,
    seeds: int = 3,
    device: str = "auto",
    on_result: Callable[[ArmResult], None] = lambda _: None,
    progress: Progress | None = None,
) -> DetectionSummary:
    """Train and measure every arm; a killed call goes on where it stopped. Results lie in RUN/evaluation/.

    Args:
        training: equal for all arms but for the seed, which counts up from its own.
        progress: hears of the stages `networks` and `steps`.

    Raises:
        DatasetError: the test side has no defect or no good image.
    """
    progress = progress or Silence()
    arms = list(_arms(run, training.size_px))
    progress.start("networks", seeds * len(arms))
    results = []
    for seed in range(training.seed, training.seed + seeds):
        for arm, source in arms:
            result = _run_arm(run, arm, source, replace(training, seed=seed), device, progress)
            results.append(result)
            progress.advance("networks")
            on_result(result)
    summary = DetectionSummary("validation" if _can_choose(run.validation) else "last step", summarize(results))
    save_summary(run, "anomaly", {"training": asdict(training), "seeds": seeds, **asdict(summary)})
    return summary


def _read_run(run_folder: Path, data: Path) -> tuple[Sequence[AnomalyRecord], AnomalySplit]:
    exported = run_folder / "dataset" / "mvtec"
    if not exported.is_dir() or not (run_folder / "split.json").is_file():
        raise RunFolderError(
            f"{str(run_folder)!r}: no anomaly run with samples; give a folder of `maskwright run anomaly`"
        )
    made = load_anomalies(exported)
    [item] = made.items
    dataset = load_anomalies(data, item if item in load_anomalies(data).items else None)
    return made.records, load_split(run_folder / "split.json", dataset)


def _arms(run: AnomalyRun, size_px: int) -> Iterator[tuple[str, DefectSampler]]:
    perlin, ours = PerlinSampler(FolderSampler(run.normals, size_px)), FolderSampler(run.samples, size_px)
    yield PERLIN, perlin
    yield OURS, ours
    if run.references:
        real = FolderSampler(run.references, size_px)
        yield REFERENCE, real
        yield f"{REFERENCE} + {PERLIN}", MixedSampler([(0.5, real), (0.5, perlin)])
        yield f"{REFERENCE} + {OURS}", MixedSampler([(0.5, real), (0.5, ours)])


def _run_arm(
    run: AnomalyRun, arm: str, source: DefectSampler, training: UNetTraining, device: str, progress: Progress
) -> ArmResult:
    """One network, or what an earlier call measured of it."""
    sides = {"references": run.references, "samples": run.samples, "validation": run.validation, "test": run.test}
    path = result_path(run, "anomaly", arm, asdict(training), sides | {"normals": run.normals})
    if path.is_file():
        return ArmResult(**orjson.loads(path.read_bytes()))
    progress.start("steps", training.steps)
    network = train_unet(
        source,
        FolderSampler(run.normals, training.size_px),
        training,
        run.results / "checkpoints" / path.stem,
        device=resolve_device(device),
        validate=partial(_pixel_ap, run.validation, training.size_px) if _can_choose(run.validation) else None,
        on_steps=lambda num: progress.advance("steps", count=num),
    )
    result = ArmResult(arm, training.seed, to_figures(measure_unet(network, run.test, size_px=training.size_px)))
    write_atomically(path, orjson.dumps(asdict(result), option=orjson.OPT_INDENT_2))
    return result


def _can_choose(validation: Sequence[AnomalyRecord]) -> bool:
    return {one.is_good for one in validation} == {True, False}


def _pixel_ap(validation: Sequence[AnomalyRecord], size_px: int, network: AnomalyUNet) -> float:
    return to_figures(measure_unet(network, validation, size_px=size_px))["pixel_ap"]


def result_path(run: AnomalyRun, part: str, *what: object) -> Path:
    """Where the result of one measurement lies, by everything that decides it.

    Args:
        what: JSON values, and records, each of which counts by its path in the data set.
    """
    content = orjson.dumps(what, default=_record_to_key, option=orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS)
    return run.results / "results" / f"{part}-{hashlib.sha256(content).hexdigest()[:16]}.json"


def _record_to_key(value: object) -> str:
    if isinstance(value, AnomalyRecord):
        return value.key
    raise TypeError(f"{value!r} is neither a JSON value nor a record")


def save_summary(run: AnomalyRun, part: str, content: Mapping[str, object]) -> None:
    """Write RUN/evaluation/PART.json."""
    write_atomically(run.results / f"{part}.json", orjson.dumps(content, option=orjson.OPT_INDENT_2))


def to_figures(metrics: AnomalyMetrics) -> dict[str, float]:
    """The figures of a table.

    Raises:
        DatasetError: the pictures have no defect, or none is good.
    """
    if metrics.image is None or metrics.pixel is None or metrics.pro is None:
        raise DatasetError("the test side has no defect with a mask, or no good image; add some, or make other defects")
    return {
        "pixel_ap": metrics.pixel.ap,
        "image_ap": metrics.image.ap,
        "pixel_auroc": metrics.pixel.auroc,
        "image_auroc": metrics.image.auroc,
        "pro": metrics.pro,
        "pixel_f1_max": metrics.pixel.f1_max,
        "image_f1_max": metrics.image.f1_max,
    }


def summarize(results: Sequence[ArmResult]) -> list[ArmSummary]:
    """Means and deviations by arm, in the arms' order."""
    summaries = []
    for arm in dict.fromkeys(result.arm for result in results):
        own = [result.figures for result in results if result.arm == arm]
        columns = {name: [figures[name] for figures in own] for name in own[0]}
        means = {name: statistics.fmean(values) for name, values in columns.items()}
        summaries.append(ArmSummary(arm, len(own), means, {name: deviation(one) for name, one in columns.items()}))
    return summaries


def deviation(values: Sequence[float]) -> float:
    """Standard deviation over seeds; 0 for a single one."""
    return statistics.stdev(values) if len(values) > 1 else 0.0

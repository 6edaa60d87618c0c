"""What a run's made-up defects are worth: one network a source, trained at equal steps, measured on real test images.

Arms: Perlin noise on the normal images (DRAEM's recipe, the control), the run's samples, and, where the data set has
reference defects, these alone and with each of the two. The last checkpoint counts in every arm.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from ..data.anomaly_records import AnomalyRecord
from ..data.anomaly_splits import AnomalySplit, LeakGuard, load_split
from ..data.files import write_atomically
from ..data.mvtec import load_anomalies
from ..errors import DatasetError, RunFolderError
from ..models.device import resolve_device
from .anomaly_baselines import PerlinSampler
from .anomaly_metrics import AnomalyMetrics
from .anomaly_samplers import DefectSampler, FolderSampler, MixedSampler
from .anomaly_training import UNetTraining, measure_unet, train_unet

PERLIN, OURS, REFERENCE = "perlin", "ours", "reference"
FIGURES = ("pixel_ap", "image_ap", "pixel_auroc", "image_auroc", "pro")


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


def evaluate_anomalies(
    run_folder: Path,
    data: Path,
    training: UNetTraining,
    *,
    seeds: int = 3,
    device: str = "auto",
    on_result: Callable[[ArmResult], None] = lambda _: None,
) -> list[ArmSummary]:
    """Train and measure every arm; a killed call goes on where it stopped. Results lie in RUN/evaluation/.

    Args:
        data: the data set that the run was made of; its test side, by RUN/split.json, is only measured on.
        training: equal for all arms but for the seed, which counts up from its own.

    Raises:
        RunFolderError: no anomaly run, or one without samples.
        DatasetError: the data set is another, or its test side has no defect or no good image.
        LeakError: a test image is among what would be trained on.
    """
    made, split = _open_run(run_folder, data)
    guard = LeakGuard.of(split.of("test"))
    normals = guard.admit(split.of("normal"), consumer="normal images")
    samples = guard.admit([one for one in made if not one.is_good], consumer="the run's samples")
    defects = {one.defect for one in samples}
    references = [one for one in split.of("reference") if one.defect in defects and one.mask_path]
    references = guard.admit(references, consumer="references")
    test = [one for one in split.of("test") if one.is_good or one.defect in defects]
    results = []
    for seed in range(training.seed, training.seed + seeds):
        for arm, source in _arms(normals, samples, references, training.size_px):
            settings = UNetTraining(**{**asdict(training), "seed": seed})
            result = _run_arm(run_folder, arm, source, normals, test, settings, device)
            results.append(result)
            on_result(result)
    summaries = summarize(results)
    content = {"training": asdict(training), "seeds": seeds, "arms": [asdict(one) for one in summaries]}
    write_atomically(run_folder / "evaluation" / "anomaly.json", orjson.dumps(content, option=orjson.OPT_INDENT_2))
    return summaries


def _open_run(run_folder: Path, data: Path) -> tuple[Sequence[AnomalyRecord], AnomalySplit]:
    exported = run_folder / "dataset" / "mvtec"
    if not exported.is_dir() or not (run_folder / "split.json").is_file():
        raise RunFolderError(
            f"{str(run_folder)!r}: no anomaly run with samples; give a folder of `maskwright run anomaly`"
        )
    made = load_anomalies(exported)
    [item] = made.items
    dataset = load_anomalies(data, item if item in load_anomalies(data).items else None)
    return made.records, load_split(run_folder / "split.json", dataset)


def _arms(
    normals: Sequence[AnomalyRecord],
    samples: Sequence[AnomalyRecord],
    references: Sequence[AnomalyRecord],
    size_px: int,
) -> Iterator[tuple[str, DefectSampler]]:
    perlin, ours = PerlinSampler(FolderSampler(normals, size_px)), FolderSampler(samples, size_px)
    yield PERLIN, perlin
    yield OURS, ours
    if references:
        real = FolderSampler(references, size_px)
        yield REFERENCE, real
        yield f"{REFERENCE} + {PERLIN}", MixedSampler([(0.5, real), (0.5, perlin)])
        yield f"{REFERENCE} + {OURS}", MixedSampler([(0.5, real), (0.5, ours)])


def _run_arm(
    run_folder: Path,
    arm: str,
    source: DefectSampler,
    normals: Sequence[AnomalyRecord],
    test: Sequence[AnomalyRecord],
    training: UNetTraining,
    device: str,
) -> ArmResult:
    """One network, or what an earlier call measured of it."""
    key = hashlib.sha256(orjson.dumps([arm, asdict(training)], option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
    folder = run_folder / "evaluation"
    path = folder / "results" / f"{key}.json"
    if path.is_file():
        return ArmResult(**orjson.loads(path.read_bytes()))
    network = train_unet(
        source,
        FolderSampler(normals, training.size_px),
        training,
        folder / "checkpoints" / key,
        device=resolve_device(device),
    )
    result = ArmResult(arm, training.seed, to_figures(measure_unet(network, test, size_px=training.size_px)))
    write_atomically(path, orjson.dumps(asdict(result), option=orjson.OPT_INDENT_2))
    return result


def to_figures(metrics: AnomalyMetrics) -> dict[str, float]:
    """The figures of a table.

    Raises:
        DatasetError: the test side has no defect, or no good image.
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
        summaries.append(
            ArmSummary(
                arm,
                len(own),
                {name: statistics.fmean(values) for name, values in columns.items()},
                {name: statistics.stdev(values) if len(values) > 1 else 0.0 for name, values in columns.items()},
            )
        )
    return summaries

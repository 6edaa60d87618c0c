"""The commands that say what a run's product is worth."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from .cli_options import RunArgument
from .console import Bars, console, errors

if TYPE_CHECKING:
    from .evaluation.anomaly_classifier import ClassificationSummary
    from .evaluation.anomaly_evaluation import AnomalyRun, ArmResult, DetectionSummary
    from .evaluation.anomaly_training import UNetTraining
    from .evaluation.generation_metrics import Extractor, GenerationScores, GenerationSummary

evaluate_app = typer.Typer(help="What a run's product is worth, on data that was never learned from.")


class Part(StrEnum):
    """What is measured."""

    detection = "detection"
    generation = "generation"
    classification = "classification"


class Precision(StrEnum):
    """Of a network's activations while it learns."""

    float32 = "float32"
    bfloat16 = "bfloat16"


@evaluate_app.callback()
def _evaluate() -> None:
    """Keep the sub-command's name, also while it is the only one."""


@evaluate_app.command(
    "anomaly",
    epilog="Examples:  maskwright evaluate anomaly runs/anomaly-1 --data PATH --seeds 3  ·  "
    "maskwright evaluate anomaly runs/anomaly-1 --data PATH --only generation --only classification  ·  "
    "after Ctrl-C or a kill, the same command goes on.",
)
def anomaly(
    run_folder: RunArgument,
    data: Annotated[Path, typer.Option(help="The data set that the run was made of.")],
    only: Annotated[list[Part] | None, typer.Option(help="A part to measure, by default all; repeatable.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Networks of each arm, and classifiers.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Detection: training steps of each network.")] = 2000,
    epochs: Annotated[int, typer.Option(min=1, help="Classification: epochs of each classifier.")] = 30,
    size: Annotated[int, typer.Option(min=32, help="Side of the pictures in pixels, a multiple of 32.")] = 256,
    batch: Annotated[int, typer.Option(min=2, help="Pictures a step, an even number.")] = 8,
    width: Annotated[int, typer.Option(min=1, help="Detection: channels of the network's first stage.")] = 16,
    precision: Annotated[
        Precision, typer.Option(help="Detection: bfloat16 is faster where the hardware has it.")
    ] = Precision.float32,
    metric_weights: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Generation: folder of Inception-v3's and VGG16's weights, by default torch hub's cache.",
        ),
    ] = None,
    classifier_weights: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Classification: torchvision's ResNet34 of ImageNet, by default that of torch hub's cache, else none.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Measure a run's samples: what networks learn from them, how various they are, whether their kinds are told apart.

    Detection: U-Nets trained on the samples and on controls, at equal steps. Generation: Inception Score and IC-LPIPS.
    Classification: a ResNet34 trained on the samples. Nothing learns from, or is chosen by, a test image.
    """
    from .evaluation.anomaly_evaluation import open_run
    from .evaluation.anomaly_training import UNetTraining
    from .evaluation.generation_extractors import choose_extractor

    training = UNetTraining(steps=steps, batch=batch, size_px=size, width=width, precision=precision.value)
    run, parts = open_run(run_folder, data), only or list(Part)
    scored_by = choose_extractor(metric_weights, device=device) if Part.generation in parts else None
    if Part.detection in parts:
        _detection(run, training, seeds, device)
    if scored_by:
        _generation(run, *scored_by)
    if Part.classification in parts:
        _classification(run, training, epochs, classifier_weights, seeds, device)
    console.print(f"figures   {run.results}", soft_wrap=True)


def _detection(run: AnomalyRun, training: UNetTraining, seeds: int, device: str) -> None:
    from .evaluation.anomaly_evaluation import evaluate_anomalies

    def tell(result: ArmResult) -> None:
        errors.print(f"{result.arm}, seed {result.seed}: pixel AP {result.figures['pixel_ap']:.3f}", highlight=False)

    with Bars().shown() as bars:
        summary = evaluate_anomalies(run, training, seeds=seeds, device=device, on_result=tell, progress=bars)
    _show_detection(summary)


def _generation(run: AnomalyRun, extractor: Extractor, why: str) -> None:
    from .evaluation.generation_metrics import evaluate_generation

    with Bars().shown() as bars:
        summary = evaluate_generation(run, extractor, progress=bars)
    _show_generation(summary)
    if why:
        console.print(f"not Inception-v3 and LPIPS: {escape(why)}", soft_wrap=True, highlight=False)


def _classification(
    run: AnomalyRun, training: UNetTraining, epochs: int, weights: Path | None, seeds: int, device: str
) -> None:
    from .evaluation.anomaly_classifier import ClassifierTraining, evaluate_classification, find_imagenet_weights

    if len(run.defects) < 2:
        console.print("Classification: left out, it needs two defects or more", highlight=False)
        return
    chosen = ClassifierTraining(
        epochs=epochs,
        batch=training.batch,
        size_px=training.size_px,
        weights_path=weights or find_imagenet_weights(),
    )
    with Bars().shown() as bars:
        summary = evaluate_classification(run, chosen, seeds=seeds, device=device, progress=bars)
    _show_classification(summary)


def _show_detection(summary: DetectionSummary) -> None:
    from .evaluation.anomaly_evaluation import FIGURES

    table = _table("trained on", *(name.replace("_", " ") for name in FIGURES), "seeds")
    for one in summary.arms:
        cells = [_spread(one.means[name], one.deviations[name], one.num_seeds) for name in FIGURES]
        table.add_row(one.arm, *cells, str(one.num_seeds))
    _show(f"Detection, checkpoints chosen by {summary.chosen_by}", table)


def _show_generation(summary: GenerationSummary) -> None:
    table = _table("defect", "IS", "IC-LPIPS", "samples")
    for name, scores in (*summary.defects.items(), ("mean", summary.mean)):
        table.add_row(escape(name), f"{scores.inception_score:.3f}", _distance(scores), str(scores.num_samples))
    _show(f"Generation, by {summary.mean.extractor}", table)


def _show_classification(summary: ClassificationSummary) -> None:
    table = _table("trained on", "accuracy", "defects", "seeds")
    accuracy = _spread(summary.mean, summary.deviation, summary.num_seeds)
    table.add_row("ours", accuracy, str(summary.num_defects), str(summary.num_seeds))
    _show(f"Classification, ResNet34 from {summary.began_with}, epochs chosen by {summary.chosen_by}", table)


def _show(heading: str, table: Table) -> None:
    """A title of Rich's would wrap at the table's width."""
    console.print(heading, highlight=False)
    console.print(table)


def _spread(mean: float, deviation: float, num_seeds: int) -> str:
    """One seed has no deviation; short, so that a table fits a terminal of 80 columns."""
    return f"{mean:.3f}±{deviation:.3f}" if num_seeds > 1 else f"{mean:.3f}"


def _distance(scores: GenerationScores) -> str:
    return "no reference" if scores.ic_distance is None else f"{scores.ic_distance:.3f}"


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column(first)
    for column in others:
        table.add_column(column, justify="right")
    return table

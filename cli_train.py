"""The commands that train a detector on a run's product, alone or against controls."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from .cli_options import RunArgument, SetOption
from .console import FREQUENCY_GROUPS, Bars, console, errors, show_findings
from .errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from .evaluation.comparison import Comparison
    from .evaluation.detectors import Detector
    from .evaluation.yolo_summary import ArmResult, YoloSummary


class MeasuredSplit(StrEnum):
    """The side that is measured."""

    val = "val"
    test = "test"


class DetectorTask(StrEnum):
    """What a detector finds."""

    segment = "segment"
    detect = "detect"


DataOption = Annotated[
    Path | None, typer.Option(help="The data set that the run was made of.  [default: where its recipe says]")
]
StepsOption = Annotated[int | None, typer.Option(help="Optimizer steps of each training, equal in all arms.")]
ModelOption = Annotated[
    str | None, typer.Option(help="A YAML of ultralytics, to train from nothing, or a .pt file to start from.")
]
TaskOption = Annotated[DetectorTask | None, typer.Option(help="Masks and boxes, or boxes alone.")]
SizeOption = Annotated[int | None, typer.Option(help="Longer side of the pictures in pixels, a multiple of 32.")]
BatchOption = Annotated[int | None, typer.Option(help="Pictures a step.")]
CurriculumOption = Annotated[
    float | None, typer.Option(help="Share of the steps with synthetic images; the rest is on real ones alone.")
]
AlsoOption = Annotated[
    list[Path] | None,
    typer.Option("--also", metavar="RUN", help="A further run from the same data set, measured with it; repeatable."),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]


def add_training_commands(app: typer.Typer, evaluate_app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command(
        epilog="Examples:  maskwright train runs/instances-1  ·  "
        "maskwright train runs/instances-1 --data PATH --steps 2000 --model yolo26n-seg.yaml --device cuda  ·  "
        "after Ctrl-C or a kill, the same command goes on."
    )(train)
    evaluate_app.command(
        "yolo",
        epilog="Examples:  maskwright evaluate yolo runs/instances-1 --data PATH --seeds 3  ·  "
        "maskwright evaluate yolo runs/anomaly-1 --also runs/instances-1 --steps 600 --size 256 --split test  ·  "
        "maskwright evaluate yolo runs/instances-1 --ratio 0.5 --ratio 1 --ratio 2 --set evaluation.max_bits=6  ·  "
        "after Ctrl-C or a kill, the same command goes on.",
    )(evaluate_yolo)


def evaluate_yolo(
    run_folder: RunArgument,
    data: DataOption = None,
    seeds: Annotated[int | None, typer.Option(help="Trainings of each arm; a deviation needs two.")] = None,
    steps: StepsOption = None,
    model: ModelOption = None,
    task: TaskOption = None,
    size: SizeOption = None,
    batch: BatchOption = None,
    split: Annotated[MeasuredSplit | None, typer.Option(help="The side that is measured.")] = None,
    ratios: Annotated[
        list[float] | None,
        typer.Option("--ratio", help="Most synthetic images for each real one; repeatable, each is measured."),
    ] = None,
    curriculum: CurriculumOption = None,
    also: AlsoOption = None,
    overrides: SetOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train YOLO with and without a run's product, at equal settings, and measure both on your own images.

    Arms: real images at equal epochs, at equal steps, with plain copy-paste, with ours. Defaults are those of the run's
    recipe, under `evaluation`. Images that show, or are made of, what measures are left out of every arm.
    """
    from .evaluation.yolo_detector import YoloDetector
    from .evaluation.yolo_evaluation import SUMMARY, evaluate_yolo
    from .evaluation.yolo_report import build_yolo_report

    flags: dict[str, object] = {"seeds": seeds, "steps": steps, "model": model, "task": task, "split": split}
    flags |= {"image_px": size, "batch": batch, "mixing.curriculum": curriculum}
    detector = YoloDetector()
    comparison = _open(run_folder, data, overrides, flags, detector, measures=True, also=also or ())

    def tell(result: ArmResult) -> None:
        one = result.figures.overall
        figures = ", ".join(
            f"{name} AP {value.ap:.3f}" for name, value in (("box", one.box), ("mask", one.mask)) if value
        )
        errors.print(f"{result.label}, seed {result.seed}: {figures}", highlight=False)

    with Bars().shown() as bars:
        summary = evaluate_yolo(comparison, detector, ratios=ratios or (), device=device, on_result=tell, progress=bars)
    page = build_yolo_report(summary)
    _show(summary)
    show_findings(summary.findings)
    console.print(f"figures   {run_folder / SUMMARY}\nreport    {page}", soft_wrap=True, highlight=False)
    console.print(f"a detector to use   maskwright train {_quoted(run_folder)}", soft_wrap=True, highlight=False)


def train(
    run_folder: RunArgument,
    data: DataOption = None,
    steps: StepsOption = None,
    model: ModelOption = None,
    task: TaskOption = None,
    size: SizeOption = None,
    batch: BatchOption = None,
    curriculum: CurriculumOption = None,
    also: AlsoOption = None,
    overrides: SetOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train one detector on your real training images and those of a run.

    Defaults are those of the run's recipe, under `evaluation`. Images near val or test are left out.
    """
    flags: dict[str, object] = {"steps": steps, "model": model, "task": task}
    flags |= {"image_px": size, "batch": batch, "mixing.curriculum": curriculum}
    train_run(run_folder, data, overrides, flags, device, also or ())


def train_run(
    run_folder: Path,
    data: Path | None = None,
    overrides: Sequence[str] | None = None,
    flags: Mapping[str, object] | None = None,
    device: str = "auto",
    also: Sequence[Path] = (),
) -> None:
    """Train one detector on a run's product, and say where it lies.

    Raises:
        InputError: ultralytics is not installed, or the run, its data set or a flag is wrong; nothing was spent.
        BrokenRunError: as `YoloDetector.train` has it.
    """
    from .evaluation.yolo_detector import YoloDetector
    from .evaluation.yolo_evaluation import train_product

    detector = YoloDetector()
    comparison = _open(run_folder, data, overrides, flags or {}, detector, measures=False, also=also)
    with Bars().shown() as bars:
        trained = train_product(comparison, detector, device=device, progress=bars)
    show_findings(comparison.findings)
    console.print(f"weights   {trained.weights}, after {trained.steps} steps", soft_wrap=True, highlight=False)
    console.print(
        f"find objects   yolo predict model={_quoted(trained.weights)} source=PICTURES", soft_wrap=True, highlight=False
    )
    if comparison.settings.split in comparison.dataset.splits:
        worth = f"maskwright evaluate yolo {_quoted(run_folder)}"
        console.print(f"what the run's images are worth   {worth}", soft_wrap=True, highlight=False)


def _open(
    run_folder: Path,
    data: Path | None,
    overrides: Sequence[str] | None,
    flags: Mapping[str, object],
    detector: Detector,
    *,
    measures: bool,
    also: Sequence[Path],
) -> Comparison:
    """The run by its recipe's settings with flags above them.

    Raises:
        InputError: ultralytics is not installed, or the run, its data set or a flag is wrong; nothing was spent.
    """
    from .evaluation.comparison import open_comparison, read_recipe
    from .models.image_features import Lite0

    try:
        _ = detector.revision
    except MissingDependencyError as exc:
        raise InputError(str(exc)) from exc
    given = [f"evaluation.{name}={json.dumps(value)}" for name, value in flags.items() if value is not None]
    settings = read_recipe(run_folder, [*(overrides or ()), *given]).evaluation
    with errors.status("looking for near-duplicates of held-out images"):
        return open_comparison(run_folder, data, settings, Lite0(), measures=measures, also=also)


def _show(summary: YoloSummary) -> None:
    groups = {name: summary.main._replace(scope="groups", name=group) for group, name in FREQUENCY_GROUPS.items()}
    measured = {name: key for name, key in groups.items() if any(arm.spread_of(key).n for arm in summary.arms)}
    columns = {f"{summary.main.kind} AP": summary.main, "AP50": summary.main._replace(figure="ap50")} | measured
    table = Table(box=SIMPLE_HEAD)
    table.add_column("trained on", no_wrap=True)
    for name in ("steps", *columns):
        table.add_column(name, justify="right")
    for arm in summary.arms:
        figures = [str(arm.spread_of(key)) for key in columns.values()]
        table.add_row(escape(arm.plan.label), str(arm.plan.steps), *figures)
    settings = summary.comparison.settings
    seeds = "1 seed" if settings.seeds == 1 else f"{settings.seeds} seeds"
    heading = f"{settings.model}, {settings.image_px} px, {settings.split}, {seeds}; AP of classes by frequency group"
    console.print(heading, highlight=False)
    console.print(table)
    for sentence in summary.verdict:
        console.print(escape(sentence), soft_wrap=True, highlight=False)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))

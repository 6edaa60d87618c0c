"""The command that says what a run's labelled images are worth to segmentation without masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from .cli_options import RunArgument
from .console import Bars, console, draining, errors, show_findings

if TYPE_CHECKING:
    from .evaluation.wsss_evaluation import WsssResult
    from .evaluation.wsss_summary import WsssSummary


def add_wsss_command(evaluate_app: typer.Typer) -> None:
    """Register the command of this module."""
    evaluate_app.command(
        "wsss",
        epilog="Examples:  maskwright evaluate wsss runs/iaa-1 --data PATH --seeds 3  ·  "
        "maskwright evaluate wsss runs/iaa-1 --data PATH --no-ablations --label-steps 600 --mask-steps 600"
        "  ·  after Ctrl-C or a kill, the same command goes on.",
    )(wsss)


def wsss(
    run_folder: RunArgument,
    data: Annotated[Path, typer.Option(help="The data set that the run was made of; its masks only score.")],
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each arm; a deviation needs two.")] = 3,
    ablations: Annotated[
        bool,
        typer.Option(help="First make the run again without refined prompts, and without the filter, as arms."),
    ] = True,
    label_steps: Annotated[int, typer.Option(min=1, help="Training steps of each network that learns labels.")] = 150,
    mask_steps: Annotated[int, typer.Option(min=1, help="Training steps of each network that learns masks.")] = 150,
    batch: Annotated[int, typer.Option(min=2, help="Pictures a step.")] = 8,
    size: Annotated[int, typer.Option(min=32, help="Side of the pictures in pixels, a multiple of 16.")] = 224,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Train segmentation on labels alone, with and without a run's images, and measure it on true masks.

    A network learns labels, its class activation maps become masks, a second network learns these. Arms, at equal
    steps: real images, real ones repeated to the class counts with ours, real and ours, and ours less a mechanism.
    Held-out masks choose one threshold a class in every arm; test images and masks measure alone.
    """
    from .evaluation.wsss_data import open_wsss
    from .evaluation.wsss_evaluation import evaluate_wsss
    from .evaluation.wsss_report import build_wsss_report
    from .evaluation.wsss_training import WsssSettings

    settings = WsssSettings(label_steps=label_steps, mask_steps=mask_steps, batch=batch, size_px=size)
    open_wsss(run_folder, data)  # what is wrong is said before anything is made
    run = open_wsss(run_folder, data, _make_ablations(run_folder, data) if ablations else {})

    def tell(result: WsssResult) -> None:
        figures = f"masks {100 * result.pseudo.mean_iou:.1f}, final {100 * result.final.mean_iou:.1f} mIoU"
        errors.print(f"{result.arm}, seed {result.seed}: {figures}", highlight=False)

    with Bars().shown() as bars:
        summary = evaluate_wsss(run, settings, seeds=seeds, device=device, on_result=tell, progress=bars)
    page = build_wsss_report(summary, run.results, findings=run.findings, run=run_folder.resolve().name)
    _show(summary)
    show_findings(run.findings)
    console.print(f"figures   {run.results / 'results.json'}\nreport    {page}", soft_wrap=True, highlight=False)


def _make_ablations(run_folder: Path, data: Path) -> dict[str, Path]:
    """Folders of the runs that admitted something, by arm; one that did not is told of."""
    from .graphs.label_ablations import ABLATIONS, make_ablation
    from .graphs.run_folder import EXIT_CODES

    made: dict[str, Path] = {}
    for arm in ABLATIONS:
        folder = run_folder / "evaluation" / "wsss" / arm
        with draining() as stop, Bars().shown() as bars:
            outcome = make_ablation(run_folder, arm, data=data, out=folder, progress=bars, stop=stop)
        if outcome.exit_code == EXIT_CODES["interrupted"]:
            raise typer.Exit(outcome.exit_code)
        if outcome.content.get("accepted"):
            made[arm] = folder
        else:
            console.print(f"{arm}: nothing was admitted; see {folder / 'report.html'}", soft_wrap=True)
    return made


def _show(summary: WsssSummary) -> None:
    from .evaluation.wsss_report import sentence_of, spread_to_percent

    console.print(f"mIoU in percent, {summary.num_test} test images, seeds: {summary.seeds}", highlight=False)
    overall = _table("trained on", "images", "masks from labels", "final")
    for arm in summary.arms:
        overall.add_row(arm.name, str(arm.num_images), spread_to_percent(arm.pseudo), spread_to_percent(arm.final))
    console.print(overall)
    classes = _table("final IoU", *(arm.name for arm in summary.arms))
    for name in summary.arms[0].final_by_class:
        classes.add_row(escape(name), *(spread_to_percent(arm.final_by_class[name]) for arm in summary.arms))
    console.print(classes)
    for pair, difference in summary.final_differences.items():
        console.print(sentence_of(pair, difference), soft_wrap=True, highlight=False)
    if summary.missing:
        console.print(f"left out: {', '.join(summary.missing)}", soft_wrap=True, highlight=False)
    if summary.absent:
        console.print(f"on no test image, not in the mean: {escape(', '.join(summary.absent))}", soft_wrap=True)


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column(first)
    for column in others:
        table.add_column(column, justify="right")
    return table

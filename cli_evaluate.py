"""The commands that say what a run's product is worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from .cli_options import RunArgument
from .console import console, errors

if TYPE_CHECKING:
    from .evaluation.anomaly_evaluation import ArmResult, ArmSummary

evaluate_app = typer.Typer(help="What a run's product is worth, on data that was never learned from.")


@evaluate_app.callback()
def _evaluate() -> None:
    """Keep the sub-command's name, also while it is the only one."""


@evaluate_app.command("anomaly", epilog="Example:  maskwright evaluate anomaly runs/anomaly-1 --data PATH --seeds 3")
def anomaly(
    run_folder: RunArgument,
    data: Annotated[Path, typer.Option(help="The data set that the run was made of.")],
    seeds: Annotated[int, typer.Option(min=1, help="Networks of each arm.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each network.")] = 2000,
    size: Annotated[int, typer.Option(min=32, help="Side of the pictures in pixels, a multiple of 32.")] = 256,
    batch: Annotated[int, typer.Option(min=2, help="Pictures a step, half of them normal.")] = 8,
    width: Annotated[int, typer.Option(min=1, help="Channels of the network's first stage.")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Train a network on the run's samples and on controls, at equal steps, and measure each on real test images."""
    from .evaluation.anomaly_evaluation import evaluate_anomalies
    from .evaluation.anomaly_training import UNetTraining

    training = UNetTraining(steps=steps, batch=batch, size_px=size, width=width)

    def tell(result: ArmResult) -> None:
        errors.print(f"{result.arm}, seed {result.seed}: pixel AP {result.figures['pixel_ap']:.3f}", highlight=False)

    with errors.status("training; a killed command goes on where it was"):
        summaries = evaluate_anomalies(run_folder, data, training, seeds=seeds, device=device, on_result=tell)
    _show(summaries)
    console.print(f"figures   {run_folder / 'evaluation' / 'anomaly.json'}", soft_wrap=True)


def _show(summaries: Sequence[ArmSummary]) -> None:
    from .evaluation.anomaly_evaluation import FIGURES

    table = Table(box=SIMPLE_HEAD)
    for column in ("trained on", *(name.replace("_", " ") for name in FIGURES), "seeds"):
        table.add_column(column, justify="left" if column == "trained on" else "right")
    for one in summaries:
        cells = [f"{one.means[name]:.3f} ± {one.deviations[name]:.3f}" for name in FIGURES]
        table.add_row(one.arm, *cells, str(one.num_seeds))
    console.print(table)

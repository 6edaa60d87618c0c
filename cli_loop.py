"""`maskwright run --loop`: rounds of a run, each dealt out by what the one before brought a detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .console import Bars, console, draining
from .errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from .graphs.loop import LoopOutcome

Resume = Literal["never", "always", "if_possible"]


def run_rounds(
    recipe: str,
    rounds: int,
    *,
    reweight: bool,
    data: Path | None,
    out: Path | None,
    data_format: str | None,
    overrides: Sequence[str],
    seed: int | None,
    resume: Resume,
) -> int:
    """Make and measure rounds, and say what each brought; the exit code.

    Raises:
        InputError: ultralytics is not installed, or recipe, data set or folder is wrong.
        BrokenRunError: the loop cannot go on; the same command resumes it.
    """
    from .evaluation.yolo_detector import YoloDetector
    from .evaluation.yolo_gains import YoloGainMeter
    from .graphs.loop import run_loop
    from .models.image_features import Lite0

    detector = YoloDetector()
    try:
        _ = detector.revision
    except MissingDependencyError as exc:
        raise InputError(str(exc)) from exc
    with draining() as stop, Bars().shown() as bars:
        outcome = run_loop(
            recipe,
            rounds=rounds,
            measure=YoloGainMeter(detector, Lite0(), data=data, progress=bars),
            reweight=reweight,
            data=data,
            out=out,
            data_format=data_format,
            overrides=overrides,
            seed=seed,
            resume=resume,
            progress=bars,
            stop=stop,
        )
    _show(outcome)
    return outcome.exit_code


def _show(outcome: LoopOutcome) -> None:
    for number, gain in enumerate(outcome.gains, start=1):
        deviation = "" if gain.deviation is None else f"±{gain.deviation:.4f}"
        mean = "none" if gain.mean is None else f"{gain.mean:+.4f}{deviation}"
        console.print(f"round {number}   gain {mean}, {gain.wins} of {gain.n} seeds", highlight=False)
    console.print(f"ended     {outcome.ended}: {outcome.folder}", soft_wrap=True, highlight=False)
    if outcome.best:
        console.print(f"a detector to use   maskwright train {outcome.best}", soft_wrap=True, highlight=False)

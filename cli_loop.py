"""`maskwright run --loop`: rounds of a run, each dealt out by what the one before brought a detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from .console import Bars, draining
from .console_outcomes import show_loop
from .errors import InputError, MissingDependencyError

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
    show_loop(outcome)
    return outcome.exit_code

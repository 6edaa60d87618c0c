"""A label run made again without one of its mechanisms, to see what that is worth."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

from ..evaluation.wsss_arms import NO_FILTER, NO_REFINEMENT
from .pipeline import run_recipe
from .run_folder import RunOutcome
from .services import Progress

ABLATIONS: Final = {
    NO_REFINEMENT: "agents.label_agent.refine=false",
    NO_FILTER: "agents.label_agent.filter=false",
}
"""What is off, by arm."""


def make_ablation(
    run_folder: Path,
    arm: str,
    *,
    data: Path | None,
    out: Path,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> RunOutcome:
    """Run the recipe of a label run with one mechanism off, or go on with it; arguments as `run_recipe`'s.

    Args:
        arm: one of `ABLATIONS`.

    Raises:
        InputError: the folder is of no run, or the data set is not the one that it was made from.
        BrokenRunError: the run cannot go on; the same call resumes it.
    """
    recipe = run_folder / "recipe.yaml"
    return run_recipe(str(recipe), data=data, out=out, overrides=[ABLATIONS[arm]], progress=progress, stop=stop)

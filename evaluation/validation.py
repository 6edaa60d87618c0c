"""The report of a validated folder: one page that needs nothing but itself."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec

from ..data.run_summary import ClassSummary, RunStatus
from ..memory.artifacts import write_or_stop
from ..memory.entries import Ending
from .charts import classes_to_yield_bars, counts_to_bars
from .report import make_environment
from .validation_sheet import ValidationSummary, collect_validation, read_summary

TEMPLATE = "validation_report.html.jinja"


class FolderSummary(ValidationSummary, frozen=True, kw_only=True):
    """run.json of a validated folder."""

    folder: str
    """Of the validation."""
    status: RunStatus = "done"
    items: dict[str, int]
    """How many images were `planned`, and by ending."""
    accepted: int = 0
    classes: tuple[ClassSummary, ...] = ()
    rejections: dict[str, int] = msgspec.field(default_factory=dict)
    """By criterion: how many images did not meet it."""
    hints: tuple[str, ...] = ()

    def count(self, ending: Ending) -> int:
        """How many images ended so."""
        return self.items.get(ending, 0)

    @property
    def num_judged(self) -> int:
        """Images that came to an ending."""
        return sum(map(self.count, get_args(Ending)))


def build_validation_report(folder: Path) -> Path:
    """Write report.html into the folder of a validation, whole or not at all.

    Args:
        folder: with run.json, items/ and artifacts/ of the validation, not the user's images.

    Returns:
        Its path.

    Raises:
        RunFolderError: the folder holds no validation of ours.
        BrokenRunError: an entry of the ledger is damaged, or the file cannot be written.
    """
    summary = read_summary(folder, FolderSummary)
    validation = collect_validation(folder, summary, summary.num_judged, seen_only=False)
    num_unkept = summary.num_judged - summary.accepted - summary.count("failed")
    template = make_environment().get_template(TEMPLATE)
    page = template.render(
        headline=folder_to_headline(summary),
        summary=summary,
        source=Path(summary.folder).name,
        facts=folder_to_facts(summary),
        validation=validation,
        classes=validation.classes if len(validation.classes) > 1 else [],
        yields=classes_to_yield_bars(summary.classes),
        rejections=counts_to_bars(summary.rejections, num_unkept),
    )
    path = folder / "report.html"
    write_or_stop(path, page.encode())
    return path


def folder_to_headline(summary: FolderSummary) -> str:
    """'96 of 120 images kept; 4 wait for a person, 1 failed'."""
    left = summary.items.get("planned", 0) - summary.num_judged
    if not summary.num_judged:
        return f"None of {left:,} images was judged yet" if left > 0 else "No image was found to validate"
    told = f"{summary.accepted:,} of {summary.num_judged:,} image{'' if summary.num_judged == 1 else 's'} kept"
    waiting, failed = summary.count("held"), summary.count("failed")
    rest = [f"{waiting:,} {'waits' if waiting == 1 else 'wait'} for a person"] if waiting else []
    rest += [f"{failed:,} failed"] if failed else []
    rest += [f"{left:,} not judged yet"] if left > 0 else []
    return f"{told}; {', '.join(rest)}" if rest else told


def folder_to_facts(summary: FolderSummary) -> list[tuple[str, str, str]]:
    """(value, label, note) of the main numbers."""
    num_judged, failed, looked = summary.num_judged, summary.count("failed"), summary.validation.looked
    share = f"{100 * summary.accepted / num_judged:.0f} % of {num_judged:,}" if num_judged else ""
    return [
        (f"{summary.accepted:,}", "kept", share),
        (f"{summary.count('exhausted'):,}", "rejected", ""),
        (f"{summary.count('held'):,}", "waiting for a person", ""),
        (f"{failed:,}", "failed", "no verdict was reached" if failed else ""),
        (f"{looked:,}", "seen by vision models", "" if looked else "none looked"),
    ]

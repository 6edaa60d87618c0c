"""RUN/evaluation/wsss/report.html: the table of arms, what differs, classes, and a sheet of pictures of each arm."""

from __future__ import annotations

import base64
from pathlib import Path

from ..data.files import write_atomically
from ..data.records import Findings
from .charts import seconds_to_text
from .paired import PairedDifference, Spread
from .report import make_environment
from .wsss_sheet import COLUMNS
from .wsss_summary import WsssSummary

TEMPLATE = "wsss.html.jinja"


def build_wsss_report(summary: WsssSummary, folder: Path, *, findings: Findings, run: str) -> Path:
    """Write the page beside the sheets, whole or not at all.

    Args:
        run: name of the run.

    Raises:
        OSError: it cannot be written.
    """
    sheets = {arm.name: folder / f"sheet_{arm.name}.jpg" for arm in summary.arms}
    content = (
        make_environment()
        .get_template(TEMPLATE)
        .render(
            headline=headline_of(summary),
            run=run,
            summary=summary,
            columns=COLUMNS,
            text=spread_to_percent,
            differences=[sentence_of(pair, one) for pair, one in summary.final_differences.items()],
            sheets={name: _to_address(path) for name, path in sheets.items() if path.is_file()},
            seconds=seconds_to_text(summary.seconds),
            findings=[(kind, count, findings.examples[kind]) for kind, count in sorted(findings.counts.items())],
        )
    )
    path = folder / "report.html"
    write_atomically(path, content.encode())
    return path


def headline_of(summary: WsssSummary) -> str:
    """The first difference, of ours against real images alone; without one, the first arm's figure."""
    for pair, difference in summary.final_differences.items():
        return sentence_of(pair, difference)
    first = summary.arms[0]
    return f"{first.name}: mIoU {spread_to_percent(first.final)} on {summary.num_test} test images"


def sentence_of(pair: tuple[str, str], difference: PairedDifference) -> str:
    """Such as `ours minus real: +4.1 mIoU (2.0 to 6.2), higher on 3 of 3 seeds: better`."""
    if difference.mean is None:
        return f"{pair[0]} minus {pair[1]}: nothing can be said"
    reach = (
        ""
        if difference.low is None or difference.high is None
        else (f" ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})")
    )
    return (
        f"{pair[0]} minus {pair[1]}: {100 * difference.mean:+.1f} mIoU{reach}, "
        f"higher on {difference.wins} of {difference.n} seeds: {difference.answer}"
    )


def spread_to_percent(figure: Spread) -> str:
    """Such as `41.3±1.2`; `-` where there is no figure."""
    if figure.mean is None:
        return "-"
    return f"{100 * figure.mean:.1f}" + ("" if figure.deviation is None else f"±{100 * figure.deviation:.1f}")


def _to_address(path: Path) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"

"""Progress bars: what they count is of one stage of one run."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from maskwright import console


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(console, "errors", Console(file=stream, width=120))
    return stream


def test_a_bar_counts_by_outcome(printed: io.StringIO) -> None:
    with console.Bars().shown() as bars:
        bars.start("make", 5)
        bars.advance("make", "accepted", 3)
        bars.advance("make", "failed")
        bars.advance("make", "of no interest here")
    assert "5/5 3 accepted 1 failed" in printed.getvalue()


def test_a_stage_that_begins_again_counts_from_nothing(printed: io.StringIO) -> None:
    """As in a loop, whose rounds share the bars."""
    with console.Bars().shown() as bars:
        bars.start("make", 4)
        bars.advance("make", "accepted", 4)
        bars.start("make", 6)
        bars.advance("make", "accepted", 2)
    assert "2/6 2 accepted" in printed.getvalue()
    assert "4 accepted" not in printed.getvalue()

"""All arms over seeds: means, deviations, differences seed by seed, by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from ..data.files import write_atomically
from .paired import PairedDifference, Spread, paired_difference, spread
from .wsss_arms import NO_FILTER, NO_REFINEMENT, OURS, OVERSAMPLED, REAL

if TYPE_CHECKING:
    from .wsss_evaluation import WsssResult
    from .wsss_training import WsssSettings

COMPARED = ((OURS, REAL), (OURS, OVERSAMPLED), (OURS, NO_REFINEMENT), (OURS, NO_FILTER), (OVERSAMPLED, REAL))
"""Which arm is set against which."""
POSSIBLE = (REAL, OVERSAMPLED, OURS, NO_REFINEMENT, NO_FILTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class WsssArm:
    """An arm over all seeds; each figure in [0, 1]."""

    name: str
    num_images: int
    pseudo: Spread
    """mIoU of the masks found on real training images."""
    final: Spread
    """mIoU on the test side."""
    pseudo_by_class: Mapping[str, Spread]
    final_by_class: Mapping[str, Spread]


@dataclass(frozen=True, slots=True, kw_only=True)
class WsssSummary:
    """What an evaluation says."""

    arms: Sequence[WsssArm]
    pseudo_differences: Mapping[tuple[str, str], PairedDifference]
    """Of the masks' mIoU, by arm and the arm that it is set against."""
    final_differences: Mapping[tuple[str, str], PairedDifference]
    missing: tuple[str, ...]
    """Arms that there was no run for."""
    absent: tuple[str, ...]
    """Classes that no pixel of the test side shows; they are no part of its mean."""
    seeds: int
    num_test: int
    seconds: float
    settings: Mapping[str, float]
    results: Sequence[Mapping[str, object]]
    """Arm by arm, seed by seed."""


def summarize(results: Sequence[WsssResult], settings: WsssSettings) -> WsssSummary:
    """Put the seeds of each arm together.

    Raises:
        ValueError: no result.
    """
    if not results:
        raise ValueError("no result to summarize; expected one of each arm and seed")
    by_arm: dict[str, list[WsssResult]] = {}
    for one in results:
        by_arm.setdefault(one.arm, []).append(one)
    pairs = [pair for pair in COMPARED if set(pair) <= by_arm.keys()]
    return WsssSummary(
        arms=[_to_arm(name, own) for name, own in by_arm.items()],
        pseudo_differences={pair: _difference(by_arm, pair, "pseudo") for pair in pairs},
        final_differences={pair: _difference(by_arm, pair, "final") for pair in pairs},
        missing=tuple(name for name in POSSIBLE if name not in by_arm),
        absent=results[0].final.absent,
        seeds=len(by_arm[results[0].arm]),
        num_test=results[0].final.num_images,
        seconds=sum(one.seconds for one in results),
        settings=asdict(settings),
        results=[asdict(one) for one in results],
    )


def save_summary(summary: WsssSummary, folder: Path) -> None:
    """Write FOLDER/results.json; differences are keyed `arm - other`."""
    content = {
        "settings": summary.settings,
        "seeds": summary.seeds,
        "num_test": summary.num_test,
        "arms": [asdict(arm) for arm in summary.arms],
        "missing": summary.missing,
        "absent": summary.absent,
        "differences": {
            "pseudo": _as_json(summary.pseudo_differences),
            "final": _as_json(summary.final_differences),
        },
        "results": summary.results,
    }
    write_atomically(folder / "results.json", orjson.dumps(content, option=orjson.OPT_INDENT_2))


def _as_json(differences: Mapping[tuple[str, str], PairedDifference]) -> dict[str, object]:
    return {" - ".join(pair): one.as_json() for pair, one in differences.items()}


def _to_arm(name: str, results: Sequence[WsssResult]) -> WsssArm:
    classes = results[0].final.iou
    return WsssArm(
        name=name,
        num_images=results[0].num_images,
        pseudo=spread(one.pseudo.mean_iou for one in results),
        final=spread(one.final.mean_iou for one in results),
        pseudo_by_class={key: spread(one.pseudo.iou[key] for one in results) for key in classes},
        final_by_class={key: spread(one.final.iou[key] for one in results) for key in classes},
    )


def _difference(by_arm: Mapping[str, Sequence[WsssResult]], pair: tuple[str, str], kind: str) -> PairedDifference:
    arm, other = (
        {one.seed: (one.pseudo if kind == "pseudo" else one.final).mean_iou for one in by_arm[name]} for name in pair
    )
    return paired_difference(arm, other)

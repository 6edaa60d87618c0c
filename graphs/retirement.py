"""Which prompts and sources a loop leaves behind: a heuristic, for no measurement names them.

Gains are of classes. Nothing says which of a class's prompts or sources hurt it, so the worse half by their own scores
goes, and one at least stays.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from ..memory.entries import ItemResult
from ..memory.ledger import Ledger
from ..memory.prompt_history import NoHistory, PromptHistory
from ..memory.prompt_records import LIKENESS, best_first

OneT = TypeVar("OneT")


def prompts_to_retire(history: PromptHistory | NoHistory, run_id: str, classes: Iterable[str]) -> list[str]:
    """The worse half of a run's prompts that gave instances, in each class; ids in order of the classes.

    Worse is a smaller kept share, then a smaller mean image-text score.
    """
    retired = []
    for name in classes:
        living = [record for record in history.records(name, run_id) if record.num_kept and not record.retired]
        retired += [record.record_id for record in _worse_half(best_first(living))]
    return retired


def sources_to_retire(run_folder: Path, classes: Collection[str], already: Collection[int]) -> list[int]:
    """The worse half of the sources that gave instances, in each class; annotation ids, ascending.

    Worse is a smaller share of accepted pictures, then a smaller mean image-text score of these.

    Args:
        already: ids of those that are retired.
    """
    by_class: defaultdict[str, defaultdict[int, list[ItemResult]]] = defaultdict(lambda: defaultdict(list))
    for result in _results(run_folder):
        source, category = result["source"], result["item"]["category"]
        if source is not None and category in classes and source["annotation_id"] not in already:
            by_class[category][source["annotation_id"]].append(result)
    retired: list[int] = []
    for sources in by_class.values():
        useful = {annotation_id: made for annotation_id, made in sources.items() if any(r["instances"] for r in made)}
        retired += _worse_half(sorted(useful, key=lambda one: (*_score(useful[one]), -one), reverse=True))
    return sorted(retired)


def _results(run_folder: Path) -> Iterator[ItemResult]:
    items: Ledger[ItemResult] = Ledger(run_folder / "items")
    for item_id in sorted(items.ids()):
        if (result := items.read(item_id)) is not None:
            yield result


def _score(results: Iterable[ItemResult]) -> tuple[float, float]:
    attempts = [attempt for result in results for attempt in result["attempts"]]
    accepted = [attempt for attempt in attempts if attempt["accepted"]]
    likenesses = [one["measures"][LIKENESS] for one in accepted if LIKENESS in one["measures"]]
    return len(accepted) / len(attempts), fmean(likenesses) if likenesses else -math.inf


def _worse_half(best_to_worst: Sequence[OneT]) -> Sequence[OneT]:
    return best_to_worst[(len(best_to_worst) + 1) // 2 :]

"""What waits for a person, and what becomes of it when they have decided."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from ..evaluation.audit import Audit, audit, read_audited
from ..memory.artifacts import ArtifactStore
from ..memory.entries import FINISHED, MADE, Attempt, Instance, ItemResult, Review, Round, WorkItem, review_id
from ..memory.ledger import Ledger
from ..memory.reviews import ReviewBook
from . import image_agent, text_crew
from .items import frequent_reasons, rejection
from .services import Artifacts
from .validating import ValidationTally, ending_of, is_promising, is_waiting

REVIEWS = "reviews"
"""Folder, below a run's, of the ledger of persons' verdicts."""
TO_INSTANCE: dict[str, Callable[[WorkItem, Attempt, Artifacts], Instance]] = {
    "text_agent": text_crew.to_instance,
    "image_agent": image_agent.to_instance,
    "validation_agent": image_agent.to_instance,
}


def apply_reviews(folder: Path) -> int:
    """Take persons' verdicts over into the items of a run that waited for them; doing it twice changes nothing.

    Returns:
        How many images were decided on.

    Raises:
        BrokenRunError: the disk is full or not writable, or an entry is damaged.
        ImageDecodeError: the artifact of an image that a person keeps is missing or damaged.
    """
    reviews: Ledger[Review] = Ledger(folder / REVIEWS)
    items: Ledger[ItemResult] = Ledger(folder / "items")
    artifacts = ArtifactStore(folder / "artifacts")
    by_item: defaultdict[str, list[Review]] = defaultdict(list)
    for entry_id in sorted(reviews.ids()):
        if (review := reviews.read(entry_id)) is not None:
            by_item[review["item_id"]].append(review)
    num_decided = 0
    for item_id, decided in by_item.items():
        result = items.read(item_id)
        if result is None:
            continue
        settled = settle(result, decided, artifacts)
        num_decided += sum(map(is_waiting, result["attempts"])) - sum(map(is_waiting, settled["attempts"]))
        if settled != result:
            items.write(item_id, settled)
    return num_decided


def settle(result: ItemResult, reviews: Sequence[Review], artifacts: Artifacts) -> ItemResult:
    """A result with the verdicts of persons; images that nobody is asked about are left alone."""
    by_id = {review_id(review["item_id"], review): review for review in reviews}
    item_id = result["item"]["item_id"]
    attempts: list[Attempt] = []
    for attempt in result["attempts"]:
        review = by_id.get(review_id(item_id, attempt))
        if review is not None and is_waiting(attempt):
            attempt = {**attempt, "review": review, "accepted": review["keep"]}
        attempts.append(attempt)
    return with_attempts(result, attempts, artifacts)


def with_attempts(result: ItemResult, attempts: list[Attempt], artifacts: Artifacts) -> ItemResult:
    """A result with other verdicts of its images, and all that follows from them; a failed one stays that.

    Raises:
        ImageDecodeError: the artifact of an image that is accepted now is missing or damaged.
    """
    known = {(instance["round"], instance["index"]): instance for instance in result["instances"]}
    kept = [attempt for attempt in attempts if attempt["accepted"] and result["ending"] in MADE]
    make_instance = TO_INSTANCE[result["item"]["agent"]]
    changed: ItemResult = {
        **result,
        "attempts": attempts,
        "rounds": [_recounted(one, attempts) for one in result["rounds"]],
        "instances": [
            known.get((attempt["round"], attempt["index"])) or make_instance(result["item"], attempt, artifacts)
            for attempt in kept
        ],
    }
    if result["ending"] in MADE:
        changed["ending"] = ending_of(attempts)
    if result["reason"] in ("", rejection(result["rounds"], result["attempts"])):
        is_rejected = changed["ending"] in FINISHED and not kept
        changed["reason"] = rejection(changed["rounds"], attempts) if is_rejected else ""
    return changed


def _recounted(told: Round, attempts: Sequence[Attempt]) -> Round:
    own = [attempt for attempt in attempts if attempt["round"] == told["round"]]
    return {
        **told,
        "num_kept": sum(is_promising(attempt) for attempt in own),
        "reasons": frequent_reasons(own),
    }


def describe_validation(tally: ValidationTally, folder: Path) -> dict[str, object]:
    """What judges and persons said of a run's images, as run.json states it."""
    found = audit_run(folder) if tally.decided else None
    return tally.as_json() | ({"audit": found.as_json()} if found is not None else {})


def audit_run(folder: Path) -> Audit | None:
    """How far a person and a run's judges agree on the images of the audit; None where none is decided on."""
    items: Ledger[ItemResult] = Ledger(folder / "items")
    results = (result for item_id in sorted(items.ids()) if (result := items.read(item_id)) is not None)
    found = audit(read_audited(results, ReviewBook(folder / REVIEWS)))
    return found if found.overall.n else None

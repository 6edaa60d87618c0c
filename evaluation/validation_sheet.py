"""What the validation agent found: who looked, what each judge said of which image, and what waits for a person."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import msgspec

from ..data.records import Findings
from ..errors import ImageDecodeError, RunFolderError
from ..memory.artifacts import ArtifactStore
from ..memory.entries import ItemResult
from ..memory.ledger import Ledger
from .judged import JudgedCard, file_name_of, state_of, to_judged_card
from .sampling import SpreadSample, first_failure

logger = logging.getLogger(__name__)

MAX_REJECTED = 48
MAX_KEPT = 24
MAX_DISAGREED = 24
MAX_WAITING = 24
NOBODY_LOOKED = (
    "No vision model looked: measures, and the image-text scorer where one is set, decided alone. "
    "Set llm.judge to a model that takes images to have one look."
)


class AgreementRates(msgspec.Struct, frozen=True):
    """Precision and recall against people, each with its interval of 95 %: value, low, high."""

    precision: tuple[float, float, float] | None = None
    recall: tuple[float, float, float] | None = None


class AuditCounts(msgspec.Struct, frozen=True):
    """`audit` of run.json's `validation`."""

    overall: AgreementRates = AgreementRates()


class ValidationCounts(msgspec.Struct, frozen=True):
    """`validation` of run.json; `criteria` counts the outcomes of each, over all judges."""

    looked: int = 0
    kept: int = 0
    waiting: int = 0
    decided: int = 0
    criteria: dict[str, dict[str, int]] = {}
    audit: AuditCounts | None = None


class ValidationSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What run.json says of validation; other keys are skipped."""

    judges: tuple[str, ...] = ()
    """Vision models as the recipe names them."""
    validation: ValidationCounts = ValidationCounts()


SummaryT = TypeVar("SummaryT", bound=ValidationSummary)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How often one criterion was met, failed, or could not be told."""

    name: str
    meet: int
    fail: int
    abstain: int

    @property
    def met_percent(self) -> float:
        total = self.meet + self.fail + self.abstain
        return 100 * self.meet / total if total else 0.0


@dataclass(slots=True)
class ValidationSample:
    """What one pass over the items finds; it keeps ids, no pictures.

    Attributes:
        seen_only: leave out images that neither a vision judge nor a person saw or is to see.
    """

    seen_only: bool
    rejected: SpreadSample = field(default_factory=lambda: SpreadSample(MAX_REJECTED))
    kept: SpreadSample = field(default_factory=lambda: SpreadSample(MAX_KEPT))
    disagreed: SpreadSample = field(default_factory=lambda: SpreadSample(MAX_DISAGREED))
    waiting: SpreadSample = field(default_factory=lambda: SpreadSample(MAX_WAITING))
    """Those of the audit; what judges disagree on is in `disagreed`, decided or not."""
    unjudged: Findings = field(default_factory=Findings)
    """Items that failed, or ended before there was an image; by which of the two."""

    def add(self, result: ItemResult) -> None:
        item = result["item"]
        if result["ending"] == "failed" or not result["attempts"]:
            kind = "failed" if result["ending"] == "failed" else "no_picture"
            self.unjudged.add(kind, f"{_name_of(result)}: {result['reason'] or 'no reason given'}")
        for index, attempt in enumerate(result["attempts"]):
            pick = (item["item_id"], index)
            is_seen = bool(attempt.get("opinions")) or "held" in attempt
            if not attempt["criteria"] or (self.seen_only and not is_seen):
                continue
            if attempt.get("held") == "disagreement":
                self.disagreed.offer(item["category"], pick)
            elif (state := state_of(attempt)) == "rejected":
                self.rejected.offer(first_failure(attempt), pick)
            else:
                (self.kept if state == "kept" else self.waiting).offer(item["category"], pick)


@dataclass(frozen=True, slots=True)
class Validation:
    """What a report shows of validation, and of how much it is a sample."""

    told: str
    """Who looked, in a sentence."""
    review_command: str
    """Empty where no image waits for a person."""
    outcomes: tuple[Outcomes, ...]
    rejected: tuple[tuple[str, tuple[JudgedCard, ...]], ...]
    """By the first criterion that was not met."""
    kept: tuple[JudgedCard, ...]
    disagreed: tuple[JudgedCard, ...]
    waiting: tuple[JudgedCard, ...]
    num_rejected: int
    num_kept: int
    num_disagreed: int
    unjudged: Findings

    @property
    def classes(self) -> list[tuple[int, str]]:
        """Ids and names of the classes with a picture, by name."""
        shown = [*self.kept, *self.disagreed, *self.waiting, *(card for _, cards in self.rejected for card in cards)]
        return sorted({(card.class_id, card.class_name) for card in shown}, key=lambda one: (one[1], one[0]))


def read_summary(folder: Path, kind: type[SummaryT]) -> SummaryT:
    """Read what run.json says of validation; that of an older run says nothing, as nobody looked.

    Raises:
        RunFolderError: there is no run.json, or none of this kind.
    """
    path = folder / "run.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise RunFolderError(f"{str(folder)!r}: no run.json is here; give the folder of a run") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RunFolderError(f"{path}: {exc}; this is no folder of ours, or one of another version") from exc


def collect_validation(
    folder: Path, summary: ValidationSummary, num_images: int, *, seen_only: bool = True, review_command: str = ""
) -> Validation:
    """Read the ledger one entry at a time, then the pictures of the sample alone; nothing is read where nobody looked.

    Args:
        num_images: how many were painted, or lay in the folder.
        seen_only: leave out images that neither a vision judge nor a person saw or is to see.
        review_command: shown where images wait for a person.

    Raises:
        BrokenRunError: an entry of the ledger is not what we wrote.
    """
    items: Ledger[ItemResult] = Ledger(folder / "items")
    artifacts = ArtifactStore(folder / "artifacts")
    counts, sample = summary.validation, ValidationSample(seen_only)
    if not seen_only or counts.looked or counts.waiting or counts.decided:
        for result in filter(None, map(items.read, sorted(items.ids()))):
            sample.add(result)

    def cards(chosen: SpreadSample) -> tuple[JudgedCard, ...]:
        return tuple(_cards(items, artifacts, chosen))

    rejected = sorted(cards(sample.rejected), key=lambda card: card.criterion)
    return Validation(
        told=looked_to_text(summary, num_images),
        review_command=review_command if counts.waiting else "",
        outcomes=counts_to_outcomes(counts.criteria),
        rejected=tuple((name, tuple(group)) for name, group in groupby(rejected, lambda card: card.criterion)),
        kept=cards(sample.kept),
        disagreed=cards(sample.disagreed),
        waiting=cards(sample.waiting),
        num_rejected=sample.rejected.num_offered,
        num_kept=sample.kept.num_offered,
        num_disagreed=sample.disagreed.num_offered,
        unjudged=sample.unjudged,
    )


def looked_to_text(summary: ValidationSummary, num_images: int) -> str:
    """'openai:x looked at 120 of 340 images and would keep 96. 3 images wait for a person.'"""
    counts = summary.validation
    judges = " and ".join(summary.judges) or "A vision model"
    images = _count_images(num_images)
    if counts.looked:
        keep = "both would keep" if len(summary.judges) == 2 else "would keep"
        told = f"{judges} looked at {counts.looked:,} of {images} and {keep} {counts.kept:,}."
    elif summary.judges:
        told = f"{judges} looked at none of {images}; only those that pass the measures are shown to a vision model."
    else:
        told = NOBODY_LOOKED
    if counts.waiting:
        told += f" {_count_images(counts.waiting)} {'waits' if counts.waiting == 1 else 'wait'} for a person."
    if counts.decided:
        told += f" People decided on {_count_images(counts.decided)}."
    return told + (_audit_to_text(counts.audit.overall) if counts.audit else "")


def _audit_to_text(rates: AgreementRates) -> str:
    """' In the audit people would keep 0.94 (95 %: 0.81 to 0.98) of what the judges keep. …'"""
    told = ""
    if rates.precision:
        told += f" In the audit people would keep {_rate_to_text(rates.precision)} of what the judges keep."
    if rates.recall:
        told += f" Of what people keep, the judges keep {_rate_to_text(rates.recall)}."
    return told


def _rate_to_text(rate: tuple[float, float, float]) -> str:
    value, low, high = rate
    return f"{value:.2f} (95 %: {low:.2f} to {high:.2f})"


def counts_to_outcomes(criteria: Mapping[str, Mapping[str, int]]) -> tuple[Outcomes, ...]:
    """A row for each criterion, the least met first."""
    rows = [
        Outcomes(name, counts.get("meet", 0), counts.get("fail", 0), counts.get("abstain", 0))
        for name, counts in criteria.items()
    ]
    return tuple(sorted(rows, key=lambda row: (row.met_percent, row.name)))


def _count_images(number: int) -> str:
    return f"{number:,} image{'' if number == 1 else 's'}"


def _name_of(result: ItemResult) -> str:
    """File name of a folder's image as far as it is known, else the item's id."""
    names = (result["unreadable_image"], *map(file_name_of, result["attempts"]))
    return next(filter(None, names), result["item"]["item_id"])


def _cards(items: Ledger[ItemResult], artifacts: ArtifactStore, sample: SpreadSample) -> Iterator[JudgedCard]:
    for item_id, index in sample.picks():
        result = items.read(item_id)
        if result is None:
            continue
        try:
            yield to_judged_card(result, result["attempts"][index], artifacts)
        except ImageDecodeError as exc:
            logger.warning("left out of the report: %s", exc)

"""What every card tells of a judged image: its picture, what each judge said, and what was done with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ..memory.artifacts import ArtifactStore
from ..memory.entries import Attempt, CriterionResult, ItemResult, OpinionEntry
from .attempts import AttemptPicture, attempt_to_picture
from .audit import meets_all
from .sampling import first_failure
from .thumbnails import class_colour, colour_to_hex

MAX_WORDS = 400
"""Letters shown of what a model wrote."""
BY_A_PERSON = "rejected by a person"

State = Literal["kept", "rejected", "waiting"]


@dataclass(frozen=True, slots=True)
class JudgeCard:
    """What one judge said; `unmet` are (criterion, outcome, reason)."""

    judge: str
    keeps: bool
    description: str
    unmet: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class JudgedCard:
    """One image with what was said of it."""

    item_id: str
    class_id: int
    class_name: str
    colour: str
    file_name: str
    """Of the user's image, where a folder was validated."""
    state: State
    person: str
    """'kept by Ada'; empty where no person decided."""
    image: AttemptPicture
    measured: tuple[str, ...]
    """Why measures rejected it."""
    opinions: tuple[JudgeCard, ...]
    criterion: str
    """The first that was not met."""


def to_judged_card(result: ItemResult, attempt: Attempt, artifacts: ArtifactStore) -> JudgedCard:
    """An image of an item with everything that was said of it.

    Raises:
        ImageDecodeError: its picture is missing or damaged.
    """
    item, opinions = result["item"], attempt.get("opinions", [])
    colour = class_colour(item["category_id"])
    asked = {criterion["name"] for opinion in opinions for criterion in opinion["criteria"]}
    unmet = [criterion for criterion in attempt["criteria"] if criterion["outcome"] != "meet"]
    return JudgedCard(
        item_id=item["item_id"],
        class_id=item["category_id"],
        class_name=item["category"],
        colour=colour_to_hex(colour),
        file_name=file_name_of(attempt),
        state=state_of(attempt),
        person=_person(attempt),
        image=attempt_to_picture(attempt, colour, artifacts),
        measured=tuple(one["reason"] or one["name"] for one in unmet if one["name"] not in asked),
        opinions=tuple(map(_to_judge_card, opinions)),
        criterion=first_failure(attempt) or BY_A_PERSON,
    )


def state_of(attempt: Attempt) -> State:
    """What is done with an image: kept, rejected, or it waits for a person."""
    if "held" in attempt and "review" not in attempt:
        return "waiting"
    return "kept" if attempt["accepted"] else "rejected"


def file_name_of(attempt: Attempt) -> str:
    """Of the user's image that was validated; empty for a painted one."""
    return str(attempt["parameters"].get("file", ""))


def _person(attempt: Attempt) -> str:
    if "review" not in attempt:
        return ""
    verdict = "kept" if attempt["review"]["keep"] else "rejected"
    return f"{verdict} by {attempt['review']['reviewer'] or 'a person'}"


def _to_judge_card(opinion: OpinionEntry) -> JudgeCard:
    return JudgeCard(
        judge=opinion["judge"],
        keeps=meets_all(opinion["criteria"]),
        description=_clip(opinion["description"]),
        unmet=tuple(_unmet(opinion["criteria"])),
    )


def _unmet(criteria: Sequence[CriterionResult]) -> Iterator[tuple[str, str, str]]:
    for one in criteria:
        if one["outcome"] != "meet":
            yield one["name"], one["outcome"], _clip(one["reason"])


def _clip(text: str) -> str:
    return text if len(text) <= MAX_WORDS else text[:MAX_WORDS] + " …"

"""What stays of an ended item: its prompts with their scores, records for the prompt memory, a start to go on from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ..memory.prompt_records import LIKENESS, PromptRecord
from .items import MAX_REASONS
from .label_filter import UNSEEN
from .label_state import LabelItem, LabelResult, LabelState, PromptEntry, PromptScore, SceneEntry

CRITERIA = ("presence", "coherence", "plausibility")


def first_state(item: LabelItem, earlier: LabelResult | None = None) -> LabelState:
    """What an item begins with: nothing, or what a failed try had written and painted."""
    prompts = earlier["prompts"] if earlier else []
    return {
        "item": item,
        "prompts": [_without_score(prompt) for prompt in prompts],
        "scores": [prompt["score"] for prompt in prompts if "score" in prompt],
        "scenes": earlier["scenes"] if earlier else [],
        "images_usd": 0.0,
    }


def with_scores(prompts: Sequence[PromptEntry], scores: Sequence[PromptScore]) -> list[PromptEntry]:
    """Prompts as the ledger keeps them; those that were not scored have none."""
    scored: list[PromptEntry] = [{**prompt, "score": score} for prompt, score in zip(prompts, scores, strict=False)]
    return [*scored, *prompts[len(scored) :]]


def to_prompt_records(result: LabelResult, run_id: str, started: str) -> list[PromptRecord]:
    """Every version of an item's prompts; one that was only rewritten was painted 0 times, and none of it kept.

    A picture at which the filter could not look says nothing about its prompt.

    Args:
        started: when the run began, ISO 8601 with its offset from UTC, so that a replay makes the same records.
    """
    return list(_records(result, run_id, started))


def _records(result: LabelResult, run_id: str, started: str) -> Iterator[PromptRecord]:
    item, last = result["item"], ""
    for row, prompt in enumerate(result["prompts"]):
        scenes = [scene for scene in result["scenes"] if scene["prompt"] == row and scene["refused"] != [UNSEEN]]
        record_id = f"{run_id[:12]}-{item['item_id']}-d{prompt['draft']}-r{prompt['round']}"
        yield PromptRecord(
            record_id=record_id,
            category=item["category"],
            prompt=prompt["text"],
            painter=result["painter"]["name"],
            num_painted=len(scenes),
            num_kept=sum(not scene["refused"] for scene in scenes),
            scores=_scores(prompt, scenes),
            reasons=_reasons(prompt, scenes),
            parent=last if prompt["round"] else "",
            strength=0.0,
            run_id=run_id,
            created=started,
        )
        last = record_id


def _scores(prompt: PromptEntry, scenes: Sequence[SceneEntry]) -> dict[str, float]:
    """The prompt's own, and its pictures' mean image-text score where it was asked."""
    found: dict[str, float] = {}
    if "score" in prompt:
        found |= {name: float(prompt["score"][name]) for name in CRITERIA}  # type: ignore[literal-required]
    if seen := [scene["text_score"] for scene in scenes if "text_score" in scene]:
        found[LIKENESS] = sum(seen) / len(seen)
    return found


def _reasons(prompt: PromptEntry, scenes: Sequence[SceneEntry]) -> tuple[str, ...]:
    """Why pictures were refused, the most frequent first, then what the writer found wrong."""
    refused = Counter(reason for scene in scenes for reason in scene["refused"])
    found = [reason for reason, _ in refused.most_common()]
    return tuple([*found, *(prompt["score"]["reasons"] if "score" in prompt else ())][:MAX_REASONS])


def _without_score(prompt: PromptEntry) -> PromptEntry:
    bare = prompt.copy()
    bare.pop("score", None)
    return bare

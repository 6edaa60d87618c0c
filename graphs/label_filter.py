"""What the label agent's filter lets in, which items are drawn at all, and which version of a prompt is painted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..configs.label_agent import LabelFilterSettings
from .items import digest_to_int
from .label_state import PromptEntry, PromptScore

UNSEEN = "unseen"
"""Of a scene at which the filter has not looked."""
TEXT_SCORE = "text score"


def refusals(
    labels: Sequence[str],
    probabilities: Mapping[str, float],
    settings: LabelFilterSettings,
    text_score: float | None = None,
) -> list[str]:
    """Why a scene is not admitted (IAA, arXiv 2412.20439); empty: it is.

    It fails closed: a class without a probability, or with one that is no number, is missing where it was prompted and
    extra where it was not.

    Args:
        labels: the classes that the scene must show.
        probabilities: of every class, in [0, 1].
        text_score: of scene and prompt; None where it was not asked.
    """
    unknown = float("nan")
    missing = [name for name in labels if not probabilities.get(name, unknown) >= settings.present]
    extra = [name for name, p in probabilities.items() if name not in labels and not p < settings.absent]
    found = [*(f"missing {name}" for name in missing), *(f"extra {name}" for name in extra)]
    if text_score is not None and settings.min_text_score is not None and not text_score >= settings.min_text_score:
        found.append(TEXT_SCORE)
    return found


def is_drawn(item_id: str, labels: Sequence[str], open_shares: Mapping[str, float], run_seed: int) -> bool:
    """Whether an item is made: with the probability of the most open quota among its labels, by run seed and id.

    Args:
        open_shares: of each class's quota, what is still open, in [0, 1]; a class without one is closed.
    """
    probability = max((open_shares.get(name, 0.0) for name in labels), default=0.0)
    return digest_to_int(f"{run_seed}\0{item_id}\0admission") < probability * 2**64


def least(score: PromptScore) -> float:
    """The criterion in which a prompt is weakest: what the threshold asks for."""
    return min(score["presence"], score["coherence"], score["plausibility"])


def versions_of(prompts: Sequence[PromptEntry], draft: int) -> list[int]:
    """Rows of a draft and its rewrites."""
    return [row for row, prompt in enumerate(prompts) if prompt["draft"] == draft]


def best_version(prompts: Sequence[PromptEntry], scores: Sequence[PromptScore]) -> int:
    """Row of the last draft's version to paint: best in its weakest criterion, then in their sum, then the later one.

    Without scores it is the last.
    """
    rows = versions_of(prompts, prompts[-1]["draft"])
    if len(scores) < len(prompts):
        return rows[-1]

    def rank(row: int) -> tuple[float, float, int]:
        score = scores[row]
        return least(score), score["presence"] + score["coherence"] + score["plausibility"], row

    return max(rows, key=rank)

"""Words of whole-scene prompts: which classes a text names, and the sentences that need no model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..tools.defects import DefectPlan
from ..tools.naming import noun_phrase

RELIEFS = {"flat": "level with the surface", "removed": "where material is gone", "added": "lying on the surface"}
SETTINGS = (
    "in soft daylight",
    "under an overcast sky",
    "in bright even light",
    "in the light of a late afternoon",
    "seen from a few steps away",
    "seen from slightly above",
    "seen from the side",
    "with nothing else in focus",
)
"""What can be said of a photograph whatever it shows."""


def names(text: str, label: str) -> bool:
    """Whether a text names a class: all words of its name in a row, also in the plural; a name without words is."""
    pattern = _pattern(label)
    return pattern is None or pattern.search(text) is not None


def others_named(text: str, labels: Sequence[str], classes: Iterable[str]) -> list[str]:
    """Classes beside `labels` that a text names; `a hot dog` names no dog where hot dog is one of the labels."""
    rest = text
    for label in sorted(labels, key=len, reverse=True):
        if pattern := _pattern(label):
            rest = pattern.sub(" … ", rest)
    return [one for one in classes if one not in labels and (found := _pattern(one)) and found.search(rest)]


def describe_plan(plan: DefectPlan) -> str:
    """One planned defect in words: look, name, how it meets the surface, place and size."""
    x, y = plan.centre_xy
    column = "left" if x < 1 / 3 else "right" if x > 2 / 3 else "middle"
    row = "upper" if y < 1 / 3 else "lower" if y > 2 / 3 else "middle"
    where = "middle" if column == row else f"{row} {column}"
    look = "faint" if plan.severity < 0.35 else "clear" if plan.severity < 0.7 else "severe"
    share = max(1, round(100 * plan.size_ratio))
    return f"one {look} {noun_phrase(plan.defect)} {RELIEFS[plan.relief]}, in the {where}, {share} % of its side"


def plans_to_sentence(plans: Sequence[DefectPlan], item_name: str, max_words: int | None) -> str:
    """A scene of planned defects: every label with its look and place, or as much of that as a painter reads."""
    of_item = f"a photograph of {with_article(noun_phrase(item_name) or 'surface')} with"
    full = f"{of_item} {_join([describe_plan(plan) for plan in plans], '; ')}"
    short = f"{of_item} {_join([with_article(noun_phrase(plan.defect)) for plan in plans], ', ')}"
    return next((one for one in (full, short) if _fits(one, max_words)), _cut(short, max_words))


def labels_to_sentence(labels: Sequence[str], setting: str, max_words: int | None) -> str:
    """A scene of things whose places and sizes the painter decides; without its setting where that is too long."""
    short = f"a photograph of {_join([with_article(noun_phrase(label)) for label in labels], ', ')}"
    full = f"{short} {setting}".strip()
    return full if _fits(full, max_words) else _cut(short, max_words)


def with_article(phrase: str) -> str:
    """A noun with `a` or `an`, by its first letter."""
    return f"{'an' if phrase[:1].lower() in tuple('aeiou') else 'a'} {phrase}"


def _fits(text: str, max_words: int | None) -> bool:
    return max_words is None or len(text.split()) <= max_words


def _cut(text: str, max_words: int | None) -> str:
    return " ".join(text.split()[:max_words])


def _pattern(label: str) -> re.Pattern[str] | None:
    words = re.findall(r"[^\W_]+", label)
    if not words:
        return None
    phrase = r"[\W_]+".join(map(re.escape, words))
    return re.compile(rf"(?<![^\W_]){phrase}(e?s)?(?![^\W_])", re.IGNORECASE)


def _join(parts: Sequence[str], comma: str) -> str:
    *most, last = parts
    return f"{comma.join(most)} and {last}" if most else last

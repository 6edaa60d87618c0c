"""Scripted vision judges and what validates with them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from maskwright.configs.validation import ValidationSettings
from maskwright.graphs.validating import Streak, Validator
from maskwright.memory.entries import Attempt, Review
from maskwright.tools.protocols import Criterion, Opinion, Outcome, VisionJudge

Answer = Mapping[str, Outcome] | Exception
Picture = npt.NDArray[np.uint8]


def says(**outcomes: Outcome) -> Mapping[str, Outcome]:
    """An answer, the two criteria met where nothing else is said."""
    met: dict[str, Outcome] = {"right_category": "meet", "intact": "meet"}
    return met | outcomes


GOOD = says()
BAD = says(intact="fail")
UNSURE = says(intact="abstain")


@dataclass
class ScriptedJudge:
    """Answers by script, the last one again and again, or by what it sees."""

    answers: Sequence[Answer] | Callable[[Picture, str], Answer] = (GOOD,)
    name: str = "scripted"
    version: str = "judge-1"
    seen: list[tuple[Picture, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def judge(self, picture: Picture, category: str) -> Opinion:
        with self._lock:
            self.seen.append((picture, category))
            number = len(self.seen)
        if callable(self.answers):
            answer = self.answers(picture, category)
        else:
            answer = self.answers[min(number, len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return Opinion(
            judge=self.name,
            version=self.version,
            description=f"a {category}",
            criteria=tuple(
                Criterion(name, outcome, 0.0, "" if outcome == "meet" else f"{name} looks wrong")
                for name, outcome in answer.items()
            ),
            rung="json_schema",
            raw_text="{}",
            calls=1,
            input_tokens=10,
            output_tokens=5,
        )


def build_validator(*judges: VisionJudge, run_seed: int = 0, limit: int | None = None, **settings: object) -> Validator:
    """A validator; without judges measures alone decide."""
    return Validator(
        judges=judges,
        settings=ValidationSettings.model_validate(settings),
        run_seed=run_seed,
        streak=Streak(limit),
    )


def review_of(attempt: Attempt, item_id: str, *, keep: bool) -> Review:
    """A person's verdict on an image."""
    return {
        "item_id": item_id,
        "round": attempt["round"],
        "index": attempt["index"],
        "artifact": attempt["artifact"],
        "keep": keep,
        "reviewer": "Zoë",
        "decided": "2026-01-01T00:00:00+00:00",
    }

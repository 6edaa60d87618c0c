"""The vision judges of a recipe: built from its settings, and shown bad pictures before anything is spent on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..configs.llm import LLMSettings
from ..configs.validation import ValidationSettings
from ..errors import BrokenRunError, UnparseableAnswerError
from ..memory.entries import JudgeEntry
from ..tools.judging.vision import REFUSED, ChatVisionJudge
from ..tools.protocols import Opinion, VisionJudge
from .planted import Planted
from .prompt_files import JUDGE_PLACEHOLDERS, read_prompt_file
from .templates import load_template
from .validating import to_entry
from .writers import build_chat

BUILT_IN = "judge"


@dataclass(frozen=True, slots=True)
class JudgeCheck:
    """What a judge said of bad pictures."""

    judge: str
    version: str
    answers: tuple[tuple[Planted, Opinion | None], ...]
    """None: it answered, and nothing of it fitted."""

    @property
    def accepted(self) -> list[str]:
        """The kinds of those that it accepted, one entry a picture."""
        return [planted.kind for planted, opinion in self.answers if opinion is not None and opinion.verdict.accepted]

    @property
    def caught_share(self) -> float:
        """Share that it did not accept, in [0, 1]; 1 where nothing was planted."""
        return 1 - len(self.accepted) / len(self.answers) if self.answers else 1.0

    @property
    def is_mute(self) -> bool:
        """Whether pictures were planted, and it said nothing of any."""
        return bool(self.answers) and all(opinion is None or opinion.rung == REFUSED for _, opinion in self.answers)

    def to_entry(self) -> JudgeEntry:
        """As the ledger keeps it."""
        opinions = [opinion for _, opinion in self.answers if opinion is not None]
        return {
            "judge": self.judge,
            "version": self.version,
            "planted": [
                {
                    "kind": planted.kind,
                    "category": planted.category,
                    "opinion": None if opinion is None else to_entry(opinion),
                }
                for planted, opinion in self.answers
            ],
            "calls": sum(opinion.calls for opinion in opinions),
            "input_tokens": sum(opinion.input_tokens for opinion in opinions),
            "output_tokens": sum(opinion.output_tokens for opinion in opinions),
        }


def build_judges(llm: LLMSettings, settings: ValidationSettings, seed: int) -> tuple[ChatVisionJudge, ...]:
    """The recipe's vision judges, the first one first; none is asked anything yet.

    Raises:
        InputError: a model's name or key, or the question, is wrong.
    """
    if not llm.judges:
        return ()
    question = load_question(settings.prompt)
    return tuple(
        ChatVisionJudge(
            model=build_chat(judge, seed),
            name=judge.model,
            question=question,
            criteria=settings.asked,
            max_repairs=llm.max_repairs,
            max_side_px=settings.max_side_px,
            max_image_bytes=settings.max_image_bytes,
        )
        for judge in llm.judges
    )


def load_question(prompt: str) -> str:
    """What a vision judge is asked: the built-in question `judge`, or the prompt of a file.

    Raises:
        RecipeError: no such file, or its placeholders are not exactly {category} and {criteria}.
    """
    if prompt == BUILT_IN:
        return load_template(BUILT_IN).text.strip()
    return read_prompt_file(Path(prompt), BUILT_IN, JUDGE_PLACEHOLDERS).text


def check_judge(judge: VisionJudge, planted: Sequence[Planted], min_caught: float) -> JudgeCheck:
    """Show a judge bad pictures; it must not accept them, and must have something to say of one at least.

    Args:
        min_caught: least share, in [0, 1], that it must not accept.

    Raises:
        BrokenRunError: it accepts too many, or answers about none.
        ModelOutageError: it cannot be reached; asking again later may help.
        ModelAccessError: its key is refused, or the server does not know it.
    """
    check = JudgeCheck(judge.name, judge.version, tuple((bad, _ask_of(judge, bad)) for bad in planted))
    if check.is_mute:
        refusals = [opinion.raw_text for _, opinion in check.answers if opinion is not None]
        raise BrokenRunError(
            f"vision judge {judge.name!r} has no opinion on any of {len(planted)} pictures: "
            f"{refusals[0] if refusals else 'no answer of it fits the schema.'} "
            "Set a stronger model that takes images as `llm.judge`."
        )
    if check.caught_share < min_caught:
        kinds = ", ".join(f"{kind} ({count})" for kind, count in Counter(check.accepted).items())
        raise BrokenRunError(
            f"vision judge {judge.name!r} accepted {len(check.accepted)} of {len(planted)} pictures that are bad on "
            f"purpose: {kinds}; expected it to turn down a share of at least {min_caught:g}. Set another `llm.judge` "
            "(or `llm.second_judge`, where that is its place), or `validation.planted: 0` at your own risk."
        )
    return check


def _ask_of(judge: VisionJudge, bad: Planted) -> Opinion | None:
    try:
        return judge.judge(bad.picture, bad.category)
    except UnparseableAnswerError:
        return None

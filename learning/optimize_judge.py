"""A vision judge's question, optimized for agreement with people."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..configs.recipe import Recipe
from ..data.images import read_upright
from ..errors import ModelRequestError, RecipeError, UnparseableAnswerError
from ..graphs.executor import ThreadExecutor
from ..graphs.judges import build_judges, load_question
from ..graphs.prompt_files import JUDGE_PLACEHOLDERS
from ..graphs.templates import Template
from ..graphs.validators import validation_of
from ..tools.protocols import Opinion, VisionJudge
from .optimize_examples import Agent, Example
from .optimize_tasks import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeTask:
    """A vision judge against labels of people; a trial scores 1 where they agree on keeping, else 0."""

    base: Template
    build: Callable[[str], VisionJudge]
    """A judge that asks a question."""
    failed_calls: int
    """What an answer that never fitted has cost."""
    setting: str
    batch_size: int = 1
    agent: Agent = "judge"
    placeholders: Sequence[str] = JUDGE_PLACEHOLDERS
    purpose: str = (
        "It asks a vision model whether a picture of one object may go into a data set. {category} becomes the name of "
        "the class, {criteria} the list of what must hold. A picture is kept only if all of it holds."
    )

    def run(self, prompt: str, examples: Sequence[Example]) -> Iterator[Trial]:
        judge = self.build(prompt)
        executor = ThreadExecutor(self.batch_size, threading.Event())
        return executor.map(lambda example: self._try(judge, example), examples)

    def _try(self, judge: VisionJudge, example: Example) -> Trial:
        if example.image is None:
            raise ValueError(f"example {example.example_id!r} has no image; load it with load_examples(…, 'judge')")
        group = "keep" if example.keep else "reject"
        trial: Trial = {
            "example_id": example.example_id,
            "group": group,
            "score": 0.0,
            "metrics": {},
            "evidence": "",
            "calls": self.failed_calls,
        }
        picture = read_upright(example.image)
        opaque = bool((picture[..., 3] == 255).all())
        try:
            opinion = judge.judge(picture[..., :3] if opaque else picture, example.category)
        except (UnparseableAnswerError, ModelRequestError) as exc:
            return {**trial, "evidence": f"{_told(example)} The judge gave no answer that can be read: {exc}"}
        agree = opinion.verdict.accepted == example.keep
        evidence = "" if agree else f"{_told(example)} {_answered(opinion)}"
        return {**trial, "score": float(agree), "evidence": evidence, "calls": opinion.calls}


def _told(example: Example) -> str:
    because = f", because: {example.reason}" if example.reason else ""
    return f"A picture meant to show a {example.category}: a person would {_verb(example.keep)} it{because}."


def _answered(opinion: Opinion) -> str:
    accepted = opinion.verdict.accepted
    unmet = [f"{one.name}: {one.outcome}, {one.reason}" for one in opinion.verdict.rejections]
    why = "; ".join(unmet) if unmet else "every criterion met"
    return f"The judge would {_verb(accepted)} it. It saw: {opinion.description} It said: {why}."


def _verb(keep: bool | None) -> str:
    return "keep" if keep else "reject"


def build_judge_task(recipe: Recipe) -> JudgeTask:
    """The first judge of a recipe, asked what its T-Agent's validation asks, or else its I-Agent's.

    Raises:
        RecipeError: the recipe names no judge, or its question cannot be read.
    """
    if recipe.llm.judge is None:
        raise RecipeError("the recipe has no `llm.judge`; name one, such as --set llm.judge=openai:MODEL")
    validations = validation_of(recipe.agents)
    name = "text_agent" if "text_agent" in validations else "image_agent"
    validation = validations[name]
    judge = build_judges(recipe.llm, validation, recipe.plan.seed)[0]
    return JudgeTask(
        base=Template("judge", load_question(validation.prompt)),
        build=lambda question: replace(judge, question=question),
        setting=f"agents.{name}.validation.prompt",
        failed_calls=1 + recipe.llm.max_repairs,
        batch_size=recipe.budget.workers,
    )

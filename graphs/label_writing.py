"""The scene writer that asks a language model: prompts drafted, scored by the model itself, and rewritten (IAA)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_core.language_models import BaseChatModel
from pydantic import BaseModel, ConfigDict, Field

from ..models.structured import Invoke, ask, invoke_alone
from ..tools.defects import DefectPlan
from ..tools.naming import noun_phrase
from .anomaly_planner import json_to_plan, plan_to_json
from .label_planning import PlannedSceneWriter
from .label_state import LabelItem, PromptEntry, PromptScore
from .label_words import describe_plan, names, others_named, with_article
from .templates import Template, load_template
from .writing import REFUSALS, Usage

MAX_CHARS = 600
MAX_WORDS = 60
"""Of a prompt, where the painter reads more."""
MAX_OTHERS = 100
"""Names of other classes that are told; all of them are looked for in the answer."""
MAX_KNOWN_CHARS = 1500


class ScenePart(BaseModel):
    """One label of the scene."""

    model_config = ConfigDict(extra="forbid")

    label: str = Field(max_length=100)
    what: str = Field(max_length=200, description="what is seen of it")
    where: str = Field(max_length=200, description="where in the picture")


class WrittenScene(BaseModel):
    """A prompt for one scene."""

    model_config = ConfigDict(extra="forbid")

    parts: list[ScenePart] = Field(description="one for each label")
    prompt: str = Field(max_length=MAX_CHARS, description="the prompt, on one line")


class ScoredScene(BaseModel):
    """What is said of a prompt."""

    model_config = ConfigDict(extra="forbid")

    reasons: list[str] = Field(description="one for each point that is lost")
    presence: float = Field(ge=0, le=10, allow_inf_nan=False)
    coherence: float = Field(ge=0, le=10, allow_inf_nan=False)
    plausibility: float = Field(ge=0, le=10, allow_inf_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSceneWriter:
    """A `SceneWriter` that asks a language model.

    A draft or a rewrite of which no answer fits is the embedded writer's; a score is the model's or there is none.
    """

    model: BaseChatModel
    name: str
    """The model as the recipe names it."""
    max_repairs: int
    planned: PlannedSceneWriter
    """Draws the plans, which the model is told as facts, and stands in where the model cannot write."""
    invoke: Invoke = invoke_alone
    """Carries out the model's calls."""

    def draft(self, item: LabelItem, draft: int, refused: Sequence[str], usage: Usage) -> PromptEntry:
        """A first prompt around the plans.

        Raises:
            ModelOutageError, ModelRequestError, ModelAccessError: the model cannot be asked.
        """
        plans = self.planned.plan(item, draft, refused)
        told = f"Pictures of the last prompt were refused: {'; '.join(refused)}. Write another one." if refused else ""
        values = {**self._values(item, plans), "refused": told}
        return self._write(load_template("scene_draft"), values, item, (draft, 0), plans, "", usage)

    def score(self, item: LabelItem, prompt: PromptEntry, usage: Usage) -> PromptScore:
        """The model's own opinion of a prompt; it is a judge here, and has no template.

        Raises:
            UnparseableAnswerError: no answer fits.
            ModelOutageError, ModelRequestError, ModelAccessError: the model cannot be asked.
        """
        template = load_template("scene_score")
        plans = [json_to_plan(plan) for plan in prompt["plans"]]
        values = {**self._values(item, plans), "prompt": prompt["text"], "known": self._known(item)}
        answer = ask(self.model, template.fill(**values), ScoredScene, max_repairs=self.max_repairs, invoke=self.invoke)
        usage.add(self.name, answer)
        scored = answer.value
        return {
            "presence": round(scored.presence, 2),
            "coherence": round(scored.coherence, 2),
            "plausibility": round(scored.plausibility, 2),
            "reasons": [" ".join(reason.split()) for reason in scored.reasons],
            "template": template.version,
        }

    def rewrite(self, item: LabelItem, prompt: PromptEntry, score: PromptScore, usage: Usage) -> PromptEntry:
        """A better prompt, around plans of which the faulty ones are redrawn; raises as `draft`."""
        plans = self.planned.replan(item, prompt, score)
        values = {
            **self._values(item, plans),
            "prompt": prompt["text"],
            "presence": score["presence"],
            "coherence": score["coherence"],
            "plausibility": score["plausibility"],
            "reasons": "; ".join(score["reasons"]) or "nothing was named",
            "known": self._known(item),
        }
        version = (prompt["draft"], prompt["round"] + 1)
        return self._write(load_template("scene_rewrite"), values, item, version, plans, prompt["text"], usage)

    def _write(
        self,
        template: Template,
        values: dict[str, object],
        item: LabelItem,
        version: tuple[int, int],
        plans: Sequence[DefectPlan],
        last: str,
        usage: Usage,
    ) -> PromptEntry:
        """Ask for a prompt; `version` is its draft and round, `last` the text that it shall differ from."""
        draft, number = version
        fallback = WrittenScene(parts=[], prompt=self.planned.compose(item, draft, number, plans)[:MAX_CHARS])
        answer = ask(
            self.model,
            template.fill(**values),
            WrittenScene,
            template=lambda: fallback,
            check=lambda scene: find_scene_fault(scene, item["labels"], self.planned.classes, last, self.max_words),
            max_repairs=self.max_repairs,
            invoke=self.invoke,
        )
        usage.add(self.name, answer)
        return {
            "draft": draft,
            "round": number,
            "text": tidy_scene(answer.value.prompt),
            "plans": [plan_to_json(plan) for plan in plans],
            "by": self.planned.name if answer.rung == "template" else self.name,
            "rung": answer.rung,
            "template": template.version,
        }

    @property
    def max_words(self) -> int:
        """Most words of a prompt."""
        return min(MAX_WORDS, self.planned.max_words or MAX_WORDS)

    def _values(self, item: LabelItem, plans: Sequence[DefectPlan]) -> dict[str, object]:
        others = [noun_phrase(name) for name in self.planned.classes if name not in item["labels"]]
        facts = "".join(f"\n- {describe_plan(plan)}" for plan in plans)
        item_name = noun_phrase(self.planned.item_name)
        return {
            "of_item": f" of {with_article(item_name)}" if item_name else "",
            "labels": ", ".join(map(noun_phrase, item["labels"])),
            "others": ", ".join(others[:MAX_OTHERS]) or "none",
            "facts": f"What will be painted, to be described as it is:{facts}" if facts else "",
            "max_words": self.max_words,
        }

    def _known(self, item: LabelItem) -> str:
        """What the knowledge base says of the labels, for a model to judge by."""
        planner = self.planned.planner
        found = [planner.known(label) for label in item["labels"]] if planner else []
        texts = [one.text[:MAX_KNOWN_CHARS] for one in found if one is not None and one.text]
        return "What is known of such defects:\n" + "\n".join(texts) if texts else ""


def tidy_scene(prompt: str) -> str:
    """A prompt on one line, without quotation marks around it."""
    return " ".join(prompt.split()).strip(" \"'`")


def find_scene_fault(
    scene: WrittenScene, labels: Sequence[str], classes: Sequence[str], last: str, max_words: int
) -> str:
    """What keeps an answer from being a prompt for its labels, as the model is told it; "" where nothing does."""
    prompt = tidy_scene(scene.prompt)
    if REFUSALS.search(prompt) or not prompt or "{" in prompt:
        return "that is no prompt; describe the picture"
    if unnamed := [noun_phrase(label) for label in labels if not names(prompt, label)]:
        return f"the prompt must contain the words {', '.join(unnamed)}"
    if others := others_named(prompt, labels, classes):
        return f"the prompt must not contain the words {', '.join(map(noun_phrase, others))}"
    parts = [part.label for part in scene.parts]
    if missing := [noun_phrase(label) for label in labels if not any(names(part, label) for part in parts)]:
        return f"parts must have an entry for {', '.join(missing)}"
    if len(prompt.split()) > max_words:
        return f"the prompt has {len(prompt.split())} words; use at most {max_words}"
    if last and prompt.casefold() == last.casefold():
        return "that is the same prompt again; change it"
    return ""

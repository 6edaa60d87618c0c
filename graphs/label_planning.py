"""The embedded scene writer: plans drawn, measured and drawn again, without a language model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ..memory.knowledge_search import DefectKnowledge
from ..tools.defects import DefectPlan
from ..tools.judging.defect_quality import LARGER, RAISE_SEVERITY
from .anomaly_planner import PlanDrawer, json_to_plan, plan_to_json
from .items import digest_to_int
from .label_measures import (
    Fault,
    find_coherence_faults,
    find_plausibility_faults,
    find_presence_faults,
    to_points,
)
from .label_state import LabelItem, PromptEntry, PromptScore
from .label_words import SETTINGS, labels_to_sentence, others_named, plans_to_sentence
from .writing import Usage

NUM_PLACES = 12
"""Redrawn plans of which the one that fits best is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenePlanner:
    """Plans the defects of a scene, for painters that edit a good image."""

    drawer: PlanDrawer
    look_up: Callable[[str], DefectKnowledge | None] | None
    """What is known of a defect on the item, without what was measured on real masks; None: nothing is known."""
    run_seed: int

    def draft(self, item: LabelItem, draft: int, refused: Collection[str]) -> list[DefectPlan]:
        """One plan a label, by its name alone; a label that the filter missed gets a plainer and larger one."""
        plans = []
        for label in item["labels"]:
            plan = self.drawer.draw(label, self._seed(item, label, draft, 0, 0))
            if f"missing {label}" in refused:
                plan = self.drawer.refine(plan, f"{RAISE_SEVERITY}; {LARGER}", 0)
            plans.append(plan)
        return plans

    def redraw(
        self, item: LabelItem, plans: Sequence[DefectPlan], draft: int, number: int, faulty: Collection[str]
    ) -> list[DefectPlan]:
        """The faulty plans drawn anew by what is known, where they fit best between the others.

        Args:
            number: of the version that is made, from 1.
            faulty: labels.
        """
        changed = list(plans)
        for index, plan in enumerate(plans):
            if plan.defect in faulty:
                seeds = [self._seed(item, plan.defect, draft, number, turn) for turn in range(NUM_PLACES)]
                known = self.known(plan.defect)
                choices = [self.drawer.refine(plan, "", seed, known) for seed in seeds]
                others = [*changed[:index], *changed[index + 1 :]]
                changed[index] = max(choices, key=lambda one: self._fit(one, others))
        return changed

    def find_faults(self, plans: Sequence[DefectPlan]) -> list[Fault]:
        """What is implausible of each plan by what is known."""
        known = [(plan, self.known(plan.defect)) for plan in plans]
        return [fault for plan, one in known if one is not None for fault in find_plausibility_faults(plan, one)]

    def known(self, label: str) -> DefectKnowledge | None:
        return self.look_up(label) if self.look_up else None

    def _fit(self, plan: DefectPlan, others: Sequence[DefectPlan]) -> float:
        return to_points(find_coherence_faults([*others, plan])) + to_points(self.find_faults([plan]))

    def _seed(self, item: LabelItem, label: str, draft: int, number: int, turn: int) -> int:
        return digest_to_int(f"{self.run_seed}\0{item['item_id']}\0{label}\0{draft}\0{number}\0{turn}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSceneWriter:
    """A `SceneWriter` that asks no model; the same item and seed give the same prompts.

    With a planner, it drafts a plan for each label from the label's name alone, measures the plans against what the
    knowledge base says of such defects, and redraws those that are wrong, so that its refinement is a real one. Without
    a planner, for painters that decide on places and sizes themselves, a prompt names the labels and one thing that can
    be said of any photograph; then only presence is measured, and the other two criteria are full because nothing in
    such a prompt could break them.
    """

    classes: Sequence[str]
    """All of the data set's."""
    run_seed: int
    item_name: str = ""
    """What the good images show, for plans."""
    max_words: int | None = None
    """Most words that the painter reads."""
    planner: ScenePlanner | None = None
    name: str = "planned"

    def draft(self, item: LabelItem, draft: int, refused: Sequence[str], usage: Usage) -> PromptEntry:  # noqa: ARG002
        """A first prompt; a later draft differs from the ones before."""
        return self._entry(item, draft, 0, self.plan(item, draft, refused))

    def score(self, item: LabelItem, prompt: PromptEntry, usage: Usage) -> PromptScore:  # noqa: ARG002
        """Measures of the prompt, see `label_measures`."""
        plans = [json_to_plan(plan) for plan in prompt["plans"]]
        presence = find_presence_faults(prompt["text"], item["labels"], self.classes)
        coherence = find_coherence_faults(plans)
        plausibility = self.planner.find_faults(plans) if self.planner else []
        return {
            "presence": to_points(presence),
            "coherence": to_points(coherence),
            "plausibility": to_points(plausibility),
            "reasons": [fault.reason for fault in (*presence, *coherence, *plausibility)],
        }

    def rewrite(self, item: LabelItem, prompt: PromptEntry, score: PromptScore, usage: Usage) -> PromptEntry:  # noqa: ARG002
        """Faulty plans redrawn by what is known, moved where they fit; without plans, other words."""
        return self._entry(item, prompt["draft"], prompt["round"] + 1, self.replan(item, prompt, score))

    def plan(self, item: LabelItem, draft: int, refused: Sequence[str]) -> list[DefectPlan]:
        """First plans, none without a planner."""
        return self.planner.draft(item, draft, refused) if self.planner else []

    def replan(self, item: LabelItem, prompt: PromptEntry, score: PromptScore) -> list[DefectPlan]:
        """The plans with faulty ones redrawn: those that measures find, else all where not the words are the worst."""
        plans = [json_to_plan(plan) for plan in prompt["plans"]]
        if self.planner is None:
            return plans
        faulty = {fault.part for fault in (*find_coherence_faults(plans), *self.planner.find_faults(plans))}
        if not faulty and min(score["coherence"], score["plausibility"]) < score["presence"]:
            faulty = set(item["labels"])
        return self.planner.redraw(item, plans, prompt["draft"], prompt["round"] + 1, faulty)

    def compose(self, item: LabelItem, draft: int, number: int, plans: Sequence[DefectPlan]) -> str:
        """One sentence that names every label, with its look and place where these are planned.

        Without plans, its setting is another one in each version, and names no class.
        """
        labels = item["labels"]
        if plans:
            return plans_to_sentence(plans, self.item_name, self.max_words)
        first = digest_to_int(f"{self.run_seed}\0{item['item_id']}\0{draft}") + number
        settings = [one for one in SETTINGS if not others_named(one, labels, self.classes)] or [""]
        return labels_to_sentence(labels, settings[first % len(settings)], self.max_words)

    def _entry(self, item: LabelItem, draft: int, number: int, plans: Sequence[DefectPlan]) -> PromptEntry:
        return {
            "draft": draft,
            "round": number,
            "text": self.compose(item, draft, number, plans),
            "plans": [plan_to_json(plan) for plan in plans],
            "by": self.name,
            "rung": "planned",
        }

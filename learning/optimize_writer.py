"""The T-Agent's writer, its question optimized for pictures that are accepted."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..configs.agents import TextAgentSettings
from ..configs.recipe import Recipe
from ..data.records import AnnotationTableBuilder, Category, Dataset
from ..errors import ModelOutageError, RecipeError
from ..graphs.crews import AgentGraphs
from ..graphs.image_agent import build_image_agent_graph
from ..graphs.items import digest_to_int, mean_scores
from ..graphs.pool import Pool
from ..graphs.prompt_files import WRITER_PLACEHOLDERS
from ..graphs.record import RunRecord
from ..graphs.templates import Template, load_template
from ..graphs.text_agent import build_text_agent_graph
from ..graphs.text_crew import TextCrew
from ..graphs.validators import build_validators
from ..graphs.workshop import Workshop, knows_class
from ..memory.artifacts import ArtifactStore
from ..memory.entries import ItemResult, WorkItem
from .optimize_examples import Agent, Example
from .optimize_tasks import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterTask:
    """The T-Agent's writer, one prompt an example; a trial's score is the share of its pictures that are accepted.

    Where nothing that the writer wrote could be used and a template stood in, the score is 0: a prompt earns nothing by
    making the writer fail.
    """

    base: Template
    crew: TextCrew
    """For one round an item, without memory."""
    batch_size: int
    setting: str = "llm.writer_prompt"
    agent: Agent = "writer"
    placeholders: Sequence[str] = WRITER_PLACEHOLDERS
    purpose: str = (
        "It asks a language model for a caption from which a picture of one object is painted. {subject} becomes the "
        "object with its look and view, {memory} lines on earlier captions, or nothing."
    )

    def run(self, prompt: str, examples: Sequence[Example]) -> Iterator[Trial]:
        crew = replace(self.crew, writer=replace(self.crew.writer, question=Template("writer", prompt)))
        ids = {_to_item(example)["item_id"]: example.example_id for example in examples}
        graphs = AgentGraphs(build_text_agent_graph(), build_image_agent_graph())
        for result in crew.make(graphs, [_to_item(example) for example in examples], Pool(), lambda made: made):
            yield _to_trial(ids[result["item"]["item_id"]], result)


def _to_item(example: Example) -> WorkItem:
    category_id = class_id(example.category)
    return {
        "item_id": f"text-{category_id}-{example.slot:04d}",
        "agent": "text_agent",
        "category_id": category_id,
        "category": example.category,
        "source_row": -1,
        "slot": example.slot,
    }


def class_id(category: str) -> int:
    """A class's id that depends on its name alone, so that the same example is always painted from the same seeds."""
    return 1 + digest_to_int(category) % (2**31 - 1)


def _to_trial(example_id: str, result: ItemResult) -> Trial:
    category, attempts = result["item"]["category"], result["attempts"]
    if result["ending"] == "failed" and ModelOutageError.__name__ in result["reason"]:
        raise ModelOutageError(f"{category!r}: {result['reason']}. The same command goes on from here")
    trial: Trial = {
        "example_id": example_id,
        "group": "painted",
        "score": 0.0,
        "metrics": {"fallback": 0.0},
        "evidence": f"For {category!r} no caption and no picture came about: {result['reason']}.",
        "calls": result["cost"]["calls"],
    }
    if not result["rounds"]:
        return trial
    last, kept = result["rounds"][-1], sum(attempt["accepted"] for attempt in attempts)
    metrics = {"fallback": float(last["rung"] == "template"), **mean_scores(attempts, ["image_text"])}
    if metrics["fallback"]:
        evidence = f"For {category!r} nothing that the writer wrote could be used; it must name the class and be short."
        return {**trial, "metrics": metrics, "evidence": evidence}
    evidence = (
        f"For {category!r} it wrote {last['prompt']!r}: {kept} of {len(attempts)} pictures were good. "
        f"What was wrong: {'; '.join(last['reasons']) or 'nothing'}."
    )
    score = kept / len(attempts)
    return {**trial, "score": round(score, 6), "metrics": metrics, "evidence": "" if score == 1 else evidence}


def build_writer_task(recipe: Recipe, categories: Sequence[str], folder: Path) -> WriterTask:
    """The T-Agent of a recipe without its memory and its rethinking, for classes by name.

    Args:
        folder: for pictures, and for the elements that the planner lists once a class.

    Raises:
        RecipeError: the recipe has no T-Agent, or its painter or scorer does not know a class.
        InputError: a setting names something unknown, or a key is missing.
    """
    agent = recipe.agents.text_agent
    if agent is None:
        raise RecipeError("the recipe has no `agents.text_agent`, whose writer could be optimized; name another recipe")
    knows = knows_class(recipe)
    if unknown := sorted({name for name in categories if not knows(name)}):
        raise RecipeError(
            f"painter {agent.painter!r} or its scorer does not know {', '.join(map(repr, unknown))}; remove these "
            "classes from the examples, or set another painter"
        )
    once = _one_round(recipe, agent)
    shop = Workshop(
        once,
        _only_classes(categories, folder),
        folder,
        ArtifactStore(folder / "artifacts"),
        {},
        threading.Event(),
        RunRecord(folder, "optimize", "optimize"),
        build_validators(once),
    )
    crew = shop.build_crews()["text_agent"]
    if not isinstance(crew, TextCrew):
        raise TypeError(f"the text agent's crew is {type(crew).__name__}, expected TextCrew")
    built_in = load_template("ld_writer" if agent.prompt_style == "structured" else "writer")
    return WriterTask(base=crew.writer.question or built_in, crew=crew, batch_size=recipe.budget.batch_items)


def _one_round(recipe: Recipe, agent: TextAgentSettings) -> Recipe:
    """The recipe for one prompt an item, judged without real crops, remembered by nobody, audited by nobody."""
    validation = agent.validation.model_copy(update={"audit_share": 0.0})
    once = agent.model_copy(update={"max_rounds": 1, "max_rewrites": 0, "max_crops": 0, "validation": validation})
    return recipe.model_copy(
        update={
            "agents": recipe.agents.model_copy(update={"text_agent": once, "image_agent": None}),
            "memory": recipe.memory.model_copy(update={"enabled": False}),
            "budget": recipe.budget.model_copy(update={"max_rejections_in_a_row": None}),
        }
    )


def _only_classes(categories: Sequence[str], folder: Path) -> Dataset:
    known = [Category(class_id(name), name) for name in dict.fromkeys(categories)]
    return Dataset(folder, "classes", tuple(known), [], AnnotationTableBuilder().build(0))

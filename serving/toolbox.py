"""A recipe's parts as tools: what its agents paint, mask and judge with, for anybody's agent."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from langchain_core.retrievers import BaseRetriever

from ..configs.agents import PromptStyle, TextAgentSettings
from ..configs.image_agent import ImageAgentSettings
from ..configs.memory import MemorySettings
from ..configs.recipe import Recipe, load_recipe
from ..errors import InputError
from ..graphs.choosing import choose_backends
from ..graphs.judges import build_judges
from ..graphs.text_agent import choose_elements
from ..graphs.writers import build_writer
from ..graphs.writing import DiversityElements, Feedback, Memory, PromptWriter, Usage, Written
from ..memory.prompt_history import NoHistory, PromptHistory, open_existing_history
from ..memory.prompt_records import Recalled
from ..tools.agent_tools.words import PromptMemory
from ..tools.agent_tools.workspace import Workspace
from ..tools.judging.painted_judge import PaintedJudge
from ..tools.judging.registry import build_image_embedder, build_text_scorer, build_wholeness
from ..tools.masking.registry import build_photograph_masker
from ..tools.protocols import PromptReader, SourcePainter
from ..tools.registry import build_painter, build_text_painter
from ..tools.toolkit import MaskwrightToolkit


def build_toolkit(
    recipe: str = "instada", *, root: Path, overrides: Iterable[str] = (), retriever: BaseRetriever | None = None
) -> MaskwrightToolkit:
    """Tools over the parts that a recipe's agents have; no model is loaded before a tool is called.

    Args:
        recipe: name of a built-in recipe, or path of a YAML file.
        root: the one folder that the tools read from and write to; made when missing.
        overrides: `key.sub=value` settings on top of the recipe.
        retriever: knowledge to look up, for the tool `retrieve_knowledge`.

    Raises:
        RecipeError: the recipe is wrong, or names something unknown.
        InputError: the root is no folder.
    """
    settings = choose_backends(load_recipe(recipe, overrides)).recipe
    if root.exists() and not root.is_dir():
        raise InputError(f"root {str(root)!r} is a file; expected a folder")
    root.mkdir(parents=True, exist_ok=True)
    text_agent = settings.agents.text_agent
    image_agent = settings.agents.image_agent
    text = text_agent or TextAgentSettings()
    scorer = build_text_scorer(text.similarity.text)
    painter = build_text_painter(text) if text_agent else None
    memory = ExistingMemory(settings.memory)
    return MaskwrightToolkit(
        workspace=Workspace(root),
        compose=settings.compose,
        repeat_threshold=settings.plan.repeat_threshold,
        prompt_memory=memory,
        prompt_author=RecipeAuthor(settings, painter, memory, text.prompt_style) if painter else None,
        retriever=retriever,
        text_painter=painter,
        source_painter=build_painter(image_agent) if image_agent else None,
        region_painter=_region_painter(image_agent),
        masker=build_photograph_masker(text_agent or image_agent or text, scorer),
        text_scorer=scorer,
        image_embedder=build_image_embedder(text.similarity.image),
        judge=PaintedJudge(text.limits, text.similarity),
        wholeness=build_wholeness(text.similarity.wholeness),
        vision_judges=build_judges(settings.llm, text.validation, settings.plan.seed),
    )


def _region_painter(settings: ImageAgentSettings | None) -> SourcePainter | None:
    if settings is None or settings.inpainting is None:
        return None
    return build_painter(settings.model_copy(update={"painter": "inpainting"}))


@dataclass(frozen=True, slots=True)
class ExistingMemory:
    """The prompt history of earlier runs, read only; where there is none, nothing is remembered and none is made."""

    settings: MemorySettings

    def recall(self, category: str) -> Recalled:
        return self._open().recall(category)

    def _open(self) -> PromptHistory | NoHistory:
        if not self.settings.enabled or not self.settings.path.exists():
            return NoHistory()
        return open_existing_history(self.settings)


class RecipeAuthor:
    """Writes prompts as the T-Agent does: elements planned once a class, chosen by the seed, earlier prompts in view.

    Args:
        reader: whose text encoder the prompts must fit.
    """

    def __init__(self, recipe: Recipe, reader: PromptReader, memory: PromptMemory, style: PromptStyle) -> None:
        self._recipe = recipe
        self._reader = reader
        self._memory = memory
        self._style: PromptStyle = style
        self._elements: dict[str, DiversityElements] = {}

    def write(self, category: str, seed: int) -> Written:
        """A first prompt; raises LanguageModelError, or InputError where the model is not to be had."""
        chosen = self._choose(category, seed)
        return self._writer.write(category, chosen, self._remember(category), Usage())

    def revise(self, category: str, seed: int, previous_prompt: str, problem: str) -> Written:
        """A better prompt than one that failed; raises as `write`."""
        chosen = self._choose(category, seed)
        feedback = Feedback({}, [problem])
        return self._writer.revise(category, previous_prompt, chosen, feedback, self._remember(category), Usage())

    def _choose(self, category: str, seed: int) -> list[str]:
        if category not in self._elements:
            self._elements[category] = self._writer.plan(category, Usage())
        return choose_elements(self._elements[category], f"{category}-{seed}", 0)

    def _remember(self, category: str) -> Memory:
        recalled = self._memory.recall(category)
        return Memory(
            [record.prompt for record in recalled.best],
            [(record.prompt, "; ".join(record.reasons)) for record in recalled.worst],
        )

    @functools.cached_property
    def _writer(self) -> PromptWriter:
        return build_writer(self._recipe.llm, self._reader, self._recipe.plan.seed, self._style)

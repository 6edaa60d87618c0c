"""Everything a recipe's agents work with, built from its settings; no model is loaded before it is used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..configs.agents import TextAgentSettings
from ..configs.image_agent import ImageAgentSettings
from ..configs.recipe import Recipe
from ..data.records import Dataset
from ..memory.artifacts import ArtifactStore
from ..memory.ledger import Ledger
from ..memory.prompt_history import open_prompt_history
from ..tools.judging.class_judge import VariantJudge
from ..tools.judging.painted_judge import PaintedJudge
from ..tools.judging.registry import build_image_embedder, build_text_scorer, build_wholeness
from ..tools.masking.registry import build_masker
from ..tools.protocols import TextScorer
from ..tools.registry import build_painter, build_text_painter
from .crews import Crew
from .elements import ElementsLedger
from .image_crew import ImageCrew
from .record import RunRecord
from .remembering import RunMemory
from .similarity import ClassCrops, DualSimilarity, VariantSimilarity
from .sources import DatasetSources, rank_sources, rows_of
from .text_crew import TextCrew
from .validating import Validator
from .writers import build_captioner, build_writer


def knows_class(recipe: Recipe) -> Callable[[str], bool]:
    """Whether the recipe's T-Agent can make a class: its painter can draw it, and its scorer has an opinion on it."""
    settings = recipe.agents.text_agent
    if settings is None:
        return lambda _: False
    painter, scorer = build_text_painter(settings), build_text_scorer(settings.similarity.text)
    return lambda name: painter.knows(name) and scorer.knows(name)


@dataclass(frozen=True, slots=True)
class Workshop:
    """Builds the crews of a run."""

    recipe: Recipe
    dataset: Dataset
    folder: Path
    artifacts: ArtifactStore
    source_rows: Mapping[int, Sequence[int]]
    """Rows that each class's items start from, by category id."""
    stop: threading.Event
    record: RunRecord
    validators: Mapping[str, Validator]
    """By agent."""

    def build_crews(self) -> dict[str, Crew]:
        """By agent.

        Raises:
            InputError: a setting names something unknown, a key is missing, or the memory's folder is not one.
            BrokenRunError: the memory cannot be written, or a model is not fetched.
        """
        crews: dict[str, Crew] = {}
        sources = DatasetSources(self.dataset)
        if (image_agent := self.recipe.agents.image_agent) is not None:
            crews["image_agent"] = self._image_crew(image_agent, sources)
        if (text_agent := self.recipe.agents.text_agent) is not None:
            crews["text_agent"] = self._text_crew(text_agent, sources)
        return crews

    def _image_crew(self, settings: ImageAgentSettings, sources: DatasetSources) -> ImageCrew:
        painter = build_painter(settings)
        scorer = similarity = None
        if settings.similarity is not None:
            scorer = build_text_scorer(settings.similarity.text, "image_agent")
            similarity = VariantSimilarity(scorer, build_image_embedder(settings.similarity.image, "image_agent"))
        llm, seed, reader = self.recipe.llm, self.recipe.plan.seed, painter.prompt_reader
        return ImageCrew(
            settings=settings,
            run_seed=seed,
            batch_items=self.recipe.budget.batch_items,
            stop=self.stop,
            painter=painter,
            masker=build_masker(settings, scorer, "image_agent"),
            similarity=similarity,
            judge=VariantJudge(settings.limits, settings.similarity),
            validator=self.validators["image_agent"],
            sources=sources,
            source_rows=self.source_rows,
            retired_rows=rows_of(self.dataset, settings.sources.retired),
            writer=build_writer(llm, reader, seed) if reader else None,
            captioner=build_captioner(llm, seed) if reader else None,
            artifacts=self.artifacts,
        )

    def _text_crew(self, settings: TextAgentSettings, sources: DatasetSources) -> TextCrew:
        recipe = self.recipe
        painter = build_text_painter(settings)
        writer = build_writer(recipe.llm, painter, recipe.plan.seed, settings.prompt_style)
        scorer = build_text_scorer(settings.similarity.text)
        crops = ClassCrops(
            embedder=build_image_embedder(settings.similarity.image),
            sources=sources,
            rows=dict(self._source_rows(settings)),
            max_crops=settings.max_crops,
        )
        return TextCrew(
            settings=settings,
            run_seed=recipe.plan.seed,
            batch_items=recipe.budget.batch_items,
            stop=self.stop,
            painter=painter,
            masker=build_masker(settings, scorer),
            similarity=DualSimilarity(
                scorer, crops, build_wholeness(settings.similarity.wholeness), self._rivals(scorer)
            ),
            judge=PaintedJudge(settings.limits, settings.similarity),
            validator=self.validators["text_agent"],
            memory=self._memory(painter.name),
            elements=ElementsLedger(Ledger(self.folder / "elements"), writer),
            writer=writer,
            captioner=build_captioner(recipe.llm, recipe.plan.seed),
            artifacts=self.artifacts,
        )

    def _rivals(self, scorer: TextScorer) -> list[str]:
        """The data set's classes that the scorer knows."""
        return [category.name for category in self.dataset.categories if scorer.knows(category.name)]

    def _memory(self, painter: str) -> RunMemory:
        """The prompt history, seen as it stood when the run began; a resumed run notes nothing anew."""
        history = open_prompt_history(self.recipe.memory)
        snapshot = history.snapshot(self.record.run_id)
        return RunMemory(
            history=history,
            settings=self.recipe.memory,
            snapshot=self.record.noted_snapshot(snapshot),
            run_id=self.record.run_id,
            started=self.record.started,
            painter=painter,
        )

    def _source_rows(self, settings: TextAgentSettings) -> Iterator[tuple[str, list[int]]]:
        """The real instances of each class that its pictures are compared with, the best first."""
        sources = self.recipe.agents.image_agent or ImageAgentSettings()
        for category in self.dataset.categories:
            rows = rank_sources(self.dataset, category.category_id, sources.sources, sources.limits.min_area_px)
            yield category.name, rows[: settings.max_crops]

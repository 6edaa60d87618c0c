"""Everything that agents may use, as LangChain tools over one folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import BaseTool, BaseToolkit
from pydantic import ConfigDict, Field, PrivateAttr, SkipValidation

from ..configs.compose import ComposeSettings
from .agent_tools.base import as_tool
from .agent_tools.composing import ComposeScene, Composing, Harmonize
from .agent_tools.datasets import Datasets, ExportDataset, InspectDataset
from .agent_tools.judging import JudgeImage, Judging, PictureJudge, ScoreImage, Scoring
from .agent_tools.masking import Masking, Segment
from .agent_tools.painting import EditRegion, GenerateImage, SourcePainting, TextPainting, VaryInstance
from .agent_tools.words import (
    PromptAuthor,
    PromptMemory,
    Recalling,
    RecallPrompts,
    RetrieveKnowledge,
    Retrieving,
    WritePrompt,
    Writing,
)
from .agent_tools.workspace import Workspace
from .protocols import CutOutScorer, ImageEmbedder, Masker, SourcePainter, TextPainter, TextScorer, VisionJudge


class MaskwrightToolkit(BaseToolkit):
    """Tools over the parts that it is given; a tool whose part is missing is not offered.

    Nothing is loaded before a tool is called. Calls wait for each other, since the parts share one device.

        toolkit = MaskwrightToolkit(workspace=Workspace(Path("work")), text_painter=painter)
        agent = create_agent(model, toolkit.get_tools())

    `serving.toolbox.build_toolkit` makes one from a recipe.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True, extra="forbid")

    workspace: SkipValidation[Workspace]
    compose: ComposeSettings = ComposeSettings()
    repeat_threshold: float = Field(0.001, gt=0, le=1, description="t of LVIS's repeat factor")
    prompt_author: SkipValidation[PromptAuthor | None] = None
    prompt_memory: SkipValidation[PromptMemory | None] = None
    retriever: BaseRetriever | None = None
    text_painter: SkipValidation[TextPainter | None] = None
    source_painter: SkipValidation[SourcePainter | None] = None
    region_painter: SkipValidation[SourcePainter | None] = None
    masker: SkipValidation[Masker | None] = None
    text_scorer: SkipValidation[TextScorer | None] = None
    image_embedder: SkipValidation[ImageEmbedder | None] = None
    judge: SkipValidation[PictureJudge | None] = None
    wholeness: SkipValidation[CutOutScorer | None] = None
    vision_judges: SkipValidation[Sequence[VisionJudge]] = ()
    """They look at what `judge` lets pass."""
    _lock: threading.RLock = PrivateAttr(default_factory=threading.RLock)

    def get_tools(self) -> list[BaseTool]:
        """The tools whose parts are there, in the order in which one would use them."""
        return [*self._word_tools(), *self._picture_tools(), *self._judge_tools(), *self._data_tools()]

    def _word_tools(self) -> Iterator[BaseTool]:
        if self.prompt_memory is not None:
            recalling = Recalling(self.prompt_memory)
            yield as_tool("recall_prompts", RecallPrompts, recalling.recall_prompts, self._lock)
        if self.retriever is not None:
            retrieving = Retrieving(self.retriever)
            yield as_tool("retrieve_knowledge", RetrieveKnowledge, retrieving.retrieve_knowledge, self._lock)
        if self.prompt_author is not None:
            writing = Writing(self.prompt_author)
            yield as_tool("write_prompt", WritePrompt, writing.write_prompt, self._lock)

    def _picture_tools(self) -> Iterator[BaseTool]:
        if self.text_painter is not None:
            from_words = TextPainting(self.workspace, self.text_painter)
            yield as_tool("generate_image", GenerateImage, from_words.generate_image, self._lock)
        if self.source_painter is not None:
            from_source = SourcePainting(self.workspace, self.source_painter)
            yield as_tool("vary_instance", VaryInstance, from_source.vary_instance, self._lock)
        if self.region_painter is not None:
            within = SourcePainting(self.workspace, self.region_painter)
            yield as_tool("edit_region", EditRegion, within.edit_region, self._lock)
        if self.masker is not None:
            masking = Masking(self.workspace, self.masker)
            yield as_tool("segment", Segment, masking.segment, self._lock)

    def _judge_tools(self) -> Iterator[BaseTool]:
        if self.text_scorer is None:
            return
        scoring = Scoring(self.workspace, self.text_scorer)
        yield as_tool("score_image", ScoreImage, scoring.score_image, self._lock)
        if self.image_embedder is not None and self.judge is not None:
            judging = Judging(
                self.workspace, self.text_scorer, self.image_embedder, self.judge, self.vision_judges, self.wholeness
            )
            yield as_tool("judge_image", JudgeImage, judging.judge_image, self._lock)

    def _data_tools(self) -> Iterator[BaseTool]:
        composing = Composing(self.workspace, self.compose)
        yield as_tool("harmonize", Harmonize, composing.harmonize, self._lock)
        yield as_tool("compose_scene", ComposeScene, composing.compose_scene, self._lock)
        datasets = Datasets(self.workspace, self.repeat_threshold)
        yield as_tool("inspect_dataset", InspectDataset, datasets.inspect_dataset, self._lock)
        yield as_tool("export_dataset", ExportDataset, datasets.export_dataset, self._lock)

"""Tools that say what a picture is worth: against texts, and as the T-Agent's judge does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from pydantic import Field

from ..judging.painted import measure_painted
from ..protocols import CutOutScorer, ImageEmbedder, TextScorer, Verdict, VisionJudge
from .base import CategoryName, PicturePath, ToolInput, ToolResult
from .workspace import Workspace


class ScoreImage(ToolInput):
    """Say how well each of some class names fits a picture, the best first. Scores compare within one answer."""

    image: PicturePath
    texts: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        min_length=1, max_length=20, description="class names, such as ['apple', 'tomato']"
    )


class JudgeImage(ToolInput):
    """Judge a cut-out as a training instance of a class: accepted or not, and each criterion with its reason.

    It measures the mask and the picture, its likeness to the class's name and, with reference images, to those. Vision
    models look at what passes, where the recipe names any.
    """

    image: PicturePath = Field(description="a cut-out with transparency, as segment or generate_image make it")
    category: CategoryName
    reference_images: list[PicturePath] = Field(
        default_factory=list, max_length=16, description="real pictures of the class, if there are any"
    )


class PictureJudge(Protocol):
    """Judges pictures of one class by their measures."""

    def judge(self, measures: Sequence[dict[str, float]]) -> list[Verdict]: ...


@dataclass(frozen=True, slots=True)
class Scoring:
    """Scores with an image-text scorer."""

    workspace: Workspace
    scorer: TextScorer

    def score_image(self, arguments: ScoreImage) -> ToolResult:
        rgba = self.workspace.read_picture(arguments.image)
        texts = list(dict.fromkeys(arguments.texts))
        [scores] = self.scorer.score([rgba], texts).tolist()
        ranked = sorted(zip(texts, scores, strict=True), key=lambda pair: -pair[1])
        summary = {
            "scores": [
                {"text": text, "score": round(score, 4), "known": self.scorer.knows(text)} for text, score in ranked
            ],
            "scorer": self.scorer.name,
        }
        return ToolResult(summary)


@dataclass(frozen=True, slots=True)
class Judging:
    """Judges with measures, likenesses and the judge that the T-Agent has."""

    workspace: Workspace
    scorer: TextScorer
    embedder: ImageEmbedder
    judge: PictureJudge
    vision_judges: Sequence[VisionJudge] = ()
    wholeness: CutOutScorer | None = None

    def judge_image(self, arguments: JudgeImage) -> ToolResult:
        rgba = self.workspace.read_picture(arguments.image)
        measures = measure_painted(rgba, pool_hashes=())
        if self.scorer.knows(arguments.category):
            measures["image_text"] = float(self.scorer.score([rgba], [arguments.category])[0, 0])
        if arguments.reference_images:
            references = [self.workspace.read_picture(name) for name in arguments.reference_images]
            own, *real = self.embedder.embed([rgba, *references])
            measures["image_image"] = float(np.clip((np.stack(real) @ own).mean(), -1, 1))
        if self.wholeness is not None:
            measures["wholeness"] = float(self.wholeness.score([rgba])[0])
        [verdict] = self.judge.judge([measures])
        asked = self.vision_judges if verdict.accepted else ()
        opinions = [judge.judge(rgba, arguments.category) for judge in asked]
        verdicts = [verdict, *(opinion.verdict for opinion in opinions)]
        summary = {
            "accepted": all(one.accepted for one in verdicts),
            "criteria": [
                {"name": one.name, "outcome": one.outcome, "score": round(one.score, 4), "reason": one.reason}
                for one_verdict in verdicts
                for one in one_verdict.criteria
            ],
            "seen": [{"judge": opinion.judge, "description": opinion.description} for opinion in opinions],
        }
        return ToolResult(summary)

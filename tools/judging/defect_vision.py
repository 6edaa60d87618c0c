"""A judge of defects that looks: any LangChain chat model with image input, asked for a rubric. It fails closed."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field

import cv2
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import Runnable
from pydantic import BaseModel, ConfigDict, Field

from ...data.records import ImageRGB, MaskHW
from ...errors import ModelRequestError
from ...models.answers import find_objects, message_of, text_of
from ...models.structured import ask
from ..defects import PASSING_SUM, DefectPlan, Edited, EditRequest, Quality
from .defect_measures import crop_around
from .defect_quality import HINTS, reject_outright
from .shown import show_picture
from .vision import is_bare

REVIEW_CHARS = 600
MIN_CROP_SIDE_PX = 256
"""A smaller crop is enlarged: vision models see patches, and a defect within one of them is a smudge."""
PICTURES = ("The original:", "The edited picture:", "The changed region of the edited picture, enlarged:")


class RubricAnswer(BaseModel):
    """What a model answers of an edit."""

    model_config = ConfigDict(extra="forbid")

    location: int = Field(strict=True, ge=0, le=5, description="0 to 5: whether such a defect can be at this place")
    quality: int = Field(strict=True, ge=0, le=5, description="0 to 5: whether it looks like a real one")
    review: str = Field(max_length=REVIEW_CHARS, description="what is wrong and what to do about it, at most 60 words")


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionQualityJudge:
    """A chat model with image input as a `QualityJudge`."""

    model: BaseChatModel
    name: str
    """As the recipe names the model."""
    question: str
    """With the placeholders {defect}, {plan} and {hints}."""
    max_repairs: int
    max_side_px: int
    max_image_bytes: int
    """Of each of the three pictures."""

    @property
    def version(self) -> str:
        """Of the question and how the pictures are shown."""
        asked = json.dumps([self.question, PICTURES, HINTS, MIN_CROP_SIDE_PX, self.max_side_px, self.max_image_bytes])
        return f"defect-judge-{hashlib.sha256(asked.encode()).hexdigest()[:12]}"

    def judge(self, request: EditRequest, edited: Edited, mask_hw: MaskHW) -> Quality:
        """Scores of one edit; 0 without asking for one of nothing or everything, and where the provider refuses.

        The measures say what it cost: calls, input_tokens and output_tokens.

        Raises:
            ModelOutageError: the model cannot be reached, or breaks down.
            ModelAccessError: its key is refused, or the server does not know it.
            UnparseableAnswerError: it answered, and nothing of it fits, after `max_repairs`.
            ImageSizeError: images and masks are not of one size.
        """
        if rejected := reject_outright(request, edited, mask_hw):
            return rejected
        transcript = _Transcript()
        try:
            answer = ask(
                self.model,
                [self._ask_about(request, edited.rgb, mask_hw)],
                RubricAnswer,
                check=lambda value: find_fault(value, transcript.last_text),
                max_repairs=self.max_repairs,
                invoke=transcript.invoke,
            )
        except ModelRequestError as exc:
            reason = f"the provider refuses to look: {exc}"[:REVIEW_CHARS]
            return Quality(0.0, 0.0, reason, {"calls": float(transcript.calls)})
        return Quality(
            location=float(min(answer.value.location, transcript.least("location"))),
            quality=float(min(answer.value.quality, transcript.least("quality"))),
            review=" ".join(answer.value.review.split()),
            measures={
                "calls": float(answer.attempts),
                "input_tokens": float(answer.input_tokens),
                "output_tokens": float(answer.output_tokens),
            },
        )

    def _ask_about(self, request: EditRequest, edited_rgb: ImageRGB, mask_hw: MaskHW) -> BaseMessage:
        question = self.question.format(
            defect=request.plan.defect, plan=describe_plan(request.plan), hints="\n".join(f"- {hint}" for hint in HINTS)
        )
        content: list[str | dict[str, object]] = [{"type": "text", "text": question.strip()}]
        pictures = (request.image_rgb, edited_rgb, _enlarge(crop_around(edited_rgb, mask_hw)))
        for title, picture in zip(PICTURES, pictures, strict=True):
            encoded, mime = show_picture(picture, self.max_side_px, self.max_image_bytes)
            url = f"data:{mime};base64,{base64.b64encode(encoded).decode()}"
            content += [{"type": "text", "text": title}, {"type": "image_url", "image_url": {"url": url}}]
        return HumanMessage(content)


@dataclass(slots=True)
class _Transcript:
    """What a model said of one edit, in answers that fit and in those that do not."""

    calls: int = 0
    last_text: str = ""
    scores: dict[str, int] = field(default_factory=dict)
    """The least of each that any answer gave."""

    def invoke(self, runnable: Runnable[LanguageModelInput, object], messages: list[BaseMessage]) -> object:
        self.calls += 1
        self.last_text = ""
        reply = runnable.invoke(messages)
        self.last_text = text_of(message_of(reply))
        for answer in find_objects(self.last_text):
            for name in ("location", "quality"):
                score = answer.get(name)
                if isinstance(score, int) and not isinstance(score, bool):
                    self.scores[name] = max(0, min(score, self.least(name)))
        return reply

    def least(self, name: str) -> int:
        """Being asked for another form is no reason to raise a score."""
        return self.scores.get(name, 5)


def find_fault(answer: RubricAnswer, text: str) -> str:
    """What is wrong with an answer that fits the schema: no advice on what is bad, or prose around what passes."""
    total = answer.location + answer.quality
    if total <= PASSING_SUM and not answer.review.strip():
        return "review: it is empty; say what is wrong and what to do about it"
    if total > PASSING_SUM and not is_bare(text):
        return "there is text around the object, which may take its scores back"
    return ""


def describe_plan(plan: DefectPlan) -> str:
    """A plan in words, for a model that has no use for its units."""
    x, y = plan.centre_xy
    row = "upper" if y < 1 / 3 else "middle" if y < 2 / 3 else "lower"
    column = "left" if x < 1 / 3 else "centre" if x < 2 / 3 else "right"
    return (
        f"{plan.family.replace('_', ' ')}, {row} {column} of the object, about {plan.size_ratio:.0%} of its side, "
        f"{plan.elongation:.1f} times as long as wide, severity {plan.severity:.1f} of 1"
    )


def _enlarge(crop: ImageRGB) -> ImageRGB:
    scale = -(-MIN_CROP_SIDE_PX // max(crop.shape[:2]))
    enlarged: ImageRGB = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return enlarged

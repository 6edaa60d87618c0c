"""A judge that looks: any LangChain chat model with image input, asked in a schema. It fails closed.

Gen-n-Val (arXiv 2506.04676) has a vision model describe a picture, then answer criteria about it; all must be met.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import Runnable
from pydantic import BaseModel, ConfigDict, Field, create_model

from ...configs.validation import CriterionSettings
from ...data.records import ImageRGB, ImageRGBA
from ...errors import ModelRequestError, RecipeError
from ...models.answers import find_objects, message_of, text_of
from ...models.structured import ask
from ..naming import noun_phrase
from ..protocols import Criterion, Opinion, Outcome
from .shown import GREY, show_picture

REASON_CHARS = 300
REFUSED = "refused"
"""The rung of an opinion whose provider would not take the picture."""
FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)


class CriterionAnswer(BaseModel):
    """One criterion's answer."""

    model_config = ConfigDict(extra="forbid")

    outcome: Outcome
    reason: str = Field(max_length=REASON_CHARS, description="what is seen, at most 15 words")


class PictureAnswer(BaseModel):
    """What a model answers of a picture; `answer_schema` adds a field a criterion."""

    model_config = ConfigDict(extra="forbid")

    description: str = Field(min_length=3, max_length=600, description="what the picture shows, one sentence")


@functools.cache
def answer_schema(names: tuple[str, ...]) -> type[PictureAnswer]:
    """The schema of the answers about criteria of these names.

    One class for equal names: the ladder remembers by it what a provider does not offer. The criteria are aliases,
    since some good names (`copy`, `schema`) are methods of every model.
    """
    fields = {_field(place): (CriterionAnswer, Field(alias=name)) for place, name in enumerate(names)}
    # mypy knows no overload for fields that are only known at run time.
    return create_model("PictureAnswer", __base__=PictureAnswer, **fields)  # type: ignore[call-overload,no-any-return]


def _field(place: int) -> str:
    return f"criterion_{place}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatVisionJudge:
    """A chat model with image input as a `VisionJudge`."""

    model: BaseChatModel
    name: str
    """As the recipe names the model."""
    question: str
    """With the placeholders {category} and {criteria}."""
    criteria: tuple[CriterionSettings, ...]
    max_repairs: int
    max_side_px: int
    max_image_bytes: int

    def __post_init__(self) -> None:
        if "description" in self.names:
            raise RecipeError(
                "a criterion is named 'description', which is where a vision judge says what it sees; "
                "give it another name under `validation.criteria`."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the criteria, in order."""
        return tuple(criterion.name for criterion in self.criteria)

    @property
    def version(self) -> str:
        """Of the question, the criteria and how the picture is shown."""
        criteria = [[criterion.name, criterion.question] for criterion in self.criteria]
        asked = json.dumps([self.question, criteria, GREY, self.max_side_px, self.max_image_bytes])
        return f"judge-{hashlib.sha256(asked.encode()).hexdigest()[:12]}"

    def judge(self, picture: ImageRGB | ImageRGBA, category: str) -> Opinion:
        """One opinion on one picture; every criterion abstains where the provider refuses the picture.

        Args:
            picture: (h, w, 3) or (h, w, 4) uint8; a cut-out is shown on plain grey.

        Raises:
            ModelOutageError: the model cannot be reached, or breaks down.
            ModelAccessError: its key is refused, or the server does not know it.
            UnparseableAnswerError: it answered, and nothing of it fits, after `max_repairs`.
            SampleError: the array is no picture.
        """
        transcript = _Transcript(self.names)
        try:
            answer = ask(
                self.model,
                [self._ask_about(picture, category)],
                answer_schema(self.names),
                check=lambda value: find_fault(self._read(value), transcript.last_text),
                max_repairs=self.max_repairs,
                invoke=transcript.invoke,
            )
        except ModelRequestError as exc:
            return self._refused(exc, transcript.calls)
        return Opinion(
            judge=self.name,
            version=self.version,
            description=answer.value.description,
            criteria=tuple(transcript.doubt(criterion) for criterion in self._read(answer.value)),
            rung=answer.rung,
            raw_text=answer.raw_text,
            calls=answer.attempts,
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
        )

    def _ask_about(self, picture: ImageRGB | ImageRGBA, category: str) -> BaseMessage:
        encoded, mime = show_picture(picture, self.max_side_px, self.max_image_bytes)
        url = f"data:{mime};base64,{base64.b64encode(encoded).decode()}"
        content: list[str | dict[str, object]] = [
            {"type": "text", "text": fill_question(self.question, self.criteria, category)},
            {"type": "image_url", "image_url": {"url": url}},
        ]
        return HumanMessage(content)

    def _read(self, value: PictureAnswer) -> list[Criterion]:
        criteria = []
        for place, name in enumerate(self.names):
            answer: CriterionAnswer = getattr(value, _field(place))
            criteria.append(_criterion(name, answer.outcome, " ".join(answer.reason.split())))
        return criteria

    def _refused(self, exc: ModelRequestError, calls: int) -> Opinion:
        reason = f"the provider refuses to look: {exc}"[:REASON_CHARS]
        return Opinion(
            judge=self.name,
            version=self.version,
            description="",
            criteria=tuple(_criterion(name, "abstain", reason) for name in self.names),
            rung=REFUSED,
            raw_text=str(exc),
            calls=calls,
            input_tokens=0,
            output_tokens=0,
        )


@dataclass(slots=True)
class _Transcript:
    """What a model said of one picture, in answers that fit and in those that do not."""

    names: tuple[str, ...]
    calls: int = 0
    last_text: str = ""
    unmet: set[str] = field(default_factory=set)
    """Criteria that any answer said are not met."""

    def invoke(self, runnable: Runnable[LanguageModelInput, object], messages: list[BaseMessage]) -> object:
        self.calls += 1
        self.last_text = ""
        reply = runnable.invoke(messages)
        self.last_text = text_of(message_of(reply))
        for answer in find_objects(self.last_text):
            self.unmet.update(name for name in self.names if _outcome(answer.get(name)) in ("fail", "abstain"))
        return reply

    def doubt(self, criterion: Criterion) -> Criterion:
        """Not met, where an earlier answer said so: being asked for another form is no reason to change one's mind."""
        if criterion.outcome != "meet" or criterion.name not in self.unmet:
            return criterion
        return _criterion(criterion.name, "abstain", "it said otherwise before it was asked to correct its answer")


def fill_question(question: str, criteria: Sequence[CriterionSettings], category: str) -> str:
    """The question as a model is asked it about pictures of a class."""
    phrase = noun_phrase(category)
    lines = (f"- {criterion.name}: {criterion.question.replace('{category}', phrase)}" for criterion in criteria)
    return question.format(category=phrase, criteria="\n".join(lines)).strip()


def find_fault(criteria: Sequence[Criterion], text: str) -> str:
    """What is wrong with an answer that fits the schema: what is not met unexplained, or prose around an acceptance."""
    unexplained = [c.name for c in criteria if c.outcome != "meet" and not c.reason]
    if unexplained:
        return f"{', '.join(unexplained)}: the reason is empty; say what is seen"
    if all(c.outcome == "meet" for c in criteria) and not is_bare(text):
        return "there is text around the object, which may take its answers back"
    return ""


def is_bare(text: str) -> bool:
    """Whether an answer is one JSON object and nothing else, thoughts and a code fence aside."""
    spoken = text.rpartition("</think>")[2].strip()
    fenced = FENCE.fullmatch(spoken)
    try:
        return isinstance(json.loads(fenced[1] if fenced else spoken), dict)
    except (ValueError, RecursionError):
        return False


def _outcome(answer: object) -> object:
    return answer.get("outcome") if isinstance(answer, dict) else None


def _criterion(name: str, outcome: Outcome, reason: str) -> Criterion:
    return Criterion(name, outcome, float(outcome == "meet"), reason)

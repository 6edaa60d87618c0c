"""The planner and the writer of the T-Agent: elements of a class's diversity, prompts made of them, prompts rethought.

InstaDA (arXiv 2509.02973) gives the planner's role and the writer's to two language models; here each is a setting.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ..models.structured import Invoke, Structured, ask, invoke_alone
from ..tools.protocols import Opinion
from .templates import Template, load_template

MAX_WORDS = 20
MAX_CHARS = 160
NUM_ELEMENTS = 4
REFUSALS = re.compile(
    r"\b(i['’]m sorry|i am sorry|i cannot|i can['’]t|as an ai|i['’]m unable|i am unable)\b", re.IGNORECASE
)
ECHO = re.compile(
    r"\b(captions?|descriptions?|json|schema|worked before|write (a|an|another|the|this)\b|what was wrong|mean scores"
    r"|plain background\W+\w+ a|bad pictures?|is (over|under))\b",
    re.IGNORECASE,
)
"""What only the question says: a prompt with such words repeats it."""
PHRASE = re.compile(r"[^\W\d_]+([ '-][^\W\d_]+){0,4}")
"""One to five words."""
GENERIC = frozenset(
    {"image", "picture", "photo", "photograph", "painting", "description", "view", "angle", "camera angle"}
)
"""What says nothing about a picture."""
LOOKS = ("red", "blue", "white", "black")
VIEWS = ("front view", "side view", "top view", "three-quarter view")
NEW_WORDS = 0.5
"""Share of a clause's words that earlier clauses must not hold, or it says nothing new."""

T = TypeVar("T", bound=BaseModel)
Element = Annotated[str, StringConstraints(max_length=40)]


class DiversityElements(BaseModel):
    """What can differ between pictures of one class."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kinds: tuple[str, ...] = Field(min_length=1, description="kinds of the class")
    looks: tuple[str, ...] = Field(min_length=1, description="colours or materials")
    views: tuple[str, ...] = Field(min_length=1, description="poses or points of view")


class ElementList(BaseModel):
    """One list of elements, as the planner answers it."""

    model_config = ConfigDict(extra="forbid")

    values: list[Element] = Field(min_length=NUM_ELEMENTS, max_length=NUM_ELEMENTS)


class WrittenPrompt(BaseModel):
    """A prompt for one picture."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(max_length=MAX_CHARS, description="the caption, on one line")


class Caption(BaseModel):
    """What a picture shows."""

    model_config = ConfigDict(extra="forbid")

    caption: str = Field(min_length=3, max_length=300, description="one sentence")


@dataclass(slots=True)
class Usage:
    """What language models were asked for one item."""

    calls: int = 0
    input_tokens: dict[str, int] = field(default_factory=dict)
    """By model, as the recipe names it."""
    output_tokens: dict[str, int] = field(default_factory=dict)

    def add(self, model: str, answer: Structured[T]) -> None:
        self._count(model, answer.attempts, answer.input_tokens, answer.output_tokens)

    def add_opinion(self, opinion: Opinion) -> None:
        self._count(opinion.judge, opinion.calls, opinion.input_tokens, opinion.output_tokens)

    def add_message(self, model: str, message: AIMessage) -> None:
        used = message.usage_metadata
        self._count(model, 1, used["input_tokens"] if used else 0, used["output_tokens"] if used else 0)

    def add_usage(self, other: Usage) -> None:
        """What was asked on behalf of this item elsewhere."""
        self.calls += other.calls
        for model, input_tokens in other.input_tokens.items():
            self._count(model, 0, input_tokens, other.output_tokens[model])

    def _count(self, model: str, calls: int, input_tokens: int, output_tokens: int) -> None:
        self.calls += calls
        self.input_tokens[model] = self.input_tokens.get(model, 0) + input_tokens
        self.output_tokens[model] = self.output_tokens.get(model, 0) + output_tokens


@dataclass(frozen=True, slots=True)
class Written:
    """A prompt and how it came about."""

    prompt: str
    rung: str
    version: str
    shortened: str = ""
    """How it was made to fit the text encoder; empty: it fitted."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """What it is made of, by name, where it was written in fields."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a writer is told of earlier prompts."""

    good: Sequence[str] = ()
    bad: Sequence[tuple[str, str]] = ()
    """Prompts with what was wrong."""

    def __str__(self) -> str:
        lines = [f"This worked before, write another one: {prompt}" for prompt in self.good]
        lines += [f"This failed ({reason}): {prompt}" for prompt, reason in self.bad]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Feedback:
    """What became of a prompt's pictures."""

    scores: Mapping[str, float]
    reasons: Sequence[str]
    captions: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [f"What was wrong: {'; '.join(self.reasons) or 'too few pictures were good'}."]
        if self.scores:
            lines.append(f"Mean scores: {', '.join(f'{name} {value:.2f}' for name, value in self.scores.items())}.")
        if self.captions:
            lines.append(f"What the pictures showed: {'; '.join(self.captions)}.")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioner:
    """A vision model that says what a picture shows."""

    model: BaseChatModel
    name: str
    max_repairs: int

    def caption(self, picture_png: bytes, usage: Usage) -> str:
        """One sentence on a picture; raises LanguageModelError."""
        picture = f"data:image/png;base64,{base64.b64encode(picture_png).decode()}"
        [question] = load_template("captioner").fill()
        content: list[str | dict[str, object]] = [
            {"type": "text", "text": str(question.content)},
            {"type": "image_url", "image_url": {"url": picture}},
        ]
        answer = ask(self.model, [HumanMessage(content)], Caption, max_repairs=self.max_repairs)
        usage.add(self.name, answer)
        return " ".join(answer.value.caption.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptWriter:
    """Writes prompts with two language models; `name`s are those of the recipe, for the costs."""

    planner: BaseChatModel
    planner_name: str
    writer: BaseChatModel
    writer_name: str
    max_repairs: int
    count_tokens: Callable[[str], int]
    max_tokens: int | None
    question: Template | None = None
    """What a first prompt is asked with, in place of the built-in template `writer`."""
    invoke: Invoke = invoke_alone
    """Carries out the calls of both."""

    def plan(self, category: str, usage: Usage) -> DiversityElements:
        """Elements of a class's diversity.

        Raises:
            LanguageModelError: the planner cannot be reached, or refuses.
        """
        kinds = self._list("planner_kinds", category, (), usage)
        return DiversityElements(
            kinds=[kind for kind in kinds if mentions(kind, category)] or [category],
            looks=self._list("planner_looks", category, LOOKS, usage),
            views=self._list("planner_views", category, VIEWS, usage),
        )

    def _list(self, template: str, category: str, fallback: Sequence[str], usage: Usage) -> list[str]:
        """Different, lower-case elements; the fallback where the planner has fewer than two to offer."""
        answer = ask(
            self.planner,
            load_template(template).fill(category=category, count=NUM_ELEMENTS),
            ElementList,
            template=lambda: ElementList(values=[*fallback, *[category] * NUM_ELEMENTS][:NUM_ELEMENTS]),
            max_repairs=self.max_repairs,
            invoke=self.invoke,
        )
        usage.add(self.planner_name, answer)
        values = dict.fromkeys(value.strip(" .,;:-").lower() for value in answer.value.values)
        named = [value for value in values if PHRASE.fullmatch(value) and value not in GENERIC | {category.lower()}]
        return named if len(named) > 1 or not fallback else list(fallback)

    def write(self, category: str, elements: Sequence[str], memory: Memory, usage: Usage) -> Written:
        """A first prompt; raises LanguageModelError."""
        values = {"category": category, "subject": describe(elements), "memory": memory}
        return self._ask(self.question or load_template("writer"), values, compose_prompt(elements), "", usage)

    def revise(
        self, category: str, prompt: str, elements: Sequence[str], feedback: Feedback, memory: Memory, usage: Usage
    ) -> Written:
        """A better prompt than one that failed (Prompt Rethink); raises LanguageModelError."""
        values = {
            "category": category,
            "prompt": prompt,
            "subject": describe(elements),
            "feedback": feedback,
            "memory": memory,
        }
        return self._ask(load_template("revise"), values, compose_prompt(elements), prompt, usage)

    def adjust(self, category: str, prompt: str, feedback: Feedback, usage: Usage) -> Written:
        """A better prompt than one whose variant of a real instance failed; raises LanguageModelError."""
        values = {"category": category, "prompt": prompt, "feedback": feedback}
        return self._ask(load_template("adjust"), values, prompt, prompt, usage)

    def fit(self, prompt: str) -> Written:
        """A prompt that no model wrote, within what the text encoder reads."""
        short = prompt if self._fits(prompt) else self._cut(prompt)
        return Written(short, "template", "given", "" if short == prompt else "cut")

    def compose(self, elements: Sequence[str]) -> Written:
        """A prompt without a model: the elements in a row, within what the text encoder reads."""
        return replace(self.fit(compose_prompt(elements)), version="compose", shortened="")

    def _ask(self, template: Template, values: dict[str, object], fallback: str, last: str, usage: Usage) -> Written:
        category = str(values["category"])
        answer = ask(
            self.writer,
            template.fill(**values),
            WrittenPrompt,
            template=lambda: WrittenPrompt(prompt=fallback[:MAX_CHARS]),
            check=lambda written: find_fault(written.prompt, category, last),
            max_repairs=self.max_repairs,
            invoke=self.invoke,
        )
        usage.add(self.writer_name, answer)
        return self._fit(Written(tidy(answer.value.prompt), answer.rung, template.version), category, usage)

    def _fit(self, written: Written, category: str, usage: Usage) -> Written:
        """Within what the painter's text encoder reads: shortened once by the writer, then cut."""
        if self._fits(written.prompt):
            return written
        answer = ask(
            self.writer,
            load_template("shorten").fill(category=category, prompt=written.prompt, max_words=MAX_WORDS),
            WrittenPrompt,
            template=lambda: WrittenPrompt(prompt=self._cut(written.prompt)),
            check=lambda shorter: find_fault(shorter.prompt, category, written.prompt),
            max_repairs=0,
            invoke=self.invoke,
        )
        usage.add(self.writer_name, answer)
        shorter = tidy(answer.value.prompt)
        if answer.rung != "template" and self._fits(shorter):
            return Written(shorter, written.rung, written.version, "by the writer")
        return Written(self._cut(written.prompt), written.rung, written.version, "cut")

    def _fits(self, prompt: str) -> bool:
        return self.max_tokens is None or self.count_tokens(prompt) <= self.max_tokens

    def _cut(self, prompt: str) -> str:
        words = prompt.split()
        while len(words) > 1 and not self._fits(" ".join(words)):
            words.pop()
        return " ".join(words)[:MAX_CHARS]


def describe(elements: Sequence[str]) -> str:
    """Kind, look and view as one phrase: ("racing car", "red", "from above") is "red racing car, from above"."""
    kind, look, view = elements
    return f"{look} {kind}, {view}"


def compose_prompt(elements: Sequence[str]) -> str:
    """The writer's last resort: the elements in a row."""
    return f"a single {describe(elements)}"[:MAX_CHARS]


def find_fault(prompt: str, category: str, last: str) -> str:
    """What keeps a text from being a prompt for a class: a refusal, an echo of the question, the last prompt again."""
    if REFUSALS.search(prompt):
        return "that is no caption; describe the picture"
    if ECHO.search(prompt) or "{" in prompt:
        return "that repeats the question; describe the picture"
    if not mentions(tidy(prompt), category):
        return f"the caption must contain the word {category!r}"
    if last and tidy(prompt).lower() == last.lower():
        return "that is the same caption again; change it"
    return ""


def mentions(prompt: str, category: str) -> bool:
    """Whether a prompt names the class: its last word, also in the plural."""
    words = re.findall(r"\w+", category.lower())
    return not words or re.search(rf"\b{re.escape(words[-1])}(e?s)?\b", prompt.lower()) is not None


def tidy(prompt: str) -> str:
    """The first sentence in one line of at most `MAX_WORDS` words, without clauses that only repeat what was said."""
    clauses: list[str] = []
    said: set[str] = set()
    sentence = re.split(r"[.;:!?]\s", " ".join(prompt.split()).strip(" \"'`.,"))[0]
    for clause in sentence.split(", "):
        words = re.findall(r"\w+", clause.lower())
        new = [word for word in words if word not in said]
        if clauses and (len(new) <= NEW_WORDS * len(words) or clause.lower().startswith("this is")):
            break
        said.update(words)
        clauses.append(clause)
    return " ".join(", ".join(clauses).split()[:MAX_WORDS])

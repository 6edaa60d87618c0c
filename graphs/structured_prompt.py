"""Gen-n-Val's LD prompt agent (arXiv 2506.04676): a prompt in named fields, one subject and no background.

The fields stand in the order of importance: so they are joined, and from the last one upward they are left out where
the painter's text encoder reads less.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.config import JsonDict

from ..models.structured import ask
from .items import digest_to_int
from .templates import Template, load_template
from .writing import ECHO, REFUSALS, Feedback, Memory, PromptWriter, Usage, Written, describe, mentions

MAX_TOKENS = 75
"""Of a prompt, as the paper has it: what CLIP reads beside its two marks."""
BACKGROUND = re.compile(r"\b(back(ground|drop)s?|scenery)\b", re.IGNORECASE)
COMPANY = re.compile(
    r"\b((and|or) (a|an|another|one|two)|another|beside|next to|together with|surrounded by"
    r"|(two|three|four|several|many|multiple) \w+)\b",
    re.IGNORECASE,
)
"""Words by which a second object comes in."""
UNSAID = frozenset({"", "any", "n/a", "na", "none", "not specified", "null", "unknown", "unspecified"})

MEDIA = ("studio photograph", "product photograph", "close-up photograph", "catalogue photograph")
STATUSES = ("intact", "brand new", "well kept", "slightly worn")
TEXTURES = ("smooth surface", "fine-grained surface", "detailed surface", "matte surface")
QUALITIES = ("high resolution, realistic", "sharp focus, lifelike", "8k, photorealistic", "highly detailed, realistic")
LIGHTS = ("soft studio light", "diffuse daylight", "bright even light", "gentle side light")
STYLES = ("realism", "documentary style", "naturalistic", "commercial style")
MOODS = ("calm", "neutral mood", "clean look", "plain and sober")
PERIODS = ("modern", "contemporary", "present day", "timeless")

Phrase = Annotated[str, StringConstraints(max_length=32)]
"""Short enough that a small model says all of them in 160 tokens."""


def _without_defaults(schema: JsonDict) -> None:
    """Providers' strict schemas know no defaults."""
    properties = schema["properties"]
    assert isinstance(properties, dict)
    for one in properties.values():
        assert isinstance(one, dict)
        one.pop("default", None)


class StructuredPrompt(BaseModel):
    """One object and how its picture looks, in short phrases."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_without_defaults)

    subject: str = Field(min_length=2, max_length=60, description="the one object")
    status: Phrase = Field("", description="state it is in")
    colour: Phrase = Field("", description="its colours")
    medium: Phrase = Field("", description="kind of picture, such as studio photograph")
    viewpoint: Phrase = Field("", description="where it is seen from")
    texture: Phrase = Field("", description="its surface")
    quality: Phrase = Field("", description="resolution and realism")
    lighting: Phrase = Field("", description="how it is lit")
    style: Phrase = Field("", description="style of the picture")
    atmosphere: Phrase = Field("", description="mood of the picture")
    time_period: Phrase = Field("", description="time it is from")


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredPromptWriter(PromptWriter):
    """A `PromptWriter` whose prompts are made of fields, `MAX_TOKENS` long at most."""

    def write(self, category: str, elements: Sequence[str], memory: Memory, usage: Usage) -> Written:
        """A first prompt; raises LanguageModelError."""
        values = {"category": category, "subject": describe(elements), "memory": memory}
        return self._ask_fields(self.question or load_template("ld_writer"), values, elements, "", usage)

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
        return self._ask_fields(load_template("ld_revise"), values, elements, prompt, usage)

    def compose(self, elements: Sequence[str]) -> Written:
        """A prompt without a model: fields drawn by the elements."""
        return self._join(compose_fields(elements), "template", "ld_compose")

    def _ask_fields(
        self, template: Template, values: Mapping[str, object], elements: Sequence[str], last: str, usage: Usage
    ) -> Written:
        category = str(values["category"])
        answer = ask(
            self.writer,
            template.fill(**values),
            StructuredPrompt,
            template=lambda: compose_fields(elements, last),
            check=lambda fields: find_field_fault(fields, category, last),
            max_repairs=self.max_repairs,
            invoke=self.invoke,
        )
        usage.add(self.writer_name, answer)
        return self._join(answer.value, answer.rung, template.version)

    def _join(self, answer: StructuredPrompt, rung: str, version: str) -> Written:
        """One prompt of the fields that fit; of a subject that is too long by itself, the words that fit."""
        fields = said_fields(answer)
        kept = dict(fields)
        while len(kept) > 1 and not self._fits(join_fields(kept)):
            kept.popitem()
        left_out = [name for name in fields if name not in kept]
        shortened = f"by leaving out {', '.join(left_out)}" if left_out else ""
        if not self._fits(kept["subject"]):
            kept["subject"], shortened = self._cut(kept["subject"]), "cut"
        return Written(join_fields(kept), rung, version, shortened, kept)

    def _fits(self, prompt: str) -> bool:
        return self.count_tokens(prompt) <= min(MAX_TOKENS, self.max_tokens or MAX_TOKENS)


def said_fields(answer: StructuredPrompt) -> dict[str, str]:
    """The fields that say something, in the order of importance; what only repeats earlier fields says nothing."""
    fields: dict[str, str] = {}
    said: set[str] = set()
    for name in StructuredPrompt.model_fields:
        phrase = " ".join(str(getattr(answer, name)).split()).strip(" \"'`.,;:")
        words = set(re.findall(r"\w+", phrase.lower()))
        if words - said and phrase.lower() not in UNSAID | {name, name.replace("_", " ")}:
            fields[name] = phrase
            said |= words
    return fields


def join_fields(fields: Mapping[str, str]) -> str:
    """One prompt, in the order of the fields."""
    return ", ".join(fields.values())


def find_field_fault(answer: StructuredPrompt, category: str, last: str) -> str:
    """What keeps an answer from being a prompt for one object of a class, as the model is told it; "" where nothing."""
    fields = said_fields(answer)
    prompt = join_fields(fields)
    subject = fields.get("subject", "")
    if REFUSALS.search(prompt):
        return "that is no description; describe the picture"
    if ECHO.search(prompt) or "{" in prompt:
        return "that repeats the question; describe the picture"
    if not mentions(subject, category):
        return f"subject must contain the word {category!r}"
    if found := COMPANY.search(subject):
        return f"there must be one object only; leave out {found.group()!r}"
    for name, phrase in fields.items():
        if BACKGROUND.search(phrase):
            return f"{name} must not speak of a background"
    if last and prompt.lower() == last.lower():
        return "that is the same description again; change it"
    return ""


def compose_fields(elements: Sequence[str], last: str = "") -> StructuredPrompt:
    """The writer's last resort: fields of the elements, the others drawn by these and the prompt that failed."""
    kind, look, view = elements

    def draw(name: str, choices: Sequence[str]) -> str:
        return choices[digest_to_int("\0".join((*elements, last, name))) % len(choices)]

    return StructuredPrompt(
        subject=f"a single {kind}"[:60],
        status=draw("status", STATUSES),
        colour=look[:32],
        medium=draw("medium", MEDIA),
        viewpoint=view[:32],
        texture=draw("texture", TEXTURES),
        quality=draw("quality", QUALITIES),
        lighting=draw("lighting", LIGHTS),
        style=draw("style", STYLES),
        atmosphere=draw("atmosphere", MOODS),
        time_period=draw("time_period", PERIODS),
    )

"""Scripted stand-ins at the T-Agent's boundary: a writer, a painter, a masker, a scorer, an embedder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
import orjson
import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field

from maskwright.data.records import ImageRGB, ImageRGBA
from maskwright.tools import registry
from maskwright.tools.judging import registry as judging_registry
from maskwright.tools.protocols import Masked, MaskRequest, Painted, PaintRequest

WRITER = "text_helpers:make_writer"
"""`scripted_answer` as a recipe names it."""
INPUT_TOKENS, OUTPUT_TOKENS = 10, 5
HEIGHT, WIDTH = 48, 64
GOOD, POOR = 0.9, 0.1
"""Likenesses above and under the default threshold."""
KINDS = {
    "different kinds": "kinds",
    "common colours": "looks",
    "camera angles": "views",
    "made bad pictures": "revise",
    "made a bad photo": "adjust",
    "in at most": "shorten",
    "Write a short caption": "write",
    "in one sentence": "caption",
}
"""What a question is about, by words that only it says; the first that is found counts."""

Script = Callable[[str], str]
Answer = str | Exception
PaintScript = Callable[[PaintRequest], Painted]


def kind_of(question: str) -> str:
    return next(kind for words, kind in KINDS.items() if words in question)


def values_json(*values: str) -> str:
    return orjson.dumps({"values": values}).decode()


def prompt_json(prompt: str) -> str:
    return orjson.dumps({"prompt": prompt}).decode()


def scripted_answer(question: str) -> str:
    """A good answer that depends on the question alone, so that no order of asking changes it."""
    kind = kind_of(question)
    if kind == "kinds":
        category = re.findall(r"kinds of (.+)\?", question)[0]
        return values_json(*(f"{form} {category}" for form in ("round", "flat", "tall", "small")))
    if kind == "looks":
        return values_json("red", "blue", "golden", "green")
    if kind == "views":
        return values_json("from above", "from below", "in profile", "close up")
    if kind == "caption":
        return '{"caption": "a grey smudge"}'
    if kind == "adjust":
        return prompt_json(f"another {re.findall('photo of one (.+)[.]', question)[-1]} in daylight")
    subject = re.findall(r"single (.+) on a plain background", question)[-1]
    return prompt_json(f"one shiny {subject}" if kind == "revise" else f"a single {subject}")


def answers(**queues: Sequence[Answer]) -> Script:
    """By kind of question: each answer once, the last one again and again; other kinds as `scripted_answer`."""
    left = {kind: list(queue) for kind, queue in queues.items()}

    def script(question: str) -> str:
        queue = left.get(kind_of(question))
        if not queue:
            return scripted_answer(question)
        answer = queue.pop(0) if len(queue) > 1 else queue[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return script


class ScriptedChat(BaseChatModel):
    """Answers by its script and records what it is asked; offers no structured output of its own."""

    script: Script = scripted_answer
    conversations: list[list[str]] = Field(default_factory=list)
    """Texts of every request, one a message."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def questions(self) -> list[str]:
        """The first message of each request, whatever repairs came after it."""
        return [texts[0] for texts in self.conversations]

    def asked(self, kind: str) -> list[str]:
        return [question for question in self.questions if kind_of(question) == kind]

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: object,
    ) -> ChatResult:
        self.conversations.append([message.text for message in messages])
        usage = {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS, "total_tokens": 15}
        message = AIMessage(self.script(messages[0].text), usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])


def make_writer(**options: object) -> ScriptedChat:
    """Takes whatever a recipe says of a model, to no effect."""
    return ScriptedChat()


def draw(seed: int, likeness: float = GOOD, *, grey: bool = False) -> ImageRGBA:
    """(48, 64, 4): an ellipse of blocks that depend on the seed; its red is the likeness that the scorer will read."""
    rng = np.random.default_rng(seed)
    rgba = np.zeros((HEIGHT, WIDTH, 4), dtype=np.uint8)
    rgba[..., 0] = round(255 * likeness)
    rgba[..., 1:3] = 128 if grey else np.kron(rng.integers(0, 255, (6, 8, 2)), np.ones((8, 8, 1))).astype(np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    cv2.ellipse(mask, (WIDTH // 2, HEIGHT // 2), (24, 18), 0, 0, 360, 255, -1)
    rgba[..., 3] = mask
    return rgba


def good(request: PaintRequest) -> Painted:
    return Painted(draw(request.seed), {"steps": 4.0})


def poor(request: PaintRequest) -> Painted:
    return Painted(draw(request.seed, POOR), {"steps": 4.0})


def paints(rgba: ImageRGBA, flaw: str = "") -> PaintScript:
    return lambda _: Painted(rgba, {}, flaw=flaw)


def breaks(error: BaseException) -> PaintScript:
    def script(request: PaintRequest) -> Painted:
        raise error

    return script


@dataclass
class ScriptedTextPainter:
    """Paints by its script, one entry a request, the last one again and again; records its batches."""

    script: Sequence[PaintScript] = (good,)
    max_tokens: int | None = None
    unknown: frozenset[str] = frozenset()
    batches: list[list[PaintRequest]] = field(default_factory=list)
    name: str = "scripted"
    revision: str = "1"

    @property
    def requests(self) -> list[PaintRequest]:
        return [request for batch in self.batches for request in batch]

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        first = len(self.requests)
        self.batches.append(list(requests))
        return [self.script[min(first + n, len(self.script) - 1)](request) for n, request in enumerate(requests)]

    def count_tokens(self, prompt: str) -> int:
        return len(prompt.split())

    def knows(self, category: str) -> bool:
        return category not in self.unknown


@dataclass
class ScriptedMasker:
    """The alpha as it was painted, with what the script says of each picture."""

    found: Sequence[tuple[float, int | None]] = ((1.0, None),)
    """Share of the alpha that is kept, and number of objects; the last one again and again."""
    requests: list[MaskRequest] = field(default_factory=list)
    name: str = "scripted"
    revision: str = "1"

    def mask(self, requests: Sequence[MaskRequest]) -> list[Masked]:
        masked = []
        for request in requests:
            share, count = self.found[min(len(self.requests), len(self.found) - 1)]
            self.requests.append(request)
            masked.append(Masked((request.rgba[..., 3] * share).astype(np.uint8), 0.8, count))
        return masked


@dataclass
class ScriptedScorer:
    """Reads the likeness that `draw` put into a picture's red, and records the batches."""

    unknown: frozenset[str] = frozenset()
    answer: float | None = None
    """Instead of the picture's own."""
    batches: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    """Number of pictures, and names."""
    name: str = "scripted"
    revision: str = "1"

    def score(self, images: Sequence[ImageRGB | ImageRGBA], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.batches.append((len(images), tuple(texts)))
        read = [_red(image) / 255 if self.answer is None else self.answer for image in images]
        return np.repeat(np.asarray(read, dtype=np.float32)[:, None], len(texts), axis=1)

    def knows(self, category: str) -> bool:
        return category not in self.unknown


def _red(image: npt.NDArray[np.uint8]) -> float:
    seen = image[image[..., 3] > 0] if image.shape[2] == 4 else image.reshape(-1, 3)
    return float(seen[:, 0].mean())


@dataclass
class ScriptedEmbedder:
    """The same unit vector for every image."""

    name: str = "scripted"

    def embed(self, images: Sequence[ImageRGB | ImageRGBA]) -> npt.NDArray[np.float32]:
        return np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (len(images), 1))


@dataclass
class ScriptedSimilarity:
    """What `DualSimilarity` answers: the scorer's likeness, and a likeness to real crops where one is given."""

    scorer: ScriptedScorer = field(default_factory=ScriptedScorer)
    image_image: float | None = None

    def score(self, pairs: Sequence[tuple[ImageRGBA, str]]) -> list[Mapping[str, float]]:
        real = {} if self.image_image is None else {"image_image": self.image_image}
        return [{"image_text": float(self.scorer.score([rgba], [name])[0, 0]), **real} for rgba, name in pairs]


def register(
    monkeypatch: pytest.MonkeyPatch, painter: ScriptedTextPainter, scorer: ScriptedScorer | None = None
) -> list[str]:
    """Enter scripted backends under the name `scripted`; returns the settings by which a recipe asks for them."""
    monkeypatch.setitem(registry.TEXT_PAINTERS, "scripted", lambda _: painter)
    monkeypatch.setitem(judging_registry.TEXT_SCORERS, "scripted", lambda _: scorer or ScriptedScorer())
    monkeypatch.setitem(judging_registry.IMAGE_EMBEDDERS, "scripted", lambda _: ScriptedEmbedder())
    return [
        "agents.text_agent.painter=scripted",
        "agents.text_agent.similarity.text={name: scripted, model: none}",
        "agents.text_agent.similarity.image={name: scripted, model: none}",
        "agents.text_agent.similarity.wholeness=null",
        f"llm.model={WRITER}",
    ]

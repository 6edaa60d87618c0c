"""Scripted models for optimizing prompts: a judge with eyes, a writer, an engine, all by what their question says."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import orjson
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field
from text_helpers import ScriptedChat, prompt_json, scripted_answer

from maskwright.configs.validation import CRITERIA

JUDGE, ENGINE, WRITER = (f"optimize_helpers:make_{role}" for role in ("judge", "engine", "writer"))
STRICT = "STRICT. A picture of a {category}: {criteria}"
"""The scripted judge answers rightly."""
WRONG = "WRONG. A picture of a {category}: {criteria}"
"""It answers the contrary of what is right."""
LENIENT = "A picture of a {category}: {criteria}"
"""It keeps everything."""
Kind = Literal["loss", "gradient", "update"]


@dataclass
class Record:
    """What the scripted models of a test answer and were asked."""

    updates: list[str | BaseException] = field(default_factory=list)
    """What the engine proposes: each once, the last one again and again."""
    engine: list[tuple[Kind, list[str]]] = field(default_factory=list)
    """Kind of each question, and the texts of its messages."""
    judged: list[tuple[str, str]] = field(default_factory=list)
    """First word of each question, and the picture's bytes as base64."""
    written: list[str] = field(default_factory=list)

    def asked(self, kind: Kind) -> list[list[str]]:
        return [texts for asked, texts in self.engine if asked == kind]

    def clear(self) -> None:
        for found in (self.updates, self.engine, self.judged, self.written):
            found.clear()


RECORD = Record()


class ScriptedEngine(ScriptedChat):
    """Proposes what `RECORD` holds."""

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: object,
    ) -> ChatResult:
        question = messages[0].text
        kind: Kind = "loss" if "went wrong" in question else "update" if "Write the whole" in question else "gradient"
        RECORD.engine.append((kind, [message.text for message in messages]))
        return _result(_propose() if kind == "update" else _fields(kind))


def _fields(kind: Kind) -> str:
    return '{"problem": "it keeps torn ones"}' if kind == "loss" else '{"advice": "be strict"}'


def _propose() -> str:
    answer = RECORD.updates.pop(0) if len(RECORD.updates) > 1 else RECORD.updates[0]
    if isinstance(answer, BaseException):
        raise answer
    return prompt_json(answer)


class ScriptedEyes(BaseChatModel):
    """Sees whether a picture is red, which is good, and answers as the first word of its question says."""

    names: tuple[str, ...] = Field(default_factory=lambda: tuple(one.name for one in CRITERIA["cut_out"]))

    @property
    def _llm_type(self) -> str:
        return "eyes"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: object,
    ) -> ChatResult:
        word, picture = messages[0].text.split(maxsplit=1)[0].strip(".:"), _picture_of(messages)
        RECORD.judged.append((word, picture))
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR)
        good = pixels[..., 2].mean() > 128
        keeps = {"STRICT": good, "WRONG": not good}.get(word, True)
        outcome = {"outcome": "meet" if keeps else "fail", "reason": "as seen"}
        return _result(orjson.dumps({"description": "a thing", **dict.fromkeys(self.names, outcome)}).decode())


def _picture_of(messages: Sequence[BaseMessage]) -> str:
    [url] = [block["image_url"]["url"] for block in _blocks(messages[0]) if block["type"] == "image_url"]
    return str(url).partition("base64,")[2]


def _blocks(message: BaseMessage) -> Iterator[dict[str, dict[str, str]]]:
    yield from (block for block in message.content if isinstance(block, dict))


def _result(text: str) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])


def make_judge(**options: object) -> ScriptedEyes:
    return ScriptedEyes()


def make_engine(**options: object) -> ScriptedEngine:
    return ScriptedEngine()


def make_writer(**options: object) -> ScriptedChat:
    """Writes "a glossy …" where its question asks for gloss."""

    def script(question: str) -> str:
        RECORD.written.append(question)
        answer = scripted_answer(question)
        return answer.replace("a single", "a glossy") if "glossy" in question else answer

    return ScriptedChat(script=script)


def write_labelled(folder: Path, each: int = 4) -> Path:
    """CLASS/keep with red pictures and CLASS/reject with dark ones, 48 high and 64 wide, all different."""
    for label, red in (("keep", 230), ("reject", 20)):
        below = folder / "schräube" / label
        below.mkdir(parents=True)
        for number in range(each):
            picture = np.full((48, 64, 3), (0, 20 * number, red), np.uint8)
            (below / f"{number}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return folder


def write_classes(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
    return folder

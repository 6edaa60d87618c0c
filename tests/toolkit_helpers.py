"""Parts for the tools that answer at once and record what they are asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from langchain_core.documents import Document
from langchain_core.messages import ToolMessage
from langchain_core.retrievers import BaseRetriever
from PIL import Image

from maskwright.configs.judging import PaintedLimits, SimilaritySettings
from maskwright.graphs.writing import Written
from maskwright.memory.prompt_records import PromptRecord, Recalled, rank_prompts
from maskwright.tools.agent_tools.workspace import Workspace
from maskwright.tools.judging.painted_judge import PaintedJudge
from maskwright.tools.protocols import Masked, MaskRequest, Painted, PaintRequest
from maskwright.tools.toolkit import MaskwrightToolkit

HEIGHT, WIDTH = 48, 64
PHOTO, DISC = "bilder/foto ü.png", "bilder/disc.png"
APPLE = {"category": "apple"}


def disc_rgba(height: int = HEIGHT, width: int = WIDTH) -> npt.NDArray[np.uint8]:
    """A textured disc on nothing."""
    ys, xs = np.mgrid[:height, :width]
    inside = (ys - height / 2) ** 2 + (xs - width / 2) ** 2 < (height / 3) ** 2
    rgba = np.random.default_rng(1).integers(0, 255, (height, width, 4)).astype(np.uint8)
    rgba[..., 3] = np.where(inside, 255, 0)
    return rgba


def write_pictures(root: Path) -> None:
    """`bilder/foto ü.png`, a photograph, and `bilder/disc.png`, a cut-out."""
    folder = root / "bilder"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)).save(folder / "foto ü.png")
    Image.fromarray(disc_rgba()).save(folder / "disc.png")


@dataclass
class RecordingPainter:
    """A disc, whatever is asked."""

    name: str = "disc"
    revision: str = "1"
    max_tokens: int | None = 77
    prompt_reader: None = None
    needs_view: bool = False
    flaw: str = ""
    requests: list[PaintRequest] = field(default_factory=list)

    def knows(self, category: str) -> bool:
        return category != "quark"

    def count_tokens(self, prompt: str) -> int:
        return len(prompt.split())

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        self.requests += requests
        return [Painted(disc_rgba(), {}, flaw=self.flaw) for _ in requests]


@dataclass
class BoxMasker:
    """The box, or all; nothing of a quark."""

    name: str = "box"
    revision: str = "1"

    def mask(self, requests: Sequence[MaskRequest]) -> list[Masked]:
        return [Masked(self._alpha(request), 0.75, num_instances=1) for request in requests]

    def _alpha(self, request: MaskRequest) -> npt.NDArray[np.uint8]:
        alpha = np.zeros(request.rgba.shape[:2], np.uint8)
        if request.category != "quark":
            x0, y0, x1, y1 = request.box_xyxy or (0, 0, alpha.shape[1], alpha.shape[0])
            alpha[int(y0) : int(y1), int(x0) : int(x1)] = 255
        return alpha


class LengthScorer:
    """Longer texts fit better."""

    name = "length"
    revision = "1"

    def score(self, images: Sequence[npt.NDArray[np.uint8]], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.array([[min(len(text) / 10, 1.0) for text in texts]] * len(images), np.float32)

    def knows(self, category: str) -> bool:
        return category != "quark"


class MeanEmbedder:
    """Mean colour."""

    name = "mean"

    def embed(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        means = np.array([image[..., :3].mean(axis=(0, 1)) for image in images], np.float32)
        return means / np.linalg.norm(means, axis=1, keepdims=True)


class EchoAuthor:
    """Says what it was asked."""

    def write(self, category: str, seed: int) -> Written:
        return Written(f"a {category}, number {seed}", "json_schema", "1")

    def revise(self, category: str, seed: int, previous_prompt: str, problem: str) -> Written:
        return Written(f"{previous_prompt}, but not {problem}", "json_schema", "1")


@dataclass
class ListMemory:
    """Remembers what it is given."""

    records: Sequence[PromptRecord] = ()

    def recall(self, category: str) -> Recalled:
        return rank_prompts([one for one in self.records if one.category == category], 3, 3)


class Shelf(BaseRetriever):
    """Two passages, whatever is asked."""

    def _get_relevant_documents(self, query: str, *, run_manager: object) -> list[Document]:
        return [Document("apples are round " * 200, metadata={"source": "a.md"}), Document("pears are not")]


def toolkit(root: Path, **parts: object) -> MaskwrightToolkit:
    """Every part scripted, but for those given."""
    given = {
        "prompt_author": EchoAuthor(),
        "prompt_memory": ListMemory(),
        "text_painter": RecordingPainter(),
        "source_painter": RecordingPainter(),
        "region_painter": RecordingPainter(needs_view=True),
        "masker": BoxMasker(),
        "text_scorer": LengthScorer(),
        "image_embedder": MeanEmbedder(),
        "judge": PaintedJudge(PaintedLimits(), SimilaritySettings()),
    }
    return MaskwrightToolkit(workspace=Workspace(root), **(given | parts))  # type: ignore[arg-type]


def call(kit: MaskwrightToolkit, name: str, **arguments: object) -> ToolMessage:
    [tool] = [tool for tool in kit.get_tools() if tool.name == name]
    message = tool.invoke({"name": name, "args": arguments, "id": "1", "type": "tool_call"})
    assert isinstance(message, ToolMessage)
    return message


def answer(kit: MaskwrightToolkit, name: str, **arguments: object) -> dict[str, Any]:
    message = call(kit, name, **arguments)
    assert message.status == "success", message.text
    assert message.artifact is not None
    return dict(json.loads(message.text))


def refusal(kit: MaskwrightToolkit, name: str, **arguments: object) -> str:
    message = call(kit, name, **arguments)
    assert message.status == "error"
    assert message.text.startswith("error: ")
    return message.text

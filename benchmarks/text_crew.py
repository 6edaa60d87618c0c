"""A T-Agent's crew with the embedded models, over a data set that has only class names, for the benchmarks beside."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from maskwright.configs.recipe import Recipe, load_recipe
from maskwright.data.coco import load_coco
from maskwright.data.records import Dataset
from maskwright.graphs.crews import AgentGraphs
from maskwright.graphs.image_agent import build_image_agent_graph
from maskwright.graphs.pool import Pool
from maskwright.graphs.record import RunRecord
from maskwright.graphs.text_agent import build_text_agent_graph
from maskwright.graphs.text_crew import TextCrew
from maskwright.graphs.validators import build_validators
from maskwright.graphs.workshop import Workshop
from maskwright.memory.artifacts import ArtifactStore
from maskwright.memory.entries import ItemResult, WorkItem

CLASSES = (
    *("airplane", "apple", "backpack", "banana", "bear", "bicycle", "bird", "boat", "book", "bus"),
    *("camera", "car", "cat", "chair", "clock", "cow", "dog", "elephant", "horse", "key"),
    *("knife", "motorcycle", "pizza", "rocket", "scissors", "sheep", "spoon", "train", "umbrella", "zebra"),
)
"""Thirty classes that both the embedded painter and the embedded scorer know."""


ONE_SCORER = (
    "agents.text_agent.similarity.image_text.value=0.6",
    "agents.text_agent.similarity.wholeness=null",
    "agents.text_agent.similarity.rival_margin=null",
)
"""What the published figures were measured with: likeness to the class's own name alone beside the measures."""


def load_classes(folder: Path, names: Sequence[str]) -> Dataset:
    """A data set of one grey photograph, one annotation, and the classes."""
    Image.fromarray(np.full((48, 64, 3), 127, np.uint8)).save(folder / "grey.png")
    content = {
        "images": [{"id": 1, "file_name": "grey.png", "width": 64, "height": 48}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 9, 9], "area": 81, "iscrowd": 0}
            | {"segmentation": [[8, 8, 17, 8, 17, 17, 8, 17]]}
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
    }
    (folder / "classes.json").write_text(json.dumps(content), encoding="utf-8")
    return load_coco({"train": folder / "classes.json"}, {"train": folder})


@dataclass(frozen=True, slots=True)
class Bench:
    """A crew with the pool that it fills."""

    crew: TextCrew
    pool: Pool
    graphs: AgentGraphs

    def make(self, items: Sequence[WorkItem], **settings: object) -> list[ItemResult]:
        """One wave: made, pooled, remembered; `settings` of the T-Agent stand above the crew's."""
        crew = replace(self.crew, settings=self.crew.settings.model_copy(update=settings))
        results = list(crew.make(self.graphs, items, self.pool, lambda result: result))
        for result in results:
            self.pool.add(result)
        crew.remember(results)
        return results


def build_bench(folder: Path, names: Sequence[str], overrides: Iterable[str]) -> Bench:
    """A crew by the recipe `text_agent` with `key=value` overrides; its files go to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    # Without real crops: a picture is judged by measures and by its likeness to the class's name.
    recipe: Recipe = load_recipe("text_agent", ["agents.text_agent.max_crops=0", *ONE_SCORER, *overrides])
    stop = threading.Event()
    shop = Workshop(
        recipe,
        load_classes(folder, names),
        folder,
        ArtifactStore(folder / "artifacts"),
        {},
        stop,
        RunRecord(folder, "bench", "bench"),
        build_validators(recipe),
    )
    crew = shop.build_crews()["text_agent"]
    assert isinstance(crew, TextCrew)
    return Bench(crew, Pool(), AgentGraphs(build_text_agent_graph(), build_image_agent_graph()))


def to_item(class_id: int, name: str, slot: int) -> WorkItem:
    return {
        "item_id": f"text-{class_id}-{slot:04d}",
        "agent": "text_agent",
        "category_id": class_id,
        "category": name,
        "source_row": -1,
        "slot": slot,
    }

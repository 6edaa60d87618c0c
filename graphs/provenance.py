"""provenance.jsonl: where every accepted instance came from, and where it went."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import orjson

from .. import __version__
from ..data.files import open_atomically
from ..memory.entries import Attempt, ItemResult, SceneResult

PROMPT_FACTS: tuple[Literal["prompt", "elements", "rung", "template", "novelty"], ...] = (
    "prompt",
    "elements",
    "rung",
    "template",
    "novelty",
)


def write_provenance(path: Path, results: Iterable[ItemResult], scenes: Iterable[SceneResult]) -> None:
    """Write one line an accepted instance, in item order; memory grows with the instances' ids alone."""
    places: dict[str, list[str]] = {}
    for scene in scenes:
        for placed in scene["instances"]:
            if placed["origin"] == "synthetic":
                places.setdefault(placed["source_id"], []).append(scene["scene_id"])
    with open_atomically(path) as file:
        for line in _lines(results, places):
            file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


def _lines(results: Iterable[ItemResult], places: dict[str, list[str]]) -> Iterator[dict[str, object]]:
    for result in results:
        attempts = {(attempt["round"], attempt["index"]): attempt for attempt in result["attempts"]}
        rounds = {one["round"]: one for one in result["rounds"]}
        source = result["source"]
        for instance in result["instances"]:
            attempt = attempts[instance["round"], instance["index"]]
            told = rounds.get(instance["round"])
            yield {
                "instance_id": instance["instance_id"],
                "source": "synthetic",
                "item_id": result["item"]["item_id"],
                "agent": result["item"]["agent"],
                "category": result["item"]["category"],
                "category_id": result["item"]["category_id"],
                "parent": source and {"file_name": source["file_name"], "annotation_id": source["annotation_id"]},
                "painter": result["painter"] | {"strength": attempt["strength"], "parameters": attempt["parameters"]},
                "prompt": told and {name: told[name] for name in PROMPT_FACTS},
                "prompt_lineage": [one["prompt"] for one in result["rounds"] if one["round"] < instance["round"]],
                "seed": attempt["seed"],
                "round": attempt["round"],
                "scores": attempt["measures"],
                "verdict": _verdict(attempt),
                "licence": {"source": _licence(result)},
                "artifact": instance["artifact"],
                "scenes": places.get(instance["instance_id"], []),
                "maskwright": __version__,
            }


def _verdict(attempt: Attempt) -> dict[str, object]:
    """What was decided, by measures and judges, and by a person where one was asked."""
    verdict: dict[str, object] = {"accepted": True, "criteria": attempt["criteria"]}
    for key in ("opinions", "held", "review"):
        if key in attempt:
            verdict[key] = attempt[key]
    return verdict


def _licence(result: ItemResult) -> str:
    source = result["source"]
    return (source["licence"] or "as the source photograph") if source else "none: painted from words"

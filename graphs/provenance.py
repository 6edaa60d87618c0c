"""provenance.jsonl: where every accepted instance came from, and where it went."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson

from .. import __version__
from ..data.files import open_atomically
from ..memory.entries import ItemResult, SceneResult


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
        attempts = {attempt["round"]: attempt for attempt in result["attempts"]}
        source = result["source"]
        for instance in result["instances"]:
            attempt = attempts[instance["round"]]
            yield {
                "instance_id": instance["instance_id"],
                "source": "synthetic",
                "item_id": result["item"]["item_id"],
                "agent": result["item"]["agent"],
                "category": result["item"]["category"],
                "category_id": result["item"]["category_id"],
                "parent": source and {"file_name": source["file_name"], "annotation_id": source["annotation_id"]},
                "painter": result["painter"] | {"strength": attempt["strength"], "parameters": attempt["parameters"]},
                "seed": attempt["seed"],
                "round": attempt["round"],
                "scores": attempt["measures"],
                "verdict": {"accepted": True, "criteria": attempt["criteria"]},
                "licence": {"source": (source["licence"] if source else "") or "as the source photograph"},
                "artifact": instance["artifact"],
                "scenes": places.get(instance["instance_id"], []),
                "maskwright": __version__,
            }

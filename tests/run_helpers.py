"""A quick run's settings, and what of a run must be the same whatever happened to it."""

from __future__ import annotations

from pathlib import Path

import orjson

QUICK = ["plan.at_least=14", "plan.wave_size=8", "compose.instances_per_scene=[1,3]", "budget.workers=2"]


def snapshot(folder: Path, *parts: str) -> dict[str, bytes]:
    """Every file below some parts of a run, without the seconds that each item and its batches took."""
    files = {}
    for part in parts:
        for path in sorted((folder / part).rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                if part == "items":
                    entry = orjson.loads(content)
                    cost = {**entry["cost"], "device_seconds": 0}
                    content = orjson.dumps({**entry, "cost": cost, "seconds": 0})
                files[path.relative_to(folder).as_posix()] = content
    return files


TRUTH = ("items", "artifacts", "scenes", "dataset")

"""What the framework costs an item: graph, ledger, provenance; memory over 10,000 items; resuming a finished run.

Prints a table. The work itself is as small as it can be: a 24x32 source and a painter that only shifts its
colours, so that what is left is ours. The alternative in the same run is a plain loop that paints, measures,
judges and writes the same files, without graph, ledger or provenance.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table

from maskwright.configs.image_agent import VariationSettings
from maskwright.configs.judging import InstanceLimits
from maskwright.graphs.pipeline import run_recipe
from maskwright.tools import registry
from maskwright.tools.judging.limits import LimitJudge, instance_bounds
from maskwright.tools.judging.measures import measure_instance
from maskwright.tools.protocols import Painted, PaintRequest

LIMITS = "agents.image_agent.limits.min_pool_distance_bits=0"


class ShiftPainter:
    """Paints in microseconds, so that only the framework's own cost is left."""

    name, revision = "shift", "1"
    prompt_reader = None
    needs_view = False

    def __init__(self, settings: VariationSettings) -> None:
        del settings

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        return [Painted(shift(request.source_rgba, request.seed), {"shift": 1.0}) for request in requests]


def shift(rgba: np.ndarray | None, seed: int) -> np.ndarray:
    assert rgba is not None
    shifted = rgba.copy()
    shifted[..., :3] += np.random.default_rng(seed).integers(20, 90, 3).astype(np.uint8)
    return shifted


class MemoryProbe:
    """Progress that notes the resident memory at every thousandth item."""

    def __init__(self) -> None:
        self.done = 0
        self.rss: dict[int, int] = {}

    def start(self, stage: str, total: int) -> None:
        """Nothing to note."""

    def advance(self, stage: str, outcome: str = "", count: int = 1) -> None:
        self.done += stage == "make"
        if stage == "make" and self.done % 1000 == 0:
            self.rss[self.done] = psutil.Process().memory_info().rss


def make_data(folder: Path) -> Path:
    """Twenty photographs of 120x160 with one 24x32 instance each."""
    rng = np.random.default_rng(0)
    (folder / "images" / "train").mkdir(parents=True)
    (folder / "annotations").mkdir()
    images, annotations = [], []
    for number in range(1, 21):
        pixels = cv2.resize(rng.integers(0, 255, (12, 16, 3)).astype(np.uint8), (160, 120))
        Image.fromarray(pixels).save(folder / "images" / "train" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 160, "height": 120})
        box = [40, 30, 32, 24]
        ring = [40, 30, 72, 30, 72, 54, 40, 54]
        annotations.append(
            {"id": number, "image_id": number, "category_id": 1, "segmentation": [ring], "bbox": box, "area": 768}
        )
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return folder


def plain_loop(data: Path, out: Path, count: int) -> float:
    """Paint, measure, judge and write `count` samples with nothing around; returns seconds."""
    out.mkdir()
    sources = [
        np.dstack([np.array(Image.open(p))[30:54, 40:72], np.full((24, 32), 255, np.uint8)])
        for p in sorted((data / "images/train").iterdir())
    ]
    judge = LimitJudge(instance_bounds(InstanceLimits()))
    started = time.perf_counter()
    for number in range(count):
        source = sources[number % len(sources)]
        painted = shift(source, number)
        measures = measure_instance(painted, source, []) | {"truncation": 0.0}
        accepted = judge.judge(measures).accepted
        cv2.imwrite(str(out / f"{number}.png"), cv2.cvtColor(painted, cv2.COLOR_RGBA2BGRA))
        (out / f"{number}.json").write_text(json.dumps({"accepted": accepted, **measures}))
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--workdir", type=Path)
    arguments = parser.parse_args()
    registry.PAINTERS["shift"] = lambda settings: ShiftPainter(settings.variation)
    overrides = [
        "agents.image_agent.painter=shift",
        LIMITS,
        f"plan.at_least={arguments.items + 20}",
        "budget.workers=1",
        "compose.instances_per_scene=[5,5]",
        "export.formats=[coco]",
    ]
    with tempfile.TemporaryDirectory(dir=arguments.workdir) as name:
        folder = Path(name)
        data = make_data(folder / "data")
        loop_s = plain_loop(data, folder / "loop", min(arguments.items, 2000)) / min(arguments.items, 2000)
        probe = MemoryProbe()
        first = run_recipe("instances", data=data, out=folder / "run", overrides=overrides, progress=probe)
        making_s = first.content["seconds"]["make"] / arguments.items  # type: ignore[index]
        started = time.perf_counter()
        again = run_recipe("instances", data=data, out=folder / "run", overrides=overrides)
        resume_s = time.perf_counter() - started
        assert again.content["accepted"] == first.content["accepted"] == arguments.items
    show(arguments.items, loop_s, making_s, resume_s, probe, first.content["seconds"])


def show(items: int, loop_s: float, making_s: float, resume_s: float, probe: MemoryProbe, seconds: object) -> None:
    table = Table(title=f"{items} items, one worker, {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    for column in ("figure", "ours", "plain loop", "aim"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    overhead_ms = (making_s - loop_s) * 1000
    table.add_row("time per item", f"{making_s * 1000:.2f} ms", f"{loop_s * 1000:.2f} ms", "")
    table.add_row("framework's cost per item", f"{overhead_ms:.2f} ms", "", "under 10 ms")
    early, late = probe.rss.get(1000, 0), probe.rss.get(items, 0)
    growth = f"{(late / early - 1) * 100:+.1f} %" if early and late else "fewer than 2,000 items"
    table.add_row("resident memory, item 1,000 to last", growth, "", "within 10 %")
    table.add_row("resuming the finished run", f"{resume_s:.2f} s", "", "under 5 s")
    Console().print(table)
    Console().print(f"seconds by stage: {seconds}")


if __name__ == "__main__":
    main()

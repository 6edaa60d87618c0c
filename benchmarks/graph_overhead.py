"""What the T-Agent's graph costs beside its painter: a wave through the graph against the bare painter, same batch.

Prompts are ready-made, so that no language model is in it. The wave masks, measures, scores, judges and stores every
picture; the painter alone only paints. Both paint the same requests in one batch, by turns.
Run: maskwright models fetch smollm2 minilm lite0 && python benchmarks/graph_overhead.py [--items 8] [--repeats 5]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from time import perf_counter

from rethink import IMAGES_PER_PROMPT, build_arm
from rich.console import Console
from text_crew import CLASSES, to_item

from maskwright.graphs.items import image_seed
from maskwright.tools.protocols import PaintRequest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    names, console = CLASSES[: arguments.items], Console()
    bare, wave, device = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        bench = build_arm("fixed", Path(folder), names, seed=0)
        for repeat in range(arguments.repeats + 1):
            items = [to_item(number, name, repeat) for number, name in enumerate(names, start=1)]
            requests = [
                PaintRequest(
                    item_id=item["item_id"],
                    seed=image_seed(0, item["item_id"], 1, index),
                    category=item["category"],
                    prompt=f"a photo of a single {item['category']}",
                    strength=bench.crew.settings.strength,
                )
                for item in items
                for index in range(IMAGES_PER_PROMPT)
            ]
            started = perf_counter()
            bench.crew.painter.paint(requests)
            painted = perf_counter()
            results = bench.make(items, max_rounds=1)
            ended = perf_counter()
            if repeat:  # the first loads the models
                bare.append(painted - started)
                wave.append(ended - painted)
                device.append(sum(result["cost"]["device_seconds"] for result in results))
    images = arguments.items * IMAGES_PER_PROMPT
    alone, whole, models = (statistics.median(times) / images for times in (bare, wave, device))
    console.print(f"{images} images a wave, median of {arguments.repeats}: bare painter {alone:.4f} s an image")
    console.print(
        f"graph with masks, measures, scores and storage: {whole:.4f} s ({100 * (whole / alone - 1):.1f} % more)"
    )
    console.print(
        f"of that outside painter, masker and scorer: {whole - models:.4f} s ({100 * (whole - models) / alone:.1f} %)"
    )


if __name__ == "__main__":
    main()

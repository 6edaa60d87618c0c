"""Whole objects for the benchmark of validity, of two origins; what is valid is known without a judge.

photograph  an instance of the quickstart photographs that no border cuts and nothing covers
painted     what `embedded:sprites` paints at a strength so low that its banked picture of the class stays as it is

Each is varied in shape and light by the painter `variation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import skimage

import maskwright
from maskwright.configs.image_agent import VariationSettings
from maskwright.configs.sprites import SpritesSettings
from maskwright.data.coco import load_coco
from maskwright.data.images import read_image
from maskwright.data.records import ImageRGB, ImageRGBA
from maskwright.graphs.sources import DatasetSources
from maskwright.tools.cutouts import crop_to_mask
from maskwright.tools.painting.sprites import SpritesPainter
from maskwright.tools.painting.variation import VariationPainter
from maskwright.tools.protocols import PaintRequest

Origin = Literal["photograph", "painted"]
Rng = np.random.Generator

PAINT_STRENGTH = 0.25
PAINT_STEPS = 4
VARY_STRENGTH = 0.5
PHOTOGRAPH_SHARE = 0.25

REPORT_CLASSES = (
    *("airplane", "backpack", "banana", "bear", "bicycle", "bird", "broccoli", "bus", "camera", "carrot", "cat"),
    *("chair", "coin", "cow", "dog", "elephant", "giraffe", "horse", "key", "kitchen knife", "pizza", "rocket"),
    *("sailboat", "scissors", "teddy bear", "train", "trophy", "umbrella", "watch", "zebra"),
)
TUNING_CLASSES = (
    *("alarm clock", "butterfly", "crab", "crown", "cup", "doughnut", "glasses", "guitar", "hammer", "handbag"),
    *("helicopter", "hot dog", "kite", "laptop", "motorcycle", "mushroom", "necktie", "owl", "pear", "penguin"),
    *("potted plant", "sandwich", "skateboard", "spoon", "strawberry", "toothbrush", "tractor", "trumpet", "turtle"),
    "wine glass",
)
"""Limits were set on these alone."""
NOT_WHOLE = frozenset({"saucer", "spoon"})
"""Of the quickstart: under the cup, and partly behind the saucer's rim."""


@dataclass(frozen=True, slots=True)
class Whole:
    """One whole object, cropped to what is visible of it."""

    rgba: ImageRGBA
    category: str
    origin: Origin


def read_quickstart(classes: Sequence[str]) -> tuple[list[Whole], list[ImageRGB]]:
    """Whole instances of some classes, and all photographs."""
    photographs = Path(skimage.__file__).parent / "data"
    annotations = Path(maskwright.__file__).parent / "configs" / "quickstart" / "annotations.json"
    dataset = load_coco({"train": annotations}, {"train": photographs})
    sources, names = DatasetSources(dataset), {one.category_id: one.name for one in dataset.categories}
    wholes = []
    for row, category_id in enumerate(dataset.annotations.category_id.tolist()):
        if names[category_id] not in classes or names[category_id] in NOT_WHOLE:
            continue
        cut = sources.cut_out(row)
        if not cut.truncation:
            wholes.append(Whole(cut.rgba, names[category_id], "photograph"))
    return wholes, [read_image(record) for record in dataset.images]


def draw_wholes(count: int, classes: Sequence[str], photographed: Sequence[Whole], rng: Rng) -> list[Whole]:
    """A fresh variation each; photographs' classes in equal shares, painted ones likewise."""
    by_class = {
        one.category: [other for other in photographed if other.category == one.category] for one in photographed
    }
    from_photograph = rng.random(count) < (PHOTOGRAPH_SHARE if by_class else 0)
    names = [str(rng.choice(classes)) for _ in range(int((~from_photograph).sum()))]
    painted = iter(paint(names, rng))
    wholes = []
    for is_photograph in from_photograph:
        if is_photograph:
            same = by_class[str(rng.choice(sorted(by_class)))]
            whole = same[rng.integers(len(same))]
        else:
            whole = next(painted)
        wholes.append(Whole(vary(whole.rgba, rng), whole.category, whole.origin))
    return wholes


def paint(names: Sequence[str], rng: Rng) -> list[Whole]:
    painter = SpritesPainter(SpritesSettings(num_inference_steps=PAINT_STEPS))
    seeds = rng.integers(2**31, size=len(names)).tolist()
    requests = [
        PaintRequest(item_id="", seed=seed, category=name, prompt=name, strength=PAINT_STRENGTH)
        for name, seed in zip(names, seeds, strict=True)
    ]
    return [
        Whole(crop_to_mask(one.rgba), name, "painted") for one, name in zip(painter.paint(requests), names, strict=True)
    ]


def vary(rgba: ImageRGBA, rng: Rng) -> ImageRGBA:
    request = PaintRequest(
        item_id="", seed=int(rng.integers(2**31)), category="", source_rgba=rgba, strength=VARY_STRENGTH
    )
    return VariationPainter(VariationSettings()).paint([request])[0].rgba

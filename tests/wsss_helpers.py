"""A run of the label agent as it lies on disk, made of a small item: no agent, no painter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from anomaly_folders import picture, write_item

from maskwright.data.label_sources import load_labels
from maskwright.data.label_splits import save_label_split, split_labels
from maskwright.data.label_writer import ExportedImage, save_label_folder, split_to_exports
from maskwright.data.records import ImageRGB
from maskwright.evaluation.wsss_training import WsssSettings

DEFECTS = {"Riß": 9, "chip": 9}
TINY = WsssSettings(label_steps=2, mask_steps=2, batch=2, size_px=32, pretrained=False)


def write_data(root: Path) -> Path:
    """An item with two defects, nine pictures each."""
    write_item(root, num_good=4, num_test_good=2, defects=DEFECTS)
    return root


def write_run(folder: Path, data: Path, *, made: dict[str, int], first: int = 900, seed: int = 0) -> Path:
    """A run folder with so many synthetic images of each class."""
    dataset = load_labels(data)
    split = split_labels(dataset, held_out=0.5, test=0.3, seed=seed)
    save_label_split(split, dataset, folder / "split.json")

    def entries() -> Iterator[ExportedImage]:
        yield from split_to_exports(split)
        for place, (name, pixels) in enumerate(_pictures(made, first)):
            yield ExportedImage(
                key=f"made/{place}", picture=pixels, labels=frozenset({name}), split="train", source="synthetic"
            )

    save_label_folder(folder / "dataset" / "voc_labels", dataset.classes, entries())
    return folder


def _pictures(made: dict[str, int], first: int) -> Iterator[tuple[str, ImageRGB]]:
    for name, count in made.items():
        for _ in range(count):
            first += 1
            yield name, picture(first)

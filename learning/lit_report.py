"""Measure the shipped image-text scorer: held-out objects, held-out views, and real instances.

    python -m maskwright.learning.lit_report --tarballs . --dataset coco128-seg --out docs

Prints the figures of the model card as Markdown and draws `lit_roc.png`. The scorer must have been trained with the
same seed, since the views that it learned from are those of a seed.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import typer
from PIL import Image, ImageDraw

from ..data.files import write_atomically
from ..data.load import load_dataset
from ..data.records import ImageRGBA
from ..graphs.sources import DatasetSources
from ..models.device import resolve_device
from ..models.embeddings import MiniLM
from ..models.image_features import load_network
from ..models.lit import load_heads, pool_features
from .lit_data import ASIDE_VIEWS, load_views
from .object_names import is_held_out
from .pictures import ObjectPicture, names_of, read_object_pictures

LEAST_SIDE = 32
"""Pixels; a real instance with a shorter side is left out."""
HARD_NAMES = 10
"""Nearest names, by their embeddings, that count as hard wrong ones."""
BINS = 10
CHART = 480
COLOURS = ("#1f5fbf", "#c2571a", "#2a8c4a")

Logits = npt.NDArray[np.float32]
"""(images, names) float32, calibrated."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Images scored against names.

    Attributes:
        logits: (images, names) float32, calibrated.
        right: (images, names) bool.
        hard: (images, names) bool, wrong names that are near the right one.
        owner: (images,) int64, index of the image's own name.
    """

    logits: Logits
    right: npt.NDArray[np.bool_]
    hard: npt.NDArray[np.bool_]
    owner: npt.NDArray[np.int64]


def roc(right: npt.NDArray[np.float32], wrong: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(points, 2) false and true positive rates over all thresholds, from (0, 0) to (1, 1)."""
    scores = np.concatenate([right, wrong])
    order = np.argsort(-scores, kind="stable")
    hits = np.concatenate([np.ones(len(right)), np.zeros(len(wrong))])[order]
    last_of_ties = np.append(np.diff(scores[order]) != 0, True)
    true, false = np.cumsum(hits)[last_of_ties] / len(right), np.cumsum(1 - hits)[last_of_ties] / len(wrong)
    return np.concatenate([np.zeros((1, 2)), np.stack([false, true], axis=1)])


def area_under(curve: npt.NDArray[np.float64]) -> float:
    """AUC: the chance that a right pair scores above a wrong one, ties counting half."""
    return float(np.trapezoid(curve[:, 1], curve[:, 0]))


def calibration_error(logits: npt.NDArray[np.float32], right: npt.NDArray[np.bool_]) -> float:
    """Expected calibration error over `BINS` equal bins, right and wrong pairs weighing the same in all."""
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    weight = np.where(right, 0.5 / right.sum(), 0.5 / (~right).sum())
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    gap = np.bincount(bins.ravel(), (weight * (right - probability)).ravel(), BINS)
    return float(np.abs(gap).sum())


def top_share(trial: Trial, k: int) -> float:
    """Share of images with a right name among the first k."""
    first = np.argsort(-trial.logits, axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(trial.right, first, axis=1).any(axis=1).mean())


def score_features(features: torch.Tensor, names: torch.Tensor) -> Logits:
    """Calibrated logits of (n, 1280) features and (m, 384) embedded names by the shipped heads."""
    device = resolve_device("cpu")
    heads = load_heads(device)
    with torch.inference_mode():
        seen = heads.embed_images(features, load_network(device).classifier(features))
        slope, offset = heads.calibration
        return np.asarray((slope * seen @ heads.embed_texts(names).T + offset).numpy())


def make_trial(features: torch.Tensor, owner: npt.NDArray[np.int64], names: torch.Tensor) -> Trial:
    """Score images whose own name is `names[owner]`; hard names are the nearest other ones."""
    likeness = (names @ names.T).fill_diagonal_(-1)
    near = torch.zeros_like(likeness, dtype=torch.bool).scatter_(1, likeness.topk(HARD_NAMES).indices, True)
    right = np.eye(len(names), dtype=bool)[owner]
    return Trial(score_features(features, names), right, near.numpy()[owner], owner)


def object_trials(pictures: Sequence[ObjectPicture], features: torch.Tensor, text: MiniLM) -> dict[str, Trial]:
    """Held-out objects, and views of the others that the heads have not seen; wrong are all other objects' labels."""
    names = torch.from_numpy(text.embed([picture.label for picture in pictures]))
    held_out = np.array([is_held_out(picture.label) for picture in pictures])
    unseen, known = np.flatnonzero(held_out), np.flatnonzero(~held_out)
    aside = features[known, -ASIDE_VIEWS:].flatten(0, 1)
    return {
        "held-out objects": make_trial(features[unseen].flatten(0, 1), unseen.repeat(features.shape[1]), names),
        "held-out views": make_trial(aside, known.repeat(ASIDE_VIEWS), names),
    }


def real_cutouts(dataset_path: Path) -> tuple[list[ImageRGBA], npt.NDArray[np.int64], list[str]]:
    """Instances of a data set cut out by their masks, the index of each one's class, and the names of all classes."""
    dataset = load_dataset(dataset_path)
    sources = DatasetSources(dataset)
    index = {category.category_id: number for number, category in enumerate(dataset.categories)}
    cutouts, owner = [], []
    for row in range(len(dataset.annotations)):
        annotation = dataset.annotations[row]
        if min(annotation.bbox_xywh[2:]) >= LEAST_SIDE:
            cutouts.append(sources.cut_out(row).rgba)
            owner.append(index[annotation.category_id])
    return cutouts, np.array(owner), [category.name for category in dataset.categories]


def trial_row(name: str, trial: Trial) -> str:
    """A row of the card's main table."""
    curve = roc(trial.logits[trial.right], trial.logits[~trial.right])
    hard = roc(trial.logits[trial.right], trial.logits[trial.hard])
    shares = " | ".join(f"{100 * top_share(trial, k):.0f} %" for k in (1, 5))
    error = calibration_error(trial.logits, trial.right)
    size = " | ".join(str(length) for length in trial.logits.shape)
    return f"| {name} | {size} | {area_under(curve):.3f} | {area_under(hard):.3f} | {shares} | {error:.3f} |"


def class_rows(trial: Trial, names: Sequence[str], pictured: Set[str]) -> list[str]:
    """One row a class that has instances, the best first: AUC over its instances, and how often it is in the top 5."""
    rows = []
    for number in np.unique(trial.owner):
        chosen = trial.owner == number
        part = Trial(trial.logits[chosen], trial.right[chosen], trial.hard[chosen], trial.owner[chosen])
        area = area_under(roc(part.logits[part.right], part.logits[~part.right]))
        known = "yes" if names[number] in pictured else "no"
        share = f"{100 * top_share(part, 5):.0f} %"
        rows.append((area, f"| {names[number]} | {chosen.sum()} | {known} | {area:.2f} | {share} |"))
    return [row for _, row in sorted(rows, reverse=True)]


def draw_roc(trials: Mapping[str, Trial]) -> bytes:
    """The trials' curves as a PNG."""
    margin = 40
    image = Image.new("RGB", (CHART + 2 * margin, CHART + 2 * margin), "white")
    draw = ImageDraw.Draw(image)
    corner = margin + CHART
    draw.rectangle((margin, margin, corner, corner), outline="#888888")
    draw.line((margin, corner, corner, margin), fill="#cccccc")
    draw.text((margin, corner + 10), "wrong names accepted, 0 to 1", fill="black")
    draw.text((margin, margin - 20), "right names accepted, 0 to 1", fill="black")
    for number, ((name, trial), colour) in enumerate(zip(trials.items(), COLOURS, strict=True)):
        curve = roc(trial.logits[trial.right], trial.logits[~trial.right])
        points = np.stack([margin + curve[:, 0] * CHART, corner - curve[:, 1] * CHART], axis=1)
        draw.line([(x, y) for x, y in points.tolist()], fill=colour, width=2)
        label = f"{name}: AUC {area_under(curve):.3f}"
        draw.text((margin + CHART // 2, corner - 70 + 20 * number), label, fill=colour)
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return content.getvalue()


def main(
    tarballs: Annotated[Path, typer.Option(help="Folder with both tarballs of npm pack.")],
    dataset: Annotated[Path, typer.Option(help="Data set with masks, whose instances are cut out.")],
    out: Annotated[Path, typer.Option(help="Folder of the picture.")],
    cache: Annotated[Path, typer.Option(help="Folder of the features.")] = Path("runs/lit"),
    seed: Annotated[int, typer.Option(min=0, help="That the heads were trained with.")] = 0,
) -> None:
    """Measure the shipped scorer."""
    text = MiniLM()
    pictures = list(read_object_pictures(tarballs))
    trials = object_trials(pictures, load_views(pictures, cache, seed).features, text)
    cutouts, owner, names = real_cutouts(dataset)
    trials["real instances"] = make_trial(
        torch.from_numpy(pool_features(cutouts)), owner, torch.from_numpy(text.embed(names))
    )
    labels = {picture.label for picture in pictures}
    shown = {name for picture in pictures if not is_held_out(picture.label) for name in names_of(picture, labels)}
    lines = ["| images of | images | names | AUC | AUC, hard names | top 1 | top 5 | ECE |", "|" + "---|" * 8]
    lines += [trial_row(name, trial) for name, trial in trials.items()]
    lines += ["", "| class | instances | in the training | AUC | top 5 |", "|" + "---|" * 5]
    lines += class_rows(trials["real instances"], names, shown)
    sys.stdout.write("\n".join(lines) + "\n")
    write_atomically(out / "lit_roc.png", draw_roc(trials))


if __name__ == "__main__":
    typer.run(main)

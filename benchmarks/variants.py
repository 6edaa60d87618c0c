"""Does the I-Agent's filter tell variants from copies and from strangers? On a data set of yours, with embedded parts.

variants   what the painter `variation` made of your instances, every round
copies     planted: the source as it is, flipped, recompressed (JPEG, quality 90), shifted by 2 px, enlarged by 3 %
strangers  planted: an instance of another class, and another instance of the same class

All are measured and judged by what the graph itself uses, copies and strangers against an empty pool. The sweeps move
one limit of the likeness to the source (cosine, EfficientNet-lite0), with the recipe's other limits as they are;
"variants lost" counts those that no other limit refuses.
Run: maskwright models fetch minilm lite0 && python benchmarks/variants.py --data PATH [--items 60] [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from maskwright.configs.judging import InstanceLimits, VariantSimilaritySettings
from maskwright.data.records import ImageRGBA
from maskwright.graphs.pipeline import RunOutcome, run_recipe
from maskwright.graphs.services import Variant
from maskwright.graphs.similarity import VariantSimilarity
from maskwright.memory.artifacts import ArtifactStore
from maskwright.memory.entries import ItemResult
from maskwright.memory.ledger import Ledger
from maskwright.tools.cutouts import resize_rgba
from maskwright.tools.judging.limits import LimitJudge, instance_bounds
from maskwright.tools.judging.measures import measure_instance
from maskwright.tools.judging.registry import build_image_embedder, build_text_scorer

Measures = Mapping[str, float]

JPEG_QUALITY = 90
SHIFT_PX = 2
ENLARGEMENT = 1.03
MAX_LIKENESS = (0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0)
MIN_LIKENESS = (-1.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
COPY_REASONS = frozenset({"source_likeness over", "source_iou over", "source_difference under"})
"""Criteria by which a variant is refused as a copy of its source."""


@dataclass(frozen=True, slots=True)
class Cutout:
    """A source of a run."""

    key: str
    rgba: ImageRGBA
    category: str
    truncation: float


@dataclass(slots=True)
class SeedResult:
    """One run: its numbers, and the measures of every variant and of everything planted, by kind."""

    seed: int
    num_items: int
    num_items_accepted: int
    num_accepted: int
    instances_per_minute: float
    variants: list[Measures] = field(default_factory=list)
    accepted: list[Measures] = field(default_factory=list)
    copies: dict[str, list[Measures]] = field(default_factory=dict)
    strangers: dict[str, list[Measures]] = field(default_factory=dict)


def flip(rgba: ImageRGBA) -> ImageRGBA:
    return np.ascontiguousarray(rgba[:, ::-1])


def recompress(rgba: ImageRGBA) -> ImageRGBA:
    bgr = cv2.cvtColor(np.ascontiguousarray(rgba[..., :3]), cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    rgb = cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return np.dstack([rgb, rgba[..., 3]])


def shift(rgba: ImageRGBA) -> ImageRGBA:
    """Right and down; what leaves the frame is lost."""
    shifted = np.zeros_like(rgba)
    shifted[SHIFT_PX:, SHIFT_PX:] = rgba[:-SHIFT_PX, :-SHIFT_PX]
    return shifted


def enlarge(rgba: ImageRGBA) -> ImageRGBA:
    height, width = (round(side * ENLARGEMENT) for side in rgba.shape[:2])
    return resize_rgba(rgba, width, height)


COPIES: dict[str, Callable[[ImageRGBA], ImageRGBA]] = {
    "the source": np.copy,
    "flipped": flip,
    "recompressed": recompress,
    "shifted": shift,
    "enlarged": enlarge,
}


def find_stranger(sources: Sequence[Cutout], index: int, *, same_class: bool) -> ImageRGBA | None:
    """The next source of the same class, or of another one; None where there is none."""
    around = (*sources[index + 1 :], *sources[:index])
    found = (one.rgba for one in around if (one.category == sources[index].category) == same_class)
    return next(found, None)


def read_sources(results: Sequence[ItemResult], artifacts: ArtifactStore) -> list[Cutout]:
    """Every source that an item started from, once."""
    found = {result["source"]["artifact"]: result for result in results if result["source"] and result["attempts"]}
    return [
        Cutout(key, artifacts.get_image(key), result["item"]["category"], result["source"]["truncation"])
        for key, result in found.items()
        if result["source"]
    ]


def measure_planted(
    similarity: VariantSimilarity, sources: Sequence[Cutout], planted: Sequence[ImageRGBA | None]
) -> list[Measures]:
    """Measures of one planted picture for each source, against that source; None is left out."""
    pairs = [(source, rgba) for source, rgba in zip(sources, planted, strict=True) if rgba is not None]
    scores = similarity.score(
        [
            Variant(rgba=rgba, category=source.category, source_key=source.key, source_rgba=source.rgba)
            for source, rgba in pairs
        ]
    )
    return [
        {**measure_instance(rgba, source.rgba, ()), "truncation": source.truncation, **score}
        for (source, rgba), score in zip(pairs, scores, strict=True)
    ]


def refusals(measures: Measures, limits: InstanceLimits) -> set[str]:
    """'NAME under' and 'NAME over' of what the filter refuses."""
    unmet = (c for c in LimitJudge(instance_bounds(limits)).judge(measures).criteria if c.outcome != "meet")
    return {f"{c.name} {'over' if ' is over ' in c.reason else 'under'}" for c in unmet}


def share_refused(all_measures: Sequence[Measures], limits: InstanceLimits) -> float:
    return statistics.fmean(bool(refusals(one, limits)) for one in all_measures) if all_measures else float("nan")


def run_seed(data: Path, seed: int, overrides: Sequence[str], items: int, similarity: VariantSimilarity) -> SeedResult:
    """Run the recipe in a folder of its own, then plant copies and strangers of its sources."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_recipe(
            "instances", data=data, out=Path(folder) / "run", overrides=overrides, seed=seed, limit=items
        )
        ledger: Ledger[ItemResult] = Ledger(outcome.folder / "items")
        results = [result for item_id in sorted(ledger.ids()) if (result := ledger.read(item_id))]
        sources = read_sources(results, ArtifactStore(outcome.folder / "artifacts"))
    found = summarize(seed, outcome, results)
    for kind, copy in COPIES.items():
        found.copies[kind] = measure_planted(similarity, sources, [copy(one.rgba) for one in sources])
    for kind, same in (("another class", False), ("the same class", True)):
        strangers = [find_stranger(sources, index, same_class=same) for index in range(len(sources))]
        found.strangers[kind] = measure_planted(similarity, sources, strangers)
    return found


def summarize(seed: int, outcome: RunOutcome, results: Sequence[ItemResult]) -> SeedResult:
    seconds: Mapping[str, float] = outcome.content["seconds"]  # type: ignore[assignment]
    attempts = [attempt for result in results for attempt in result["attempts"]]
    accepted = [attempt["measures"] for attempt in attempts if attempt["accepted"]]
    return SeedResult(
        seed=seed,
        num_items=len(results),
        num_items_accepted=sum(result["ending"] == "accepted" for result in results),
        num_accepted=len(accepted),
        instances_per_minute=60 * len(accepted) / sum(seconds.values()),
        variants=[attempt["measures"] for attempt in attempts],
        accepted=accepted,
    )


def quantiles(all_measures: Sequence[Measures]) -> list[str]:
    values = [one["source_likeness"] for one in all_measures if "source_likeness" in one]
    return [f"{value:.3f}" for value in np.quantile(values, QUANTILES)] if values else ["-"] * len(QUANTILES)


def runs_to_table(found: Sequence[SeedResult]) -> Table:
    table = Table("seed", "items", "items accepted", "images", "accepted share", "refused as copies", "instances/min")
    for one in found:
        copies = sum(bool(refusals(measures, InstanceLimits()) & COPY_REASONS) for measures in one.variants)
        share = one.num_accepted / max(1, len(one.variants))
        counts = (one.seed, one.num_items, one.num_items_accepted, len(one.variants))
        table.add_row(*map(str, counts), f"{share:.3f}", str(copies), f"{one.instances_per_minute:.1f}")
    return table


def kinds(found: Sequence[SeedResult]) -> Iterator[tuple[str, list[Measures]]]:
    """Measures by kind, over all seeds."""
    yield "variants", [measures for one in found for measures in one.variants]
    yield "accepted variants", [measures for one in found for measures in one.accepted]
    for group in ("copies", "strangers"):
        for kind in getattr(found[0], group):
            yield f"{group}: {kind}", [measures for one in found for measures in getattr(one, group)[kind]]


def kinds_to_table(found: Sequence[SeedResult], limits: InstanceLimits) -> Table:
    table = Table(
        "kind", "pictures", "refused", *(f"q{100 * q:.0f}" for q in QUANTILES), title="likeness to the source"
    )
    for kind, measures in kinds(found):
        table.add_row(kind, str(len(measures)), f"{share_refused(measures, limits):.3f}", *quantiles(measures))
    return table


def sweep_to_table(found: Sequence[SeedResult], name: str, values: Sequence[float], group: str) -> Table:
    """Share of each planted kind that is refused, and of sound variants that are lost, at each value of one limit."""
    planted = {kind: measures for kind, measures in kinds(found) if kind.startswith(group)}
    variants = [measures for one in found for measures in one.variants]
    open_limits = InstanceLimits(min_source_likeness=-1.0, max_source_likeness=1.0)
    sound = [measures for measures in variants if not refusals(measures, open_limits)]
    table = Table(name, *planted, f"variants lost of {len(sound)}")
    for value in values:
        limits = open_limits.model_copy(update={name: value})
        shares = [share_refused(measures, limits) for measures in (*planted.values(), sound)]
        table.add_row(f"{value:g}", *(f"{share:.3f}" for share in shares))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data set with instance masks")
    parser.add_argument("--items", type=int, default=60, help="items of a run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings above the recipe's")
    parser.add_argument("--out", type=Path, help="all measures, as JSON")
    arguments = parser.parse_args()
    console, settings = Console(width=160), VariantSimilaritySettings()
    similarity = VariantSimilarity(build_text_scorer(settings.text), build_image_embedder(settings.image))
    overrides = ["agents.image_agent.painter=variation", "agents.image_agent.similarity={}", *arguments.set]
    found: list[SeedResult] = []
    for seed in range(arguments.seeds):
        found.append(run_seed(arguments.data, seed, overrides, arguments.items, similarity))
        if arguments.out:
            arguments.out.write_text(json.dumps([asdict(one) for one in found]))
    console.print(runs_to_table(found))
    console.print(kinds_to_table(found, InstanceLimits()))
    console.print(sweep_to_table(found, "max_source_likeness", MAX_LIKENESS, "copies"))
    console.print(sweep_to_table(found, "min_source_likeness", MIN_LIKENESS, "strangers"))


if __name__ == "__main__":
    main()

"""What a label run leaves behind: a VOC folder with label files, provenance, run.json and the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path

import orjson

from .. import __version__
from ..configs.recipe import Recipe
from ..data.files import open_atomically
from ..data.label_records import count_labels
from ..data.label_writer import ExportedImage, save_label_folder, split_to_exports
from ..evaluation.label_report import build_label_report
from ..memory.artifacts import ArtifactStore, breaking_the_run
from .costs import Ledgered
from .label_data import ClassChoice, LabelSource, name_some
from .label_plan import LabelPlan
from .label_state import LabelResult
from .label_tally import LabelTally
from .record import RunRecord, Status

DATASET = Path("dataset") / "voc_labels"


def export_labels(folder: Path, source: LabelSource, accepted: Sequence[LabelResult], artifacts: ArtifactStore) -> None:
    """Write dataset/voc_labels/ (the real images of every side, admitted scenes in train) and provenance.jsonl.

    Raises:
        BrokenRunError: the disk is full or not writable.
    """
    with breaking_the_run(folder):
        save_label_folder(folder / DATASET, source.dataset.classes, _images(source, accepted, artifacts))
        with open_atomically(folder / "dataset" / "provenance.jsonl") as file:
            for result in accepted:
                file.write(orjson.dumps(_to_line(result), option=orjson.OPT_APPEND_NEWLINE))


def _images(source: LabelSource, accepted: Iterable[LabelResult], artifacts: ArtifactStore) -> Iterator[ExportedImage]:
    yield from split_to_exports(source.split, source.dataset.read_truth)
    for result in accepted:
        scene = result["scenes"][-1]
        yield ExportedImage(
            key=f"synthetic/{result['item']['item_id']}",
            picture=artifacts.path(scene["artifact"]),
            labels=frozenset(result["item"]["labels"]),
            split="train",
            source="synthetic",
            background=scene["background"],
            prompt=prompt_id(result),
        )


def prompt_id(result: LabelResult) -> str:
    """Of the prompt that an admitted scene was painted from, as the prompt memory names it without its run."""
    prompt = result["prompts"][result["scenes"][-1]["prompt"]]
    return f"{result['item']['item_id']}-d{prompt['draft']}-r{prompt['round']}"


def _to_line(result: LabelResult) -> dict[str, object]:
    scene = result["scenes"][-1]
    prompt = result["prompts"][scene["prompt"]]
    return {
        "id": result["item"]["item_id"],
        "source": "synthetic",
        "labels": result["item"]["labels"],
        "background": scene["background"],
        "prompt": prompt["text"],
        "prompt_id": prompt_id(result),
        "prompts": result["prompts"],
        "seed": scene["seed"],
        "pictures": len(result["scenes"]),
        "painter": result["painter"] | {"parameters": scene["parameters"]},
        "classifier": result["classifier"],
        "probabilities": scene["probabilities"],
        "text_score": scene.get("text_score"),
        "artifact": scene["artifact"],
        "maskwright": __version__,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOutcome:
    """How a run ended."""

    source: LabelSource
    choice: ClassChoice
    plan: LabelPlan
    tally: LabelTally
    costs: Ledgered
    writer: str
    painter: str
    classifier: dict[str, object] | None
    """The filter's own report; None: no filter."""
    precision: Mapping[str, object]
    stopped: bool
    spent: str

    @property
    def short(self) -> list[str]:
        """Classes whose quota is not full."""
        return [name for name in self.plan.classes if self.tally.accepted[name] < self.plan.settings.count]

    @property
    def status(self) -> Status:
        if self.stopped:
            return "interrupted"
        return "partial" if self.short or self.tally.endings["failed"] else "done"


def finish_labels(record: RunRecord, recipe: Recipe, outcome: LabelOutcome) -> None:
    """State the outcome in run.json and the report.

    Raises:
        BrokenRunError: the disk is full or not writable.
    """
    content = _to_content(record.folder, recipe, outcome)
    record.write(outcome.status, content)
    with breaking_the_run(record.folder):
        build_label_report(record.folder)


def _to_content(folder: Path, recipe: Recipe, outcome: LabelOutcome) -> dict[str, object]:
    tally, source = outcome.tally, outcome.source
    real = count_labels(source.train, source.dataset.classes)
    new = {name: tally.shown[name] for name in source.dataset.classes}
    made = outcome.plan.classes
    return {
        "dataset": {
            "path": str(source.dataset.root),
            "format": source.dataset.format,
            "sides": {side: len(images) for side, images in source.split.sides.items()},
            "digest": source.digest(),
        },
        "classes": [_to_class(name, real[name], new[name], outcome) for name in source.dataset.classes],
        "balance": {
            "before": evenness([real[name] for name in made]),
            "after": evenness([real[name] + new[name] for name in made]),
        },
        "items": {"planned": tally.num_items, "not_drawn": tally.num_items - tally.num_tried}
        | {ending: tally.endings[ending] for ending in ("accepted", "exhausted", "failed", "held")},
        "images": {"painted": tally.num_painted, "rejected": tally.num_painted - tally.num_admitted},
        "accepted": tally.num_admitted,
        "yield": round(tally.num_admitted / max(1, tally.num_painted), 4),
        "refusals": dict(tally.refusals.most_common()),
        "refinement": tally.refinement.as_json() if outcome.plan.settings.refine else {},
        "classifier": outcome.classifier,
        "label_precision": dict(outcome.precision),
        "costs": outcome.costs.as_json(tally.num_admitted),
        "guarded": dict(source.guard.checked),
        "painter": outcome.painter,
        "writer": outcome.writer,
        "findings": source.findings.as_json(),
        "hints": _hints(folder, recipe, outcome),
    }


def _to_class(name: str, real: int, new: int, outcome: LabelOutcome) -> dict[str, object]:
    quota = outcome.plan.settings.count if name in outcome.plan.classes else 0
    return {
        "name": name,
        "real": real,
        "quota": quota,
        "accepted": new,
        "shortfall": max(0, quota - new),
        "tried": outcome.tally.tried[name],
        "not_made": outcome.choice.left_out.get(name, ""),
    }


def evenness(counts: Sequence[int]) -> float:
    """Pielou's evenness: entropy of the shares over its most, 1 where all classes are equally frequent."""
    total, num = sum(counts), len(counts)
    if num < 2 or not total:
        return 1.0
    shares = [count / total for count in counts if count]
    return round(-sum(share * log(share) for share in shares) / log(num), 4)


def _hints(folder: Path, recipe: Recipe, outcome: LabelOutcome) -> list[str]:
    tally, found = outcome.tally, []
    if kinds := outcome.source.findings.counts:
        found.append(f"The data set has {', '.join(kinds)}: run.json names them under findings.")
    if outcome.choice.left_out:
        names = name_some(sorted(outcome.choice.left_out))
        found.append(f"Not made: {names}; run.json says why, class by class.")
    if outcome.stopped:
        found.append("The run was interrupted; the same command goes on where it stopped.")
    if outcome.spent:
        found.append(f"Stopped because {outcome.spent}. {_advice(outcome)}")
    if tally.endings["failed"]:
        found.append(
            f"{tally.endings['failed']} items failed; their reasons stand in items/. The same command retries."
        )
    if outcome.short and not outcome.spent and not outcome.stopped:
        found.append(
            f"Short of --count: {name_some(outcome.short)}. Raise agents.label_agent.max_tries_ratio, and the same "
            "command goes on."
        )
    if tally.num_admitted and not outcome.stopped:
        found.append(f"The images lie in {folder / DATASET}, labels in its labels.csv.")
        found.append(f"What they are worth: maskwright evaluate wsss {folder} --data {recipe.data.path}")
    return found


def _advice(outcome: LabelOutcome) -> str:
    if outcome.tally.num_admitted or not outcome.tally.num_tried or not outcome.tally.refusals:
        return "The same command with a higher limit goes on."
    told = ", ".join(f"{reason} {count}" for reason, count in outcome.tally.refusals.most_common(4))
    return (
        f"Refused for: {told}. Look at the refused pictures in the report; lower agents.label_agent.admission.present "
        "or change the painter, and give another --out."
    )

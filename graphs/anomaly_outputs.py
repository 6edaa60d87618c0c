"""What an anomaly run leaves behind: samples in MVTec's layout with provenance, run.json and the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import orjson

from .. import __version__
from ..configs.anomaly_agent import AnomalyAgentSettings
from ..configs.recipe import Recipe
from ..data.anomaly_records import AnomalyRecord
from ..data.files import open_atomically
from ..data.mvtec_writer import AnomalySample, number_names, save_anomaly_diffusion, save_mvtec
from ..evaluation.anomaly_report import build_anomaly_report
from ..memory.artifacts import ArtifactStore, breaking_the_run
from .anomaly_data import AnomalySource
from .anomaly_rules import total_of
from .anomaly_state import AnomalyResult
from .costs import Ledgered
from .record import RunRecord, Status

NAME_DIGITS = 5


def export_samples(
    folder: Path,
    source: AnomalySource,
    results: Iterable[AnomalyResult],
    artifacts: ArtifactStore,
    settings: AnomalyAgentSettings,
) -> None:
    """Write dataset/mvtec/ITEM/ (the user's normal images, our defects with exact masks) and provenance.jsonl.

    With `settings.anomaly_diffusion`, dataset/anomaly_diffusion/ITEM/ too.

    Raises:
        BrokenRunError: the disk is full or not writable.
    """
    results = list(results)
    target = folder / "dataset" / "mvtec"
    with breaking_the_run(folder):
        target.mkdir(parents=True, exist_ok=True)
        normals = (_to_normal(record) for record in source.normals)
        samples = (_to_sample(result, artifacts, source.item) for result in results)
        save_mvtec(number_names([*normals, *samples], NAME_DIGITS), target)
        if settings.anomaly_diffusion:
            samples = (_to_sample(result, artifacts, source.item) for result in results)
            save_anomaly_diffusion(
                samples, folder / "dataset" / "anomaly_diffusion", file_format=settings.anomaly_diffusion
            )
        with open_atomically(folder / "dataset" / "provenance.jsonl") as file:
            for line in _lines(results):
                file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        with open_atomically(folder / "trajectories.jsonl") as file:
            for result in results:
                told = {"id": result["item"]["item_id"], "messages": result["messages"], "flags": result["flags"]}
                file.write(orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE))


def _to_normal(record: AnomalyRecord) -> AnomalySample:
    return AnomalySample(item=record.item, defect="good", split="train", name="", image=record.image_path)


def _to_sample(result: AnomalyResult, artifacts: ArtifactStore, item: str) -> AnomalySample:
    last = result["edits"][-1]
    mask = artifacts.get_image(last["mask"])[..., 0] > 127
    rgb = artifacts.get_image(last["artifact"])[..., :3]
    return AnomalySample(
        item=item,
        defect=result["item"]["category"],
        split="test",
        name="",
        image=rgb,
        mask_hw=np.asarray(mask),
        original=artifacts.get_image(result["source"])[..., :3],
    )


def _lines(results: Iterable[AnomalyResult]) -> Iterator[dict[str, object]]:
    for result in results:
        last = result["edits"][-1]
        yield {
            "id": result["item"]["item_id"],
            "source": "synthetic",
            "defect": result["item"]["category"],
            "normal": result["normal"],
            "plan": last["plan"],
            "prompt": last["prompt"],
            "seed": last["seed"],
            "turns": len(result["edits"]),
            "painter": result["painter"] | {"parameters": last["parameters"]},
            "scores": {"location": last.get("location"), "quality": last.get("quality"), "total": total_of(last)},
            "measures": last.get("measures", {}),
            "knowledge": result["knowledge"],
            "artifact": last["artifact"],
            "mask": last["mask"],
            "maskwright": __version__,
        }


def finish_anomalies(
    record: RunRecord,
    recipe: Recipe,
    source: AnomalySource,
    tallies: Mapping[str, object],
    costs: Ledgered,
    *,
    stopped: bool,
    spent: str,
) -> None:
    """State the outcome in run.json and the report."""
    settings = recipe.agents.anomaly_agent
    assert settings is not None
    accepted, endings = _counts(tallies["accepted"]), _counts(tallies["endings"])
    short = [name for name in source.defects if accepted.get(name, 0) < settings.count]
    total = sum(accepted.values())
    status: Status = "interrupted" if stopped else "partial" if short or endings.get("failed") else "done"
    content = {
        "item": source.item,
        "defects": {name: accepted.get(name, 0) for name in source.defects},
        "items": {"planned": sum(_counts(tallies["tried"]).values())}
        | {ending: endings.get(ending, 0) for ending in ("accepted", "exhausted", "failed", "held")},
        "accepted": total,
        "yield": round(total / max(1, sum(_counts(tallies["tried"]).values())), 4),
        "mean_turns": tallies["mean_turns"],
        "costs": costs.as_json(total),
        "images": {side: len(source.split.of(side)) for side in source.split.sides},
        "guarded": dict(source.guard.checked),
        "painter": settings.painter,
        "judges": [recipe.llm.judge.model] if recipe.llm.judge else [],
        "findings": source.findings.as_json(),
        "hints": _hints(record.folder, recipe, source, short, endings, status, spent),
    }
    record.write(status, content)
    with breaking_the_run(record.folder):
        build_anomaly_report(record.folder)
    record.write(status, content)


def _counts(value: object) -> dict[str, int]:
    return value if isinstance(value, dict) else {}


def _hints(
    folder: Path,
    recipe: Recipe,
    source: AnomalySource,
    short: list[str],
    endings: Mapping[str, int],
    status: Status,
    spent: str,
) -> list[str]:
    found = []
    if kinds := source.findings.counts:
        found.append(f"The data set has {', '.join(kinds)}: run.json names them under findings.")
    if status == "interrupted":
        found.append("The run was interrupted; the same command goes on where it stopped.")
    if spent:
        found.append(f"Stopped because {spent}; the same command with a higher limit goes on.")
    if endings.get("failed"):
        found.append(f"{endings['failed']} items failed; their reasons stand in items/. The same command retries.")
    if short and not spent and status != "interrupted":
        found.append(
            f"Short of --count: {', '.join(short)}. Raise agents.anomaly_agent.max_tries_ratio or max_turns, or tell "
            "it more with `maskwright knowledge add`."
        )
    if endings.get("accepted"):
        samples = folder / "dataset" / "mvtec" / source.item
        worth = f"maskwright evaluate anomaly {folder} --data {recipe.data.path}"
        found.append(f"The samples lie in {samples}. What they are worth: {worth}")
    return found

"""run.json: what a run is, how far it got, what it cost, and what to do next."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal
from uuid import uuid4

import orjson

from .. import __version__
from ..configs.plan import PlanSettings
from ..configs.recipe import Recipe
from ..data.records import Dataset
from ..data.splits import sides
from ..errors import RunFolderError
from ..memory.artifacts import write_or_stop
from ..memory.prompt_records import Snapshot
from .pool import Pool
from .work import WorkPlan

Status = Literal["running", "done", "partial", "interrupted"]
RECORDED_PACKAGES = ("torch", "kornia", "langgraph", "numpy", "opencv-python", "pycocotools", "pillow")


class RunRecord:
    """The run's own file, written whole each time; reads its earlier self on resume.

    Args:
        extended: the run that this one extends, if any; to the prompt memory they are one.
    """

    def __init__(self, folder: Path, recipe_name: str, fingerprint: str, extended: Path | None = None) -> None:
        self.folder = folder
        self.recipe_name = recipe_name
        self.fingerprint = fingerprint
        self.scene_ids: list[str] = []
        earlier = read_run_json(folder) or {}
        begun = earlier or (extended and read_run_json(extended)) or {}
        self.seconds: dict[str, float] = dict(_mapping(earlier.get("seconds")))  # type: ignore[arg-type]
        self.product_digest = str(earlier.get("product_digest", ""))
        self.started = str(begun.get("started") or datetime.now(UTC).isoformat(timespec="seconds"))
        self.run_id = str(begun.get("run_id") or uuid4().hex)
        """Of this run among all that share a memory; a resumed run keeps it."""
        memory = _mapping(earlier.get("memory"))
        self.memory_sequence = int(str(memory["sequence"])) if "sequence" in memory else None

    def noted_snapshot(self, snapshot: Snapshot) -> Snapshot:
        """The memory as this run first saw it: noted at its start, read from run.json when it is resumed."""
        if self.memory_sequence is None:
            self.memory_sequence = snapshot.shared_sequence
        return Snapshot(self.run_id, self.memory_sequence)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to a stage; a resumed run adds to what it spent before."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - started, 3)

    def write_sides(self, dataset: Dataset) -> None:
        write_or_stop(self.folder / "split.json", orjson.dumps(sides(dataset), option=orjson.OPT_INDENT_2))

    def write(self, status: Status, content: Mapping[str, object]) -> dict[str, object]:
        """Write run.json.

        Raises:
            BrokenRunError: the disk is full or not writable.
        """
        whole = {
            "maskwright": __version__,
            "versions": {name: installed for name in RECORDED_PACKAGES if (installed := _version(name))},
            "recipe": self.recipe_name,
            "status": status,
            "fingerprint": self.fingerprint,
            "run_id": self.run_id,
            "started": self.started,
            "memory": {} if self.memory_sequence is None else {"sequence": self.memory_sequence},
            "seconds": self.seconds,
            "product_digest": self.product_digest,
            **content,
        }
        write_or_stop(self.folder / "run.json", orjson.dumps(whole, option=orjson.OPT_INDENT_2))
        return whole


def read_run_json(folder: Path) -> dict[str, object] | None:
    """The run.json of a run folder, or None where there is none.

    Raises:
        RunFolderError: it is not ours.
    """
    path = folder / "run.json"
    if not path.is_file():
        return None
    try:
        content = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as exc:
        raise RunFolderError(f"{path}: not valid JSON; this is no run of ours, give another --out") from exc
    if not isinstance(content, dict) or "fingerprint" not in content:
        raise RunFolderError(f"{path}: has no fingerprint; this is no run of ours, give another --out")
    return content


def describe_dataset(dataset: Dataset, digest: str) -> dict[str, object]:
    """The data set as run.json states it."""
    images = dataset.images
    split_of_row = [images[i].split for i in dataset.annotations.image_index.tolist()]
    return {
        "path": str(dataset.root),
        "format": dataset.format,
        "splits": {
            split: {"images": sum(i.split == split for i in images), "annotations": split_of_row.count(split)}
            for split in dataset.splits
        },
        "digest": digest,
    }


def tally(work: WorkPlan, pool: Pool) -> dict[str, object]:
    """Counts of items, images and classes."""
    endings = {ending: pool.endings[ending] for ending in ("accepted", "exhausted", "failed", "held")}
    accepted, painted = len(pool.instances), pool.num_painted
    return {
        "items": {"planned": len(work.items), **endings, "spared": pool.num_spared},
        "images": {"painted": painted, "rejected": painted - accepted - pool.validation.waiting},
        "accepted": accepted,
        "yield": round(accepted / painted, 4) if painted else 0.0,
        "costs": pool.costs.as_json(accepted),
        "classes": [
            {
                "name": quota.category.name,
                "real": quota.num_instances,
                "quota": quota.num_new,
                "accepted": pool.accepted_by_class[quota.category.name],
                "shortfall": max(0, quota.num_new - pool.accepted_by_class[quota.category.name]),
                "sources": work.num_starts(quota.category),
                "painted": pool.painted_by_class[quota.category.name],
            }
            for quota in work.quotas
        ],
        "rejections": dict(pool.rejections.most_common()),
    }


def hints(recipe: Recipe, work: WorkPlan, pool: Pool, folder: Path, status: Status, spent: str) -> list[str]:
    """What to do next, in order of weight."""
    found = []
    if status == "interrupted":
        found.append("The run was interrupted; the same command goes on where it stopped.")
    if spent:
        found.append(f"Stopped because {spent}; the same command with a higher limit goes on.")
    if pool.endings["failed"]:
        found.append(f"{pool.endings['failed']} items failed; their reasons stand in items/. The same command retries.")
    if waiting := pool.validation.waiting:
        found.append(f"{waiting} images wait for you: maskwright review {folder}, then the same command goes on.")
    if not work.items:
        found.append(_ask_for_more(recipe.plan))
    elif not pool.instances and not pool.validation.waiting and status != "interrupted":
        worst = ", ".join(name for name, _ in pool.rejections.most_common(2)) or "no usable source"
        limits = " and ".join(f"agents.{agent}.limits" for agent in _agents(recipe))
        found.append(f"Nothing was accepted ({worst}); loosen {limits} and give another --out.")
    if work.without_source:
        found.append(_ask_for_starts(recipe, work))
    short = [q.category.name for q in work.quotas if q.num_new > pool.accepted_by_class[q.category.name]]
    short = [name for name in short if name not in work.without_source]
    if short and recipe.budget.items is not None:
        found.append(
            f"--limit {recipe.budget.items} left {len(short)} classes short; the same command without it goes on."
        )
    elif short and status != "interrupted" and not spent:
        rounds = " or ".join(f"agents.{agent}.max_rounds" for agent in _agents(recipe))
        found.append(f"Short of their quota: {', '.join(short[:12])}. Raise {rounds}, or add sources.")
    if pool.instances and status != "interrupted" and "yolo" in recipe.export.formats:
        found.append(f"Train: yolo segment train data={folder / 'dataset/yolo/data.yaml'} model=yolo11n-seg.pt")
    return found


def _ask_for_more(settings: PlanSettings) -> str:
    """What to raise where no class lacks anything."""
    if settings.by == "frequency":
        return "Every class has what plan.frequency gives its group; raise it with --set plan.frequency.rare=N."
    if settings.by == "repeat_factor":
        return f"No class is rarer than {settings.repeat_threshold:g}; raise it with --set plan.repeat_threshold=T."
    return f"Every class has its {settings.at_least} already; raise it with --set plan.at_least=N."


def _agents(recipe: Recipe) -> list[str]:
    return [name for name in ("text_agent", "image_agent") if getattr(recipe.agents, name) is not None]


def _ask_for_starts(recipe: Recipe, work: WorkPlan) -> str:
    """What is missing of the classes that no agent can make."""
    names = ", ".join(work.without_source)
    if recipe.agents.image_agent is None:
        return f"The painter cannot draw: {names}. Run the recipe instada, whose I-Agent varies real instances."
    return f"No instance to start from: {names}. Add one real instance of each."


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}

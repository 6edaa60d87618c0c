"""The public doors: run a recipe, or plan it without spending anything."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..configs.datasets import open_dataset
from ..configs.recipe import Recipe, load_recipe
from ..data.records import Dataset
from ..data.splits import dataset_digest, set_val_aside
from ..errors import BrokenRunError, DatasetError, RecipeError
from ..memory.artifacts import ArtifactStore, write_or_stop
from ..memory.ledger import Ledger
from ..models.fetch import locate_model
from ..tools.composing.harmonization import build_harmonizer
from ..tools.composing.placement import measure_sizes
from .backgrounds import open_backgrounds
from .checkup import embedded_models
from .choosing import choose_backends
from .composition import SceneServices
from .crews import Crew
from .earlier import take_over
from .executor import ThreadExecutor
from .pool import Pool
from .record import RunRecord, read_run_json
from .run_folder import EXIT_CODES, Resume, RunOutcome, check_folder, check_resume, default_folder
from .run_services import RunServices
from .services import Progress
from .tracing import langsmith_tracing, traced_run
from .validators import build_scene_judges, build_validators
from .verdicts import judge_again, read_rejudging
from .work import WorkPlan, plan_work
from .workshop import Workshop, knows_class

BYTES_PER_ITEM = 400_000


class Silent:
    """Progress that says nothing: the default of the library."""

    def start(self, stage: str, total: int) -> None:
        del stage, total

    def advance(self, stage: str, outcome: str = "", count: int = 1) -> None:
        del stage, outcome, count


@dataclass(frozen=True, slots=True)
class Prepared:
    """A recipe with its data set read and its work planned; nothing is spent yet."""

    recipe: Recipe
    dataset: Dataset
    digest: str
    work: WorkPlan
    why: Mapping[str, str] = field(default_factory=dict)
    """Why an agent has the painter and masker that it has, by agent that left that open."""


def plan_recipe(
    recipe: str,
    *,
    data: Path | None = None,
    data_format: str | None = None,
    overrides: Iterable[str] = (),
    seed: int | None = None,
    limit: int | None = None,
) -> Prepared:
    """Read the recipe and the data set, and plan the work; no image is decoded.

    Args:
        recipe: built-in name, or path of a YAML file.
        data: data set folder or annotation file; stands above the recipe's.
        overrides: `key.sub=value` settings above the recipe's.

    Raises:
        RecipeError: the recipe is wrong.
        DatasetError: the data set is wrong.
        ModelNotFetchedError: a model that the recipe names is not in the cache.
    """
    return prepare(load_recipe(recipe, [*overrides, *_shorthands(data, data_format, seed, limit)]))


def prepare(recipe: Recipe) -> Prepared:
    """Read the data set that a recipe names, and plan the work; no image is decoded.

    Raises:
        RecipeError: a setting names something unknown.
        DatasetError: the data set is wrong.
        ModelNotFetchedError: a model that the recipe names is not in the cache.
    """
    if recipe.agents.anomaly_agent is not None:
        raise RecipeError("an anomaly recipe makes samples of defects, not instances by quota; run it with --count N")
    if recipe.agents.label_agent is not None:
        raise RecipeError("a label recipe makes scenes with image labels, not instances; run it with --count N")
    chosen = choose_backends(recipe)
    recipe = chosen.recipe
    for name in embedded_models(recipe):
        locate_model(name)
    dataset = set_val_aside(open_dataset(recipe.data), recipe.data.val_share)
    if not any(image.split == "train" for image in dataset.images):
        raise DatasetError(
            f"{dataset.root}: has no training images; splits found: {', '.join(dataset.splits)}. "
            "Give the folder or file that holds the training split"
        )
    return Prepared(
        recipe, dataset, dataset_digest(dataset), plan_work(dataset, recipe, knows_class(recipe)), chosen.why
    )


def run_recipe(
    recipe: str,
    *,
    data: Path | None = None,
    out: Path | None = None,
    data_format: str | None = None,
    overrides: Iterable[str] = (),
    seed: int | None = None,
    limit: int | None = None,
    resume: Resume = "if_possible",
    earlier: Path | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> RunOutcome:
    """Make the bigger data set, or go on with it.

    Args:
        out: run folder; default runs/RECIPE-N, the last one if it is this run unfinished, else the next number.
        resume: `if_possible` goes on with a run of the same fingerprint, `never` wants a fresh folder,
            `always` wants one to go on with.
        earlier: a finished run of the same data and a plan that this one's extends; what it made is made already.
        stop: set it, and the run finishes what is in flight and returns.

    Raises:
        InputError: recipe, data set or folder is wrong; nothing was spent.
        BrokenRunError: the run cannot go on; the same call resumes it.
    """
    if out is not None:
        check_folder(out)
    loaded = load_recipe(recipe, [*overrides, *_shorthands(data, data_format, seed, limit)])
    if run_otherwise := _runner_of(loaded):
        return run_otherwise(
            loaded,
            Path(recipe).stem,
            out=out,
            resume=resume,
            progress=progress or Silent(),
            stop=stop or threading.Event(),
        )
    prepared = prepare(loaded)
    fingerprint = prepared.recipe.fingerprint(prepared.digest)
    name = Path(recipe).stem
    folder = out or default_folder(Path("runs"), name, fingerprint)
    check_resume(folder, fingerprint, resume)
    complete = _read_complete(folder, prepared)
    if complete is not None:
        return RunOutcome(folder, EXIT_CODES["done"], complete)
    _check_disk(folder, prepared)
    record = RunRecord(folder, name, fingerprint, earlier)
    services = build_services(prepared, record, progress or Silent(), stop or threading.Event())
    rejudging = read_rejudging(folder)
    record.write("running", rejudging)  # first of all: it makes the folder ours
    write_or_stop(folder / "recipe.yaml", prepared.recipe.to_yaml().encode())
    if rejudging:
        judge_again(services)
    if earlier is not None:
        take_over(earlier, folder)
    return go_on(services)


class _Runner(Protocol):
    """Carries out a recipe of an agent that works alone; arguments as `run_recipe`'s."""

    def __call__(
        self, recipe: Recipe, name: str, *, out: Path | None, resume: Resume, progress: Progress, stop: threading.Event
    ) -> RunOutcome: ...


def _runner_of(recipe: Recipe) -> _Runner | None:
    """None of recipes that make instances; what the others import takes long."""
    if recipe.agents.anomaly_agent is not None:
        from .anomaly_pipeline import run_anomalies

        return run_anomalies
    if recipe.agents.label_agent is not None:
        from .label_pipeline import run_labels

        return run_labels
    return None


def go_on(services: RunServices) -> RunOutcome:
    """Make, compose, export and report what of a run is left to do.

    Raises:
        BrokenRunError: the run cannot go on; the same call resumes it.
    """
    from .run import build_run_graph  # what it imports takes long, and a finished run does without

    config = traced_run(services.folder, services.record.recipe_name, services.work.num_waves + 20)
    with langsmith_tracing():
        build_run_graph().invoke(_START, context=services, config=config)  # type: ignore[call-overload]
    content = read_run_json(services.folder) or {}
    return RunOutcome(services.folder, EXIT_CODES[str(content["status"])], content)


_START = {"num_items": 0, "num_waves": 0, "wave": 0, "num_accepted": 0, "num_scenes": 0, "stopped": False, "spent": ""}


def _shorthands(data: Path | None, data_format: str | None, seed: int | None, limit: int | None) -> list[str]:
    values = {"data.path": data and str(data), "data.format": data_format, "plan.seed": seed, "budget.items": limit}
    return [f"{key}={json.dumps(value)}" for key, value in values.items() if value is not None]


def _read_complete(folder: Path, prepared: Prepared) -> dict[str, object] | None:
    """run.json of a run of this very plan that is done and exported; None where anything is left to do."""
    content = read_run_json(folder) if folder.is_dir() else None
    if content is None or content.get("status") != "done":
        return None
    planned = {item["item_id"] for item in prepared.work.items}
    items = content.get("items")
    counted, spared = (items.get("planned"), items.get("spared", 0)) if isinstance(items, dict) else (None, 0)
    exported = (folder / "dataset" / "provenance.jsonl").is_file() or not content.get("accepted")
    reported = (folder / "report.html").is_file()
    missing = len(planned - set(Ledger(folder / "items").ids()))
    if counted != len(planned) or not exported or not reported or missing > spared:
        return None
    return content


def _check_disk(folder: Path, prepared: Prepared) -> None:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    originals = sum(image.path.stat().st_size for image in prepared.dataset.images if image.path.is_file())
    needed = len(prepared.work.items) * BYTES_PER_ITEM + originals * prepared.recipe.export.originals
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise BrokenRunError(
            f"{folder}: about {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; "
            "free some space, or give an --out on another disk"
        )


def build_services(
    prepared: Prepared,
    record: RunRecord,
    progress: Progress,
    stop: threading.Event,
    crews: Mapping[str, Crew] | None = None,
) -> RunServices:
    """What the run's graph needs; nothing is written yet.

    Args:
        crews: by agent, instead of those that the recipe asks for.

    Raises:
        InputError: a setting names something unknown, or a folder is not what it should be.
        BrokenRunError: the memory cannot be written, or a model is not fetched.
    """
    recipe, dataset, folder = prepared.recipe, prepared.dataset, record.folder
    artifacts = ArtifactStore(folder / "artifacts")
    executor = ThreadExecutor(recipe.budget.workers, stop)
    scene_services = SceneServices(
        settings=recipe.compose,
        seed=recipe.plan.seed,
        backgrounds=open_backgrounds(recipe, dataset, folder, artifacts),
        sizes=measure_sizes(dataset),
        harmonizer=build_harmonizer(recipe.compose),
        artifacts=artifacts,
        scenes=Ledger(folder / "scenes"),
        executor=executor,
        progress=progress,
        is_stopped=stop.is_set,
        judges=build_scene_judges(recipe, dataset),
    )
    validators = build_validators(recipe)
    if crews is None:
        workshop = Workshop(recipe, dataset, folder, artifacts, prepared.work.sources, stop, record, validators)
        crews = workshop.build_crews()
    return RunServices(
        recipe=recipe,
        folder=folder,
        dataset=dataset,
        work=prepared.work,
        crews=crews,
        validators=validators,
        artifacts=artifacts,
        items=Ledger(folder / "items"),
        scene_services=scene_services,
        progress=progress,
        stop=stop,
        record=record,
        dataset_digest=prepared.digest,
        why=prepared.why,
        pool=Pool(recipe.budget.prices),
    )

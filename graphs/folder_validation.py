"""The validation agent alone, on a folder of pictures: measures, judges, a verdict each, and the kept ones by class."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..configs.agents import TextAgentSettings
from ..configs.recipe import Recipe, load_recipe
from ..data.images import read_upright
from ..data.records import ImageRGBA
from ..errors import InputError, LanguageModelError, RecipeError, SampleError
from ..memory.artifacts import ArtifactStore, write_or_stop
from ..memory.entries import MADE, Attempt, ItemResult, WorkItem
from ..memory.ledger import Ledger
from ..models.fetch import locate_model
from ..tools.judging.registry import build_text_scorer, build_wholeness
from ..tools.masking.registry import build_photograph_masker
from .checkup import models_named
from .costs import to_cost
from .executor import ThreadExecutor
from .folder_outputs import finish_folder
from .folder_pictures import FolderPicture, PictureMeasurer, find_pictures, judge_of
from .held import apply_reviews
from .image_agent import to_instance
from .items import rejection
from .lockstep import Meter
from .pipeline import Silent
from .pool import Pool
from .record import RunRecord
from .run_folder import RunOutcome, check_folder, check_resume, default_folder
from .services import Artifacts, PictureJudge, Progress, ValidationServices
from .tracing import langsmith_tracing, traced_as
from .validating import Validator, ending_of
from .validation_agent import ValidationGraph, build_validation_graph
from .validators import build_validators, check_judges
from .writing import Usage

MAX_SHOWN = 12
"""Pictures of the folder that bad ones are made of."""
BATCH = 32
"""Pictures that are masked, measured and scored together."""
STAGE = "validate"


def validate_folder(
    folder: Path,
    *,
    category: str | None = None,
    recipe: str = "text_agent",
    out: Path | None = None,
    overrides: Iterable[str] = (),
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> RunOutcome:
    """Judge every picture of a folder, and copy those that are kept to OUT/kept/CLASS/; the folder stays as it is.

    A picture that was judged already is not judged again; a killed call is finished by the same one.

    Args:
        category: what all pictures should show; None: the name of the folder right below `folder` that holds them.
        recipe: whose `agents.text_agent` limits, masker, scorer and `validation`, and whose `llm.judge`, are used.
        out: folder to write; default runs/validate-N.
        stop: set it, and what is in flight is finished.

    Raises:
        InputError: folder, recipe or key is wrong; nothing was spent.
        BrokenRunError: a judge accepts what is bad on purpose, or rejects everything; or the disk is full.
    """
    settings, whole = _read_recipe(recipe, overrides)
    pictures = find_pictures(folder, category)
    fingerprint = whole.fingerprint(hashlib.sha256(f"{folder.resolve()}\0{category}".encode()).hexdigest())
    if out is not None:
        check_folder(out)
    target = out or default_folder(Path("runs"), STAGE, fingerprint)
    check_resume(target, fingerprint, "if_possible")
    asked = [settings.similarity.text, *filter(None, [settings.similarity.wholeness]), *whole.llm.judges]
    for name in models_named([one.model_dump(mode="json") for one in asked]):
        locate_model(name)
    record = RunRecord(target, STAGE, fingerprint)
    job = _build_job(settings, whole, pictures, target, progress or Silent(), stop or threading.Event())
    record.write("running", {})
    write_or_stop(target / "recipe.yaml", whole.to_yaml().encode())
    apply_reviews(target)
    with langsmith_tracing(), record.timed(STAGE):
        check_judges([job.validator], _first_pictures(pictures), target / "judges")
        job.run()
    return finish_folder(record, whole, pictures, job.items, job.pool, stopped=job.stop.is_set())


def _build_job(
    settings: TextAgentSettings,
    recipe: Recipe,
    pictures: Sequence[FolderPicture],
    folder: Path,
    progress: Progress,
    stop: threading.Event,
) -> _Job:
    """Everything that judging takes; nothing is loaded yet."""
    scorer, artifacts = build_text_scorer(settings.similarity.text), ArtifactStore(folder / "artifacts")
    names = list(dict.fromkeys(picture.category for picture in pictures))
    measurer = PictureMeasurer(
        masker=build_photograph_masker(settings, scorer),
        scorer=scorer,
        kind=settings.validation.kind,
        artifacts=artifacts,
        wholeness=build_wholeness(settings.similarity.wholeness),
        rivals=[name for name in names if scorer.knows(name)],
    )
    return _Job(
        pictures=pictures,
        judges=judge_of(settings, names, scorer),
        measurer=measurer,
        validator=build_validators(recipe)["text_agent"],
        artifacts=artifacts,
        items=Ledger(folder / "items"),
        pool=Pool(recipe.budget.prices),
        progress=progress,
        stop=stop,
        workers=recipe.budget.workers,
    )


def _first_pictures(pictures: Sequence[FolderPicture]) -> Iterator[tuple[ImageRGBA, str]]:
    """A few pictures of the folder, of every class in turn, to make bad ones of."""
    by_class: dict[str, list[FolderPicture]] = {}
    for picture in pictures:
        by_class.setdefault(picture.category, []).append(picture)
    firsts = [group[0] for group in by_class.values()] + [group[-1] for group in by_class.values()]
    for picture in firsts[:MAX_SHOWN]:
        try:
            yield read_upright(picture.path), picture.category
        except (SampleError, InputError):
            continue


def _read_recipe(recipe: str, overrides: Iterable[str]) -> tuple[TextAgentSettings, Recipe]:
    whole = load_recipe(recipe, overrides)
    if whole.agents.text_agent is None:
        raise RecipeError(f"recipe {recipe!r} has no `agents.text_agent`, whose limits and validation are used here")
    # Nobody else works, so nothing of theirs has to be fetched.
    agents = whole.agents.model_copy(update={"image_agent": None})
    return whole.agents.text_agent, whole.model_copy(update={"agents": agents})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """Everything that judging the folder's pictures takes."""

    pictures: Sequence[FolderPicture]
    judges: Mapping[int, PictureJudge]
    measurer: PictureMeasurer
    validator: Validator
    artifacts: Artifacts
    items: Ledger[ItemResult]
    pool: Pool
    progress: Progress
    stop: threading.Event
    workers: int

    def run(self) -> None:
        """Judge what is not judged yet."""
        graph = build_validation_graph()
        self.progress.start(STAGE, len(self.pictures))
        executor = ThreadExecutor(self.workers, self.stop)
        for first in range(0, len(self.pictures), BATCH):
            batch = self.pictures[first : first + BATCH]
            items = [picture.to_item() for picture in batch]
            results = {item["item_id"]: self._stored(item) for item in items}
            todo = [place for place, item in enumerate(items) if results[item["item_id"]] is None]
            measured = self.measurer.measure([batch[place] for place in todo])
            work = [(items[place], attempt) for place, attempt in zip(todo, measured, strict=True)]
            for result in executor.map(lambda one: self._judge(graph, *one), work):
                results[result["item"]["item_id"]] = result
            for item in items:
                if (made := results[item["item_id"]]) is not None:
                    self.pool.add(made)
                    self.progress.advance(STAGE, made["ending"])
            if self.stop.is_set():
                return

    def _stored(self, item: WorkItem) -> ItemResult | None:
        result = self.items.read(item["item_id"])
        return result if result is not None and result["ending"] in MADE else None

    def _judge(self, graph: ValidationGraph, item: WorkItem, attempt: Attempt) -> ItemResult:
        """A picture's verdict, kept in the ledger. A judge without an answer fails this picture alone."""
        started, usage, reason = time.perf_counter(), Usage(), ""
        services = ValidationServices(
            judge=self.judges[item["category_id"]],
            class_scores=self.pool.scores["validation_agent"],
            validator=self.validator,
            usage=usage,
            artifacts=self.artifacts,
        )
        try:
            state = graph.invoke(
                {"item": item, "candidates": [attempt], "attempts": []}, context=services, config=traced_as(item)
            )
            [attempt] = state["candidates"]
        except (SampleError, LanguageModelError) as exc:
            reason = f"{type(exc).__name__}: {exc}"
        result: ItemResult = {
            "item": item,
            "ending": "failed" if reason else ending_of([attempt]),
            "reason": reason or ("" if attempt["accepted"] else rejection([], [attempt])),
            "source": None,
            "unreadable_image": "" if attempt["artifact"] else str(attempt["parameters"]["file"]),
            "painter": {"name": "folder", "revision": ""},
            "attempts": [attempt] if attempt["artifact"] else [],
            "instances": [to_instance(item, attempt, self.artifacts)] if attempt["accepted"] else [],
            "rounds": [],
            "cost": to_cost(usage, Meter(), 0.0),
            "seconds": round(time.perf_counter() - started, 4),
        }
        self.items.write(item["item_id"], result)
        return result

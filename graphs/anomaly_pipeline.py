"""The public door of anomaly runs: read the recipe, open the data, build everything, make the samples."""

from __future__ import annotations

import hashlib
import logging
import threading
from pathlib import Path

import orjson

from ..configs.recipe import Recipe
from ..errors import LeakError
from ..memory.artifacts import ArtifactStore, write_or_stop
from ..memory.knowledge import KnowledgeBase, open_knowledge
from ..memory.ledger import Ledger
from ..tools.defects import DefectPainter, QualityJudge
from ..tools.judging.defect_measures import learn_standard
from ..tools.judging.defect_quality import MeasuredQualityJudge
from ..tools.judging.defect_vision import VisionQualityJudge
from ..tools.judging.reference_statistics import measure_references
from ..tools.masking.changed_box import build_edit_masker
from ..tools.painting.defect_registry import build_defect_painter
from .anomaly_chat import ChatDecider
from .anomaly_crew import AnomalyCrew
from .anomaly_data import AnomalySource, open_anomalies
from .anomaly_policy import FixedPolicy
from .anomaly_services import Decider
from .costs import Ledgered
from .executor import ThreadExecutor
from .record import RunRecord, read_run_json
from .run_folder import EXIT_CODES, Resume, RunOutcome, check_resume, default_folder
from .services import Progress
from .templates import load_template
from .tracing import langsmith_tracing, traced_run
from .writers import build_chat

logger = logging.getLogger(__name__)


def run_anomalies(
    recipe: Recipe, name: str, *, out: Path | None, resume: Resume, progress: Progress, stop: threading.Event
) -> RunOutcome:
    """Make samples of defects, or go on with it; arguments as `run_recipe`'s.

    Raises:
        InputError: recipe, data set or folder is wrong; nothing was spent.
        BrokenRunError: the run cannot go on; the same call resumes it.
    """
    source = open_anomalies(recipe)
    fingerprint = recipe.fingerprint(_digest(source))
    folder = out or default_folder(Path("runs"), name, fingerprint)
    check_resume(folder, fingerprint, resume)
    record = RunRecord(folder, name, fingerprint)
    artifacts = ArtifactStore(folder / "artifacts")
    crew = build_crew(recipe, source, artifacts, stop)
    _tell_oddities(source, crew)
    record.write("running", {})
    write_or_stop(folder / "recipe.yaml", recipe.to_yaml().encode())
    from .anomaly_run import AnomalyRunServices, build_anomaly_run_graph

    services = AnomalyRunServices(
        recipe=recipe,
        folder=folder,
        source=source,
        crew=crew,
        artifacts=artifacts,
        items=Ledger(folder / "items"),
        progress=progress,
        stop=stop,
        record=record,
        costs=Ledgered(recipe.budget.prices),
    )
    most = len(source.defects) * round(crew.settings.count * crew.settings.max_tries_ratio)
    first = {"wave": 0, "num_accepted": 0, "num_open": 0, "stopped": False, "spent": ""}
    with langsmith_tracing():
        graph = build_anomaly_run_graph()
        graph.invoke(first, context=services, config=traced_run(folder, name, most + 20))  # type: ignore[call-overload]
    content = read_run_json(folder) or {}
    return RunOutcome(folder, EXIT_CODES[str(content["status"])], content)


def _tell_oddities(source: AnomalySource, crew: AnomalyCrew) -> None:
    """Say what is odd before anything is spent, and which defects are guessed; run.json has it, too."""
    for defect in source.defects:
        known = crew.look_up(defect)
        if known.is_guess:
            like = f" from {', '.join(known.families)}" if known.families else ""
            source.findings.add(
                "guessed_defect",
                f"no note names {defect!r}, so its looks are guessed{like}; tell more with `maskwright knowledge add`",
            )
    for kind, count in source.findings.counts.items():
        logger.warning("%d %s: %s", count, kind, source.findings.examples[kind][0])


def _digest(source: AnomalySource) -> str:
    """Of the files' names and sizes, by side."""
    sides = {
        side: [[one.key, one.image_path.stat().st_size] for one in records]
        for side, records in source.split.sides.items()
    }
    return hashlib.sha256(orjson.dumps(sides, option=orjson.OPT_SORT_KEYS)).hexdigest()


def build_crew(recipe: Recipe, source: AnomalySource, artifacts: ArtifactStore, stop: threading.Event) -> AnomalyCrew:
    """Everything that the items share; what was learned from the references goes into the knowledge base.

    Raises:
        InputError: the recipe names what is not there, or a reference is a test image.
        BrokenRunError: a model is not fetched, or the knowledge base is damaged.
    """
    settings = recipe.agents.anomaly_agent
    assert settings is not None
    knowledge = open_knowledge(recipe.memory.knowledge_path, is_test=source.guard.knows_digest)
    painter: DefectPainter = build_defect_painter(settings)
    find_mask = build_edit_masker(settings)
    judge = _build_judge(recipe, source)
    if settings.references:
        _learn_references(knowledge, source)
    return AnomalyCrew(
        settings=settings,
        run_seed=recipe.plan.seed,
        source=source,
        painter=painter,
        find_mask=find_mask,
        judge=judge,
        decider=_build_decider(recipe, artifacts),
        knowledge=knowledge,
        fingerprint=knowledge.fingerprint,
        artifacts=artifacts,
        executor=ThreadExecutor(recipe.budget.workers, stop),
    )


def _build_judge(recipe: Recipe, source: AnomalySource) -> QualityJudge:
    """A vision model where the recipe names one, else the measures, against the references where they may be used."""
    settings = recipe.agents.anomaly_agent
    assert settings is not None
    if recipe.llm.judge is not None:
        return VisionQualityJudge(
            model=build_chat(recipe.llm.judge, recipe.plan.seed),
            name=recipe.llm.judge.model,
            question=load_template("judge_defect").text,
            max_repairs=recipe.llm.max_repairs,
            max_side_px=settings.max_side_px,
            max_image_bytes=settings.max_image_bytes,
        )
    found = {name: source.references(name) for name in source.defects} if settings.references else {}
    return MeasuredQualityJudge(standards={name: learn_standard(one, None) for name, one in found.items() if one})


def _learn_references(knowledge: KnowledgeBase, source: AnomalySource) -> None:
    """Put the references' statistics into the knowledge base, under the item's name.

    Raises:
        LeakError: a reference is a test image.
    """
    for defect in source.defects:
        references = source.references(defect)
        if not references:
            continue
        measured = measure_references(
            [one.rgb for one in references],
            [one.mask_hw for one in references],
            [one.foreground_hw for one in references],
        )
        digests = [
            hashlib.sha256(one.image_path.read_bytes()).hexdigest() for one in source.split.of("reference", defect)
        ]
        if any(map(source.guard.knows_digest, digests)):
            raise LeakError(f"a reference of {defect!r} is a test image; take its copy out of the data set")
        knowledge.add_measured(source.item, defect, measured, digests)


def _build_decider(recipe: Recipe, artifacts: ArtifactStore) -> Decider:
    settings = recipe.agents.anomaly_agent
    assert settings is not None
    if settings.decider == "policy":
        return FixedPolicy(settings)
    planner = recipe.llm.of("planner")
    return ChatDecider(
        model=build_chat(planner, recipe.plan.seed),
        name=planner.model,
        settings=settings,
        artifacts=artifacts,
        max_side_px=settings.max_side_px,
        max_image_bytes=settings.max_image_bytes,
    )

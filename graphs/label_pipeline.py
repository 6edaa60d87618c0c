"""The public door of label runs: read the recipe, open the data, build everything, make the scenes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..configs.judging import TextScorerSettings
from ..configs.recipe import Recipe
from ..errors import RecipeError
from ..memory.artifacts import ArtifactStore, write_or_stop
from ..memory.knowledge import open_knowledge
from ..memory.ledger import Ledger
from ..memory.prompt_history import open_prompt_history
from ..tools.judging.registry import build_text_scorer
from ..tools.protocols import TextScorer
from ..tools.scenes import ScenePainter
from .anomaly_planner import PlanDrawer
from .costs import Ledgered
from .label_crew import LabelCrew
from .label_data import ClassChoice, LabelSource, choose_classes, leave_out, name_some, open_labels
from .label_learning import Teaching, train_classifier
from .label_plan import LabelPlan, plan_labels
from .label_planning import PlannedSceneWriter, ScenePlanner
from .label_scenes import Backdrops, DefectScenes, build_label_painter, edits_backdrops, item_of
from .label_services import SceneWriter
from .label_tally import LabelTally
from .label_writing import ModelSceneWriter
from .record import RunRecord, read_run_json
from .run_folder import EXIT_CODES, Resume, RunOutcome, check_resume, default_folder
from .services import Progress
from .tracing import langsmith_tracing, traced_run
from .writers import build_chat

CLASSIFIERS = Path(".maskwright/classifiers")
"""Where classifiers are kept, by what they were taught; relative to where a run starts."""

if TYPE_CHECKING:
    from .label_run import LabelRunServices

logger = logging.getLogger(__name__)


def run_labels(
    recipe: Recipe, name: str, *, out: Path | None, resume: Resume, progress: Progress, stop: threading.Event
) -> RunOutcome:
    """Make scenes with image-level labels, or go on with it; arguments as `run_recipe`'s.

    Raises:
        InputError: recipe, data set or folder is wrong, or nothing that the filter could learn can be drawn.
        BrokenRunError: the run cannot go on; the same call resumes it.
    """
    source = open_labels(recipe)
    fingerprint = recipe.fingerprint(source.digest())
    folder = out or default_folder(Path("runs"), name, fingerprint)
    check_resume(folder, fingerprint, resume)
    record = RunRecord(folder, name, fingerprint)
    services = build_label_services(recipe, source, record, progress, stop)
    for kind, count in source.findings.counts.items():
        logger.warning("%d %s: %s", count, kind, source.findings.examples[kind][0])
    record.write("running", {})
    write_or_stop(folder / "recipe.yaml", recipe.to_yaml().encode())
    from .label_run import build_label_run_graph

    most = len(services.plan.classes) * services.plan.max_tries
    first = {"wave": 0, "num_admitted": 0, "num_open": 0, "stopped": False, "spent": ""}
    with langsmith_tracing():
        graph = build_label_run_graph()
        graph.invoke(first, context=services, config=traced_run(folder, name, 100 * most + 100))  # type: ignore[call-overload]
    content = read_run_json(folder) or {}
    return RunOutcome(folder, EXIT_CODES[str(content["status"])], content)


def build_label_services(
    recipe: Recipe, source: LabelSource, record: RunRecord, progress: Progress, stop: threading.Event
) -> LabelRunServices:
    """What the run's graph needs; nothing is taught or painted yet.

    Raises:
        RecipeError: a setting names what is not there, or nothing can be made.
        BrokenRunError: a model is not fetched, or memory or knowledge base is damaged.
    """
    from .label_run import LabelRunServices

    settings = recipe.agents.label_agent
    assert settings is not None
    artifacts = ArtifactStore(record.folder / "artifacts")
    backdrops = Backdrops(source.train)
    painter = build_label_painter(settings, recipe.compose, source.dataset, backdrops)
    choice = choose_classes(source, painter, settings)
    make_plan = partial(_plan, recipe, source, painter, choice)
    crew = LabelCrew(
        settings=settings,
        run_seed=recipe.plan.seed,
        batch_items=recipe.budget.batch_items,
        stop=stop,
        painter=painter,
        writer=_build_writer(recipe, source, painter),
        text_scorer=_build_scorer(recipe),
        artifacts=artifacts,
    )
    return LabelRunServices(
        recipe=recipe,
        folder=record.folder,
        source=source,
        choice=choice,
        make_plan=make_plan,
        plan=make_plan(choice.teachable),
        crew=crew,
        teaching=Teaching(train_classifier, source, settings, choice.teachable, CLASSIFIERS, recipe.plan.seed),
        artifacts=artifacts,
        items=Ledger(record.folder / "items"),
        memory=open_prompt_history(recipe.memory),
        progress=progress,
        stop=stop,
        record=record,
        costs=Ledgered(recipe.budget.prices),
        tally=LabelTally(threshold=settings.refine_threshold),
    )


def _plan(
    recipe: Recipe, source: LabelSource, painter: ScenePainter, choice: ClassChoice, known: Collection[str]
) -> LabelPlan:
    settings = recipe.agents.label_agent
    assert settings is not None
    plan = plan_labels(
        source.train,
        settings,
        recipe.plan.seed,
        drawable=choice.drawable,
        known=known,
        needs_backdrop=edits_backdrops(painter),
    )
    if not plan.classes:
        raise RecipeError(
            f"no training image lacks one of the classes {name_some(choice.drawable)}, so that there is nothing to "
            f"paint them on with {painter.name!r}; add images without them, or set agents.label_agent.painter to "
            "diffusion or hosted"
        )
    homeless = [name for name in choice.drawable if name in known and name not in plan.classes]
    leave_out(source, choice, dict.fromkeys(homeless, "no training image lacks it that could be its background"))
    return plan


def _build_writer(recipe: Recipe, source: LabelSource, painter: ScenePainter) -> SceneWriter:
    """The language model that `llm` names, or the planner where that is an embedded one."""
    planner = _build_planner(recipe, source) if isinstance(painter, DefectScenes) else None
    planned = PlannedSceneWriter(
        classes=source.dataset.classes,
        run_seed=recipe.plan.seed,
        item_name=item_of(source.dataset),
        max_words=painter.max_words,
        planner=planner,
    )
    if not recipe.writes_scenes_by_model:
        return planned
    writer = recipe.llm.of("writer")
    return ModelSceneWriter(
        model=build_chat(writer, recipe.plan.seed),
        name=writer.model,
        max_repairs=recipe.llm.max_repairs,
        planned=planned,
    )


def _build_planner(recipe: Recipe, source: LabelSource) -> ScenePlanner:
    """Plans of defects by what notes say of them; nothing that was measured on masks counts."""
    settings = recipe.agents.label_agent
    assert settings is not None
    knowledge = open_knowledge(recipe.memory.knowledge_path, is_test=source.guard.knows_digest)
    item = item_of(source.dataset)
    known = {
        name: knowledge.search(item, name, material=settings.material, measured=False)
        for name in source.dataset.classes
    }
    return ScenePlanner(drawer=PlanDrawer(settings.severity), look_up=known.__getitem__, run_seed=recipe.plan.seed)


def _build_scorer(recipe: Recipe) -> TextScorer | None:
    settings = recipe.agents.label_agent
    assert settings is not None
    return None if settings.admission.min_text_score is None else build_text_scorer(TextScorerSettings(), "label_agent")

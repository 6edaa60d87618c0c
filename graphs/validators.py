"""The validation of a run: a validator for each agent, and the proof that its judges can say no.

Gen-n-Val (arXiv 2506.04676) trusts its judge; here it is shown pictures that are bad on purpose first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..configs.agents import AgentsSettings
from ..configs.image_agent import SourceSettings
from ..configs.recipe import Recipe
from ..configs.validation import ValidationSettings
from ..data.records import Dataset, ImageRGBA
from ..errors import SampleError
from ..memory.entries import Cost, JudgeEntry, no_cost
from ..memory.ledger import Ledger
from .judges import build_judges, check_judge
from .planted import plant
from .scene_validation import SceneJudges
from .sources import DatasetSources, rank_sources
from .validating import Streak, Validator

SOURCES_PER_CLASS = 2
MAX_SOURCES = 12
"""Real instances that bad pictures are made of."""
MIN_AREA_PX = 1024


def validation_of(agents: AgentsSettings) -> dict[str, ValidationSettings]:
    """By agent: how its pictures are validated."""
    named = {"image_agent": agents.image_agent, "text_agent": agents.text_agent}
    return {agent: settings.validation for agent, settings in named.items() if settings is not None}


def build_validators(recipe: Recipe) -> dict[str, Validator]:
    """By agent; all share one count of rejections in a row. No model is asked anything yet.

    Raises:
        InputError: a model's name or key, or a file with a question, is wrong.
    """
    streak, seed = Streak(recipe.budget.max_rejections_in_a_row), recipe.plan.seed
    return {
        agent: Validator(
            judges=build_judges(recipe.llm, settings, seed), settings=settings, run_seed=seed, streak=streak
        )
        for agent, settings in validation_of(recipe.agents).items()
    }


def build_scene_judges(recipe: Recipe, dataset: Dataset) -> SceneJudges:
    """Those who look at scenes, by `compose.validation`; raises as `build_validators`."""
    settings = recipe.compose.validation
    judges = build_judges(recipe.llm, settings, recipe.plan.seed) if settings is not None else ()
    return SceneJudges(judges, {category.category_id: category.name for category in dataset.categories})


def check_judges(
    validators: Iterable[Validator], cut_outs: Iterable[tuple[ImageRGBA, str]], folder: Path
) -> list[JudgeEntry]:
    """Show every judge bad pictures that are made of good ones; each question to each judge once a run.

    Args:
        cut_outs: (h, w, 4) uint8 and names of their classes; read only where a judge has still to be checked.
        folder: of the ledger that remembers who passed, with what was asked and answered.

    Returns:
        What each judge said, now or when the run began.

    Raises:
        BrokenRunError: a judge accepts what nobody should.
        LanguageModelError: a judge cannot be asked.
    """
    passed: Ledger[JudgeEntry] = Ledger(folder)
    cut_outs = iter(cut_outs)
    shown: list[tuple[ImageRGBA, str]] = []
    checks: dict[str, JudgeEntry] = {}
    for validator in validators:
        settings = validator.settings
        for judge in validator.judges:
            entry_id = f"{judge.version}-{hashlib.sha256(judge.name.encode()).hexdigest()[:12]}"
            if settings.planted == 0 or entry_id in checks:
                continue
            check = passed.read(entry_id)
            if check is None:
                shown += cut_outs
                planted = plant(shown, settings.planted, settings.asked, validator.run_seed)
                check = check_judge(judge, planted, settings.min_planted_caught).to_entry()
                passed.write(entry_id, check)
            checks[entry_id] = check
    return list(checks.values())


def cost_of(check: JudgeEntry) -> Cost:
    """What checking a judge cost."""
    return {
        **no_cost(),
        "calls": check["calls"],
        "input_tokens": {check["judge"]: check["input_tokens"]},
        "output_tokens": {check["judge"]: check["output_tokens"]},
    }


def real_cut_outs(dataset: Dataset) -> Iterator[tuple[ImageRGBA, str]]:
    """A few real instances of several classes, the best first, of those that decode."""
    sources = DatasetSources(dataset)
    num_found = 0
    for category in dataset.categories:
        for row in rank_sources(dataset, category.category_id, SourceSettings(), MIN_AREA_PX)[:SOURCES_PER_CLASS]:
            try:
                yield sources.cut_out(row).rgba, category.name
            except SampleError:
                continue
            num_found += 1
        if num_found >= MAX_SOURCES:
            return

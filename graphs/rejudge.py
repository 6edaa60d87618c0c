"""Judge a run again: other limits, thresholds and vision judges over what stands in its ledger; nothing is painted.

The measures are those of the time of painting. That of `pool_distance_bits` is the distance to what the class had
then, so two images that are both accepted only now may be nearer to each other than it says.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..configs.recipe import Recipe, load_recipe
from ..errors import RecipeError, RunFolderError
from ..memory.artifacts import write_or_stop
from ..memory.entries import ItemResult, WorkItem
from ..memory.ledger import Ledger
from .crews import AgentGraphs, Keep
from .pipeline import Prepared, Silent, build_services, go_on, prepare
from .pool import Pool
from .record import RunRecord, read_run_json
from .run_folder import RunOutcome, check_not_anomalies
from .services import Progress
from .verdicts import REJUDGING, count_instances, judge_again, read_rejudging

SECTIONS = (
    "agents.text_agent.limits",
    "agents.text_agent.similarity.image_text",
    "agents.text_agent.similarity.image_image",
    "agents.text_agent.similarity.wholeness.threshold",
    "agents.text_agent.similarity.rival_margin",
    "agents.image_agent.limits",
    "agents.image_agent.similarity.image_text",
    "agents.text_agent.validation",
    "agents.image_agent.validation",
    "llm.judge",
    "llm.second_judge",
)
"""What may change: all that only judges."""
CHOOSES_SOURCES = "agents.image_agent.limits.min_area_px"


@dataclass(frozen=True, slots=True)
class Rejudged:
    """How a rejudge ended, and how many instances were accepted before it."""

    outcome: RunOutcome
    num_before: int


def rejudge_run(
    folder: Path,
    *,
    overrides: Iterable[str] = (),
    data: Path | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> Rejudged:
    """Judge every image of a run again, then compose, export and report anew.

    No item is made: what was never painted, or failed, is left to `run_recipe` with the changed recipe. The prompt
    memory keeps what it was told until then. A rejudge that was killed is finished by the same call, or by that run.

    Args:
        folder: run folder.
        overrides: `key.sub=value` settings below `SECTIONS`, above those of the folder's recipe.yaml.
        data: where the run's data set is, if it has moved.

    Raises:
        RunFolderError: the folder holds no run, or one of other data; nothing was written.
        RecipeError: a setting is wrong, or does more than judge; nothing was written.
        BrokenRunError: the run cannot go on; the same call resumes it.
    """
    earlier, old = _read_run(folder)
    recipe = _change(folder, old, list(overrides), data)
    prepared = prepare(recipe)
    fingerprint = recipe.fingerprint(prepared.digest)
    if earlier["fingerprint"] not in (fingerprint, old.fingerprint(prepared.digest)):
        raise RunFolderError(
            f"{folder}: its recipe.yaml and data set are not those of its run; bring back the data, or name it with "
            "--data. If a rejudge was stopped, finish it first, with its own --set"
        )
    record = RunRecord(folder, str(earlier["recipe"]), fingerprint)
    crews = {agent: _IdleCrew(painter) for agent, painter in _painters(prepared, folder).items()}
    services = build_services(prepared, record, progress or Silent(), stop or threading.Event(), crews)
    under_way = read_rejudging(folder) or {REJUDGING: count_instances(services)}
    record.write("running", under_way)  # from here on the run is one of the new settings
    write_or_stop(folder / "recipe.yaml", recipe.to_yaml().encode())
    judge_again(services)
    return Rejudged(go_on(services), int(str(under_way[REJUDGING])))


def _read_run(folder: Path) -> tuple[dict[str, object], Recipe]:
    """run.json and recipe of a run."""
    content = read_run_json(folder)
    check_not_anomalies(folder)
    path = folder / "recipe.yaml"
    if content is None or not path.is_file():
        missing = "recipe.yaml" if content else "run.json"
        raise RunFolderError(f"{str(folder)!r}: no run of ours, it has no {missing}; give a run folder, as runs/NAME-1")
    return content, load_recipe(str(path))


def _change(folder: Path, old: Recipe, overrides: Sequence[str], data: Path | None) -> Recipe:
    """The recipe with its overrides, none of which may do more than judge."""
    path = str(folder / "recipe.yaml")
    new = load_recipe(path, overrides)
    for agent in ("text_agent", "image_agent"):
        if getattr(old.agents, agent) is None and getattr(new.agents, agent) is not None:
            raise RecipeError(f"--set agents.{agent}: it took no part in {str(folder)!r}; leave out what concerns it")
    before, after = (dict(_leaves(one.model_dump(mode="json"))) for one in (old, new))
    changed = {key for key, _ in before.items() ^ after.items()}
    if CHOOSES_SOURCES in changed:
        raise RecipeError(
            f"--set {CHOOSES_SOURCES}: it chooses the sources too, which needs more than judging again; "
            "run the recipe with it and another --out"
        )
    below = tuple(f"{section}." for section in SECTIONS)
    if forbidden := sorted(key for key in changed if key not in SECTIONS and not key.startswith(below)):
        allowed = ", ".join(f"{section}.*" for section in SECTIONS)
        raise RecipeError(
            f"--set {forbidden[0]}: it needs more than judging again; allowed: {allowed}. "
            "For anything else run the recipe with it and another --out"
        )
    return new if data is None else load_recipe(path, [*overrides, f"data.path={json.dumps(str(data))}"])


def _leaves(settings: Mapping[str, object], above: str = "") -> Iterator[tuple[str, str]]:
    """Settings by their whole keys, as `--set` names them, with their values as JSON."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield above + name, json.dumps(value)


@dataclass(frozen=True, slots=True)
class _PaintedBy:
    """A painter as the ledger remembers it."""

    name: str
    revision: str


def _painters(prepared: Prepared, folder: Path) -> dict[str, _PaintedBy]:
    """By agent, in a run's own order; the recipe's word for one that has made nothing yet."""
    ledger: Ledger[ItemResult] = Ledger(folder / "items")
    agents, items = prepared.recipe.agents, prepared.work.items
    painters = {}
    for agent, settings in (("image_agent", agents.image_agent), ("text_agent", agents.text_agent)):
        if settings is not None:
            made = (ledger.read(item["item_id"]) for item in items if item["agent"] == agent)
            first = next(filter(None, made), None)
            painters[agent] = _PaintedBy(**first["painter"]) if first else _PaintedBy(settings.painter, "")
    return painters


@dataclass(frozen=True, slots=True)
class _IdleCrew:
    """Makes nothing, so that neither a painter nor a language model is loaded."""

    painter: _PaintedBy

    def make(self, graphs: AgentGraphs, items: Sequence[WorkItem], pool: Pool, keep: Keep) -> Iterator[ItemResult]:
        del graphs, items, pool, keep
        return iter(())

    def remember(self, results: Sequence[ItemResult]) -> None:
        """Nothing: the prompt memory is not opened."""

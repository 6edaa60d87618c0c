"""Verdicts made again from the measures in the ledger: other limits and thresholds, the same images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ..configs.agents import AgentsSettings
from ..data.export import MARKER
from ..memory.artifacts import breaking_the_run
from ..memory.entries import Attempt, ItemResult, WorkItem
from ..tools.judging.class_judge import VariantJudge
from ..tools.judging.painted_judge import PaintedJudge
from ..tools.protocols import Verdict
from .composition import make_scenes
from .costs import add_costs, to_cost
from .held import with_attempts
from .items import with_verdict
from .lockstep import Meter
from .record import read_run_json
from .run_services import RunServices
from .services import Artifacts
from .validating import Validator
from .validators import check_judges, real_cut_outs
from .writing import Usage

REJUDGING = "rejudging"
"""Key of run.json, with the number of instances before, until a rejudge is through."""
UNMEASURED = frozenset({"painted", "mask"})
"""Criteria of what is no picture, or shows nothing: it has no measures that other limits could judge."""

ClassJudge = Callable[[Sequence[Mapping[str, float]]], list[Verdict]]
"""Judges the measures of all images of one class together."""


def read_rejudging(folder: Path) -> dict[str, object]:
    """What run.json says of a rejudge that was stopped half way; empty where there is none."""
    content = read_run_json(folder) or {}
    return {REJUDGING: content[REJUDGING]} if REJUDGING in content else {}


def judge_again(services: RunServices) -> None:
    """Bring every item of the ledger to the verdicts that the recipe's settings give; doing it twice changes nothing.

    A class's own thresholds follow the scores of all its images. Memory grows with the items of one class.

    Raises:
        BrokenRunError: the disk is full or not writable, or an entry is damaged.
        ImageDecodeError: the artifact of an image that is accepted now is missing or damaged.
    """
    check_judges(services.validators.values(), real_cut_outs(services.dataset), services.folder / "judges")
    judges = _build_judges(services.recipe.agents)
    classes: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for item_id in sorted(services.items.ids()):
        for result in _read(services, [item_id]):
            classes[result["item"]["agent"], result["item"]["category_id"]].append(item_id)
    services.progress.start("judge", sum(map(len, classes.values())))
    for (agent, _), item_ids in classes.items():
        results = list(_read(services, item_ids))
        judged = judge_class(results, judges[agent], services.validators[agent], services.artifacts)
        for before, after in zip(results, judged, strict=True):
            if after != before:
                services.items.write(after["item"]["item_id"], after)
            services.progress.advance("judge")
    if not count_instances(services):
        _withdraw_product(services)


def count_instances(services: RunServices) -> int:
    """Accepted instances of the planned items."""
    planned = (item["item_id"] for item in services.work.items)
    return sum(len(result["instances"]) for result in _read(services, planned))


def _read(services: RunServices, item_ids: Iterator[str] | Sequence[str]) -> Iterator[ItemResult]:
    for item_id in item_ids:
        result = services.items.read(item_id)
        if result is not None:
            yield result


def _build_judges(agents: AgentsSettings) -> dict[str, ClassJudge]:
    judges: dict[str, ClassJudge] = {}
    if (text_agent := agents.text_agent) is not None:
        judges["text_agent"] = PaintedJudge(text_agent.limits, text_agent.similarity).judge
    if (image_agent := agents.image_agent) is not None:
        judges["image_agent"] = VariantJudge(image_agent.limits, image_agent.similarity).judge
    return judges


def judge_class(
    results: Sequence[ItemResult], judge: ClassJudge, validator: Validator, artifacts: Artifacts
) -> Iterator[ItemResult]:
    """The results of one agent and class with new verdicts, and all that follows from them, in order.

    Vision judges are asked only about what the measures let pass and they have not seen. Failed items stay that,
    without instances. New instances get their artifacts.

    Raises:
        LanguageModelError: a judge cannot be asked, or gives no answer that fits.
        BrokenRunError: the judges have rejected too many pictures in a row.
    """
    measured = [a["measures"] for result in results for a in result["attempts"] if _is_measured(a)]
    verdicts = iter(judge(measured))
    for result in results:
        usage = Usage()
        attempts = []
        for attempt in result["attempts"]:
            if _is_measured(attempt):
                attempt = _validate(with_verdict(attempt, next(verdicts)), result["item"], validator, artifacts, usage)
            attempts.append(attempt)
        judged = with_attempts(result, attempts, artifacts)
        yield {**judged, "cost": add_costs(judged["cost"], to_cost(usage, Meter(), 0.0))} if usage.calls else judged


def _validate(attempt: Attempt, item: WorkItem, validator: Validator, artifacts: Artifacts, usage: Usage) -> Attempt:
    """An image's measures' verdict with what its judges say, as the validation agent weighs them."""
    known = attempt.get("opinions", [])
    without: Attempt = {**attempt}
    for key in ("opinions", "held"):
        without.pop(key, None)  # type: ignore[misc]
    if attempt["accepted"] and validator.judges:
        picture = artifacts.get_image(attempt["artifact"])
        without["opinions"] = validator.look(picture, item["category"], usage, known)
    return validator.weigh(without, item["item_id"])


def _is_measured(attempt: Attempt) -> bool:
    return not any(criterion["name"] in UNMEASURED for criterion in attempt["criteria"])


def _withdraw_product(services: RunServices) -> None:
    """Where nothing is accepted any more there is nothing to export: scenes and data set of before go."""
    make_scenes([], services.scene_services)
    services.record.product_digest = ""
    folder = services.folder / "dataset"
    marker = folder / MARKER
    if not marker.is_file():
        return
    with breaking_the_run(folder):
        ours = {*marker.read_text(encoding="utf-8").split("\n"), "README.md", "provenance.jsonl"} - {"", MARKER}
        for name in ours:
            (folder / name).unlink(missing_ok=True)
        for below in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
            if not any(below.iterdir()):
                below.rmdir()
        if list(folder.iterdir()) == [marker]:  # otherwise others' files are in it, and it stays ours
            marker.unlink()
            folder.rmdir()

"""What a run leaves behind: the bigger data set with its card and provenance, run.json and the report."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import orjson

from ..data.card import dataset_card
from ..data.export import export_dataset
from ..data.records import Findings
from ..evaluation.report import build_report
from ..memory.artifacts import breaking_the_run, write_or_stop
from ..memory.entries import ItemResult, SceneResult
from .held import describe_validation
from .product import AugmentedDataset
from .provenance import write_provenance
from .record import Status, describe_dataset, hints, tally
from .run_services import RunServices
from .tracing import write_trace


def export_product(services: RunServices) -> None:
    """Write dataset/ and note its digest; an interrupted export is written again."""
    record = services.record
    product = _product(services)
    digest = _digest(services)
    folder = services.folder / "dataset"
    if digest == record.product_digest and (folder / "provenance.jsonl").is_file():
        return
    record.product_digest = ""
    record.write("running", _content(services, "running"))
    num_images = len(services.dataset.images) * services.recipe.export.originals + len(record.scene_ids)
    services.progress.start("export", num_images)
    with breaking_the_run(folder):
        export_dataset(
            product,
            folder,
            services.recipe.export.formats,
            findings=services.findings,
            on_image=lambda: services.progress.advance("export"),
        )
        write_provenance(folder / "provenance.jsonl", _results(services), _scenes(services))
    record.product_digest = digest


def finish(services: RunServices, *, stopped: bool, spent: str) -> None:
    """State the outcome in run.json, the card and the report."""
    status = _status(services, stopped, spent)
    content = _content(services, status, spent)
    whole = services.record.write(status, content)
    if not stopped and services.pool.instances:
        write_or_stop(services.folder / "dataset" / "README.md", dataset_card(whole).encode())
    with breaking_the_run(services.folder):
        write_trace(services.folder / "trace.jsonl", services.folder.name, _results(services))
    with services.record.timed("report"):
        services.progress.start("report", 1)
        build_report(services.folder)
        services.progress.advance("report")
    services.record.write(status, content)  # once more, with the seconds that the report took


def _status(services: RunServices, stopped: bool, spent: str) -> Status:
    if stopped:
        return "interrupted"
    nothing = services.work.items and not services.pool.instances
    endings = services.pool.endings
    return "partial" if nothing or spent or endings["failed"] or endings["held"] else "done"


def _content(services: RunServices, status: Status, spent: str = "") -> dict[str, object]:
    findings = Findings()
    for source in (services.dataset.findings, services.findings):
        findings.update(source)
    return {
        "dataset": describe_dataset(services.dataset, services.dataset_digest),
        "findings": findings.as_json(),
        **tally(services.work, services.pool),
        "validation": describe_validation(services.pool.validation, services.folder),
        "judges": [judge.model for judge in services.recipe.llm.judges],
        "painters": {agent: _describe(services, agent) for agent in services.crews},
        "seed": services.recipe.plan.seed,
        "formats": list(services.recipe.export.formats),
        "originals": services.recipe.export.originals,
        "scenes": len(services.record.scene_ids),
        "unplaced": _unplaced(services) if status in ("done", "partial") else [],
        "hints": hints(services.recipe, services.work, services.pool, services.folder, status, spent),
    }


def _describe(services: RunServices, agent: str) -> dict[str, str]:
    """Who paints and masks for an agent, and why where the recipe left it open."""
    painter = services.crews[agent].painter
    settings = services.recipe.agents.image_agent if agent == "image_agent" else services.recipe.agents.text_agent
    described = {"name": painter.name, "revision": painter.revision, "masker": settings.masker if settings else ""}
    return described | ({"why": services.why[agent]} if agent in services.why else {})


def _product(services: RunServices) -> AugmentedDataset:
    unreadable = {name for scene in _scenes(services) for name in scene["unreadable_backgrounds"]}
    unreadable |= services.pool.unreadable_images
    for name in sorted(unreadable):
        services.findings.add("undecodable_image", name)
    return AugmentedDataset(
        services.dataset,
        services.record.scene_ids,
        services.scenes,
        services.artifacts,
        with_originals=services.recipe.export.originals,
        unreadable=frozenset(unreadable),
    )


def _digest(services: RunServices) -> str:
    content = {
        "scenes": services.record.scene_ids,
        "export": services.recipe.export.model_dump(mode="json"),
        "data": services.dataset_digest,
    }
    return hashlib.sha256(orjson.dumps(content)).hexdigest()


def _results(services: RunServices) -> Iterator[ItemResult]:
    for item in services.work.items:
        result = services.items.read(item["item_id"])
        if result is not None:
            yield result


def _scenes(services: RunServices) -> Iterator[SceneResult]:
    for scene_id in services.record.scene_ids:
        scene = services.scenes.read(scene_id)
        if scene is not None:
            yield scene


def _unplaced(services: RunServices) -> list[str]:
    """Instances that no scene could take, in any deal."""
    placed = {i["source_id"] for scene in _scenes(services) for i in scene["instances"] if i["origin"] == "synthetic"}
    return [instance.instance_id for instance in services.pool.instances if instance.instance_id not in placed]

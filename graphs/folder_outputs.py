"""What validating a folder leaves: the kept pictures by class, a line a picture, run.json and the report."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson

from ..configs.recipe import Recipe
from ..data.files import open_atomically
from ..evaluation.validation import build_validation_report
from ..memory.artifacts import breaking_the_run
from ..memory.entries import ItemResult
from ..memory.ledger import Ledger
from .folder_pictures import FolderPicture
from .held import describe_validation
from .pool import Pool
from .record import RunRecord, Status
from .run_folder import EXIT_CODES, RunOutcome

KEPT = "kept"


def finish_folder(
    record: RunRecord,
    recipe: Recipe,
    pictures: Sequence[FolderPicture],
    items: Ledger[ItemResult],
    pool: Pool,
    *,
    stopped: bool,
) -> RunOutcome:
    """Write OUT/kept/, verdicts.jsonl, run.json and report.html from what stands in the ledger.

    Raises:
        BrokenRunError: the disk is full or not writable.
    """
    folder = record.folder
    with breaking_the_run(folder):
        _write_kept(folder / KEPT, _judged(pictures, items))
        with open_atomically(folder / "verdicts.jsonl") as file:
            for picture, result in _judged(pictures, items):
                file.write(orjson.dumps(_to_line(picture, result), option=orjson.OPT_APPEND_NEWLINE))
    endings = pool.endings
    status: Status = "interrupted" if stopped else "partial" if endings["failed"] or endings["held"] else "done"
    content = _content(recipe, pictures, pool, folder, status)
    record.write(status, content)
    with breaking_the_run(folder):
        build_validation_report(folder)
    return RunOutcome(folder, EXIT_CODES[status], record.write(status, content))


def _judged(pictures: Sequence[FolderPicture], items: Ledger[ItemResult]) -> Iterator[tuple[FolderPicture, ItemResult]]:
    for picture in pictures:
        if picture.path.is_file() and (result := items.read(picture.to_item()["item_id"])) is not None:
            yield picture, result


def _write_kept(folder: Path, judged: Iterator[tuple[FolderPicture, ItemResult]]) -> None:
    """Copy the kept pictures; one that is kept no more goes, which only ever touches our own copies."""
    for picture, result in judged:
        target = folder / _target_of(picture)
        if not result["instances"]:
            target.unlink(missing_ok=True)
            continue
        if target.is_file():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        shutil.copyfile(picture.path, partial)
        os.replace(partial, target)


def _target_of(picture: FolderPicture) -> str:
    """CLASS/NAME below the folder of the kept ones; a class's folder is not repeated."""
    return picture.name if picture.name.startswith(f"{picture.category}/") else f"{picture.category}/{picture.name}"


def _to_line(picture: FolderPicture, result: ItemResult) -> dict[str, object]:
    attempt = result["attempts"][0] if result["attempts"] else None
    return {
        "file": picture.name,
        "category": picture.category,
        "ending": result["ending"],
        "kept": bool(result["instances"]),
        "reason": result["reason"],
        "measures": attempt["measures"] if attempt else {},
        "criteria": attempt["criteria"] if attempt else [],
        "opinions": attempt.get("opinions", []) if attempt else [],
        "held": attempt.get("held", "") if attempt else "",
    }


def _content(
    recipe: Recipe, pictures: Sequence[FolderPicture], pool: Pool, folder: Path, status: Status
) -> dict[str, object]:
    seen = Counter(picture.category for picture in pictures)
    endings = {ending: pool.endings[ending] for ending in ("accepted", "exhausted", "failed", "held")}
    accepted = len(pool.instances)
    return {
        "folder": str(folder),
        "judges": [judge.model for judge in recipe.llm.judges],
        "validation": describe_validation(pool.validation, folder),
        "items": {"planned": len(pictures), **endings},
        "accepted": accepted,
        "costs": pool.costs.as_json(accepted),
        "classes": [
            {"name": name, "painted": count, "accepted": pool.accepted_by_class[name]} for name, count in seen.items()
        ],
        "rejections": dict(pool.rejections.most_common()),
        "unreadable": sorted(pool.unreadable_images),
        "hints": _hints(pool, folder, status),
    }


def _hints(pool: Pool, folder: Path, status: Status) -> list[str]:
    found = []
    if status == "interrupted":
        found.append("Interrupted; the same command goes on where it stopped.")
    if pool.endings["failed"]:
        found.append(f"{pool.endings['failed']} pictures got no verdict; the same command asks again.")
    if waiting := pool.validation.waiting:
        found.append(f"{waiting} pictures wait for you: maskwright review {folder}, then the same command goes on.")
    if not pool.validation.looked:
        found.append("No vision model looked; name one with --set llm.judge=openai:NAME, or any of the README's.")
    if pool.instances:
        found.append(f"The kept pictures lie in {folder / KEPT}.")
    return found

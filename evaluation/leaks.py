"""Nothing that measures may be learned from: copies of held-out images, what is made of them, synthetic val images."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from pathlib import Path

import orjson

from ..data.records import Findings, ImageRecord
from ..errors import DatasetError, LeakError
from ..memory.entries import ItemResult, SceneResult
from ..tools.protocols import ImageEmbedder
from .near_duplicates import NearDuplicate, find_near_duplicates

NAMED = 5
"""Files that a message names."""


def refuse_leaks(
    train: Iterable[ImageRecord],
    held_out: Sequence[ImageRecord],
    *,
    embedder: ImageEmbedder,
    max_bits: int,
    min_similarity: float,
    findings: Findings,
    parents: Mapping[str, Collection[str]],
    synthetic: Container[str],
) -> None:
    """Stop before a model learns from what it is measured on.

    Args:
        train: every real training image, also one that only scenes are made of, and the scenes.
        held_out: val and test.
        max_bits: as `find_near_duplicates` has it, and so `min_similarity` and `findings`.
        parents: by a scene's file name without its ending, names of the training images that it is made of.
        synthetic: file names without ending, and hex sha256 of files, of everything ever generated.

    Raises:
        LeakError: a held-out image is synthetic, or a training image shows one or is made of one that does.
    """
    generated = [one.file_name for one in held_out if _is_synthetic(one, synthetic)]
    if generated:
        raise LeakError(
            f"{len(generated)} images of val or test are synthetic: {_listed(generated)}; expected photographs only. "
            "Take them out: no figure measured on them would count."
        )
    images = list(train)
    duplicates = find_near_duplicates(
        images, held_out, embedder=embedder, max_bits=max_bits, min_similarity=min_similarity, findings=findings
    )
    leaks = [f"{one.train.file_name!r} shows {one.held_out.file_name!r}" for one in duplicates]
    leaks += _inherited(images, duplicates, parents)
    if leaks:
        raise LeakError(
            f"{len(leaks)} training images leak what is measured: {_listed(leaks)}; expected none. "
            "Leave their near-duplicates out of train and run again: scenes are made of what is left."
        )


def scene_parents(scenes: Iterable[SceneResult], results: Iterable[ItemResult]) -> dict[str, frozenset[str]]:
    """By scene id, file names of the user's images that a scene is made of: its background and its instances' sources.

    Args:
        results: of the items that made the instances.
    """
    source_of = {
        instance["instance_id"]: result["source"]["file_name"]
        for result in results
        if result["source"] is not None
        for instance in result["instances"]
    }
    return {
        scene["scene_id"]: frozenset(
            {scene["background"]}
            | {
                source_of[one["source_id"]]
                for one in scene["instances"]
                if one["origin"] == "synthetic" and one["source_id"] in source_of
            }
        )
        for scene in scenes
    }


def synthetic_scenes(scenes: Iterable[SceneResult]) -> frozenset[str]:
    """A run's scenes as `refuse_leaks` knows synthetic images: by their ids and their files' sha256."""
    return frozenset(name for one in scenes for name in (one["scene_id"], Path(one["artifact"]).stem))


def read_synthetic(provenance: Path) -> frozenset[str]:
    """The same from an exported data set's provenance.jsonl: ids of its scenes, and its instances' sha256.

    Raises:
        DatasetError: the file is missing, or a line is not one of ours.
    """
    names: set[str] = set()
    try:
        with provenance.open("rb") as lines:
            for line in lines:
                entry = orjson.loads(line)
                if entry["source"] == "synthetic":
                    names |= {*entry["scenes"], Path(entry["artifact"]).stem}
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as exc:
        raise DatasetError(
            f"{str(provenance)!r} is no provenance of an export ({exc!r}); expected one entry a line. Export again."
        ) from exc
    return frozenset(names)


def _is_synthetic(record: ImageRecord, synthetic: Container[str]) -> bool:
    if Path(record.file_name).stem in synthetic:
        return True
    try:
        return hashlib.sha256(record.path.read_bytes()).hexdigest() in synthetic
    except OSError:
        return False


def _inherited(
    train: Iterable[ImageRecord], duplicates: Sequence[NearDuplicate], parents: Mapping[str, Collection[str]]
) -> list[str]:
    shown = {one.train.file_name: one.held_out.file_name for one in duplicates}
    return [
        f"{image.file_name!r} is made of {parent!r}, which shows {shown[parent]!r}"
        for image in train
        if image.file_name not in shown
        for parent in sorted(parents.get(Path(image.file_name).stem, ()))
        if parent in shown
    ]


def _listed(entries: Sequence[str]) -> str:
    return "; ".join(entries[:NAMED]) + ("; …" if len(entries) > NAMED else "")

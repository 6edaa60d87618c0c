"""Nothing that measures may be learned from: copies of held-out images, what is made of them, synthetic val images."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import orjson

from ..data.records import Findings, ImageRecord
from ..errors import DatasetError, LeakError
from ..memory.entries import ItemResult, SceneResult
from ..memory.ledger import EntryT, Ledger
from ..tools.protocols import ImageEmbedder
from .near_duplicates import find_near_duplicates

NAMED = 5
"""Files that a message names."""


def refuse_synthetic(held_out: Iterable[ImageRecord], synthetic: Container[str]) -> None:
    """Make sure that only photographs measure.

    Args:
        synthetic: file names without ending, and hex sha256 of files, of everything ever generated.

    Raises:
        LeakError: an image of val or test is synthetic.
    """
    generated = [one.file_name for one in held_out if _is_synthetic(one, synthetic)]
    if generated:
        raise LeakError(
            f"{len(generated)} images of val or test are synthetic: {listed(generated)}; expected photographs only. "
            "Take them out: no figure measured on them would count."
        )


def find_leaks(
    train: Iterable[ImageRecord],
    held_out: Sequence[ImageRecord],
    *,
    embedder: ImageEmbedder,
    max_bits: int,
    min_similarity: float,
    findings: Findings,
    parents: Mapping[str, Collection[str]],
) -> dict[str, str]:
    """Training images that show a held-out image or are made of one that does: why, by file name.

    Args:
        train: every real training image, also one that only scenes are made of, and what was made of them.
        held_out: val and test.
        max_bits: as `find_near_duplicates` has it, and so `min_similarity` and `findings`.
        parents: by a synthetic image's file name without its ending, names of the training images that it is made of.
    """
    images = list(train)
    duplicates = find_near_duplicates(
        images, held_out, embedder=embedder, max_bits=max_bits, min_similarity=min_similarity, findings=findings
    )
    shown = {one.train.file_name: one.held_out.file_name for one in duplicates}
    leaks = {name: f"shows {held!r}" for name, held in shown.items()}
    for image in images:
        leaking = sorted(parent for parent in parents.get(Path(image.file_name).stem, ()) if parent in shown)
        if leaking and image.file_name not in shown:
            leaks[image.file_name] = f"is made of {leaking[0]!r}, which shows {shown[leaking[0]]!r}"
    return leaks


def refuse_equal_files(train: Iterable[Path], held_out: Iterable[ImageRecord]) -> None:
    """The last, cheap proof: no file that is learned from has the bytes of one that measures.

    Raises:
        LeakError: one has.
        OSError: a training file cannot be read.
    """
    measured = {digest: one.file_name for one in held_out if (digest := file_digest(one.path))}
    for path in train:
        if (name := measured.get(hashlib.sha256(path.read_bytes()).hexdigest())) is not None:
            raise LeakError(f"{str(path)!r} has the bytes of {name!r}, which measures; take it out of train.")


class _Sample(msgspec.Struct):
    """What a line of an anomaly run's provenance.jsonl says of a sample's parent."""

    id: str
    normal: str
    """ITEM/PATH of the photograph that was edited."""


def read_parents(run_folder: Path, train: Iterable[ImageRecord], *, makes_defects: bool) -> dict[str, frozenset[str]]:
    """By a synthetic image's name without ending, file names of the user's images that it is made of.

    Args:
        train: the user's training images.
        makes_defects: whether it is an anomaly run's folder.

    Raises:
        BrokenRunError: an entry of a ledger is damaged.
        OSError, msgspec.MsgspecError: an anomaly run's provenance.jsonl cannot be read.
    """
    if not makes_defects:
        scenes: Ledger[SceneResult] = Ledger(run_folder / "scenes")
        items: Ledger[ItemResult] = Ledger(run_folder / "items")
        return scene_parents(_entries(scenes), _entries(items))
    name_of = {image.stored_as or image.file_name: image.file_name for image in train}
    lines = (run_folder / "dataset" / "provenance.jsonl").read_bytes().splitlines()
    samples = [msgspec.json.decode(line, type=_Sample) for line in lines]
    paths = {one.id: one.normal.partition("/")[2] for one in samples}
    return {key: frozenset({name_of[path]}) for key, path in paths.items() if path in name_of}


def _entries(ledger: Ledger[EntryT]) -> Iterator[EntryT]:
    for entry_id in ledger.ids():
        if (entry := ledger.read(entry_id)) is not None:
            yield entry


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


def read_synthetic(provenance: Path) -> frozenset[str]:
    """What `refuse_synthetic` knows of an export, from its provenance.jsonl: ids of scenes or samples, files' sha256.

    Raises:
        DatasetError: the file is missing, or a line is not one of ours.
    """
    names: set[str] = set()
    try:
        with provenance.open("rb") as lines:
            for line in lines:
                entry = orjson.loads(line)
                if entry["source"] == "synthetic":
                    made = [entry["id"]] if "id" in entry else entry["scenes"]  # an anomaly run's samples have an id
                    names |= {*made, Path(entry["artifact"]).stem}
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as exc:
        raise DatasetError(
            f"{str(provenance)!r} is no provenance of an export ({exc!r}); expected one entry a line. Export again."
        ) from exc
    return frozenset(names)


def _is_synthetic(record: ImageRecord, synthetic: Container[str]) -> bool:
    return Path(record.file_name).stem in synthetic or file_digest(record.path) in synthetic


def file_digest(path: Path) -> str:
    """Hex sha256; empty where the file cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def listed(entries: Sequence[str]) -> str:
    """The first few, for a message."""
    return "; ".join(entries[:NAMED]) + ("; …" if len(entries) > NAMED else "")

"""RUN/report.html of an anomaly run: normal image, edit and mask side by side, turn by turn, then numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import orjson
from PIL import Image

from ..data.files import write_atomically
from ..memory.artifacts import ArtifactStore
from .report import make_environment

THUMBNAIL_PX = 220
MAX_ACCEPTED = 60
MAX_REJECTED = 24
OUTLINE_RGB = (255, 60, 120)


@dataclass(frozen=True, slots=True)
class EditCard:
    """One edit: pictures as data addresses, scores and what was wrong."""

    turn: int
    picture: str
    outlined: str
    location: float | None
    quality: float | None
    review: str


@dataclass(frozen=True, slots=True)
class ItemCard:
    """One item with its edits."""

    item_id: str
    defect: str
    normal: str
    ending: str
    reason: str
    edits: tuple[EditCard, ...]


def build_anomaly_report(folder: Path) -> Path:
    """Write the report from what stands in the run folder; memory does not grow with the run.

    Raises:
        OSError: it cannot be written.
    """
    content = orjson.loads((folder / "run.json").read_bytes())
    artifacts = ArtifactStore(folder / "artifacts")
    accepted = _cards(_entries(folder, {"accepted"}), artifacts, MAX_ACCEPTED)
    rejected = _cards(_entries(folder, {"exhausted", "failed"}), artifacts, MAX_REJECTED)
    template = make_environment().get_template("anomaly.html.jinja")
    path = folder / "report.html"
    html = template.render(run=content, folder=folder.name, accepted=accepted, rejected=rejected)
    write_atomically(path, html.encode())
    return path


def _entries(folder: Path, endings: set[str]) -> Iterator[Mapping[str, object]]:
    for path in sorted((folder / "items").rglob("*.json"), key=lambda path: path.stem[::-1]):
        entry = orjson.loads(path.read_bytes())
        if entry["ending"] in endings and entry["edits"]:
            yield entry


def _cards(entries: Iterable[Mapping[str, object]], artifacts: ArtifactStore, most: int) -> list[ItemCard]:
    return [_to_card(entry, artifacts) for entry in islice(entries, most)]


def _to_card(entry: Mapping[str, object], artifacts: ArtifactStore) -> ItemCard:
    item: Mapping[str, object] = entry["item"]  # type: ignore[assignment]  # an AnomalyResult of the ledger
    edits: list[Mapping[str, object]] = entry["edits"]  # type: ignore[assignment]
    return ItemCard(
        item_id=str(item["item_id"]),
        defect=str(item["category"]),
        normal=_to_address(artifacts.get_image(str(entry["source"]))[..., :3]),
        ending=str(entry["ending"]),
        reason=str(entry["reason"]),
        edits=tuple(_to_edit(edit, artifacts) for edit in edits),
    )


def _to_edit(edit: Mapping[str, object], artifacts: ArtifactStore) -> EditCard:
    rgb = artifacts.get_image(str(edit["artifact"]))[..., :3]
    mask = artifacts.get_image(str(edit["mask"]))[..., 0] > 127 if edit["mask"] else np.zeros(rgb.shape[:2], np.bool_)
    outlined = rgb.copy()
    outlined[_outline(mask)] = OUTLINE_RGB
    location, quality = edit.get("location"), edit.get("quality")
    return EditCard(
        turn=int(str(edit["turn"])),
        picture=_to_address(rgb),
        outlined=_to_address(outlined),
        location=float(str(location)) if location is not None else None,
        quality=float(str(quality)) if quality is not None else None,
        review=str(edit.get("review", "")) or str(edit["flaw"]),
    )


def _outline(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels outside a mask that touch it."""
    padded = np.pad(mask, 1)
    grown = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return np.asarray(grown & ~mask)


def _to_address(rgb: np.ndarray) -> str:
    image = Image.fromarray(rgb)
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"

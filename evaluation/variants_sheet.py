"""The variants of a run as one picture: source, edges, every variant with its verdict, a source a row."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ..data.records import ImageRGB
from ..errors import RunFolderError
from ..memory.artifacts import ArtifactStore
from ..memory.entries import Attempt, ItemResult, WorkItem
from ..memory.ledger import Ledger
from .attempts import attempt_to_artifact, attempt_to_reasons
from .sampling import VariantSample
from .thumbnails import class_colour
from .variants import decisive_measures

WIDTH_PX = 1400
NUM_VARIANTS = 3
MARGIN_PX, ROW_PX, HEAD_PX, TILE_PX = 26, 206, 46, 140
INK, MUTED, LINE, PAGE = (27, 29, 32), (102, 108, 116), (229, 229, 225), (252, 252, 251)
GOOD, BAD = (28, 124, 74), (179, 38, 30)
CHECKS, CHECK_PX = (255, 236), 8
CLASS_PX, NARROW_PX = 132, 172
"""Widths of the columns of the class's name, and of the source and the edges; the variants share the rest."""
REASON_LETTERS, REASON_LINES = 18, 3

DetectEdges = Callable[[ImageRGB], npt.NDArray[np.float32]]
"""(h, w, 3) uint8 to (h, w) in [0, 1]."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class SheetRow(NamedTuple):
    """A source of a run, with every variant that was made of it."""

    item: WorkItem
    """The first of those that started from it."""
    source: str
    attempts: Sequence[Attempt]

    @property
    def edges(self) -> str | None:
        """Artifact of the edges that guided the painter; None where it followed none."""
        return next((attempt["condition"] for attempt in self.attempts if "condition" in attempt), None)


class _Pen(NamedTuple):
    draw: ImageDraw.ImageDraw
    sheet: Image.Image

    def text(self, x: float, y: float, text: str, colour: tuple[int, int, int] = INK, size_px: int = 15) -> None:
        self.draw.text((x, y), text, fill=colour, font=ImageFont.load_default(size_px))

    def tile(self, x: int, y: int, picture: npt.NDArray[np.uint8], frame: tuple[int, int, int] = LINE) -> None:
        """A picture, (h, w, 3 or 4) uint8, fitted to a square; what is transparent shows checks."""
        fitted = Image.fromarray(picture).convert("RGBA")
        scale = (TILE_PX - 8) / max(fitted.size)
        fitted = fitted.resize((max(1, round(fitted.width * scale)), max(1, round(fitted.height * scale))))
        row, column = np.indices((TILE_PX, TILE_PX)) // CHECK_PX
        ground = Image.fromarray(np.where((row + column) % 2, *CHECKS).astype(np.uint8)).convert("RGBA")
        ground.alpha_composite(fitted, ((TILE_PX - fitted.width) // 2, (TILE_PX - fitted.height) // 2))
        self.sheet.paste(ground.convert("RGB"), (x, y))
        self.draw.rectangle((x, y, x + TILE_PX - 1, y + TILE_PX - 1), outline=frame, width=1 if frame == LINE else 3)

    def arrow(self, x: int, y: int) -> None:
        self.draw.line((x, y, x + 14, y), fill=MUTED, width=2)
        self.draw.polygon([(x + 16, y), (x + 9, y - 5), (x + 9, y + 5)], fill=MUTED)


def run_to_sheet(run_folder: Path, num_rows: int, detect_edges: DetectEdges) -> ImageRGB:
    """A row for a source of each class, with its first variants; those that were tried more than once come first.

    Args:
        detect_edges: for runs whose painter followed no edges, so that none were kept; the sheet says so.

    Returns:
        (h, `WIDTH_PX`, 3) uint8.

    Raises:
        RunFolderError: the run has no item that was painted from an instance.
        ImageDecodeError: an artifact is missing or damaged.
    """
    items: Ledger[ItemResult] = Ledger(run_folder / "items")
    chosen = choose_rows(items, num_rows)
    if not chosen:
        raise RunFolderError(
            f"{str(run_folder)!r}: no item was painted from an instance; give a run of the I-Agent, such as "
            "one of the recipe instances"
        )
    sheet = Image.new("RGB", (WIDTH_PX, 2 * MARGIN_PX + HEAD_PX + ROW_PX * len(chosen)), PAGE)
    pen = _Pen(ImageDraw.Draw(sheet), sheet)
    _draw_head(pen, guided=any(row.edges for row in chosen))
    artifacts = ArtifactStore(run_folder / "artifacts")
    for number, row in enumerate(chosen):
        _draw_row(pen, MARGIN_PX + HEAD_PX + ROW_PX * number, row, artifacts, detect_edges)
    return np.array(sheet)


def choose_rows(items: Ledger[ItemResult], num_rows: int) -> list[SheetRow]:
    """Sources in the report's order of items, one a class as far as its sample has them."""
    sample, of_source = VariantSample(), defaultdict[str, list[str]](list)
    for item_id in sorted(items.ids()):
        result = items.read(item_id)
        if result is not None:
            sample.add(result)
            if result["source"] is not None:
                of_source[result["source"]["artifact"]].append(item_id)
    firsts: dict[str, tuple[WorkItem, str]] = {}
    for result in filter(None, map(items.read, sample.item_ids())):
        if result["source"] is not None:
            firsts.setdefault(result["item"]["category"], (result["item"], result["source"]["artifact"]))
    rows = []
    for item, source in list(firsts.values())[:num_rows]:
        others = [item_id for item_id in of_source[source] if item_id != item["item_id"]]
        results = filter(None, map(items.read, (item["item_id"], *others)))
        rows.append(SheetRow(item, source, [attempt for result in results for attempt in result["attempts"]]))
    return rows


def _columns() -> tuple[int, int, Iterator[int]]:
    """Where the source, the edges and each variant begin."""
    source = MARGIN_PX + CLASS_PX
    first = source + 2 * NARROW_PX
    step = (WIDTH_PX - MARGIN_PX - first) // NUM_VARIANTS
    return source, source + NARROW_PX, iter(range(first, first + NUM_VARIANTS * step, step))


def _draw_head(pen: _Pen, *, guided: bool) -> None:
    source, edges, variants = _columns()
    pen.text(source, MARGIN_PX, "source", size_px=20)
    pen.text(edges, MARGIN_PX, "edges", size_px=20)
    if not guided:
        pen.text(edges, MARGIN_PX + 23, "not used by this painter", MUTED, 12)
    pen.text(next(variants), MARGIN_PX, "variants and their verdicts", size_px=20)


def _draw_row(pen: _Pen, y: int, row: SheetRow, artifacts: ArtifactStore, detect_edges: DetectEdges) -> None:
    source_x, edges_x, columns = _columns()
    source_rgba = artifacts.get_image(row.source)
    pen.draw.line((MARGIN_PX, y, WIDTH_PX - MARGIN_PX, y), fill=LINE)
    top = y + 16
    pen.draw.ellipse((MARGIN_PX, top + 6, MARGIN_PX + 10, top + 16), fill=class_colour(row.item["category_id"]))
    pen.text(MARGIN_PX + 18, top, row.item["category"], size_px=18)
    num_kept = sum(attempt["accepted"] for attempt in row.attempts)
    pen.text(MARGIN_PX + 18, top + 28, f"{num_kept} of {len(row.attempts)}", MUTED, 14)
    pen.text(MARGIN_PX + 18, top + 47, "accepted", MUTED, 14)
    pen.tile(source_x, top, source_rgba)
    pen.arrow(source_x + TILE_PX + 8, top + TILE_PX // 2)
    pen.tile(edges_x, top, _edges_of(row, source_rgba, artifacts, detect_edges))
    pen.arrow(edges_x + TILE_PX + 8, top + TILE_PX // 2)
    for x, attempt in zip(columns, row.attempts, strict=False):
        pen.tile(
            x, top, artifacts.get_image(attempt_to_artifact(attempt, artifacts)), GOOD if attempt["accepted"] else BAD
        )
        _draw_verdict(pen, x + TILE_PX + 10, top, attempt)


def _edges_of(
    row: SheetRow, source_rgba: npt.NDArray[np.uint8], artifacts: ArtifactStore, detect_edges: DetectEdges
) -> npt.NDArray[np.uint8]:
    """The edges that guided the painter, else those of the source, whose cut-out keeps what lies around its mask."""
    if row.edges is not None:
        return artifacts.get_image(row.edges)[..., :3]
    edges = detect_edges(np.ascontiguousarray(source_rgba[..., :3]))
    return np.repeat(np.rint(edges * 255).astype(np.uint8)[..., None], 3, axis=2)


def _draw_verdict(pen: _Pen, x: int, y: int, attempt: Attempt) -> None:
    lines: list[tuple[str, tuple[int, int, int]]] = [
        ("accepted", GOOD) if attempt["accepted"] else ("rejected", BAD),
        (f"round {attempt['round']}", MUTED),
        (f"strength {attempt['strength']:.2g}", MUTED),
    ]
    if "control_scale" in attempt:
        lines.append((f"control {attempt['control_scale']:.2g}", MUTED))
    lines += [(f"{name.removeprefix('source ')} {value}", INK) for name, value in decisive_measures(attempt)]
    lines += [(line, BAD) for line in _reason_lines(attempt_to_reasons(attempt))]
    for number, (line, colour) in enumerate(lines):
        pen.text(x, y + 19 * number, line, colour, 14)


def _reason_lines(reasons: Sequence[str]) -> list[str]:
    wrapped = [line for reason in reasons for line in textwrap.wrap(reason.replace("_", " "), REASON_LETTERS)]
    return wrapped if len(wrapped) <= REASON_LINES else [*wrapped[: REASON_LINES - 1], wrapped[REASON_LINES - 1] + " …"]

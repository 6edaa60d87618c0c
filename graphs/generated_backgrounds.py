"""Backgrounds that a painter paints (Gen-n-Val's diverse backgrounds), none with an object of the data set's classes.

Each is one entry of the ledger RUN/backgrounds: accepted, or given up after its tries. A kill loses the one in flight.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import cv2
import numpy as np

from ..configs.backgrounds import GeneratedSettings
from ..data.images import read_image
from ..data.records import Annotation, ImageRecord, ImageRGB
from ..errors import BrokenRunError, LanguageModelError, RecipeError, UnparseableAnswerError
from ..memory.artifacts import ArtifactStore
from ..memory.entries import OpinionEntry
from ..memory.ledger import Ledger
from ..tools.protocols import Painted, PaintRequest, TextPainter, TextScorer, VisionJudge
from .items import image_seed
from .services import Progress
from .validating import accepts, to_entry

NAMED_CLASSES = 12
"""Classes that a vision judge is asked about at once; of a longer list it would forget some."""
SHOWN_REASONS = 3
_GRID = 3

logger = logging.getLogger(__name__)


class BackgroundTry(TypedDict):
    """One picture painted for a background."""

    seed: int
    scores: dict[str, float]
    """Of each class that the scorer knows: the most in the picture and its crops."""
    opinions: list[OpinionEntry]
    """Of vision judges, where any looked."""
    reason: str
    """Why it was rejected; empty: it was not."""
    usd: float


class BackgroundEntry(TypedDict):
    """A background's entry in the ledger."""

    prompt: str
    painter: dict[str, str]
    scorer: dict[str, str]
    unknown_classes: list[str]
    """Of which the scorer has no opinion, so that nobody looked for them, unless a vision judge did."""
    tries: list[BackgroundTry]
    accepted: bool
    artifact: str
    """Empty where none was accepted."""
    width: int
    height: int


@dataclass(slots=True, kw_only=True)
class GeneratedBackgrounds:
    """`Backgrounds` from a painter of whole pictures; use only after `prepare`."""

    settings: GeneratedSettings
    run_seed: int
    painter: TextPainter
    scorer: TextScorer
    classes: tuple[str, ...]
    """Names of all the data set's classes."""
    judges: tuple[VisionJudge, ...] = ()
    artifacts: ArtifactStore
    ledger: Ledger[BackgroundEntry]
    _known: tuple[str, ...] = field(init=False)
    _makers: dict[str, dict[str, str]] = field(init=False)
    _records: list[ImageRecord] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        """Look, before anything is spent, who paints and who can tell what is in a picture.

        Raises:
            RecipeError: neither scorer nor judge could find an object of any class, or there is no such model.
            ModelNotFetchedError: painter or scorer is not in the cache.
        """
        self._makers = {
            "painter": {"name": self.painter.name, "revision": self.painter.revision},
            "scorer": {"name": self.scorer.name, "revision": self.scorer.revision},
        }
        self._known = tuple(name for name in self.classes if self.scorer.knows(name))
        if not self._known and not self.judges:
            raise RecipeError(
                f"text scorer {self.scorer.name!r} knows none of the classes {', '.join(self.classes)}, so that nobody "
                "could tell whether a painted background shows them; set the agent's `similarity.text` to clip or "
                "siglip, set `llm.judge`, or set `compose.backgrounds` to train or a folder."
            )

    def prepare(self, progress: Progress, is_stopped: Callable[[], bool]) -> None:
        """Paint and check what the ledger does not have yet, one after another.

        Raises:
            BrokenRunError: no background is free of objects, or the painter or a judge cannot be asked.
        """
        ids = [f"background-{number:06d}" for number in range(self.settings.count)]
        entries: dict[str, BackgroundEntry] = {}
        progress.start("backgrounds", len(ids))
        for number, background_id in enumerate(ids):
            entry = self._reread(background_id)
            if entry is None:
                if is_stopped():
                    return
                entry = self._make(background_id, self.settings.prompts[number % len(self.settings.prompts)])
                self.ledger.write(background_id, entry)
            entries[background_id] = entry
            progress.advance("backgrounds", "accepted" if entry["accepted"] else "exhausted")
        self._records[:] = [
            self._to_record(number, background_id, entry)
            for number, (background_id, entry) in enumerate(entries.items(), start=1)
            if entry["accepted"]
        ]
        if not self._records:
            raise self._all_rejected(list(entries.values()))
        if len(self._records) < len(ids):
            logger.warning("%d of %d painted backgrounds are free of objects", len(self._records), len(ids))

    def __len__(self) -> int:
        return len(self._records)

    def record(self, index: int) -> ImageRecord:
        return self._records[index]

    def read(self, index: int) -> tuple[ImageRGB, tuple[Annotation, ...]]:
        return read_image(self._records[index]), ()

    def _reread(self, background_id: str) -> BackgroundEntry | None:
        entry = self.ledger.read(background_id)
        if entry is not None and entry["accepted"] and not self.artifacts.path(entry["artifact"]).is_file():
            return None
        return entry

    def _to_record(self, number: int, background_id: str, entry: BackgroundEntry) -> ImageRecord:
        stored_as = self.artifacts.path(entry["artifact"]).relative_to(self.artifacts.folder).as_posix()
        return ImageRecord(
            number,
            f"{background_id}.png",
            str(self.artifacts.folder),
            entry["width"],
            entry["height"],
            stored_as=stored_as,
        )

    def _make(self, background_id: str, prompt: str) -> BackgroundEntry:
        tries: list[BackgroundTry] = []
        kept: ImageRGB | None = None
        while kept is None and len(tries) < self.settings.max_tries:
            seed = image_seed(self.run_seed, background_id, 1, len(tries))
            request = PaintRequest(item_id=background_id, seed=seed, category="", prompt=prompt, strength=1.0)
            try:
                [painted] = self.painter.paint([request])
                rgb, tried = self._check(painted, seed)
            except LanguageModelError as exc:
                raise BrokenRunError(f"{background_id}: {exc} Once that is mended, the same command goes on.") from exc
            tries.append(tried)
            kept = None if tried["reason"] else rgb
        return {
            "prompt": prompt,
            "painter": self._makers["painter"],
            "scorer": self._makers["scorer"],
            "unknown_classes": [name for name in self.classes if name not in self._known],
            "tries": tries,
            "accepted": kept is not None,
            "artifact": "" if kept is None else self.artifacts.put_image(kept),
            "width": 0 if kept is None else kept.shape[1],
            "height": 0 if kept is None else kept.shape[0],
        }

    def _check(self, painted: Painted, seed: int) -> tuple[ImageRGB, BackgroundTry]:
        """The picture as it would be kept, and what is wrong with it; judges look only at what passed the scorer."""
        rgb = limit_side(np.ascontiguousarray(painted.rgba[..., :3]), self.settings.side_px)
        reason = painted.flaw or ("" if (painted.rgba[..., 3] == 255).all() else "partly transparent")
        scores: dict[str, float] = {}
        opinions: list[OpinionEntry] = []
        if not reason:
            scores = self._score(rgb)
            reason = self._too_like(scores)
        if not reason:
            opinions, reason = self._ask(rgb)
        return rgb, {"seed": seed, "scores": scores, "opinions": opinions, "reason": reason, "usd": painted.usd}

    def _score(self, rgb: ImageRGB) -> dict[str, float]:
        if not self._known:
            return {}
        most = self.scorer.score([rgb, *overlapping_crops(rgb)], self._known).max(axis=0)
        return {name: round(float(score), 4) for name, score in zip(self._known, most, strict=True)}

    def _too_like(self, scores: dict[str, float]) -> str:
        if not scores:
            return ""
        name = max(scores, key=scores.__getitem__)
        limit = self.settings.max_object_score
        return f"{name} {scores[name]:.3f} is over {limit:g}" if scores[name] > limit else ""

    def _ask(self, rgb: ImageRGB) -> tuple[list[OpinionEntry], str]:
        """What the judges say of the picture, and their objections; one that gives no answer objects."""
        groups = [self.classes[i : i + NAMED_CLASSES] for i in range(0, len(self.classes), NAMED_CLASSES)]
        opinions: list[OpinionEntry] = []
        try:
            for judge in self.judges:
                opinions += [to_entry(judge.judge(rgb, " or ".join(group))) for group in groups]
        except UnparseableAnswerError as exc:
            return opinions, str(exc)
        return opinions, "; ".join(_objection(opinion) for opinion in opinions if not accepts(opinion))

    def _all_rejected(self, entries: Sequence[BackgroundEntry]) -> BrokenRunError:
        reasons = list(dict.fromkeys(tried["reason"] for entry in entries for tried in entry["tries"]))
        return BrokenRunError(
            f"none of {len(entries)} backgrounds came out free of the data set's classes, each painted up to "
            f"{self.settings.max_tries} times: {'; '.join(reasons[:SHOWN_REASONS])}. Look at the scores in "
            f"{self.ledger.folder}; raise `compose.generated.max_object_score`, change `compose.generated.prompts`, or "
            "set `compose.backgrounds` to train or a folder, and give another --out."
        )


def _objection(opinion: OpinionEntry) -> str:
    faults = (criterion["reason"] for criterion in opinion["criteria"] if criterion["outcome"] != "meet")
    return f"{opinion['judge']}: {'; '.join(faults)}"


def overlapping_crops(rgb: ImageRGB) -> list[ImageRGB]:
    """Nine crops of half the sides, each half over the next: objects are small in a scene.

    Args:
        rgb: (H, W, 3) uint8, at least a pixel.
    """
    height, width = rgb.shape[:2]
    crop_h, crop_w = (height + 1) // 2, (width + 1) // 2
    tops = np.linspace(0, height - crop_h, _GRID).round().astype(int).tolist()
    lefts = np.linspace(0, width - crop_w, _GRID).round().astype(int).tolist()
    return [np.ascontiguousarray(rgb[y : y + crop_h, x : x + crop_w]) for y in tops for x in lefts]


def limit_side(rgb: ImageRGB, side_px: int | None) -> ImageRGB:
    """The picture with its longer side at `side_px`, if that is smaller than it is."""
    height, width = rgb.shape[:2]
    if side_px is None or max(height, width) <= side_px:
        return rgb
    scale = side_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))

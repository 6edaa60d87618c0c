"""Pictures of a folder as the validation agent wants them: found, read, masked, measured and scored, in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..configs.agents import TextAgentSettings
from ..configs.validation import Kind
from ..data.images import read_upright
from ..data.records import ImageRGBA
from ..errors import DatasetError, EmptyMaskError, InputError, SampleError
from ..memory.entries import Attempt, WorkItem
from ..tools.judging.class_judge import ClassJudge
from ..tools.judging.limits import painted_bounds, rival_bounds, wholeness_bounds
from ..tools.judging.measures import measure_texture
from ..tools.judging.painted import measure_painted
from ..tools.judging.similarity import rival_lead
from ..tools.protocols import CutOutScorer, Masker, MaskRequest, TextScorer
from .backgrounds import IMAGE_SUFFIXES
from .items import failed
from .services import Artifacts

ASKED: dict[Kind, frozenset[str] | None] = {
    "cut_out": None,
    "edit": frozenset({"largest_component", "components", "sharpness", "contrast"}),
    "scene": frozenset({"sharpness", "contrast"}),
}
"""Measures that are judged; None: all. An edit fills its frame and may touch it; a scene has no one mask."""


@dataclass(frozen=True, slots=True)
class FolderPicture:
    """A picture file and the class that it should show."""

    path: Path
    name: str
    """Relative to the folder, with `/`."""
    category: str
    category_id: int

    def to_item(self) -> WorkItem:
        """The picture as a work item. Its id follows content and class, so that a changed file is judged anew."""
        content = hashlib.sha256(self.path.read_bytes()).hexdigest()
        digest = hashlib.sha256(f"{self.name}\0{self.category}\0{content}".encode()).hexdigest()
        return {
            "item_id": f"file-{digest[:20]}",
            "agent": "validation_agent",
            "category_id": self.category_id,
            "category": self.category,
            "source_row": -1,
            "slot": 0,
        }


def find_pictures(folder: Path, category: str | None) -> list[FolderPicture]:
    """Pictures at any depth, by name.

    Args:
        category: class of all of them; None: the name of the folder right below `folder` that holds it.

    Raises:
        DatasetError: the folder does not exist, holds no picture, or holds some outside any class's folder.
    """
    if not folder.is_dir():
        raise DatasetError(f"{str(folder)!r} is no folder; expected one with pictures")
    root = folder.resolve()
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not paths:
        raise DatasetError(f"{str(folder)!r} holds no picture; looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
    found = []
    names: dict[str, int] = {}
    for path in paths:
        relative = path.relative_to(folder)
        if not path.resolve().is_relative_to(root):
            raise DatasetError(f"{str(path)!r} links to a file outside {str(folder)!r}; copy it into the folder")
        if category is None and len(relative.parts) == 1:
            raise DatasetError(
                f"{str(path)!r} lies in no class's folder; say what the pictures show with --class NAME, or put them "
                f"into {str(folder)!r}/NAME/"
            )
        name = category or relative.parts[0]
        found.append(FolderPicture(path, relative.as_posix(), name, names.setdefault(name, len(names) + 1)))
    return found


def judge_of(settings: TextAgentSettings, categories: Sequence[str], scorer: TextScorer) -> Mapping[int, ClassJudge]:
    """The judge of each class's measures, by category id from 1; classes that the scorer does not know go unscored."""
    asked = ASKED[settings.validation.kind]
    bounds = [bound for bound in painted_bounds(settings.limits) if asked is None or bound.measure in asked]
    if settings.validation.kind == "cut_out":
        bounds += wholeness_bounds(settings.similarity.wholeness)
    if settings.validation.kind != "scene":
        bounds += rival_bounds(settings.similarity.rival_margin)
    judges = {}
    for category_id, name in enumerate(categories, start=1):
        is_scored = settings.validation.kind != "scene" and scorer.knows(name)
        thresholds = {"image_text": settings.similarity.image_text} if is_scored else {}
        judges[category_id] = ClassJudge(bounds, thresholds, optional=())
    return judges


@dataclass(frozen=True, slots=True)
class PictureMeasurer:
    """Reads and measures pictures; what is opaque gets its mask from the masker."""

    masker: Masker
    scorer: TextScorer
    kind: Kind
    artifacts: Artifacts
    wholeness: CutOutScorer | None = None
    rivals: Sequence[str] = ()
    """All classes of the folder, of those that the scorer knows."""
    """Asked of cut-outs alone: an edit or a scene has its surroundings on purpose."""

    def measure(self, pictures: Sequence[FolderPicture]) -> list[Attempt]:
        """One measured image a picture, in order; one that is none has a failed criterion instead of measures."""
        attempts = [self._read(picture) for picture in pictures]
        whole = [index for index, (attempt, _) in enumerate(attempts) if not attempt["criteria"]]
        cut_outs = self._cut_out([attempts[i][1] for i in whole], [pictures[i].category for i in whole])
        measured = [attempt for attempt, _ in attempts]
        visible: list[tuple[int, ImageRGBA]] = []
        for index, cut_out in zip(whole, cut_outs, strict=True):
            try:
                measures = self._measure(cut_out)
            except EmptyMaskError as exc:
                measured[index] = {**measured[index], "criteria": [failed("mask", str(exc))]}
                continue
            measured[index] = {**measured[index], "measures": measures}
            visible.append((index, cut_out))
        self._score(measured, visible, [picture.category for picture in pictures])
        return measured

    def _read(self, picture: FolderPicture) -> tuple[Attempt, ImageRGBA]:
        attempt: Attempt = {
            "round": 1,
            "index": 0,
            "seed": 0,
            "strength": 0.0,
            "artifact": "",
            "parameters": {"file": picture.name},
            "truncated_sides": [],
            "measures": {},
            "criteria": [],
            "accepted": False,
        }
        try:
            rgba = read_upright(picture.path)
        except (SampleError, InputError) as exc:
            return {**attempt, "criteria": [failed("painted", str(exc))]}, np.zeros((1, 1, 4), np.uint8)
        return {**attempt, "artifact": self.artifacts.put_image(rgba)}, rgba

    def _cut_out(self, pictures: Sequence[ImageRGBA], categories: Sequence[str]) -> Iterator[ImageRGBA]:
        """Pictures with the alpha of their object; those with an alpha of their own, and whole scenes, as they are."""
        opaque = [i for i, rgba in enumerate(pictures) if self.kind != "scene" and bool((rgba[..., 3] == 255).all())]
        found = self.masker.mask([MaskRequest(rgba=pictures[i], category=categories[i]) for i in opaque])
        alphas = {i: one.alpha for i, one in zip(opaque, found, strict=True)}
        for index, rgba in enumerate(pictures):
            yield np.dstack([rgba[..., :3], alphas[index]]) if index in alphas else rgba

    def _measure(self, cut_out: ImageRGBA) -> dict[str, float]:
        if self.kind == "scene":
            return measure_texture(cut_out, np.ones(cut_out.shape[:2], np.bool_))
        return measure_painted(cut_out, ())

    def _score(
        self, measured: list[Attempt], visible: Sequence[tuple[int, ImageRGBA]], categories: Sequence[str]
    ) -> None:
        """Add `wholeness`, and `image_text` and `rival_lead` to what the scorer knows the class of."""
        if self.wholeness is not None and self.kind == "cut_out" and visible:
            for (index, _), whole in zip(visible, self.wholeness.score([rgba for _, rgba in visible]), strict=True):
                measured[index] = {
                    **measured[index],
                    "measures": {**measured[index]["measures"], "wholeness": float(whole)},
                }
        known = [(i, rgba) for i, rgba in visible if self.kind != "scene" and self.scorer.knows(categories[i])]
        if not known:
            return
        names = list(dict.fromkeys([*(categories[i] for i, _ in known), *self.rivals]))
        scores = self.scorer.score([rgba for _, rgba in known], names)
        for row, (index, _) in enumerate(known):
            found = {"image_text": float(scores[row, names.index(categories[index])])}
            lead = rival_lead(scores[row], names, categories[index])
            if lead is not None:
                found["rival_lead"] = lead
            measured[index] = {**measured[index], "measures": {**measured[index]["measures"], **found}}

"""Tools that put cut-outs on a background: one at a given place, or several with their annotations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ...configs.compose import ComposeSettings
from ...data.coco import save_coco
from ...data.records import Category, Findings, ImageRecord, ImageRGB, Sample
from ...errors import InputError
from ..composing.harmonization import Harmonizer, build_harmonizer
from ..composing.placement import UNKNOWN_SIDE, SizeStatistics, paste
from ..composing.scene import CutOut, Scene, compose_scene
from ..cutouts import crop_to_mask, resize_rgba
from .base import CategoryName, PicturePath, Seed, ToolInput, ToolResult
from .workspace import Workspace, encode_png

Harmonization = Literal["none", "alpha", "color_transfer", "poisson"]
Pixels = Annotated[int, Field(ge=-65_536, le=65_536)]
BLENDING = "how it is blended; none is a hard paste; null: as the recipe says"
MAX_SIDE_PX = 4096
NO_SIZES = SizeStatistics({}, UNKNOWN_SIDE)


class Harmonize(ToolInput):
    """Paste a cut-out onto a background at a place, blended in; answers with the new picture and the object's box."""

    background: PicturePath
    cutout: PicturePath = Field(description="a cut-out with transparency")
    centre_xy: list[Pixels] = Field(min_length=2, max_length=2, description="[x, y] of its centre in the background")
    width_px: int | None = Field(None, ge=2, le=MAX_SIDE_PX, description="width of the object; null: as large as it is")
    harmonization: Harmonization | None = Field(None, description=BLENDING)


class ScenePart(ToolInput):
    """A cut-out and its class."""

    image: PicturePath = Field(description="a cut-out with transparency")
    category: CategoryName


class ComposeScene(ToolInput):
    """Compose a training picture: cut-outs at random places and sizes on a background, with exact masks.

    The answer names the picture and a COCO data set folder that holds it with its annotations.
    """

    background: PicturePath
    cutouts: list[ScenePart] = Field(min_length=1, max_length=20, description="later ones may cover earlier ones")
    harmonization: Harmonization | None = Field(None, description=BLENDING)
    seed: Seed = 0


@dataclass(frozen=True, slots=True)
class Composing:
    """Pastes and composes."""

    workspace: Workspace
    settings: ComposeSettings

    def harmonize(self, arguments: Harmonize) -> ToolResult:
        scene = self._read_opaque(arguments.background)
        cutout = crop_to_mask(self.workspace.read_picture(arguments.cutout))
        if arguments.width_px is not None:
            height = max(1, round(cutout.shape[0] * arguments.width_px / cutout.shape[1]))
            if height > MAX_SIDE_PX:
                raise InputError(f"{arguments.cutout!r} would be {height} pixels high; give a smaller width_px")
            cutout = resize_rgba(cutout, arguments.width_px, height)
        centre = (arguments.centre_xy[0], arguments.centre_xy[1])
        pasted = paste(scene, cutout, centre, self._harmonizer(arguments.harmonization))
        path = self.workspace.save_picture("harmonized", scene)
        x, y, width, height = pasted.box_xywh
        summary = {
            "path": self.workspace.relative(path),
            "box_xyxy": [x, y, x + width, y + height],
            "area_px": int(pasted.mask_hw.sum()),
        }
        return ToolResult(summary, [path])

    def compose_scene(self, arguments: ComposeScene) -> ToolResult:
        background = self._read_opaque(arguments.background)
        names = list(dict.fromkeys(part.category for part in arguments.cutouts))
        cutouts = [
            CutOut(f"{number}: {part.image}", names.index(part.category) + 1, self.workspace.read_picture(part.image))
            for number, part in enumerate(arguments.cutouts, start=1)
        ]
        scene = compose_scene(
            background,
            (),
            cutouts,
            NO_SIZES,
            self.settings,
            self._harmonizer(arguments.harmonization),
            np.random.default_rng(arguments.seed),
        )
        return self._save(scene, tuple(Category(number, name) for number, name in enumerate(names, start=1)))

    def _save(self, scene: Scene, categories: tuple[Category, ...]) -> ToolResult:
        folder = self.workspace.make_folder("scene")
        height, width = scene.image_rgb.shape[:2]
        image = ImageRecord(1, "scene.png", str(folder), width, height)
        sample = Sample(image, tuple(one.annotation for one in scene.annotations))

        def place(_: ImageRecord, destination: Path) -> None:
            destination.parent.mkdir(parents=True, exist_ok=True)
            destination.write_bytes(encode_png(scene.image_rgb))

        files = save_coco(_OneScene(categories, sample), folder, place, findings=Findings())
        name_of_id = {category.category_id: category.name for category in categories}
        summary = {
            "path": self.workspace.relative(folder / "images" / "train" / "scene.png"),
            "annotations": self.workspace.relative(files["train"]),
            "dataset": self.workspace.relative(folder),
            "placed": [
                {"category": name_of_id[one.category_id], "box_xywh": list(one.bbox_xywh), "area_px": one.area}
                for one in sample.annotations
            ],
            "unplaced": list(scene.unplaced),
        }
        return ToolResult(summary, [folder])

    def _harmonizer(self, asked: Harmonization | None) -> Harmonizer:
        changes = {"harmonization": asked} if asked else {}
        return build_harmonizer(self.settings.model_copy(update=changes))

    def _read_opaque(self, name: str) -> ImageRGB:
        return np.ascontiguousarray(self.workspace.read_picture(name)[..., :3])


@dataclass(frozen=True, slots=True)
class _OneScene:
    """A composed scene as the writers of data sets take it."""

    categories: tuple[Category, ...]
    sample: Sample
    splits: tuple[str, ...] = ("train",)

    def samples(self, split: str | None = None) -> Iterator[Sample]:
        if split in (None, "train"):
            yield self.sample

"""Tools that make pixels: from words, from a cut-out, within a region of a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator

from ...data.records import ImageRGBA, MaskHW
from ...errors import EmptyMaskError, InputError, SampleError
from ..cutouts import crop_to_mask
from ..judging.measures import alpha_to_mask
from ..protocols import Painted, Painter, PaintRequest, SourcePainter, SourceView, TextPainter
from .base import BoxXYXY, CategoryName, PicturePath, Seed, Strength, ToolInput, ToolResult
from .workspace import Workspace

BRIGHT = 128
"""From this grey on, a pixel of an opaque mask picture is inside."""


class GenerateImage(ToolInput):
    """Paint a new picture of one object from words.

    The answer names the PNG; where the painter makes transparent pictures it is a cut-out with its mask as alpha.
    """

    category: CategoryName
    prompt: str = Field(min_length=1, max_length=1000, description="what to paint, in one sentence")
    seed: Seed = 0
    strength: Strength = 0.8


class VaryInstance(ToolInput):
    """Make another instance of the object in a cut-out: other angle, light, colour or texture, with its mask."""

    image: PicturePath = Field(description="a cut-out with transparency, as segment or generate_image make it")
    category: CategoryName
    prompt: str = Field("", max_length=1000, description="what it shall look like, for painters that read prompts")
    seed: Seed = 0
    strength: Strength = 0.6


class EditRegion(ToolInput):
    """Repaint one region of a picture, given by a mask or by a box, from words."""

    image: PicturePath
    prompt: str = Field(min_length=1, max_length=1000, description="what the region shall show")
    category: CategoryName
    mask: PicturePath | None = Field(None, description="picture of the same size: visible, or white, is repainted")
    box_xyxy: BoxXYXY | None = Field(None, description="[left, top, right, bottom] in pixels of the picture")
    seed: Seed = 0
    strength: Strength = 0.9

    @model_validator(mode="after")
    def _one_region(self) -> EditRegion:
        if (self.mask is None) == (self.box_xyxy is None):
            raise ValueError("give either mask or box_xyxy")
        return self


@dataclass(frozen=True, slots=True)
class TextPainting:
    """Paints from words."""

    workspace: Workspace
    painter: TextPainter

    def generate_image(self, arguments: GenerateImage) -> ToolResult:
        if not self.painter.knows(arguments.category):
            raise InputError(f"{self.painter.name} cannot draw {arguments.category!r}; name a more common object")
        request = PaintRequest(
            item_id="generate_image",
            seed=arguments.seed,
            category=arguments.category,
            prompt=arguments.prompt,
            strength=arguments.strength,
        )
        return _paint(self.workspace, self.painter, request, "image")


@dataclass(frozen=True, slots=True)
class SourcePainting:
    """Paints from an instance, or within a region."""

    workspace: Workspace
    painter: SourcePainter

    def vary_instance(self, arguments: VaryInstance) -> ToolResult:
        rgba = self.workspace.read_picture(arguments.image)
        mask = alpha_to_mask(rgba)
        if mask.all():
            raise InputError(f"{arguments.image!r} has no transparency; cut the object out with segment first")
        request = PaintRequest(
            item_id="vary_instance",
            seed=arguments.seed,
            category=arguments.category,
            prompt=arguments.prompt,
            source_rgba=crop_to_mask(rgba),
            view=SourceView(np.ascontiguousarray(rgba[..., :3]), _not_empty(mask)) if self.painter.needs_view else None,
            strength=arguments.strength,
        )
        return _paint(self.workspace, self.painter, request, "variant")

    def edit_region(self, arguments: EditRegion) -> ToolResult:
        rgba = self.workspace.read_picture(arguments.image)
        mask = _not_empty(self._region(arguments, rgba))
        rgb = np.ascontiguousarray(rgba[..., :3])
        request = PaintRequest(
            item_id="edit_region",
            seed=arguments.seed,
            category=arguments.category,
            prompt=arguments.prompt,
            source_rgba=crop_to_mask(np.dstack([rgb, np.where(mask, 255, 0).astype(np.uint8)])),
            view=SourceView(rgb, mask),
            strength=arguments.strength,
        )
        return _paint(self.workspace, self.painter, request, "edited")

    def _region(self, arguments: EditRegion, rgba: ImageRGBA) -> MaskHW:
        """(H, W) bool, of the picture's size."""
        if arguments.box_xyxy is not None:
            x0, y0, x1, y1 = check_box(arguments.box_xyxy, rgba)
            mask = np.zeros(rgba.shape[:2], np.bool_)
            mask[y0:y1, x0:x1] = True
            return mask
        drawn = self.workspace.read_picture(arguments.mask or "")
        if drawn.shape != rgba.shape:
            raise InputError(
                f"mask {arguments.mask!r} has {drawn.shape[1]}x{drawn.shape[0]} pixels, "
                f"expected the picture's {rgba.shape[1]}x{rgba.shape[0]}"
            )
        inside = alpha_to_mask(drawn)
        return np.asarray(drawn[..., :3].max(axis=2) >= BRIGHT) if inside.all() else inside


def check_box(box_xyxy: list[int], rgba: ImageRGBA) -> tuple[int, int, int, int]:
    """A box as it was given.

    Raises:
        InputError: it is empty, or reaches outside the picture.
    """
    x0, y0, x1, y1 = box_xyxy
    height, width = rgba.shape[:2]
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise InputError(
            f"box {box_xyxy!r} does not fit; expected [left, top, right, bottom] with left < right and top < bottom "
            f"within {width}x{height} pixels"
        )
    return x0, y0, x1, y1


def _not_empty(mask: MaskHW) -> MaskHW:
    if not mask.any():
        raise EmptyMaskError("the mask is empty; give one with at least one visible pixel")
    return mask


def _paint(workspace: Workspace, painter: Painter, request: PaintRequest, stem: str) -> ToolResult:
    [painted] = painter.paint([request])
    if painted.flaw:
        raise SampleError(f"{painter.name} made no picture: {painted.flaw}; try another seed or prompt")
    path = workspace.save_picture(stem, painted.rgba)
    return ToolResult({"path": workspace.relative(path), **_facts(painted, painter, request.seed)}, [path])


def _facts(painted: Painted, painter: Painter, seed: int) -> dict[str, object]:
    height, width = painted.rgba.shape[:2]
    return {
        "width": width,
        "height": height,
        "transparent": bool((painted.rgba[..., 3] < 255).any()),
        "painter": painter.name,
        "revision": painter.revision,
        "seed": seed,
        "usd": painted.usd,
    }

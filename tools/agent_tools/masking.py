"""A tool that cuts an object out of a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from ...data.masks import mask_to_bbox
from ...errors import EmptyMaskError
from ..judging.measures import alpha_to_mask
from ..protocols import Masker, MaskRequest
from .base import BoxXYXY, CategoryName, PicturePath, ToolInput, ToolResult
from .painting import check_box
from .workspace import Workspace


class Segment(ToolInput):
    """Find one object in a picture and cut it out: a PNG of the same size whose alpha is the mask, and its box.

    A box around the object helps where it does not fill the picture.
    """

    image: PicturePath
    category: CategoryName
    box_xyxy: BoxXYXY | None = Field(None, description="[left, top, right, bottom] in pixels of the picture")


@dataclass(frozen=True, slots=True)
class Masking:
    """Cuts out with a masker."""

    workspace: Workspace
    masker: Masker

    def segment(self, arguments: Segment) -> ToolResult:
        rgba = self.workspace.read_picture(arguments.image)
        box = None if arguments.box_xyxy is None else check_box(arguments.box_xyxy, rgba)
        [masked] = self.masker.mask([MaskRequest(rgba=rgba, category=arguments.category, box_xyxy=box)])
        cutout = np.dstack([rgba[..., :3], masked.alpha])
        mask = alpha_to_mask(cutout)
        if not mask.any():
            raise EmptyMaskError(
                f"{self.masker.name} found no {arguments.category!r} in {arguments.image!r}; give a box around it"
            )
        x, y, width, height = mask_to_bbox(mask)
        path = self.workspace.save_picture("cutout", cutout)
        summary = {
            "path": self.workspace.relative(path),
            "box_xyxy": [x, y, x + width, y + height],
            "area_share": round(float(mask.mean()), 4),
            "score": round(float(masked.score), 4),
            "num_instances": masked.num_instances,
            "masker": self.masker.name,
        }
        return ToolResult(summary, [path])

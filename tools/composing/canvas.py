"""A scene while it is composed: its pixels, and which paste owns each of them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ...configs.compose import ComposeSettings
from ...data.records import BoxXYWH, ImageRGB, MaskHW
from .harmonization import Harmonizer, Mask01
from .placement import BoxPx, FittedCutOut, Pasted, paste
from .surroundings import MeanRGB


class Canvas:
    """Pastes cut-outs one over another, and says where another one may go."""

    def __init__(self, background_rgb: ImageRGB, original_boxes: Sequence[BoxXYWH], settings: ComposeSettings) -> None:
        """Copy the background, (H, W, 3) uint8; `original_boxes` are those of its own instances."""
        self.image_rgb = background_rgb.copy()
        self.frame_hw: tuple[int, int] = (background_rgb.shape[0], background_rgb.shape[1])
        self.owner_hw = np.zeros(self.frame_hw, dtype=np.int16)
        self.pastes: list[Pasted] = []
        self._settings = settings
        self._originals_xyxy = np.array(original_boxes, dtype=np.float64).reshape(-1, 4)
        self._originals_xyxy[:, 2:] += self._originals_xyxy[:, :2]
        sides = self._originals_xyxy[:, 2:] - self._originals_xyxy[:, :2]
        self._per_area = 1 / np.maximum(sides.prod(axis=1), 1.0)

    def find_centre(
        self, cutout: FittedCutOut, centres_xy: npt.NDArray[np.int64], truncation: float
    ) -> tuple[int, int] | None:
        """The first admissible of (n, 2) centres that hides few originals, else the admissible one that hides least."""
        hidden = self._hidden_originals(cutout, centres_xy)
        order = np.argsort(np.maximum(hidden, self._settings.max_hidden_originals), kind="stable")
        for x, y in centres_xy[order].tolist():
            if self._admits(cutout, (x, y), truncation):
                return x, y
        return None

    def paste(
        self,
        cutout: FittedCutOut,
        centre_xy: tuple[int, int],
        harmonizer: Harmonizer,
        *,
        measure: bool,
        lit_from: MeanRGB | None = None,
    ) -> Pasted:
        """Composite a cut-out over everything that is there, as `placement.paste` does."""
        pasted = paste(self.image_rgb, cutout.rgba, centre_xy, harmonizer, measure=measure, lit_from=lit_from)
        self.pastes.append(pasted)
        x, y, w, h = pasted.box_xywh
        self.owner_hw[y : y + h, x : x + w][pasted.mask_hw] = len(self.pastes)
        return pasted

    def visible(self, index: int) -> tuple[BoxPx, MaskHW]:
        """Box and mask of what later pastes left of the paste number `index`; never empty."""
        x, y, w, h = self.pastes[index].box_xywh
        mask = self.owner_hw[y : y + h, x : x + w] == index + 1
        left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
        return (x + left, y + top, width, height), mask[top : top + height, left : left + width]

    def _hidden_originals(self, cutout: FittedCutOut, centres_xy: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """For each centre, the originals hidden, counted in shares of their boxes."""
        x, y, w, h = _box_at(cutout, (0, 0))
        left, top = centres_xy[:, :1] + x, centres_xy[:, 1:] + y
        x0, y0, x1, y1 = self._originals_xyxy.T
        shared_w = np.minimum(left + w, x1) - np.maximum(left, x0)
        shared_h = np.minimum(top + h, y1) - np.maximum(top, y0)
        hidden: npt.NDArray[np.float64] = (np.maximum(shared_w, 0) * np.maximum(shared_h, 0)) @ self._per_area
        return hidden

    def _admits(self, cutout: FittedCutOut, centre_xy: tuple[int, int], truncation: float) -> bool:
        """Whether the cut-out and all earlier pastes would stay visible enough."""
        x, y, w, h = _box_at(cutout, centre_xy)
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, self.frame_hw[1]), min(y + h, self.frame_hw[0])
        if x1 <= x0 or y1 <= y0:
            return False
        mask_x, mask_y = x0 - x + cutout.mask_box[0], y0 - y + cutout.mask_box[1]
        inside = cutout.mask[mask_y : mask_y + y1 - y0, mask_x : mask_x + x1 - x0]
        if not self._is_visible(inside, (1 - truncation) * cutout.area_px):
            return False
        return all(
            self._stays_visible(index, (x0, y0, x1 - x0, y1 - y0), inside)
            for index, earlier in enumerate(self.pastes)
            if _intersect(earlier.box_xywh, (x0, y0, x1 - x0, y1 - y0))
        )

    def _stays_visible(self, index: int, box: BoxPx, mask: Mask01) -> bool:
        x, y, w, h = box
        px, py, pw, ph = self.pastes[index].box_xywh
        rest = (self.owner_hw[py : py + ph, px : px + pw] == index + 1).view(np.uint8)
        x0, y0, x1, y1 = max(x, px), max(y, py), min(x + w, px + pw), min(y + h, py + ph)
        rest[y0 - py : y1 - py, x0 - px : x1 - px] &= 1 - mask[y0 - y : y1 - y, x0 - x : x1 - x]
        pasted_area = np.count_nonzero(self.pastes[index].mask_hw)
        return self._is_visible(rest, self._settings.min_visible * pasted_area)

    def _is_visible(self, mask: Mask01, least_area: float) -> bool:
        least_side = self._settings.min_visible_side_px
        return cv2.countNonZero(mask) >= least_area and min(cv2.boundingRect(mask)[2:]) >= least_side


def _box_at(cutout: FittedCutOut, centre_xy: tuple[int, int]) -> BoxPx:
    """The mask's box in the scene, as `placement.paste` puts it."""
    x, y, w, h = cutout.mask_box
    return (
        centre_xy[0] - cutout.mask.shape[1] // 2 + x,
        centre_xy[1] - cutout.mask.shape[0] // 2 + y,
        w,
        h,
    )


def _intersect(a: BoxPx, b: BoxPx) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]

"""The variation painter: an instance of the user's, seen from elsewhere, in other light, by another lens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import kornia
import numpy as np
import torch

from ...configs.image_agent import VariationSettings
from ...data.masks import MASK_ALPHA, flip_sides, mask_to_bbox
from ...data.records import ImageRGBA
from ...errors import EmptyMaskError
from ..cutouts import resize_rgba
from ..protocols import Painted, PaintRequest

SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Parameters of one image, drawn uniformly within strength times the settings' ranges."""

    rotation_deg: float
    shear_deg: float
    log_aspect: float
    corner_shifts: tuple[float, ...]
    cuts: tuple[float, ...]
    flip: bool
    gain: float
    shading: float
    shading_angle_rad: float
    contrast: float
    saturation: float
    hue_rad: float
    blur_px: float
    noise: float

    def as_parameters(self) -> dict[str, float]:
        values = {name: getattr(self, name) for name in self.__slots__ if name not in ("corner_shifts", "cuts")}
        values |= {f"corner_shift_{i}": shift for i, shift in enumerate(self.corner_shifts)}
        values |= {f"cut_{side}": share for side, share in zip(SIDES, self.cuts, strict=True)}
        return {name: round(float(value), 4) for name, value in values.items()}


class VariationPainter:
    """Varies geometry, light, colour, blur and noise with kornia; the alpha is warped with the colours.

    Colours are warped premultiplied, so nothing of the old background bleeds into an edge.
    """

    name = "variation"
    revision = f"kornia-{kornia.__version__}"
    prompt_reader = None
    needs_view = False

    def __init__(self, settings: VariationSettings) -> None:
        self._settings = settings

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        """Vary each request's source.

        Raises:
            EmptyMaskError: a request has no source, or its mask vanished.
        """
        return [self._vary(request) for request in requests]

    def _vary(self, request: PaintRequest) -> Painted:
        if request.source_rgba is None:
            raise EmptyMaskError(f"item {request.item_id!r}: the variation painter needs a source instance")
        generator = torch.Generator().manual_seed(request.seed)
        drawn = _draw(self._settings, request.strength, generator)
        drawn = _keep_cuts_level(drawn, request.truncated_sides)
        source = _cut_further(request.source_rgba, drawn.cuts)
        warped = _warp(_to_tensor(_reduce(source, self._settings.max_side_px)), drawn)
        colour, alpha = warped[:, :3], warped[:, 3:]
        colour = _relight(_blur(colour, alpha, drawn.blur_px), drawn)
        colour = (colour + drawn.noise * torch.randn(colour.shape, generator=generator)).clamp(0, 1)
        image = _crop_to_mask(_to_image(torch.cat([colour, alpha], dim=1)))
        sides = flip_sides(request.truncated_sides) if drawn.flip else request.truncated_sides
        return Painted(image, drawn.as_parameters(), sides)


def _draw(settings: VariationSettings, strength: float, generator: torch.Generator) -> _Drawn:
    unit = torch.rand(24, generator=generator, dtype=torch.float64).tolist()
    either = [(2 * u - 1) * strength for u in unit]
    return _Drawn(
        rotation_deg=either[0] * settings.rotation_deg,
        shear_deg=either[1] * settings.shear_deg,
        log_aspect=either[2] * settings.aspect_ratio,
        corner_shifts=tuple(shift * settings.perspective_ratio for shift in either[3:11]),
        cuts=tuple(u * strength * settings.truncation_ratio for u in unit[20:]),
        flip=unit[11] < settings.flip_probability,
        gain=1 + either[12] * settings.brightness_ratio,
        shading=unit[13] * strength * settings.shading_ratio,
        shading_angle_rad=unit[14] * 2 * np.pi,
        contrast=1 + either[15] * settings.contrast_ratio,
        saturation=1 + either[16] * settings.saturation_ratio,
        hue_rad=float(np.deg2rad(either[17] * settings.hue_deg)),
        blur_px=unit[18] * strength * settings.blur_px,
        noise=unit[19] * strength * settings.noise_ratio,
    )


def _keep_cuts_level(drawn: _Drawn, truncated_sides: Sequence[str]) -> _Drawn:
    """A straight cut looks right only along a scene's border, so it must not turn; what is whole is not cut."""
    cuts = tuple(cut if side in truncated_sides else 0.0 for side, cut in zip(SIDES, drawn.cuts, strict=True))
    if not truncated_sides:
        return replace(drawn, cuts=cuts)
    return replace(drawn, cuts=cuts, rotation_deg=0.0, shear_deg=0.0, corner_shifts=(0.0,) * 8)


def _cut_further(rgba: ImageRGBA, cuts: Sequence[float]) -> ImageRGBA:
    height, width = rgba.shape[:2]
    left, top, right, bottom = (round(cut * side) for cut, side in zip(cuts, (width, height) * 2, strict=True))
    return rgba[top : height - bottom, left : width - right]


def _reduce(rgba: ImageRGBA, max_side_px: int) -> ImageRGBA:
    height, width = rgba.shape[:2]
    ratio = max_side_px / max(height, width)
    if ratio >= 1:
        return rgba
    return resize_rgba(rgba, max(1, round(width * ratio)), max(1, round(height * ratio)))


def _to_tensor(rgba: ImageRGBA) -> torch.Tensor:
    """(1, 4, h, w) float32 in [0, 1], premultiplied."""
    tensor = torch.from_numpy(np.ascontiguousarray(rgba)).permute(2, 0, 1)[None].float() / 255
    return torch.cat([tensor[:, :3] * tensor[:, 3:], tensor[:, 3:]], dim=1)


def _to_image(straight: torch.Tensor) -> ImageRGBA:
    return (straight[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def _warp(premultiplied: torch.Tensor, drawn: _Drawn) -> torch.Tensor:
    """Apply flip, shear, aspect, rotation and perspective on a canvas that holds the whole result."""
    height, width = premultiplied.shape[-2:]
    centre = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    aspect, shear, angle = np.exp(drawn.log_aspect / 2), np.tan(np.deg2rad(drawn.shear_deg)), drawn.rotation_deg
    scale = np.diag([(-1 if drawn.flip else 1) * aspect, 1 / aspect, 1])
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    affine = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1]])
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], dtype=np.float64)
    placed = (affine @ scale @ centre @ corners.T).T[:, :2]
    placed += np.array(drawn.corner_shifts).reshape(4, 2) * [width, height]
    placed -= placed.min(axis=0) - 1
    canvas_wh = np.ceil(placed.max(axis=0) + 1).astype(int)
    # kornia maps pixel centres; ours are pixel edges, half a pixel away.
    matrix = kornia.geometry.transform.get_perspective_transform(
        torch.from_numpy(corners[None, :, :2] - 0.5).float(), torch.from_numpy(placed[None] - 0.5).float()
    )
    size_hw = (int(canvas_wh[1]), int(canvas_wh[0]))
    warped: torch.Tensor = kornia.geometry.transform.warp_perspective(
        premultiplied, matrix, size_hw, mode="bilinear", padding_mode="zeros", align_corners=True
    )
    return warped


def _blur(premultiplied: torch.Tensor, alpha: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """Blur the colours over the object alone; returns straight (1, 3, h, w). The alpha keeps its edge."""
    if sigma_px >= 0.2:
        both = torch.cat([premultiplied, alpha], dim=1)
        side = 2 * int(np.ceil(3 * sigma_px)) + 1
        both = kornia.filters.gaussian_blur2d(both, (side, side), (sigma_px, sigma_px), border_type="constant")
        premultiplied, alpha = both[:, :3], both[:, 3:]
    return (premultiplied / alpha.clamp(min=1e-3)).clamp(0, 1)


def _relight(colour: torch.Tensor, drawn: _Drawn) -> torch.Tensor:
    """Light in linear RGB, with a gradient across the object; then contrast, saturation and hue in sRGB."""
    height, width = colour.shape[-2:]
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    slope = x * np.cos(drawn.shading_angle_rad) + y * np.sin(drawn.shading_angle_rad)
    light = drawn.gain * (1 + drawn.shading * slope / np.sqrt(2))
    colour = kornia.color.rgb_to_linear_rgb(colour) * light
    colour = kornia.color.linear_rgb_to_rgb(colour.clamp(0, 1))
    colour = kornia.enhance.adjust_contrast_with_mean_subtraction(colour, drawn.contrast)
    colour = kornia.enhance.adjust_saturation(colour, drawn.saturation)
    hued: torch.Tensor = kornia.enhance.adjust_hue(colour, drawn.hue_rad)
    return hued.clamp(0, 1)


def _crop_to_mask(rgba: ImageRGBA) -> ImageRGBA:
    x, y, w, h = mask_to_bbox(rgba[..., 3] >= MASK_ALPHA)
    return np.ascontiguousarray(rgba[y : y + h, x : x + w])

"""Material gone from within a surface or from its border: holes, dents, chips, missing parts."""

from __future__ import annotations

import cv2
import numpy as np

from .fields import FieldHW, FieldHWC, blur, fractal_noise, slopes, smoothstep, unit_range, value_noise
from .layers import Layer, detail, mix, surface_light
from .shapes import blob, coverage, inner_distance
from .site import Site
from .surface import occlusion, relight

MIN_BACKGROUND_PX = 24


def draw_hole(site: Site) -> Layer:
    """A pit with a rough floor: walls in shade under the light's side, the mouth's edge darkest."""
    plan, generator = site.plan, site.generator
    distance = blob(site.axes, site.foreground_hw, site.crisp_area_px, plan.irregularity, generator)
    inner, radius = inner_distance(distance), max(site.axes.width_px / 2, 1.0)
    alpha = coverage(distance, 0.6)
    rough = fractal_noise(generator, alpha.shape, max(0.5 * radius, 1.5), octaves=3)
    depth = site.lift * mix(0.35, 1.1, plan.severity) * radius
    floor = smoothstep(inner, 0, 0.75 * radius)
    height = blur(depth * floor + 0.1 * radius * plan.irregularity * rough * floor, 0.5)
    mouth = np.exp(-((np.maximum(inner - 0.8, 0) / (0.22 * radius + 0.5)) ** 2)) * (inner > 0)
    shade = relight(0.7 * height, site.light) ** 0.7 * (1 - 0.4 * abs(min(site.lift, 0)) * mouth)
    if site.lift < 0:
        shade = shade * occlusion(height, 0.6 * radius)
    factor = mix(0.8, 0.2, plan.severity) if site.lift <= 0 else mix(0.95, 0.6, plan.severity)
    texture = 1 + 0.1 * rough + 0.35 * (site.texture_hw - 1)
    cover = surface_light(site, factor) * (shade * texture)[..., None]
    return Layer(alpha_hw=alpha, cover_hwc=cover, gain_hwc=_lip(site, alpha))


def _lip(site: Site, alpha_hw: FieldHW) -> FieldHWC:
    """(H, W, 1) gain of a worn rim: beyond the hole it catches the light, the more the severer."""
    slope_y, slope_x = slopes(blur(alpha_hw, 1.0))
    facing = -site.lift * (slope_x * site.light.x + slope_y * site.light.y)
    gain = 1 + 0.9 * site.plan.severity * np.asarray(np.clip(facing, -0.25, 0.6), dtype=np.float32)
    return gain[..., None]


def draw_dent(site: Site) -> Layer:
    """A smooth hollow or bulge: one flank bright, the other dark, the texture drawn along, nothing hidden."""
    plan, generator = site.plan, site.generator
    distance = blob(site.axes, site.foreground_hw, site.area_px, plan.irregularity, generator)
    inner, radius = inner_distance(distance), max(site.axes.width_px / 2, 1.5)
    bowl = blur(smoothstep(inner, -0.1 * radius, 0.95 * radius), 0.12 * radius)
    rough = value_noise(generator, bowl.shape, 0.7 * radius)
    lift = site.lift or -0.4
    height = lift * mix(0.12, 0.75, plan.severity) * radius * bowl * (1 + 0.3 * plan.irregularity * rough)
    shade = relight(height, site.light)
    glint = mix(0.0, 1.6, plan.severity) * np.maximum(shade - 1.12, 0)
    inside = coverage(distance, 0.2 * radius + 1)
    gain = 1 + (shade - 1 + glint) * inside
    tint = site.paint_colour()
    alpha = (0 if tint is None else 0.55) * inside * bowl
    cover = (site.shading_hwc if tint is None else tint) * detail(site) * gain[..., None]
    base = _drawn_along(site.linear_hwc, height)
    return Layer(alpha_hw=alpha, cover_hwc=cover, gain_hwc=gain[..., None], base_hwc=base, grain=0.0)


def _drawn_along(linear_hwc: FieldHWC, height_hw: FieldHW) -> FieldHWC:
    """The texture shifted down the slopes by up to their height."""
    y, x = np.mgrid[: height_hw.shape[0], : height_hw.shape[1]].astype(np.float32)
    slope_y, slope_x = slopes(height_hw)
    reach = 0.35 * np.abs(height_hw)
    moved = cv2.remap(linear_hwc, x + slope_x * reach, y + slope_y * reach, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT)
    return np.asarray(moved, dtype=np.float32).reshape(linear_hwc.shape)


def draw_chip(site: Site) -> Layer:
    """A flake broken off the border: a matte shell of fracture with ripples round the place of the blow."""
    return _fracture(site, void_share=0.0)


def draw_missing_part(site: Site) -> Layer:
    """A piece gone: the background shows through, with a band of fracture along the break."""
    return _fracture(site, void_share=mix(0.35, 0.8, site.plan.severity))


def _fracture(site: Site, void_share: float) -> Layer:
    plan, generator = site.plan, site.generator
    distance = blob(site.axes, site.foreground_hw, site.area_px, 0.9 * plan.irregularity, generator)
    alpha = coverage(distance, 0.6)
    inner, reach = inner_distance(distance), max(site.axes.width_px / 2, 2.0)
    lift = site.lift or -0.35
    height = lift * _shell(site, inner, reach)
    shade = relight(height, site.light) * (1 + 0.06 * fractal_noise(generator, alpha.shape, 0.5 * reach))
    edge = 1 - mix(0.3, 0.6, plan.severity) * np.exp(-(((inner - 0.5) / max(0.02 * reach, 0.9)) ** 2))
    factor = mix(0.92, 0.38, plan.severity) if lift < 0 else mix(1.02, 1.5, plan.severity)
    speckle = fractal_noise(generator, alpha.shape, 2.2, octaves=2)
    texture = 1 + 0.25 * (site.texture_hw - 1) + 0.04 * speckle
    cover = surface_light(site, factor) * (shade * edge * texture)[..., None]
    background = _background(site)
    if background is not None and void_share:
        ragged = value_noise(generator, alpha.shape, max(0.2 * reach, 2.0))
        depth_px = (1 - void_share) * reach * (1 + 0.35 * plan.irregularity * ragged)
        gone = smoothstep(inner - depth_px, -0.6, 0.6)[..., None]
        cover = cover * (1 - gone) + background * gone
    if background is not None:
        object_share = np.clip(blur(site.foreground_hw.astype(np.float32), site.blur_px), 0, 1)[..., None]
        cover = cover * object_share + background * (1 - object_share)
    return Layer(alpha_hw=alpha, cover_hwc=cover)


def _shell(site: Site, inner_hw: FieldHW, reach_px: float) -> FieldHW:
    """Depth of a conchoidal fracture in pixels: falls off at the break, then ripples towards the blow."""
    generator, plan = site.generator, site.plan
    warp = fractal_noise(generator, inner_hw.shape, max(0.8 * reach_px, 3), octaves=3, gain=0.4)
    x, y = site.axes.along_hw / site.axes.length_px, site.axes.across_hw / site.axes.width_px
    blow = np.hypot(x - generator.uniform(-0.4, 0.4), y) * site.axes.width_px
    phase = (blow + 0.3 * reach_px * (0.2 + plan.irregularity) * warp) / max(0.22 * reach_px, 3)
    ripples = np.sin(2 * np.pi * phase) * unit_range(2 * warp)
    cliff = 0.1 * reach_px * smoothstep(inner_hw, 0, 0.18 * reach_px + 1)
    relief = cliff + 0.006 * reach_px * ripples + 0.05 * reach_px * (0.2 + plan.irregularity) * warp
    return np.asarray(blur(relief * mix(0.5, 1.3, plan.severity), 0.6), dtype=np.float32)


def _background(site: Site) -> FieldHWC | None:
    """The background carried on behind the object; None: the window shows too little of it."""
    behind = cv2.erode((~site.foreground_hw).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    if behind.sum() < MIN_BACKGROUND_PX:
        return None
    weight = blur(behind.astype(np.float32), 6)[..., None] + 1e-4
    near = blur(site.linear_hwc * behind[..., None], 6) / weight
    mean = site.linear_hwc[behind].mean(axis=0)
    trust = np.clip(weight * 8, 0, 1)
    return np.asarray(near * trust + mean * (1 - trust), dtype=np.float32)

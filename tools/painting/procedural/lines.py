"""Defects along a line: scratches, cracks, threads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .fields import FieldHW, blur, fractal_noise, noise_along, slopes, smoothstep
from .layers import Layer, cast_shadow, mix, surface_light
from .shapes import Points, Ribbon, bow, branches, draw_ribbons, fit_area, jagged_line, placed, wander
from .site import Site

DARK_SURFACE = 0.3
"""Linear light below which a bare groove or a fibre is the brighter of the two."""


def draw_crack(site: Site) -> Layer:
    """A fissure that forks and tapers: dark where it gapes, one lip in the light."""
    plan, generator = site.plan, site.generator
    half = site.axes.length_px / 2
    ends = placed(np.array([[-half, 0], [half, 0]], np.float32), site.angle_rad, site.centre_xy)
    line = jagged_line(ends[0], ends[1], plan.irregularity, generator)
    trunk = Ribbon(line, _gaping(len(line), plan.irregularity, generator) * np.float32(site.axes.width_px))
    ribbons = fit_area([trunk, *branches(trunk, plan.irregularity, generator)], _inked_px(site))
    alpha = draw_ribbons(ribbons, site.foreground_hw.shape) * site.foreground_hw
    depth = blur(alpha, 0.25 * site.axes.width_px + 0.4)
    darkness = mix(0.62, 0.05, plan.severity) if site.lift <= 0 else mix(1.15, 1.9, plan.severity)
    grime = 1.25 - 0.4 * depth + 0.3 * fractal_noise(generator, alpha.shape, 5, octaves=3)
    walls = _flanks(site, depth, 0.5 * plan.severity)
    cover = surface_light(site, darkness) * np.clip(grime, 0.4, 1.7)[..., None] * walls
    halo = 1 - 0.12 * plan.severity * blur(alpha, 0.5 * site.axes.width_px + 0.6)[..., None] * (site.lift <= 0)
    return Layer(alpha_hw=alpha, cover_hwc=cover, gain_hwc=walls * halo)


def _inked_px(site: Site) -> float:
    """Area to be drawn, so that with soft edges the line covers the planned one."""
    widened_px = 1.2 * site.blur_px
    return site.area_px * max(1 - widened_px / max(site.axes.width_px, 1e-3), 0.45)


def _gaping(count: int, irregularity: float, generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """Widths along a crack, about 1: pinched and open by turns, closing at a drawn end."""
    share = np.linspace(0, 1, count)
    closing = np.clip(np.minimum(share / 0.06, (1 - share) / generator.uniform(0.15, 0.6)), 0, 1) ** 0.7
    if generator.random() < 0.5:
        closing = closing[::-1]
    ragged = noise_along(generator, count, 9) + 0.5 * noise_along(generator, count, count / 2)
    swell = np.exp((0.12 + 0.4 * irregularity) * ragged)
    return np.asarray((0.12 + 0.88 * closing) * swell, dtype=np.float32)


def _flanks(site: Site, profile_hw: FieldHW, strength: float) -> npt.NDArray[np.float32]:
    """(H, W, 1) gain on a line's two sides: what faces the light is brighter; 1 for what is level."""
    slope_y, slope_x = slopes(profile_hw)
    facing = -site.lift * (slope_x * site.light.x + slope_y * site.light.y) / site.light.z
    gain = np.asarray(np.clip(1 + 2.2 * strength * facing, 0.3, 2.5), dtype=np.float32)
    return gain[..., None]


def draw_scratch(site: Site) -> Layer:
    """A groove cut along a long arc: its floor bare and bright on dark material, banks lit from one side, skips."""
    plan, generator = site.plan, site.generator
    ribbons = fit_area(_strands(site), _inked_px(site))
    full = draw_ribbons(ribbons, site.foreground_hw.shape) * site.foreground_hw
    contact = fractal_noise(generator, full.shape, 4 + 0.06 * site.axes.length_px, octaves=3)
    pressure = np.clip(1 - plan.irregularity * 0.9 * smoothstep(contact, -0.4, 1.3), 0.05, 1)
    alpha = full * pressure * mix(0.55, 1.0, plan.severity)
    bare = mix(1.25, 2.4, plan.severity) if site.mean_light < DARK_SURFACE else mix(0.8, 0.35, plan.severity)
    streaks = 1 + 0.3 * (site.texture_hw - 1)
    cover = surface_light(site, bare) * streaks[..., None]
    gain = _flanks(site, blur(full * pressure, 0.25 * site.axes.width_px + 0.3), 0.9 * plan.severity)
    return Layer(alpha_hw=alpha, cover_hwc=cover, gain_hwc=gain)


def _strands(site: Site) -> list[Ribbon]:
    """Strokes side by side, each fading out at its ends: a wide scratch is a bundle of them."""
    plan, generator, axes = site.plan, site.generator, site.axes
    bend, wobble = generator.uniform(-0.1, 0.1), 0.6 * plan.irregularity * axes.width_px
    count = 1 + int(generator.random() < 0.6 * plan.irregularity) + int(min(axes.width_px / 2.5, 6))
    strands = []
    for index in range(count):
        line = bow(axes.length_px * (1 if index == 0 else generator.uniform(0.35, 0.95)), bend, wobble, generator)
        spread = (0.3 + 0.5 * plan.irregularity) * (axes.width_px / 2 + 0.4)
        shift = generator.uniform(-0.25, 0.25) * axes.length_px, generator.normal() * spread
        line = line + np.array(shift if index else (0, 0), np.float32)
        share = np.linspace(0, 1, len(line))
        taper = np.clip(np.minimum(share / 0.25, (1 - share) / generator.uniform(0.1, 0.5)), 0, 1) ** 0.8
        widths = (0.2 + 0.8 * taper) * (1 if index == 0 else generator.uniform(0.3, 0.8)) * axes.width_px
        strands.append(Ribbon(placed(line, site.angle_rad, site.centre_xy), widths.astype(np.float32)))
    return strands


def draw_thread(site: Site) -> Layer:
    """A fibre that lies loosely on the surface: round, lit from one side, its shadow beside it."""
    plan, generator, axes = site.plan, site.generator, site.axes
    line: Points = placed(wander(axes.length_px, plan.irregularity, generator), site.angle_rad, site.centre_xy)
    widths = 1 + (0.08 + 0.15 * plan.irregularity) * noise_along(generator, len(line), 12)
    [fibre] = fit_area([Ribbon(line, widths.astype(np.float32))], (1 - 0.3 * max(site.lift, 0)) * _inked_px(site))
    alpha = draw_ribbons([fibre], site.foreground_hw.shape) * site.foreground_hw
    lighter = site.mean_light < DARK_SURFACE if plan.tone is None else plan.tone == "lighter"
    factor = mix(1.35, 3.2, plan.severity) if lighter else mix(0.75, 0.18, plan.severity)
    twist = 1 + 0.12 * fractal_noise(generator, alpha.shape, max(axes.width_px, 1.5), octaves=2)
    roundness = _flanks(site, blur(alpha, 0.3 * axes.width_px + 0.3), 0.45)
    cover = surface_light(site, factor) * twist[..., None] * roundness
    shadow = cast_shadow(site, alpha, 0.6 * axes.width_px + 0.6, mix(0.15, 0.45, plan.severity) * max(site.lift, 0))
    seen = alpha * mix(0.5, 1.0, plan.severity)
    return Layer(alpha_hw=seen, cover_hwc=cover, gain_hwc=shadow)

"""What lies on a surface or in it: stains, contamination, discolouration."""

from __future__ import annotations

import numpy as np

from .fields import FieldHW, FieldHWC, blur, fractal_noise, smoothstep, unit_range
from .layers import Layer, cast_shadow, detail, mix, surface_light
from .shapes import blob, coverage, inner_distance
from .site import Site
from .surface import occlusion, relight

STAIN_TINT = (0.62, 0.5, 0.38)
"""Linear share of red, green and blue that a dried, organic liquid leaves."""
HEAT_TINTS = ((1.0, 0.82, 0.5), (0.75, 0.62, 0.8), (0.62, 0.75, 1.05))
"""Straw, purple and blue of an oxide film that grows on hot metal."""
DARKER, LIGHTER = 0.5, 1.6
"""Light of a film over that of the surface: of a darker one before its tint, of a lighter one with it."""
DIRTS = ((0.035, 0.033, 0.03), (0.12, 0.075, 0.04), (0.36, 0.34, 0.31))
"""Linear colours: soot and grease, rust and clay, dust and residues of salt."""


def draw_stain(site: Site) -> Layer:
    """A dried liquid: it lets the texture through, is mottled, and gathers at its rim as it dries."""
    plan, generator = site.plan, site.generator
    distance = blob(site.axes, site.foreground_hw, site.area_px, plan.irregularity, generator)
    inner, radius = inner_distance(distance), max(site.axes.width_px / 2, 1.5)
    mottled = unit_range(fractal_noise(generator, inner.shape, 0.6 * radius, octaves=4))
    rim = np.exp(-(((inner - 0.08 * radius) / (0.09 * radius + 0.7)) ** 2))
    density = (0.55 + 0.5 * mottled + 0.35 * rim) * coverage(distance, 0.06 * radius + 0.6)
    alpha = np.clip(density * mix(0.22, 0.95, plan.severity), 0, 1) * site.foreground_hw
    thickness = 0.12 * smoothstep(inner, 0, 0.3 * radius + 1) + 0.02 * mottled
    film = relight(site.lift * 0.5 * radius * blur(thickness, 0.7), site.light)
    gloss = 1 + (detail(site) - 1) * (0.45 if site.lift else 0.9)
    cover = _tinted(site, STAIN_TINT) * gloss * film[..., None]
    return Layer(alpha_hw=alpha, cover_hwc=cover, grain=0.1)


def draw_discolouration(site: Site) -> Layer:
    """A patch of another tone; where material is gone too, one of another finish with a clear edge."""
    plan, generator = site.plan, site.generator
    distance = blob(site.axes, site.foreground_hw, site.area_px, 0.7 * plan.irregularity, generator)
    radius = max(site.axes.width_px / 2, 1.5)
    softness = 0.6 if site.lift else 0.6 + 0.45 * radius
    clouds = fractal_noise(generator, distance.shape, 0.9 * radius, octaves=4)
    patchy = np.clip(1 + 0.45 * plan.irregularity * clouds, 0.1, 1.4)
    inside = smoothstep(distance, -0.35 * softness, softness) * site.foreground_hw
    alpha = np.clip(inside * patchy * (mix(0.15, 0.9, plan.severity) if not site.lift else 1), 0, 1)
    tint = HEAT_TINTS[int(generator.integers(len(HEAT_TINTS)))]
    tone = ("lighter" if generator.random() < 0.3 else "darker") if plan.tone is None else plan.tone
    if not site.lift:
        filtered = _tinted(site, tint, LIGHTER / float(np.mean(tint)) if tone == "lighter" else DARKER)
        return Layer(alpha_hw=alpha, cover_hwc=filtered * detail(site), grain=0.0)
    factor = mix(0.92, 0.4, plan.severity) if site.lift < 0 else mix(1.08, 1.7, plan.severity)
    speckle = fractal_noise(generator, distance.shape, 2.5, octaves=2)
    finish = 1 + 0.15 * (site.texture_hw - 1) + 0.04 * speckle + 0.04 * clouds
    step = relight(site.lift * 0.9 * coverage(distance, 1.2), site.light)
    edge = 1 - 0.25 * plan.severity * np.exp(-((distance / 1.2) ** 2))
    cover = surface_light(site, factor) * (finish * step * edge)[..., None]
    return Layer(alpha_hw=alpha, cover_hwc=cover, grain=0.8)


def draw_contamination(site: Site) -> Layer:
    """Foreign matter: lumps and crumbs with a colour of their own, lit as lumps are, shadows beside them."""
    plan, generator = site.plan, site.generator
    distance = blob(site.axes, site.foreground_hw, 0.85 * site.crisp_area_px, 0.3 + 0.7 * plan.irregularity, generator)
    radius = max(site.axes.width_px / 2, 1.0)
    lumps = fractal_noise(generator, distance.shape, max(0.4 * radius, 1.5), octaves=4, gain=0.6)
    alpha = np.maximum(coverage(distance, 0.6), _crumbs(site, distance, radius)) * site.foreground_hw
    dome = np.sqrt(np.clip(inner_distance(distance) / radius, 0, 1))
    height = site.lift * radius * mix(0.25, 0.6, plan.severity) * dome * (1 + 0.16 * lumps)
    shade = relight(blur(height, 0.6), site.light) * (1 + 0.12 * lumps)
    if site.lift < 0:
        shade = shade * occlusion(height, 0.5 * radius)
    dirt = DIRTS[int(generator.integers(len(DIRTS)))]
    cover = _foreign(site, dirt) * shade[..., None]
    shadow = cast_shadow(site, alpha, 0.35 * radius + 0.6, mix(0.1, 0.4, plan.severity) * max(site.lift, 0))
    seen = alpha * np.clip(mix(0.35, 1.05, plan.severity) + 0.12 * lumps, 0, 1)
    return Layer(alpha_hw=seen, cover_hwc=cover, gain_hwc=shadow)


def _crumbs(site: Site, distance_hw: FieldHW, radius_px: float) -> FieldHW:
    """Specks that lie about the lump, more and farther the more irregular."""
    speck = max(0.16 * radius_px, 1.0)
    peaks = fractal_noise(site.generator, distance_hw.shape, 2.2 * speck, octaves=2)
    near = np.clip(1 + distance_hw / (0.7 * radius_px + 1), 0, 1)
    height = 3.4 - 1.2 * near - 0.5 * site.plan.irregularity
    return np.where(near > 0, smoothstep(peaks - height, -0.15, 0.15), np.float32(0))


def _foreign(site: Site, colour: tuple[float, float, float]) -> FieldHWC:
    chosen = site.paint_colour()
    if chosen is not None:
        return chosen
    own = np.array(colour, np.float32)
    if site.linear_hwc.shape[2] == 1:
        own = own.mean(keepdims=True)
    return np.asarray(own * site.relative_light()[..., None], dtype=np.float32)


def _tinted(site: Site, tint: tuple[float, float, float], factor: float = 1.0) -> FieldHWC:
    """The plan's colour, else the surface's light filtered."""
    chosen = site.paint_colour()
    if chosen is not None:
        return chosen
    share = np.array(tint, np.float32)
    if site.linear_hwc.shape[2] == 1:
        share = share.mean(keepdims=True)
    return np.asarray(np.minimum(site.shading_hwc * share * factor, 1), dtype=np.float32)

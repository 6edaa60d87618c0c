"""Painters of defects by name: one line adds one. Nothing heavy is imported before a recipe asks for it."""

from __future__ import annotations

from collections.abc import Callable

from ...configs.anomaly import DefectPainterSettings
from ..defects import DefectPainter
from ..naming import no_settings, unknown_name


def _procedural(settings: DefectPainterSettings) -> DefectPainter:
    from .procedural.painter import ProceduralPainter

    return ProceduralPainter(settings.procedural)


def _inpainting(settings: DefectPainterSettings) -> DefectPainter:
    if settings.inpainting is None:
        raise no_settings("painter", "inpainting", "model", "anomaly_agent")
    from .defect_inpainting import DefectInpaintingPainter

    return DefectInpaintingPainter(settings.inpainting)


def _hosted(settings: DefectPainterSettings) -> DefectPainter:
    if settings.hosted is None:
        raise no_settings("painter", "hosted", "model", "anomaly_agent")
    from .defect_hosted import HostedDefectPainter

    return HostedDefectPainter(settings.hosted)


DEFECT_PAINTERS: dict[str, Callable[[DefectPainterSettings], DefectPainter]] = {
    "hosted": _hosted,
    "inpainting": _inpainting,
    "procedural": _procedural,
}


def build_defect_painter(settings: DefectPainterSettings) -> DefectPainter:
    """The anomaly agent's painter; nothing is loaded yet.

    Raises:
        RecipeError: no painter has this name, or its settings are missing or wrong.
        ModelAccessError: the hosted painter's key is not set.
    """
    if settings.painter not in DEFECT_PAINTERS:
        raise unknown_name("painter", settings.painter, DEFECT_PAINTERS, "agents.anomaly_agent.painter")
    return DEFECT_PAINTERS[settings.painter](settings)

"""Painters by name: one line adds one. Nothing heavy is imported before a recipe asks for it."""

from __future__ import annotations

from collections.abc import Callable

from ..configs.agents import TextAgentSettings
from ..configs.image_agent import ImageAgentSettings
from ..errors import RecipeError
from .judging.registry import build_text_scorer
from .naming import no_settings, unknown_name
from .protocols import SourcePainter, TextPainter


def _variation(settings: ImageAgentSettings) -> SourcePainter:
    from .painting.variation import VariationPainter

    return VariationPainter(settings.variation)


def _edge_guided(settings: ImageAgentSettings) -> SourcePainter:
    if settings.edge_guided is None:
        raise no_settings("painter", "edge_guided", "model", "image_agent")
    from .painting.conditioned import EdgeGuidedPainter

    return EdgeGuidedPainter(settings.edge_guided)


def _inpainting(settings: ImageAgentSettings) -> SourcePainter:
    if settings.inpainting is None:
        raise no_settings("painter", "inpainting", "model", "image_agent")
    from .painting.conditioned import InpaintingPainter

    return InpaintingPainter(settings.inpainting)


def _sprites(settings: TextAgentSettings) -> TextPainter:
    from .painting.sprites import SpritesPainter

    return SpritesPainter(settings.sprites)


def _diffusion(settings: TextAgentSettings) -> TextPainter:
    if settings.diffusion is None:
        raise no_settings("painter", "diffusion", "model")
    from .painting.diffusion import DiffusionPainter

    return DiffusionPainter(settings.diffusion)


def _layer_diffusion(settings: TextAgentSettings) -> TextPainter:
    if settings.layer_diffusion is None:
        raise no_settings("painter", "layer_diffusion", "diffusion.model")
    from .painting.layer_diffusion import LayerDiffusionPainter

    return LayerDiffusionPainter(settings.layer_diffusion)


def _layered(settings: TextAgentSettings) -> TextPainter:
    if settings.layered is None:
        raise no_settings("painter", "layered", "model")
    from .painting.layered import LayeredPainter

    own = settings.layered
    first = settings.model_copy(update={"painter": own.painter, "diffusion": own.diffusion or settings.diffusion})
    if own.painter == "layered":
        raise RecipeError("painter 'layered' cannot paint for itself; set `agents.text_agent.layered.painter`")
    return LayeredPainter(own, build_text_painter(first), build_text_scorer(settings.similarity.text))


def _hosted(settings: TextAgentSettings) -> TextPainter:
    if settings.hosted is None:
        raise no_settings("painter", "hosted", "model")
    from .painting.hosted import HostedPainter

    return HostedPainter(settings.hosted)


PAINTERS: dict[str, Callable[[ImageAgentSettings], SourcePainter]] = {
    "edge_guided": _edge_guided,
    "inpainting": _inpainting,
    "variation": _variation,
}
TEXT_PAINTERS: dict[str, Callable[[TextAgentSettings], TextPainter]] = {
    "diffusion": _diffusion,
    "embedded:sprites": _sprites,
    "hosted": _hosted,
    "layer_diffusion": _layer_diffusion,
    "layered": _layered,
}


def build_painter(settings: ImageAgentSettings) -> SourcePainter:
    """The I-Agent's painter; nothing is loaded yet.

    Raises:
        RecipeError: no painter has this name, or its settings are missing.
    """
    if settings.painter not in PAINTERS:
        raise unknown_name("painter", settings.painter, PAINTERS, "agents.image_agent.painter")
    return PAINTERS[settings.painter](settings)


def build_text_painter(settings: TextAgentSettings) -> TextPainter:
    """The T-Agent's painter; nothing is loaded yet.

    Raises:
        RecipeError: no painter has this name, or its settings are missing.
    """
    if settings.painter not in TEXT_PAINTERS:
        raise unknown_name("painter", settings.painter, TEXT_PAINTERS, "agents.text_agent.painter")
    return TEXT_PAINTERS[settings.painter](settings)

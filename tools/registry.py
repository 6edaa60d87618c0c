"""Painters by name: one line adds one. Nothing heavy is imported before a recipe asks for it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

from ..configs.agents import ImageAgentSettings, TextAgentSettings
from ..errors import RecipeError
from .judging.registry import build_text_scorer
from .protocols import Painter, TextPainter


def _variation(settings: ImageAgentSettings) -> Painter:
    from .painting.variation import VariationPainter

    return VariationPainter(settings.variation)


def _sprites(settings: TextAgentSettings) -> TextPainter:
    from .painting.sprites import SpritesPainter

    return SpritesPainter(settings.sprites)


def _diffusion(settings: TextAgentSettings) -> TextPainter:
    if settings.diffusion is None:
        raise _unset("diffusion", "model")
    from .painting.diffusion import DiffusionPainter

    return DiffusionPainter(settings.diffusion)


def _layer_diffusion(settings: TextAgentSettings) -> TextPainter:
    if settings.layer_diffusion is None:
        raise _unset("layer_diffusion", "diffusion.model")
    from .painting.layer_diffusion import LayerDiffusionPainter

    return LayerDiffusionPainter(settings.layer_diffusion)


def _layered(settings: TextAgentSettings) -> TextPainter:
    if settings.layered is None:
        raise _unset("layered", "model")
    from .painting.layered import LayeredPainter

    own = settings.layered
    first = settings.model_copy(update={"painter": own.painter, "diffusion": own.diffusion or settings.diffusion})
    if own.painter == "layered":
        raise RecipeError("painter 'layered' cannot paint for itself; set `agents.text_agent.layered.painter`")
    return LayeredPainter(own, build_text_painter(first), build_text_scorer(settings.similarity.text))


def _hosted(settings: TextAgentSettings) -> TextPainter:
    if settings.hosted is None:
        raise _unset("hosted", "model")
    from .painting.hosted import HostedPainter

    return HostedPainter(settings.hosted)


PAINTERS: dict[str, Callable[[ImageAgentSettings], Painter]] = {"variation": _variation}
TEXT_PAINTERS: dict[str, Callable[[TextAgentSettings], TextPainter]] = {
    "diffusion": _diffusion,
    "embedded:sprites": _sprites,
    "hosted": _hosted,
    "layer_diffusion": _layer_diffusion,
    "layered": _layered,
}


def build_painter(settings: ImageAgentSettings) -> Painter:
    """The I-Agent's painter; nothing is loaded yet.

    Raises:
        RecipeError: no painter has this name.
    """
    if settings.painter not in PAINTERS:
        raise _unknown("image_agent", settings.painter, PAINTERS)
    return PAINTERS[settings.painter](settings)


def build_text_painter(settings: TextAgentSettings) -> TextPainter:
    """The T-Agent's painter; nothing is loaded yet.

    Raises:
        RecipeError: no painter has this name, or its settings are missing.
    """
    if settings.painter not in TEXT_PAINTERS:
        raise _unknown("text_agent", settings.painter, TEXT_PAINTERS)
    return TEXT_PAINTERS[settings.painter](settings)


def _unknown(agent: str, name: str, known: Iterable[str]) -> RecipeError:
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f", did you mean {nearest[0]!r}?" if nearest else ""
    return RecipeError(
        f"unknown painter {name!r}{hint}; known: {', '.join(names)}. Set `agents.{agent}.painter` in the recipe."
    )


def _unset(painter: str, key: str) -> RecipeError:
    return RecipeError(
        f"painter {painter!r} has no settings; set at least `agents.text_agent.{painter}.{key}` in the recipe."
    )

"""Painters by name: one line adds one. Nothing heavy is imported before a recipe asks for it."""

from __future__ import annotations

from collections.abc import Callable

from ..configs.agents import ImageAgentSettings
from ..errors import RecipeError
from .protocols import Painter


def _variation(settings: ImageAgentSettings) -> Painter:
    from .painting.variation import VariationPainter

    return VariationPainter(settings.variation)


PAINTERS: dict[str, Callable[[ImageAgentSettings], Painter]] = {"variation": _variation}


def build_painter(settings: ImageAgentSettings) -> Painter:
    """The painter that the settings name.

    Raises:
        RecipeError: no painter has this name.
    """
    builder = PAINTERS.get(settings.painter)
    if builder is None:
        raise RecipeError(
            f"unknown painter {settings.painter!r}; known: {', '.join(sorted(PAINTERS))}. "
            "Set `agents.image_agent.painter` in the recipe."
        )
    return builder(settings)

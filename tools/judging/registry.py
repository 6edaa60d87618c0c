"""Text scorers and image embedders by name: one line adds one. Nothing heavy is imported until a recipe asks for it."""

from __future__ import annotations

from collections.abc import Callable

from ...configs.judging import ImageEmbedderSettings, TextScorerSettings, WholenessSettings
from ..naming import unknown_name
from ..protocols import CutOutScorer, ImageEmbedder, TextScorer


def _lit(settings: TextScorerSettings) -> TextScorer:
    from .similarity import LitTextScorer

    return LitTextScorer(settings)


def _clip_scorer(settings: TextScorerSettings) -> TextScorer:
    from .similarity import ClipScorer

    return ClipScorer(settings)


def _siglip(settings: TextScorerSettings) -> TextScorer:
    from .similarity import SiglipScorer

    return SiglipScorer(settings)


def _lite0(settings: ImageEmbedderSettings) -> ImageEmbedder:
    from .similarity import Lite0Embedder

    return Lite0Embedder(settings)


def _dino(settings: ImageEmbedderSettings) -> ImageEmbedder:
    from .similarity import DinoEmbedder

    return DinoEmbedder(settings)


def _clip_embedder(settings: ImageEmbedderSettings) -> ImageEmbedder:
    from .similarity import ClipEmbedder

    return ClipEmbedder(settings)


TEXT_SCORERS: dict[str, Callable[[TextScorerSettings], TextScorer]] = {
    "clip": _clip_scorer,
    "embedded:lit": _lit,
    "siglip": _siglip,
}
IMAGE_EMBEDDERS: dict[str, Callable[[ImageEmbedderSettings], ImageEmbedder]] = {
    "clip": _clip_embedder,
    "dino": _dino,
    "embedded:lite0": _lite0,
}


def build_text_scorer(settings: TextScorerSettings, agent: str = "text_agent") -> TextScorer:
    """The scorer that the settings name; nothing is loaded yet.

    Raises:
        RecipeError: no scorer has this name.
    """
    if settings.name not in TEXT_SCORERS:
        raise unknown_name("text scorer", settings.name, TEXT_SCORERS, f"agents.{agent}.similarity.text.name")
    return TEXT_SCORERS[settings.name](settings)


def build_image_embedder(settings: ImageEmbedderSettings, agent: str = "text_agent") -> ImageEmbedder:
    """The embedder that the settings name; nothing is loaded yet.

    Raises:
        RecipeError: no embedder has this name.
    """
    if settings.name not in IMAGE_EMBEDDERS:
        raise unknown_name("image embedder", settings.name, IMAGE_EMBEDDERS, f"agents.{agent}.similarity.image.name")
    return IMAGE_EMBEDDERS[settings.name](settings)


def build_wholeness(settings: WholenessSettings | None) -> CutOutScorer | None:
    """The judge of wholeness, None where it is switched off; nothing is loaded yet."""
    if settings is None:
        return None
    from .similarity import EmbeddedWholeness

    return EmbeddedWholeness(settings)

"""`painter: auto` and `masker: auto`: the best that the recipe has settings and this machine has weights for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ..configs.agents import TextAgentSettings
from ..configs.conditioning import EdgeGuidedSettings
from ..configs.image_agent import OPAQUE_PAINTERS, ImageAgentSettings
from ..configs.layer_diffusion import LayerDiffusionSettings
from ..configs.masking import MaskerSettings
from ..configs.recipe import Recipe
from ..errors import ModelNotFetchedError
from ..models.checkpoints import find_checkpoint

AUTO = "auto"

S = TypeVar("S", TextAgentSettings, ImageAgentSettings)
Choice = tuple[str, str]
"""A backend's name, and why it is that one; empty: as the recipe says."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A recipe without `auto`, and why painter and masker are what they are, of each agent that left that open."""

    recipe: Recipe
    why: Mapping[str, str]


def choose_backends(recipe: Recipe) -> Chosen:
    """Resolve what the recipe's agents leave open; no weights are loaded.

    The I-Agent's edge-guided painter with SAM, and the T-Agent's layer diffusion, are chosen where all their weights
    are in the cache, else the embedded ones.

    Raises:
        RecipeError: a model is neither a folder nor a Hub id, or painter and masker do not fit.
    """
    text, image = recipe.agents.text_agent, recipe.agents.image_agent
    why = {}
    if text is not None and AUTO in (text.painter, text.masker):
        painter = _choose_text_painter(text)
        text, why["text_agent"] = _settle(text, painter, _choose_masker(text, _is_opaque(text, painter[0])))
    if image is not None and AUTO in (image.painter, image.masker):
        painter = _choose_source_painter(image)
        image, why["image_agent"] = _settle(image, painter, _choose_masker(image, painter[0] in OPAQUE_PAINTERS))
    agents = recipe.agents.model_copy(update={"text_agent": text, "image_agent": image})
    told = {agent: reason for agent, reason in why.items() if reason}
    return Chosen(recipe.model_copy(update={"agents": agents}), told)


def _settle(settings: S, painter: Choice, masker: Choice) -> tuple[S, str]:
    """Validated anew: what was chosen must fit together like what is written."""
    chosen = {**settings.model_dump(), "painter": painter[0], "masker": masker[0]}
    return type(settings).model_validate(chosen), "; ".join(filter(None, (painter[1], masker[1])))


def _choose_text_painter(settings: TextAgentSettings) -> Choice:
    if settings.painter != AUTO:
        return settings.painter, ""
    if settings.layer_diffusion is None:
        return "embedded:sprites", "painter embedded:sprites, since the recipe has no layer_diffusion settings"
    if missing := _missing(_layer_diffusion_models(settings.layer_diffusion)):
        return "embedded:sprites", f"painter embedded:sprites, since layer_diffusion lacks {missing}"
    return "layer_diffusion", "painter layer_diffusion, since its weights are here"


def _is_opaque(settings: TextAgentSettings, painter: str) -> bool:
    """Whether a text painter's pictures come without an alpha."""
    hosted = settings.hosted
    return painter == "diffusion" or (painter == "hosted" and hosted is not None and hosted.background != "transparent")


def _choose_source_painter(settings: ImageAgentSettings) -> Choice:
    if settings.painter != AUTO:
        return settings.painter, ""
    if settings.edge_guided is None:
        return "variation", "painter variation, since the recipe has no edge_guided settings"
    if missing := _missing(_edge_guided_models(settings.edge_guided)):
        return "variation", f"painter variation, since edge_guided lacks {missing}"
    return "edge_guided", "painter edge_guided, since its weights are here"


def _choose_masker(settings: MaskerSettings, is_opaque: bool) -> Choice:
    if settings.masker != AUTO:
        return settings.masker, ""
    if not is_opaque:
        return "alpha", ""
    if settings.sam is None:
        return "grabcut", "masker grabcut, since the recipe has no sam settings"
    if missing := _missing([(settings.sam.model, settings.sam.revision)]):
        return "grabcut", f"masker grabcut, since sam lacks {missing}"
    return "sam", "masker sam, since its weights are here"


def _layer_diffusion_models(settings: LayerDiffusionSettings) -> Iterator[tuple[str, str | None]]:
    yield settings.diffusion.model, settings.diffusion.revision
    for lora in settings.diffusion.loras:
        yield lora.model, lora.revision
    if settings.attention is not None:
        yield settings.attention.model, settings.attention.revision
    yield settings.decoder.model, settings.decoder.revision


def _edge_guided_models(settings: EdgeGuidedSettings) -> Iterator[tuple[str, str | None]]:
    yield settings.model, settings.revision
    yield settings.controlnet.model, settings.controlnet.revision
    for lora in settings.loras:
        yield lora.model, lora.revision
    if settings.ip_adapter is not None:
        yield settings.ip_adapter.model, settings.ip_adapter.revision
    if settings.edges.annotators is not None:
        yield settings.edges.annotators, None


def _missing(models: Iterable[tuple[str, str | None]]) -> str:
    """Models that are not here, with the command that brings them; empty: all are."""
    names = []
    for model, revision in dict.fromkeys(models):
        try:
            find_checkpoint(model, revision)
        except ModelNotFetchedError:
            names.append(f"{model}@{revision}" if revision else model)
    return f"{', '.join(names)} (maskwright models fetch {' '.join(names)})" if names else ""

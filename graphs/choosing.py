"""`painter: auto` and `masker: auto`: the best that the recipe has settings and this machine has weights for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..configs.image_agent import OPAQUE_PAINTERS, ImageAgentSettings
from ..configs.recipe import Recipe
from ..errors import ModelNotFetchedError
from ..models.checkpoints import find_checkpoint

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A recipe without `auto`, and why the I-Agent's painter and masker are what they are; empty: as it named them."""

    recipe: Recipe
    why: str


def choose_backends(recipe: Recipe) -> Chosen:
    """Resolve what the recipe's I-Agent leaves open; no weights are loaded.

    The edge-guided painter with SAM is chosen where all its weights are in the cache, else the embedded ones.

    Raises:
        RecipeError: a model is neither a folder nor a Hub id, or painter and masker do not fit.
    """
    settings = recipe.agents.image_agent
    if settings is None or AUTO not in (settings.painter, settings.masker):
        return Chosen(recipe, "")
    painter, why_painter = _choose_painter(settings)
    masker, why_masker = _choose_masker(settings, painter)
    # Validated anew: what was chosen must fit together like what is written.
    chosen = ImageAgentSettings.model_validate({**settings.model_dump(), "painter": painter, "masker": masker})
    agents = recipe.agents.model_copy(update={"image_agent": chosen})
    return Chosen(recipe.model_copy(update={"agents": agents}), "; ".join(filter(None, (why_painter, why_masker))))


def _choose_painter(settings: ImageAgentSettings) -> tuple[str, str]:
    if settings.painter != AUTO:
        return settings.painter, ""
    if settings.edge_guided is None:
        return "variation", "painter variation, since the recipe has no edge_guided settings"
    if missing := _missing(_edge_guided_models(settings)):
        return "variation", f"painter variation, since edge_guided lacks {missing}"
    return "edge_guided", "painter edge_guided, since its weights are here"


def _choose_masker(settings: ImageAgentSettings, painter: str) -> tuple[str, str]:
    if settings.masker != AUTO:
        return settings.masker, ""
    if painter not in OPAQUE_PAINTERS:
        return "alpha", ""
    if settings.sam is None:
        return "grabcut", "masker grabcut, since the recipe has no sam settings"
    if missing := _missing([(settings.sam.model, settings.sam.revision)]):
        return "grabcut", f"masker grabcut, since sam lacks {missing}"
    return "sam", "masker sam, since its weights are here"


def _edge_guided_models(settings: ImageAgentSettings) -> Iterator[tuple[str, str | None]]:
    guided = settings.edge_guided
    assert guided is not None
    yield guided.model, guided.revision
    yield guided.controlnet.model, guided.controlnet.revision
    for lora in guided.loras:
        yield lora.model, lora.revision
    if guided.ip_adapter is not None:
        yield guided.ip_adapter.model, guided.ip_adapter.revision
    if guided.edges.annotators is not None:
        yield guided.edges.annotators, None


def _missing(models: Iterable[tuple[str, str | None]]) -> str:
    """Models that are not here, with the command that brings them; empty: all are."""
    names = []
    for model, revision in models:
        try:
            find_checkpoint(model, revision)
        except ModelNotFetchedError:
            names.append(f"{model}@{revision}" if revision else model)
    return f"{', '.join(names)} (maskwright models fetch {' '.join(names)})" if names else ""

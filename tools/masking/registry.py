"""Maskers by name: one line adds one. Nothing heavy is imported before a recipe asks for it."""

from __future__ import annotations

from collections.abc import Callable

from ...configs.agents import TextAgentSettings
from ...errors import RecipeError
from ..naming import no_settings, unknown_name
from ..protocols import Masker, TextScorer


def _alpha(settings: TextAgentSettings, scorer: TextScorer) -> Masker:  # noqa: ARG001  one signature for all
    from .alpha import AlphaMasker

    return AlphaMasker()


def _grabcut(settings: TextAgentSettings, scorer: TextScorer) -> Masker:  # noqa: ARG001
    from .grabcut import GrabCutMasker

    return GrabCutMasker(settings.grabcut)


def _sam(settings: TextAgentSettings, scorer: TextScorer) -> Masker:
    if settings.sam is None:
        raise no_settings("masker", "sam", "model")
    from .sam import SamMasker

    return SamMasker(settings.sam, scorer)


def _concept(settings: TextAgentSettings, scorer: TextScorer) -> Masker:  # noqa: ARG001
    if settings.concept is None:
        raise no_settings("masker", "concept", "model")
    from .concept import ConceptMasker

    return ConceptMasker(settings.concept)


def _birefnet(settings: TextAgentSettings, scorer: TextScorer) -> Masker:  # noqa: ARG001
    if settings.birefnet is None:
        raise no_settings("masker", "birefnet", "model")
    from .birefnet import BirefnetMasker

    return BirefnetMasker(settings.birefnet)


def _best_of(settings: TextAgentSettings, scorer: TextScorer) -> Masker:
    if settings.best_of is None:
        raise no_settings("masker", "best_of", "maskers")
    if "best_of" in settings.best_of.maskers:
        raise RecipeError("masker 'best_of' cannot vote on itself; take it out of `agents.text_agent.best_of.maskers`")
    from .vote import BestOfMasker

    voters = [build_masker(settings.model_copy(update={"masker": name}), scorer) for name in settings.best_of.maskers]
    return BestOfMasker(voters, scorer)


MASKERS: dict[str, Callable[[TextAgentSettings, TextScorer], Masker]] = {
    "alpha": _alpha,
    "best_of": _best_of,
    "birefnet": _birefnet,
    "concept": _concept,
    "grabcut": _grabcut,
    "sam": _sam,
}


def build_masker(settings: TextAgentSettings, scorer: TextScorer) -> Masker:
    """The T-Agent's masker; nothing is loaded yet.

    Args:
        scorer: chooses between masks, for those maskers that have a choice.

    Raises:
        RecipeError: no masker has this name, or its settings are missing.
    """
    if settings.masker not in MASKERS:
        raise unknown_name("masker", settings.masker, MASKERS, "agents.text_agent.masker")
    return MASKERS[settings.masker](settings, scorer)

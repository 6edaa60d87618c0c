"""Maskers by name: one line adds one. Nothing heavy is imported before a recipe asks for it."""

from __future__ import annotations

from collections.abc import Callable

from ...configs.masking import MaskerSettings
from ...errors import RecipeError
from ..naming import no_settings, unknown_name
from ..protocols import Masker, TextScorer


def _alpha(settings: MaskerSettings, scorer: TextScorer | None, agent: str) -> Masker:  # noqa: ARG001  one signature for all
    from .alpha import AlphaMasker

    return AlphaMasker(settings.alpha)


def _grabcut(settings: MaskerSettings, scorer: TextScorer | None, agent: str) -> Masker:  # noqa: ARG001
    from .grabcut import GrabCutMasker

    return GrabCutMasker(settings.grabcut)


def _sam(settings: MaskerSettings, scorer: TextScorer | None, agent: str) -> Masker:
    if settings.sam is None:
        raise no_settings("masker", "sam", "model", agent)
    from .sam import SamMasker

    return SamMasker(settings.sam, scorer)


def _concept(settings: MaskerSettings, scorer: TextScorer | None, agent: str) -> Masker:  # noqa: ARG001
    if settings.concept is None:
        raise no_settings("masker", "concept", "model", agent)
    from .concept import ConceptMasker

    return ConceptMasker(settings.concept)


def _birefnet(settings: MaskerSettings, scorer: TextScorer | None, agent: str) -> Masker:  # noqa: ARG001
    if settings.birefnet is None:
        raise no_settings("masker", "birefnet", "model", agent)
    from .birefnet import BirefnetMasker

    return BirefnetMasker(settings.birefnet)


def _best_of(settings: MaskerSettings, scorer: TextScorer | None, agent: str) -> Masker:
    if settings.best_of is None:
        raise no_settings("masker", "best_of", "maskers", agent)
    if "best_of" in settings.best_of.maskers:
        raise RecipeError(f"masker 'best_of' cannot vote on itself; take it out of `agents.{agent}.best_of.maskers`")
    if scorer is None:
        raise RecipeError(f"masker 'best_of' votes by an image-text scorer; set `agents.{agent}.similarity`")
    from .vote import BestOfMasker

    voters = [
        build_masker(settings.model_copy(update={"masker": name}), scorer, agent) for name in settings.best_of.maskers
    ]
    return BestOfMasker(voters, scorer)


MASKERS: dict[str, Callable[[MaskerSettings, TextScorer | None, str], Masker]] = {
    "alpha": _alpha,
    "best_of": _best_of,
    "birefnet": _birefnet,
    "concept": _concept,
    "grabcut": _grabcut,
    "sam": _sam,
}


def build_photograph_masker(settings: MaskerSettings, scorer: TextScorer) -> Masker:
    """The masker for pictures of anybody's making; raises as `build_masker`.

    `alpha` only reads what its own painter made; GrabCut, which needs no weights, stands in for it.
    """
    if settings.masker == "alpha":
        settings = settings.model_copy(update={"masker": "grabcut"})
    return build_masker(settings, scorer)


def build_masker(settings: MaskerSettings, scorer: TextScorer | None, agent: str = "text_agent") -> Masker:
    """An agent's masker; nothing is loaded yet.

    Args:
        scorer: chooses between masks, for those maskers that have a choice; None where the agent has no scorer.
        agent: whose settings these are, for the messages.

    Raises:
        RecipeError: no masker has this name, its settings are missing, or it needs a scorer.
    """
    if settings.masker not in MASKERS:
        raise unknown_name("masker", settings.masker, MASKERS, f"agents.{agent}.masker")
    return MASKERS[settings.masker](settings, scorer, agent)

"""Names: of classes as one says them, and of backends that a registry does not know."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ..errors import RecipeError


def noun_phrase(category: str) -> str:
    """A class's name as one would say it: LVIS's `traffic_light` is a traffic light."""
    return " ".join(category.replace("_", " ").split())


def unknown_name(kind: str, name: str, known: Iterable[str], setting: str) -> RecipeError:
    """The error that names the nearest known name, all of them, and the setting to change."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f", did you mean {nearest[0]!r}?" if nearest else ""
    return RecipeError(f"unknown {kind} {name!r}{hint}; known: {', '.join(names)}. Set `{setting}` in the recipe.")


def no_settings(kind: str, name: str, key: str, agent: str = "text_agent") -> RecipeError:
    """The error of an agent's backend whose own section is missing."""
    return RecipeError(f"{kind} {name!r} has no settings; set at least `agents.{agent}.{name}.{key}` in the recipe.")

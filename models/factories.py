"""Chat models of the user's own: `package.module:factory`, imported and called with what it takes."""

from __future__ import annotations

import inspect
import logging
import pkgutil
from collections.abc import Callable, Mapping
from importlib.util import find_spec

from langchain_core.language_models import BaseChatModel

from ..errors import RecipeError

ALWAYS_GIVEN = {"timeout_s", "max_retries"}
"""Options that have a value whether or not the recipe says so: a factory without them ignores nothing."""

logger = logging.getLogger(__name__)


def is_import_path(spec: str) -> bool:
    """Whether a spec reads as `module:factory`; where the module has no dot, only if there is such a module."""
    module, _, factory = spec.partition(":")
    names = [*module.split("."), *factory.split(".")]
    return all(name.isidentifier() for name in names) and ("." in module or find_spec(module) is not None)


def call_factory(spec: str, options: Mapping[str, object]) -> BaseChatModel:
    """Import a factory and call it with those of the options that it takes and that are not None.

    Raises:
        RecipeError: it cannot be imported, wants something else, or makes something else.
    """
    factory = _import_factory(spec)
    given = {name: value for name, value in options.items() if value is not None}
    try:
        signature = inspect.signature(factory)
        taken = _select(signature, given)
        signature.bind(**taken)
    except (TypeError, ValueError) as exc:
        raise RecipeError(f"cannot call {spec!r}: {exc}. It can be given {', '.join(options)}.") from exc
    if ignored := sorted(given.keys() - taken - ALWAYS_GIVEN):
        logger.warning("%s takes no %s: what the recipe says of it has no effect", spec, ", ".join(ignored))
    model = factory(**taken)
    if not isinstance(model, BaseChatModel):
        raise RecipeError(f"{spec!r} made a {type(model).__name__}; expected a langchain_core BaseChatModel.")
    return model


def _import_factory(spec: str) -> Callable[..., object]:
    try:
        factory: object = pkgutil.resolve_name(spec)
    except ImportError as exc:
        raise RecipeError(
            f"cannot import {spec!r}: {exc}. Install the module, or put its folder on PYTHONPATH."
        ) from exc
    except AttributeError as exc:
        raise RecipeError(f"cannot import {spec!r}: {exc}. Expected package.module:factory.") from exc
    if not callable(factory):
        raise RecipeError(f"{spec!r} is a {type(factory).__name__}; expected a function that makes a chat model.")
    return factory


def _select(signature: inspect.Signature, given: Mapping[str, object]) -> dict[str, object]:
    parameters = signature.parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return dict(given)
    names = {parameter.name for parameter in parameters if parameter.kind is not parameter.POSITIONAL_ONLY}
    return {name: value for name, value in given.items() if name in names}

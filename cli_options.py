"""Arguments and options that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .errors import RecipeError

RecipeArgument = Annotated[
    str,
    typer.Argument(
        help="Built-in recipe (quickstart, instances, image_agent, text_agent, instada, gen_n_val, anomaly), "
        "or path of a YAML file."
    ),
]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="A setting, key.sub=value; repeatable.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]


def anomaly_overrides(recipe: str, item: str | None, defects: list[str] | None, count: int | None) -> list[str]:
    """The shorthands of the recipe anomaly as settings.

    Raises:
        RecipeError: one is given for another recipe.
    """
    from .configs.recipe import load_recipe

    values = {"item": item, "defects": defects, "count": count}
    given = {name: value for name, value in values.items() if value is not None and value != []}
    if given and load_recipe(recipe).agents.anomaly_agent is None:
        flag = {"defects": "--defect"}.get(next(iter(given)), f"--{next(iter(given))}")
        raise RecipeError(f"{flag} is for the recipe anomaly; leave it out of {recipe!r}")
    return [f"agents.anomaly_agent.{name}={json.dumps(value)}" for name, value in given.items()]

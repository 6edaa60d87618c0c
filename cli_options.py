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
        help="Built-in recipe (quickstart, instances, image_agent, text_agent, instada, gen_n_val, anomaly, iaa), "
        "or path of a YAML file."
    ),
]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="A setting, key.sub=value; repeatable.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]


def agent_overrides(recipe: str, item: str | None, defects: list[str] | None, count: int | None) -> list[str]:
    """The shorthands of the recipes anomaly and iaa as settings.

    Raises:
        RecipeError: one is given for another recipe.
    """
    from .configs.recipe import load_recipe

    values = {"item": item, "defects": defects, "count": count}
    given = {name: value for name, value in values.items() if value is not None and value != []}
    if not given:
        return []
    agents = load_recipe(recipe).agents
    agent = "anomaly_agent" if agents.anomaly_agent else "label_agent" if agents.label_agent else ""
    known = {"anomaly_agent": set(values), "label_agent": {"item", "count"}}.get(agent, set())
    if unknown := [name for name in given if name not in known]:
        flag = {"defects": "--defect"}.get(unknown[0], f"--{unknown[0]}")
        fitting = "anomaly" if unknown[0] == "defects" else "anomaly and for iaa"
        raise RecipeError(f"{flag} is for the recipe {fitting}; leave it out of {recipe!r}")
    return [f"agents.{agent}.{name}={json.dumps(value)}" for name, value in given.items()]

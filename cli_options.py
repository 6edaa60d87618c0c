"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeArgument = Annotated[
    str,
    typer.Argument(
        help="Built-in recipe (quickstart, instances, image_agent, text_agent, instada, gen_n_val), "
        "or path of a YAML file."
    ),
]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="A setting, key.sub=value; repeatable.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]

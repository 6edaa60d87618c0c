"""The commands that judge: a folder, a run again, a person's review, thresholds from it, prompts from examples."""

from __future__ import annotations

import getpass
import secrets
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .cli_options import RecipeArgument, RunArgument, SetOption


class Kind(StrEnum):
    """What pictures are, and so which criteria they must meet."""

    cut_out = "cut_out"
    edit = "edit"
    scene = "scene"


class PromptAgent(StrEnum):
    """Whose prompt is optimized."""

    writer = "writer"
    judge = "judge"


class Method(StrEnum):
    """How a prompt is optimized."""

    textgrad = "textgrad"
    gepa = "gepa"


def add_judging_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command(
        epilog="Examples:  maskwright validate pictures/ --class dog  ·  "
        "maskwright validate painted/ --judge openai:MODEL --out runs/checked  ·  "
        "without --class every folder below FOLDER is a class. The same command goes on after a kill or a review."
    )(validate)
    app.command(
        epilog="Examples:  maskwright rejudge runs/instada-1 --set agents.text_agent.similarity.image_text.value=0.6"
        "  ·  maskwright rejudge runs/instances-1 --set llm.judge=openai:MODEL"
    )(rejudge)
    app.command(epilog="Example:  maskwright review runs/gen_n_val-1 --reviewer Ada")(review)
    app.command(epilog="Example:  maskwright calibrate runs/gen_n_val-1 --precision 0.95 --apply")(calibrate)
    app.command(
        epilog="Examples:  maskwright optimize gen_n_val --agent judge --examples labelled/ "
        "--set llm.judge=openai:MODEL  ·  maskwright optimize text_agent --agent writer --examples classes/ --rounds 4"
    )(optimize)


def validate(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of pictures, at any depth; it is only read.")
    ],
    category: Annotated[str | None, typer.Option("--class", help="What all pictures should show.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="What the pictures are.  [default: cut_out]")] = None,
    judge: Annotated[
        str | None, typer.Option(help="A model that takes images; the same as --set llm.judge=NAME.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Recipe whose limits, scorer and judges are used.")] = "text_agent",
    out: Annotated[Path | None, typer.Option(help="Folder to write.  [default: runs/validate-N]")] = None,
    overrides: SetOption = None,
) -> None:
    """Judge every picture of a folder, copy what is kept, and say why the rest is not."""
    from .console import Bars, draining
    from .console_outcomes import show_validation
    from .graphs.folder_validation import validate_folder

    shorthands = [f"agents.text_agent.validation.kind={kind.value}"] if kind else []
    shorthands += [f"llm.judge={judge}"] if judge else []
    with draining() as stop, Bars().shown() as bars:
        outcome = validate_folder(
            folder,
            category=category,
            recipe=recipe,
            out=out,
            overrides=[*(overrides or ()), *shorthands],
            progress=bars,
            stop=stop,
        )
    show_validation(outcome)
    raise typer.Exit(outcome.exit_code)


def rejudge(
    run_folder: RunArgument,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="A limit or threshold of a judge, key.sub=value; repeatable."),
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Where the run's data set is, if it has moved.")] = None,
) -> None:
    """Judge a run's images by other limits and thresholds, and make its data set anew; nothing is painted."""
    from .console import Bars, console, draining
    from .console_outcomes import show_outcome
    from .graphs.rejudge import rejudge_run

    with draining() as stop, Bars().shown() as bars:
        rejudged = rejudge_run(run_folder, overrides=overrides or (), data=data, progress=bars, stop=stop)
    show_outcome(rejudged.outcome)
    console.print(
        f"judged again: {rejudged.num_before} accepted before, {rejudged.outcome.content['accepted']} now",
        highlight=False,
    )
    raise typer.Exit(rejudged.outcome.exit_code)


def review(
    run_folder: RunArgument,
    reviewer: Annotated[
        str | None, typer.Option(help="Your name; who reviews one run at once needs different ones.  [default: login]")
    ] = None,
    host: Annotated[str, typer.Option(help="Loopback address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for a free one.")] = 0,
) -> None:
    """Decide on the images that wait for a person, in a local web page; Ctrl-C ends it."""
    from .console import console
    from .console_outcomes import show_audit
    from .graphs.held import apply_reviews
    from .serving.review import serve_review

    def announce(url: str) -> None:
        typer.echo(f"review at {url}\nCtrl-C ends it; every verdict is kept as you give it.", err=True)

    name = reviewer or getpass.getuser()
    token = secrets.token_urlsafe(32)
    summary = serve_review(run_folder, host=host, port=port, token=token, reviewer=name, on_ready=announce)
    apply_reviews(run_folder)
    console.print(f"{summary.kept} kept, {summary.rejected} rejected, {summary.waiting} still wait", highlight=False)
    show_audit(run_folder)
    console.print("next: the command that made the run takes the verdicts in and goes on", highlight=False)


def calibrate(
    run_folder: RunArgument,
    precision: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Share of the kept that a person would keep.")
    ] = 0.95,
    apply: Annotated[bool, typer.Option("--apply", help="Judge the run again by the thresholds found.")] = False,
) -> None:
    """Set the scores' thresholds from the images of an audit that a person has decided on."""
    from .console import Bars, draining
    from .console_outcomes import show_calibration, show_outcome
    from .graphs.calibrate import calibrate_run
    from .graphs.rejudge import rejudge_run

    calibration = calibrate_run(run_folder, precision=precision)
    show_calibration(calibration, run_folder, applied=apply)
    if not apply or not calibration.overrides:
        return
    with draining() as stop, Bars().shown() as bars:
        rejudged = rejudge_run(run_folder, overrides=calibration.overrides, progress=bars, stop=stop)
    show_outcome(rejudged.outcome)
    raise typer.Exit(rejudged.outcome.exit_code)


def optimize(
    recipe: RecipeArgument,
    agent: Annotated[PromptAgent, typer.Option(help="Whose prompt.")],
    examples: Annotated[
        Path, typer.Option(help="judge: CLASS/keep/ and CLASS/reject/; writer: a folder a class; or examples.jsonl.")
    ],
    method: Annotated[
        Method, typer.Option(help="textgrad, or gepa of the extra maskwright[optimize].")
    ] = Method.textgrad,
    out: Annotated[
        Path | None, typer.Option(help="File to write; a number is added.  [default: prompts/AGENT.md]")
    ] = None,
    overrides: SetOption = None,
    rounds: Annotated[int, typer.Option(min=1, help="Most proposals.")] = 12,
    budget_calls: Annotated[int | None, typer.Option(min=1, help="Most calls of language models.")] = None,
) -> None:
    """Make an agent's prompt better on examples, verified on others, and write it with its history."""
    from .configs.recipe import load_recipe
    from .console import console, errors
    from .learning.optimize_run import describe_optimized, optimize_prompt
    from .learning.optimize_state import OptimizeSettings

    loaded = load_recipe(recipe, overrides or ())
    settings = OptimizeSettings(rounds=rounds, budget_calls=budget_calls, seed=loaded.plan.seed)
    with errors.status("optimizing; a killed command goes on where it was"):
        path, optimized = optimize_prompt(loaded, agent.value, examples, settings, method=method.value, out=out)
    console.print(describe_optimized(optimized, path), soft_wrap=True, highlight=False, markup=False)

"""The command line: parse, run, summarize. Every command is one public function of the library."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from .cli_evaluate import evaluate_app
from .cli_judging import add_judging_commands
from .cli_knowledge import knowledge_app
from .cli_options import RecipeArgument, SetOption, agent_overrides
from .cli_train import add_training_commands, train_run
from .cli_wsss import add_wsss_command
from .errors import InputError, MaskwrightError

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

    from .memory.prompt_history import PromptHistory

app = typer.Typer(
    name="maskwright",
    help="Bigger labelled data sets with exact masks, from the one you have.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

models_app = typer.Typer(help="The models that recipes name: what there is, where it is kept.", no_args_is_help=True)
app.add_typer(models_app, name="models")

memory_app = typer.Typer(help="The prompts that runs remember, and what came of each.", no_args_is_help=True)
app.add_typer(memory_app, name="memory")

serve_app = typer.Typer(help="Our tools for programs that use tools.", no_args_is_help=True)
app.add_typer(serve_app, name="serve")
app.add_typer(evaluate_app, name="evaluate", no_args_is_help=True)
app.add_typer(knowledge_app, name="knowledge", no_args_is_help=True)


class DataFormat(StrEnum):
    """Formats that are read."""

    auto = "auto"
    coco = "coco"
    yolo = "yolo"
    lvis = "lvis"
    voc = "voc"
    mvtec = "mvtec"
    folders = "folders"
    csv = "csv"


class TargetFormat(StrEnum):
    """Formats that are written."""

    coco = "coco"
    yolo = "yolo"
    lvis = "lvis"
    voc = "voc"


class Resume(StrEnum):
    """What to do with a run that stands in the folder."""

    never = "never"
    always = "always"
    if_possible = "if_possible"


DataOption = Annotated[Path | None, typer.Option("--data", help="Data set folder, or its annotation file.")]
FormatOption = Annotated[DataFormat | None, typer.Option("--format", help="Format of the data set.  [default: auto]")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of the run; the same as --set plan.seed=N.")]
MODEL_HELP = "Name in `maskwright models list`, or OWNER/NAME[@REVISION] of the Hugging Face Hub."
MemoryOption = Annotated[
    Path | None, typer.Option("--path", help="Folder of the memory.  [default: .maskwright/memory]")
]
ClassOption = Annotated[str | None, typer.Option("--class", help="Only prompts of this class.")]
RunOption = Annotated[str | None, typer.Option("--run", help="Only prompts of this run, by its id.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Most work items; the same as --set budget.items=N.")]


@app.command(
    epilog="Examples:  maskwright run quickstart  ·  "
    "maskwright run instances --data PATH --out runs/more --set plan.at_least=100  ·  "
    "after Ctrl-C or a kill, the same command goes on."
)
def run(
    recipe: RecipeArgument,
    data: DataOption = None,
    out: Annotated[Path | None, typer.Option(help="Run folder.  [default: runs/RECIPE-N]")] = None,
    data_format: FormatOption = None,
    overrides: SetOption = None,
    seed: SeedOption = None,
    limit: LimitOption = None,
    item: Annotated[str | None, typer.Option(help="Recipes anomaly, iaa: which item of the data set.")] = None,
    defects: Annotated[
        list[str] | None, typer.Option("--defect", help="Recipe anomaly: a defect to make; repeatable.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Recipes anomaly, iaa: new images of each class.")] = None,
    resume: Annotated[Resume, typer.Option(help="Whether to go on with a run in the folder.")] = Resume.if_possible,
    train: Annotated[bool, typer.Option("--train", help="Then train a detector on the product.")] = False,
    loop: Annotated[int | None, typer.Option(min=1, help="Rounds; each makes more of what helped on val.")] = None,
    reweight: Annotated[
        bool, typer.Option("--reweight/--no-reweight", help="With --loop: let gains deal out quotas; no: a control.")
    ] = True,
) -> None:
    """Make new instances, compose them into scenes, export the bigger data set and report."""
    given = [*(overrides or ()), *agent_overrides(recipe, item, defects, count)]
    if loop is not None:
        from .cli_loop import run_rounds

        if limit is not None or train:
            raise InputError(f"{'--limit' if limit is not None else '--train'} does not go with --loop; leave it out")
        code = run_rounds(
            recipe,
            loop,
            reweight=reweight,
            data=data,
            out=out,
            data_format=data_format and data_format.value,
            overrides=given,
            seed=seed,
            resume=resume.value,
        )
        raise typer.Exit(code)
    from .console import Bars, draining
    from .console_outcomes import OUTCOMES
    from .graphs.pipeline import run_recipe
    from .graphs.run_folder import kind_of

    with draining() as stop, Bars().shown() as bars:
        outcome = run_recipe(
            recipe,
            data=data,
            out=out,
            data_format=data_format and data_format.value,
            overrides=given,
            seed=seed,
            limit=limit,
            resume=resume.value,
            progress=bars,
            stop=stop,
        )
    OUTCOMES[kind_of(outcome.content)](outcome)
    if train and outcome.exit_code in (0, 3) and outcome.content.get("accepted"):
        train_run(outcome.folder, data)
    raise typer.Exit(outcome.exit_code)


add_judging_commands(app)
add_training_commands(app, evaluate_app)
add_wsss_command(evaluate_app)


@app.command(epilog="Example:  maskwright plan instances --data PATH --set plan.at_least=100")
def plan(
    recipe: RecipeArgument,
    data: DataOption = None,
    data_format: FormatOption = None,
    overrides: SetOption = None,
    seed: SeedOption = None,
    limit: LimitOption = None,
) -> None:
    """Show classes, quotas, work items and an estimate; spends nothing."""
    from .console_plan import show_plan
    from .graphs.pipeline import plan_recipe

    show_plan(
        plan_recipe(
            recipe,
            data=data,
            data_format=data_format and data_format.value,
            overrides=overrides or (),
            seed=seed,
            limit=limit,
        )
    )


@app.command(epilog="Example:  maskwright convert coco/ yolo/ --to yolo")
def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Data set folder or annotation file.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write; must not hold anything.")],
    to: Annotated[TargetFormat, typer.Option(help="Format to write.")],
    data_format: Annotated[DataFormat, typer.Option("--format", help="Format of SRC.")] = DataFormat.auto,
) -> None:
    """Rewrite a data set in another format, masks exact, and say what the format cannot hold."""
    from .console import Bars, console, show_findings
    from .data.convert import convert_dataset

    with Bars().shown() as bars:
        report = convert_dataset(source, target, to=to.value, format=data_format.value, progress=bars)
    console.print(f"{report.images} images and {report.annotations} annotations written to {target}", soft_wrap=True)
    show_findings(report.findings)


@app.command(epilog="Example:  maskwright report runs/instances-1")
def report(run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]) -> None:
    """Write RUN/report.html again from what stands in the run folder."""
    from .console import console
    from .evaluation.anomaly_report import build_anomaly_report
    from .evaluation.label_report import build_label_report
    from .evaluation.report import build_report
    from .graphs.record import read_run_json
    from .graphs.run_folder import kind_of

    builders = {"instances": build_report, "anomalies": build_anomaly_report, "labels": build_label_report}
    console.print(str(builders[kind_of(read_run_json(run_folder) or {})](run_folder)), soft_wrap=True)


@app.command(epilog="Example:  maskwright doctor")
def doctor() -> None:
    """Say what is installed, which devices there are, and what each recipe would need."""
    from .console import show_checks
    from .graphs.checkup import check_installation

    show_checks(check_installation())


@models_app.command("list", epilog="Example:  maskwright models list")
def list_models() -> None:
    """Show every model of the catalogue: whether it is here, size, licence."""
    from .console import show_models
    from .models.catalogue import MODELS

    show_models(MODELS.values())


@models_app.command(
    "fetch", epilog="Examples:  maskwright models fetch smollm2 minilm  ·  maskwright models fetch --for quickstart"
)
def fetch_models(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help=MODEL_HELP)] = None,
    recipe: Annotated[str | None, typer.Option("--for", help="Fetch what this recipe names.")] = None,
) -> None:
    """Download models into the cache and verify them; whole ones are left alone."""
    from .console import console, downloading
    from .graphs.checkup import models_of_recipe
    from .models.catalogue import find_model
    from .models.fetch import fetch_model

    if not names and recipe is None:
        raise InputError("no model is named; expected NAME or --for RECIPE. `maskwright models list` shows the names.")
    named = [find_model(name).name for name in names or ()]
    wanted = dict.fromkeys([*named, *(models_of_recipe(recipe) if recipe else ())])
    for name in wanted:
        with downloading(name) as progress:
            path = fetch_model(name, progress)
        console.print(f"{name}  {path}", soft_wrap=True, highlight=False)
    if not wanted:
        console.print(f"recipe {recipe} needs no model", highlight=False)


@models_app.command("where", epilog="Example:  maskwright models where smollm2")
def where_model(name: Annotated[str, typer.Argument(help=MODEL_HELP)]) -> None:
    """Print the file or folder of a model; nothing is downloaded."""
    from .models.fetch import locate_model

    typer.echo(locate_model(name))


@memory_app.command("list", epilog="Example:  maskwright memory list")
def list_memory(path: MemoryOption = None, category: ClassOption = None, run_id: RunOption = None) -> None:
    """Show each class that is remembered: prompts, images kept, and its best prompt."""
    from .console import show_remembered_classes
    from .memory.browse import summarize

    show_remembered_classes(summarize(_open_memory(path).records(category, run_id)))


@memory_app.command("show", epilog="Example:  maskwright memory show --class dog --limit 5")
def show_memory(
    path: MemoryOption = None,
    category: ClassOption = None,
    run_id: RunOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Most prompts.")] = 20,
) -> None:
    """Show prompts, the best first, with why images of each were rejected."""
    from .console import show_prompts
    from .memory.prompt_records import best_first

    show_prompts(best_first(_open_memory(path).records(category, run_id)), limit)


@memory_app.command("export", epilog="Example:  maskwright memory export prompts.jsonl --class dog")
def export_memory(
    target: Annotated[Path, typer.Argument(metavar="[FILE]", help="File to write; - is standard output.")] = Path("-"),
    path: MemoryOption = None,
    category: ClassOption = None,
    run_id: RunOption = None,
) -> None:
    """Write every prompt with all that is known of it, one JSON object a line."""
    from .console import console
    from .memory.browse import to_json_lines, write_new_file

    records = _open_memory(path).records(category, run_id)
    if target == Path("-"):
        typer.echo(to_json_lines(records), nl=False)
        return
    write_new_file(target, to_json_lines(records))
    console.print(f"{len(records)} prompts written to {target}", soft_wrap=True, highlight=False)


@memory_app.command(
    "prune",
    epilog="Examples:  maskwright memory prune --older-than 90 --keep-best 20 --dry-run  ·  "
    "maskwright memory prune --run 3f2a --yes",
)
def prune_memory(
    path: MemoryOption = None,
    category: ClassOption = None,
    run_id: RunOption = None,
    older_than: Annotated[
        float | None, typer.Option(min=0, metavar="DAYS", help="Only prompts older than this.")
    ] = None,
    keep_best: Annotated[int, typer.Option(min=0, help="Best prompts of each class that stay.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be forgotten.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Forget them.")] = False,
) -> None:
    """Forget prompts: all that meet every condition given, but the best."""
    from .console import console
    from .memory.browse import choose_forgotten

    history = _open_memory(path)
    forgotten = choose_forgotten(history.records(category, run_id), older_than_days=older_than, keep_best=keep_best)
    if dry_run or not forgotten:
        console.print(f"{len(forgotten)} prompts would be forgotten", highlight=False)
        return
    if not yes:
        raise InputError(
            f"{len(forgotten)} prompts would be forgotten. Say --yes to do it, or --dry-run to look first."
        )
    history.remove([record.record_id for record in forgotten])
    console.print(f"{len(forgotten)} prompts forgotten", highlight=False)


def _open_memory(path: Path | None) -> PromptHistory:
    from .configs.memory import MemorySettings
    from .memory.prompt_history import open_existing_history

    return open_existing_history(MemorySettings() if path is None else MemorySettings(path=path))


@serve_app.command(
    "mcp",
    epilog="Examples:  maskwright serve mcp --root ~/pictures  ·  maskwright serve mcp --http --port 8765  ·  "
    "with --http every request needs `Authorization: Bearer TOKEN`; the token is MASKWRIGHT_MCP_TOKEN's, "
    "or a new one that is shown once.",
)
def serve_mcp(
    root: Annotated[Path, typer.Option(help="Folder that tools read and write below.")] = Path("."),
    recipe: Annotated[str, typer.Option(help="Recipe whose painter, masker and judges the tools are.")] = "instada",
    overrides: SetOption = None,
    http: Annotated[bool, typer.Option("--http", help="Streamable HTTP on loopback instead of stdio.")] = False,
    host: Annotated[str, typer.Option(help="With --http: loopback address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --http: port; 0 for a free one.")] = 8765,
) -> None:
    """Serve our tools to MCP clients, over stdio or over HTTP."""
    from .serving.mcp import TOKEN_VARIABLE, choose_token, serve_http, serve_stdio
    from .serving.toolbox import build_toolkit

    def build_tools() -> list[BaseTool]:
        return build_toolkit(recipe, root=root, overrides=overrides or ()).get_tools()

    if not http:
        serve_stdio(build_tools)
        return
    token, is_new = choose_token(os.environ.get(TOKEN_VARIABLE))

    def announce(url: str) -> None:
        typer.echo(f"MCP at {url}" + (f"\ntoken  {token}" if is_new else f", token of {TOKEN_VARIABLE}"), err=True)

    serve_http(build_tools(), host=host, port=port, token=token, on_ready=announce)


def main() -> NoReturn:
    """Entry point: errors become messages and exit codes."""
    try:
        app()
    except MaskwrightError as exc:
        _fail(str(exc), 2 if isinstance(exc, InputError) else 1)
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on where it stopped", 130)
    sys.exit(0)


def _fail(message: str, exit_code: int) -> NoReturn:
    typer.secho("error: ", fg="red", nl=False, err=True)
    typer.echo(message, err=True)
    sys.exit(exit_code)

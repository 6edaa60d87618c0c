"""The commands for what is known of defects and materials."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from .console import console
from .errors import InputError

if TYPE_CHECKING:
    from .memory.knowledge import KnowledgeBase
    from .memory.knowledge_audit import AuditFinding
    from .memory.knowledge_notes import StoredNote
    from .memory.knowledge_search import DefectKnowledge

knowledge_app = typer.Typer(help="What is known of defects and materials: notes to read, add to and correct.")

PathOption = Annotated[
    Path | None, typer.Option("--path", help="Folder of the knowledge base.  [default: .maskwright/knowledge]")
]


class Kind(StrEnum):
    """What a note is about."""

    defect = "defect"
    material = "material"


@knowledge_app.command("add", epilog="Example:  maskwright knowledge add notes/weld_crack.md notes/")
def add(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Markdown or YAML notes, or their folders.")],
    path: PathOption = None,
) -> None:
    """Take notes in; the same note again changes nothing, a changed file replaces what it said before."""
    added = _open(path).add(paths)
    console.print(
        f"{len(added.added)} notes added, {len(added.replaced)} replaced, {len(added.unchanged)} known already",
        highlight=False,
    )


@knowledge_app.command("list", epilog="Example:  maskwright knowledge list --kind defect")
def list_notes(
    kind: Annotated[Kind | None, typer.Option(help="Only notes of this kind.")] = None, path: PathOption = None
) -> None:
    """Show every note: what it is about, where it came from."""
    _show_notes([note for note in _open(path).notes if kind is None or note.note.kind == kind.value])


@knowledge_app.command("search", epilog="Example:  maskwright knowledge search 'steel plate' scratch")
def search(
    item: Annotated[str, typer.Argument(help="What the images show.")],
    defect: Annotated[str, typer.Argument(help="As the data set calls it.")],
    top_k: Annotated[int, typer.Option(min=1, max=20, help="Most notes.")] = 4,
    material: Annotated[str, typer.Option(help="What the item is made of, if its name does not say.")] = "",
    path: PathOption = None,
) -> None:
    """Show what is known of a defect on an item: its family, the ranges of a plan, the notes."""
    _show_knowledge(_open(path).search(item, defect, top_k, material))


@knowledge_app.command("audit", epilog="Example:  maskwright knowledge audit --data mvtec/bottle")
def audit_notes(
    data: Annotated[
        Path | None, typer.Option("--data", help="Anomaly data set, whose test images no note may come from.")
    ] = None,
    path: PathOption = None,
) -> None:
    """Look for notes that changed at their source, say the same, or tell of a test set; exit code 2 if one does."""
    from .memory.knowledge_audit import audit

    base = _open(path)
    if data is None:
        findings = audit(base.notes)
    else:
        from .data.anomaly_splits import LeakGuard
        from .data.mvtec import load_anomalies

        test = [record for record in load_anomalies(data).records if record.split == "test"]
        findings = audit(base.notes, [record.image_path.name for record in test], LeakGuard.of(test).knows_digest)
    _show_findings(findings, len(base.notes))
    if leaks := sum(finding.problem in ("test_name", "test_file") for finding in findings):
        raise InputError(f"{leaks} notes tell of test images; remove them with `maskwright knowledge remove ID`")


@knowledge_app.command("remove", epilog="Example:  maskwright knowledge remove 3f2a9c0d1e4b5a67")
def remove(
    note_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As `list` shows them.")],
    path: PathOption = None,
) -> None:
    """Forget notes; the files that they came from stay."""
    gone = _open(path).remove(note_ids)
    console.print(f"{len(gone)} notes removed", highlight=False)


def _open(path: Path | None) -> KnowledgeBase:
    from .memory.knowledge import open_knowledge

    return open_knowledge(Path(".maskwright/knowledge") if path is None else path)


def _show_notes(notes: Sequence[StoredNote]) -> None:
    """One line a note."""
    table = Table(box=SIMPLE_HEAD)
    for column in ("kind", "name", "families", "origin", "source", "id"):
        table.add_column(column)
    for stored in notes:
        note, provenance = stored.note, stored.provenance
        families = ", ".join(note.families)
        table.add_row(
            note.kind, escape(note.name), families, provenance.origin, escape(provenance.source), stored.note_id
        )
    console.print(table)


def _show_knowledge(found: DefectKnowledge) -> None:
    """What is known of a defect, the plan's ranges first."""
    if found.is_guess:
        console.print("[yellow]a guess[/]: no note names this defect; these are the nearest", highlight=False)
    console.print(
        f"material {escape(found.material) or 'unknown'}; looks like {', '.join(found.families) or 'anything'}; "
        f"meets the surface {', '.join(found.relief) or 'anyhow'}",
        highlight=False,
    )
    for name, (low, high) in found.ranges.items():
        console.print(f"  {name:<16} {low:g} to {high:g}", highlight=False)
    for row in found.notes:
        console.print(f"[bold]{escape(row.stored.note.name)}[/] ({row.why}, {row.score:.2f})", highlight=False)
        console.print(escape(row.stored.note.text), soft_wrap=True, highlight=False)


def _show_findings(findings: Sequence[AuditFinding], num_notes: int) -> None:
    """One line a problem."""
    for finding in findings:
        told = f"[yellow]{finding.problem}[/] {escape(finding.name)} ({finding.note_id}): {escape(finding.detail)}"
        console.print(told, soft_wrap=True, highlight=False)
    console.print(f"{num_notes} notes, {len(findings)} findings", highlight=False)

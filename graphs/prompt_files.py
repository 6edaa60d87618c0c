"""Questions from files: a prompt below YAML front matter, with exactly the placeholders that its agent fills."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from string import Formatter

from ..errors import RecipeError
from .templates import Template

WRITER_PLACEHOLDERS = ("memory", "subject")
"""What the writer's question is filled with."""
JUDGE_PLACEHOLDERS = ("category", "criteria")
"""What a vision judge's question is filled with."""

_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?\n", re.DOTALL | re.MULTILINE)


def read_prompt_file(path: Path, name: str, placeholders: Sequence[str]) -> Template:
    """A question from a file, called `name` in the provenance.

    Raises:
        RecipeError: the file is missing or no text, or its prompt lacks a placeholder or has another.
    """
    try:
        _, text = split_front_matter(path.expanduser().read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as exc:
        raise RecipeError(f"prompt {str(path)!r} cannot be read as text: {exc}. Name a file of `optimize`") from exc
    if fault := find_placeholder_fault(text, placeholders):
        raise RecipeError(f"prompt {str(path)!r}: {fault}. Correct the file, or have `optimize` write one")
    return Template(name, text)


def split_front_matter(text: str) -> tuple[str, str]:
    """The YAML between two `---` lines that a file begins with, "" where it has none, and the prompt below it."""
    found = _FRONT_MATTER.match(text)
    return (found[1], text[found.end() :].strip()) if found else ("", text.strip())


def find_placeholder_fault(text: str, placeholders: Sequence[str]) -> str:
    """What keeps a text from being filled, in words for its author; "" where nothing does."""
    expected = braced(placeholders)
    try:
        fields = [(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(text) if name is not None]
    except ValueError as exc:
        return f"its braces do not pair ({exc}); expected only {expected}"
    found = {name for name, _, _ in fields}
    if missing := [name for name in placeholders if name not in found]:
        return f"it lacks the placeholder {braced(missing)}; keep {expected}"
    if unknown := sorted(found - set(placeholders)):
        return f"it has the unknown placeholder {braced(unknown)}; use only {expected}"
    if any(spec or conversion for _, spec, conversion in fields):
        return f"a placeholder has a format; write it plainly: {expected}"
    return ""


def braced(names: Sequence[str]) -> str:
    """Placeholders as they stand in a prompt: "{memory}, {subject}"."""
    return ", ".join(f"{{{name}}}" for name in names)

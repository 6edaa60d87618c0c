"""Examples that a prompt is optimized on: pictures that a person labelled, or classes to paint."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..data.images import read_upright, safe_join
from ..errors import DatasetError, SampleError

Agent = Literal["writer", "judge"]
LIST_NAME = "examples.jsonl"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
LABELS = {"keep": True, "reject": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One thing to judge or to write for."""

    example_id: str
    """Of its content: hexadecimal, equal for equal examples."""
    category: str
    image: Path | None = None
    keep: bool | None = None
    """What the person said; None where nobody was asked."""
    reason: str = ""
    slot: int = 0
    """Among equal classes, from 0; each is written and painted on its own."""


class ExampleLine(BaseModel):
    """A line of examples.jsonl."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    category: str = Field(min_length=1)
    image: str | None = Field(None, min_length=1, description="below the folder, with '/'")
    keep: bool | None = None
    reason: str = ""


def load_examples(folder: Path, agent: Agent) -> list[Example]:
    """The examples of a folder: `examples.jsonl`, or CLASS/keep/* and CLASS/reject/* (judge), or CLASS/ (writer).

    Raises:
        DatasetError: no examples, too few to hold some out, one label only, a line that does not fit, a path that
            leaves the folder, or a picture that does not decode.
    """
    if not folder.is_dir():
        raise DatasetError(f"examples {str(folder)!r} is no folder; expected {LIST_NAME} or a folder a class in it")
    path = folder / LIST_NAME
    lines = list(_read_lines(path) if path.is_file() else _walk(folder, agent))
    examples = _to_judge(folder, lines) if agent == "judge" else _to_write(lines)
    if len(examples) < 2:
        raise DatasetError(
            f"{str(folder)!r} holds {len(examples)} examples for the {agent}; expected at least 2, so that one can be "
            f"held out. Add pictures as CLASS/keep/NAME.png and CLASS/reject/NAME.png, or lines to {LIST_NAME}"
        )
    return examples


def split_examples(
    examples: Sequence[Example], held_out_share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Examples to learn from and examples held out, drawn by the seed from each label alike; neither is empty."""
    groups: defaultdict[bool | None, list[Example]] = defaultdict(list)
    for example in sorted(examples, key=lambda one: hashlib.sha256(f"{seed}\0{one.example_id}".encode()).digest()):
        groups[example.keep].append(example)
    learned: list[Example] = []
    held_out: list[Example] = []
    for group in groups.values():
        count = min(len(group) - 1, max(1, math.ceil(held_out_share * len(group))))
        held_out += group[:count]
        learned += group[count:]
    return learned, held_out


def examples_digest(examples: Sequence[Example]) -> str:
    """Hex sha256 of all examples, whatever their order and wherever they lie."""
    return hashlib.sha256("\n".join(sorted(one.example_id for one in examples)).encode()).hexdigest()


def _read_lines(path: Path) -> Iterator[tuple[str, ExampleLine]]:
    try:
        rows = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise DatasetError(f"{path}: not readable as UTF-8 text: {exc}. Write one JSON object a line") from exc
    for number, row in enumerate(rows, start=1):
        if not row.strip():
            continue
        source = f"{path}:{number}"
        try:
            yield source, ExampleLine.model_validate_json(row)
        except ValidationError as exc:
            first = exc.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise DatasetError(
                f"{source}: {where} is {first['input']!r}: {first['msg']}; expected an object with category, image, "
                "keep and reason. Correct the line"
            ) from exc


def _walk(folder: Path, agent: Agent) -> Iterator[tuple[str, ExampleLine]]:
    for class_folder in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if agent == "writer":
            yield str(class_folder), ExampleLine(category=class_folder.name)
            continue
        for label, keep in LABELS.items():
            for path in sorted((class_folder / label).glob("*")):
                if path.suffix.lower() in SUFFIXES:
                    name = path.relative_to(folder).as_posix()
                    yield str(path), ExampleLine(category=class_folder.name, image=name, keep=keep)


def _to_judge(folder: Path, lines: Sequence[tuple[str, ExampleLine]]) -> list[Example]:
    examples: dict[str, Example] = {}
    for source, line in lines:
        if line.image is None or line.keep is None:
            lacking = "image" if line.image is None else "keep"
            raise DatasetError(f"{source}: {lacking} is missing; a judge learns from pictures that a person labelled")
        path = safe_join(folder, line.image, source=source)
        try:
            read_upright(path)
            content = path.read_bytes()
        except (SampleError, OSError) as exc:
            raise DatasetError(f"{source}: {exc}. Replace the picture, or remove its entry") from exc
        example_id = _digest(line.category, str(line.keep), line.reason, hashlib.sha256(content).hexdigest())
        examples[example_id] = Example(
            example_id=example_id, category=line.category, image=path, keep=line.keep, reason=line.reason
        )
    _require_both_labels(folder, list(examples.values()))
    return list(examples.values())


def _require_both_labels(folder: Path, examples: Sequence[Example]) -> None:
    counts = Counter(example.keep for example in examples)
    if examples and min(counts[True], counts[False]) < 2:
        raise DatasetError(
            f"{str(folder)!r} has {counts[True]} pictures to keep and {counts[False]} to reject; expected at least 2 "
            "of each, to learn from one and hold out another. Add the missing ones"
        )


def _to_write(lines: Sequence[tuple[str, ExampleLine]]) -> list[Example]:
    slots = Counter[str]()
    examples = []
    for _, line in lines:
        slot = slots[line.category]
        slots[line.category] += 1
        examples.append(Example(example_id=_digest(line.category, str(slot)), category=line.category, slot=slot))
    return examples


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]

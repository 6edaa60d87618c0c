"""Notes from files: Markdown with YAML front matter, or YAML with one note or a list of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from ..errors import InputError
from .knowledge_notes import Note, Origin, Provenance, StoredNote

SHIPPED_FOLDER = Path(__file__).parent.parent / "configs" / "knowledge"
MARKDOWN, YAML = frozenset({".md", ".markdown"}), frozenset({".yaml", ".yml"})
MAX_BYTES = 256 * 1024
FENCE = "---"


def shipped_notes() -> list[StoredNote]:
    """The notes that come with the package, in order of file names."""
    paths = sorted(SHIPPED_FOLDER.glob("*.md"))
    return [note for path in paths for note in read_note_file(path, origin="shipped")]


def read_notes(paths: Iterable[Path]) -> list[StoredNote]:
    """Read files, and the Markdown and YAML files below folders, in order of paths.

    Raises:
        InputError: there is no such file, no note in a folder, or a file is no note; it names file and line.
    """
    files = [file for path in paths for file in _files_of(path)]
    return [note for file in dict.fromkeys(files) for note in read_note_file(file)]


def read_note_file(path: Path, *, origin: Origin = "own") -> list[StoredNote]:
    """The notes of one file; a Markdown file has one.

    Raises:
        InputError: the file cannot be read, or is no note; it names file and line.
    """
    content = _read_bytes(path)
    try:
        lines = content.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as exc:
        raise InputError(f"{path}: not UTF-8 at byte {exc.start}; save the note as UTF-8") from exc
    source = path.name if origin == "shipped" else str(path.absolute())
    provenance = Provenance(origin, source, (hashlib.sha256(content).hexdigest(),))
    notes = _read_markdown(path, lines) if path.suffix.lower() in MARKDOWN else _read_yaml(path, lines)
    return [StoredNote(note, provenance) for note in notes]


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in MARKDOWN | YAML and file.is_file())
        if not found:
            raise InputError(f"{str(path)!r}: no .md, .yaml or .yml file in this folder; give a folder of notes")
        return found
    if path.suffix.lower() not in MARKDOWN | YAML:
        raise InputError(f"{str(path)!r}: a note is a .md, .yaml or .yml file, or a folder of them")
    return [path]


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise InputError(f"{str(path)!r}: cannot be read ({exc.strerror}); give the path of a note") from exc
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: {len(content)} bytes, a note has at most {MAX_BYTES}; split it")
    return content


def _read_markdown(path: Path, lines: Sequence[str]) -> list[Note]:
    fences = [number for number, line in enumerate(lines) if line.rstrip() == FENCE]
    if not fences or fences[0] != 0:
        raise InputError(f"{path}, line 1: expected {FENCE!r}, the beginning of the front matter, got {lines[0]!r}")
    if len(fences) < 2:
        raise InputError(f"{path}, line {len(lines)}: the front matter has no end; close it with a line {FENCE!r}")
    end = fences[1]
    front = _FrontMatter(path, "\n".join(lines[1:end]), first_line=2)
    [fields] = front.entries(at_most_one=True)
    text = "\n".join(lines[end + 1 :]).strip()
    if not text:
        raise InputError(f"{path}, line {end + 1}: no text follows the front matter; say what the defect looks like")
    return [front.note({**fields, "text": text}, ())]


def _read_yaml(path: Path, lines: Sequence[str]) -> list[Note]:
    file = _FrontMatter(path, "\n".join(lines), first_line=1)
    entries = file.entries()
    is_list = isinstance(file.content, list)
    return [file.note(fields, (number,) if is_list else ()) for number, fields in enumerate(entries)]


class _FrontMatter:
    """YAML that knows the lines of its keys."""

    def __init__(self, path: Path, text: str, first_line: int) -> None:
        self._path = path
        self._text = text
        self._first_line = first_line
        try:
            self.content: object = yaml.safe_load(text)
        except yaml.YAMLError as exc:
            mark = getattr(exc, "problem_mark", None)
            line = first_line + (mark.line if mark else 0)
            problem = getattr(exc, "problem", None) or str(exc)
            raise InputError(f"{path}, line {line}: not YAML ({problem}); quote texts that hold a colon") from exc

    def entries(self, *, at_most_one: bool = False) -> list[dict[str, object]]:
        is_list = isinstance(self.content, list) and not at_most_one
        found = self.content if isinstance(self.content, list) and is_list else [self.content]
        if not found:
            raise InputError(f"{self._path}, line {self._first_line}: an empty list; give notes, or leave the file out")
        entries: list[dict[str, object]] = []
        for number, entry in enumerate(found):
            if not isinstance(entry, dict):
                line = self._line_of((number,) if is_list else ())
                raise InputError(f"{self._path}, line {line}: expected keys such as `name:`, got {_short(entry)}")
            entries.append(entry)
        return entries

    def note(self, fields: dict[str, object], at: tuple[int, ...]) -> Note:
        try:
            return Note.model_validate(fields)
        except ValidationError as exc:
            problems = [
                f"{self._path}, line {self._line_of((*at, *error['loc']))}: "
                f"{'.'.join(map(str, error['loc'])) or 'note'}: {error['msg']}, got {_short(error['input'])}"
                for error in exc.errors()
            ]
            raise InputError("\n".join(problems) + f"\nKeys of a note: {', '.join(Note.model_fields)}") from exc

    def _line_of(self, loc: Sequence[str | int]) -> int:
        """Of the deepest key on the way that is written down."""
        node, line = yaml.compose(self._text, yaml.SafeLoader), 0
        for step in loc:
            if isinstance(node, yaml.MappingNode):
                pair = next(((key, value) for key, value in node.value if key.value == step), None)
                if pair is None:
                    break
                line, node = pair[0].start_mark.line, pair[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line
        return self._first_line + line


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"

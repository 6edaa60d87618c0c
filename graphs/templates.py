"""What language models are asked: text files with named placeholders, versioned by their content."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

from langchain_core.messages import BaseMessage, HumanMessage

FOLDER = Path(__file__).parent / "prompts"


@dataclass(frozen=True, slots=True)
class Template:
    """A question with holes. `version` goes into the provenance of what was written by it."""

    name: str
    text: str

    @property
    def version(self) -> str:
        return f"{self.name}-{hashlib.sha256(self.text.encode()).hexdigest()[:8]}"

    def fill(self, **values: object) -> list[BaseMessage]:
        return [HumanMessage(self.text.format(**values).strip())]


@functools.cache
def load_template(name: str) -> Template:
    return Template(name, (FOLDER / f"{name}.md").read_text(encoding="utf-8"))

"""An optimized prompt as a file: how it was found in YAML, and below it the prompt, ready to be named in a recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from ..graphs.prompt_files import split_front_matter
from ..graphs.templates import Template
from ..memory.artifacts import write_or_stop
from .optimize_examples import Agent
from .optimize_state import Candidate, OptimizeEnding, Step

Method = Literal["textgrad", "gepa"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizedPrompt:
    """The result of one optimization. Scores lie in [0, 1].

    The held-out examples chose the prompt among the history's, so that its score on them is the better guess the more
    of them there are.
    """

    search: str
    """Hex digest of all that decided the search; equal searches give one file."""
    agent: Agent
    method: Method
    setting: str
    """By which a recipe names the file."""
    base: Template
    before: Candidate
    after: Candidate
    learned_before: float | None
    """On the examples that it learned from; None where no call was left to find out."""
    learned_after: float | None
    ending: OptimizeEnding
    history: Sequence[Step]
    models: Mapping[str, str]
    """By role, as the recipe names them."""
    examples_digest: str
    num_learned: int
    num_held_out: int
    calls: int
    created: str
    """ISO 8601, UTC."""

    @property
    def improved(self) -> bool:
        """Whether a prompt was found that does better than the base on the held-out examples."""
        return self.after["score"] > self.before["score"]

    def to_text(self) -> str:
        """The file: YAML between `---` lines, then the prompt."""
        matter = {
            "agent": self.agent,
            "setting": self.setting,
            "base": self.base.version,
            "method": self.method,
            "improved": self.improved,
            "scores": {
                "held_out": {"before": self.before["score"], "after": self.after["score"]},
                "train": {"before": self.learned_before, "after": self.learned_after},
            },
            "metrics": {"before": self.before["metrics"], "after": self.after["metrics"]},
            "examples": {"digest": self.examples_digest, "train": self.num_learned, "held_out": self.num_held_out},
            "models": dict(self.models),
            "created": self.created,
            "ending": self.ending,
            "calls": self.calls,
            "search": self.search,
            "base_prompt": self.base.text.strip(),
            "history": [dict(step) for step in self.history],
        }
        written = yaml.dump(matter, Dumper=_BlockDumper, sort_keys=False, allow_unicode=True, width=110)
        return f"---\n{written}---\n{self.after['prompt'].strip()}\n"


def save_optimized(optimized: OptimizedPrompt, out: Path) -> Path:
    """Write NAME-1.md, or the next number that is free; nothing is overwritten.

    A file that an equal search has written already is the result again.

    Args:
        out: folder and NAME; the suffix is .md where it has none.

    Raises:
        BrokenRunError: the disk is full or not writable.
    """
    suffix = out.suffix or ".md"
    number = 1
    while (path := out.with_name(f"{out.stem}-{number}{suffix}")).exists():
        if read_front_matter(path).get("search") == optimized.search:
            return path
        number += 1
    write_or_stop(path, optimized.to_text().encode())
    return path


def read_front_matter(path: Path) -> dict[str, object]:
    """What a file says of its prompt; empty where it is none of ours."""
    try:
        matter = yaml.safe_load(split_front_matter(path.read_text(encoding="utf-8-sig"))[0])
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return matter if isinstance(matter, dict) else {}


class _BlockDumper(yaml.SafeDumper):
    """Texts of several lines as blocks, so that prompts can be read."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)  # YAML's blocks hold no line that ends with a space
    style = "|" if "\n" in plain else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", plain if style else text, style=style)


_BlockDumper.add_representer(str, _represent_text)

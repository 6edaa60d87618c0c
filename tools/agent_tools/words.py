"""Tools over words: prompts written, prompts remembered, knowledge looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from langchain_core.retrievers import BaseRetriever
from pydantic import Field, model_validator

from .base import CategoryName, Seed, ToolInput, ToolResult

MAX_PASSAGE_CHARS = 2000


class WritePrompt(ToolInput):
    """Write a prompt for generate_image: one object of a class, different for each seed.

    With previous_prompt and problem it is rethought, so that the problem goes away.
    """

    category: CategoryName
    seed: Seed = 0
    previous_prompt: str = Field("", max_length=1000, description="a prompt whose picture was rejected")
    problem: str = Field("", max_length=1000, description="what was wrong with that picture")

    @model_validator(mode="after")
    def _both_or_none(self) -> WritePrompt:
        if bool(self.previous_prompt) != bool(self.problem):
            raise ValueError("give previous_prompt and problem together, or neither")
        return self


class RecallPrompts(ToolInput):
    """Recall the prompts of a class that earlier runs painted: the best, and the worst with what was wrong."""

    category: CategoryName


class RetrieveKnowledge(ToolInput):
    """Look up passages about a question in the knowledge that this application was given."""

    query: str = Field(min_length=1, max_length=1000, description="the question, in a few words")
    max_passages: int = Field(4, ge=1, le=20, description="most passages to answer with")


class NewPrompt(Protocol):
    """A prompt and how it came about."""

    @property
    def prompt(self) -> str: ...
    @property
    def rung(self) -> str:
        """How the model was brought to answer; "template" where it was not."""
        ...


class PromptAuthor(Protocol):
    """Writes prompts."""

    def write(self, category: str, seed: int) -> NewPrompt: ...

    def revise(self, category: str, seed: int, previous_prompt: str, problem: str) -> NewPrompt: ...


class RememberedPrompt(Protocol):
    """A prompt and what came of it."""

    @property
    def prompt(self) -> str: ...
    @property
    def num_painted(self) -> int: ...
    @property
    def num_kept(self) -> int: ...
    @property
    def scores(self) -> Mapping[str, float]: ...
    @property
    def reasons(self) -> tuple[str, ...]: ...


class RememberedPrompts(Protocol):
    """Of one class."""

    @property
    def best(self) -> Sequence[RememberedPrompt]: ...
    @property
    def worst(self) -> Sequence[RememberedPrompt]: ...


class PromptMemory(Protocol):
    """Remembers prompts."""

    def recall(self, category: str) -> RememberedPrompts: ...


@dataclass(frozen=True, slots=True)
class Writing:
    """Writes prompts with whoever does."""

    author: PromptAuthor

    def write_prompt(self, arguments: WritePrompt) -> ToolResult:
        if arguments.previous_prompt:
            written = self.author.revise(
                arguments.category, arguments.seed, arguments.previous_prompt, arguments.problem
            )
        else:
            written = self.author.write(arguments.category, arguments.seed)
        return ToolResult({"prompt": written.prompt, "written_by": written.rung})


@dataclass(frozen=True, slots=True)
class Recalling:
    """Recalls prompts."""

    memory: PromptMemory

    def recall_prompts(self, arguments: RecallPrompts) -> ToolResult:
        recalled = self.memory.recall(arguments.category)
        summary = {
            "best": [_describe(one) for one in recalled.best],
            "worst": [_describe(one) for one in recalled.worst],
        }
        return ToolResult(summary)


@dataclass(frozen=True, slots=True)
class Retrieving:
    """Looks passages up."""

    retriever: BaseRetriever

    def retrieve_knowledge(self, arguments: RetrieveKnowledge) -> ToolResult:
        documents = self.retriever.invoke(arguments.query)[: arguments.max_passages]
        passages = [
            {"text": document.page_content[:MAX_PASSAGE_CHARS], "source": str(document.metadata.get("source", ""))}
            for document in documents
        ]
        return ToolResult({"passages": passages}, documents)


def _describe(one: RememberedPrompt) -> dict[str, object]:
    return {
        "prompt": one.prompt,
        "kept": one.num_kept,
        "painted": one.num_painted,
        "scores": {name: round(score, 4) for name, score in one.scores.items()},
        "reasons": list(one.reasons),
    }

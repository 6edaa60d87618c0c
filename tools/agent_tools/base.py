"""What every tool has in common: checked arguments in, compact JSON out, errors that a model can act on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, TypeVar

import orjson
from langchain_core.documents import Document
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.v1 import ValidationError as ValidationErrorV1

from ...errors import MaskwrightError

PicturePath = Annotated[str, Field(min_length=1, max_length=1000, description="path of a picture, below the root")]
CategoryName = Annotated[str, Field(min_length=1, max_length=100, description="name of the object's class")]
Seed = Annotated[int, Field(ge=0, lt=2**31, description="the same seed makes the same result; another one varies it")]
Strength = Annotated[float, Field(ge=0, le=1, description="0 keeps what it starts from, 1 departs from it most")]
BoxXYXY = Annotated[list[int], Field(min_length=4, max_length=4)]
"""[left, top, right, bottom]; a list, since not every provider takes the schema of a tuple."""


class ToolInput(BaseModel):
    """Arguments of a tool. A subclass's docstring is what the model is told of the tool."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool call came to."""

    summary: Mapping[str, object]
    """For the model: JSON values, paths relative to the root."""
    artifact: Sequence[Path] | Sequence[Document] | None = None
    """For the application, and fit for a LangGraph checkpoint: absolute paths of what was written, or documents; None
    stands for the summary."""


Arguments = TypeVar("Arguments", bound=ToolInput)


def as_tool(
    name: str,
    arguments: type[Arguments],
    work: Callable[[Arguments], ToolResult],
    lock: AbstractContextManager[object],
) -> BaseTool:
    """A LangChain tool over a function.

    Errors of ours become the text of the answer, with the status "error"; any other exception is a bug, and raises.

    Args:
        name: as the model calls it.
        arguments: schema of the arguments; its docstring becomes the description.
        work: what it does.
        lock: held while it works; tools that share models share a lock.
    """

    def run(**values: object) -> tuple[str, object]:
        try:
            with lock:
                result = work(arguments.model_validate(values))
        except MaskwrightError as exc:
            raise ToolException(f"error: {exc}") from exc
        return orjson.dumps(result.summary).decode(), result.artifact or result.summary

    return StructuredTool(
        name=name,
        description=cleandoc(arguments.__doc__ or ""),
        args_schema=arguments,
        func=run,
        response_format="content_and_artifact",
        handle_tool_error=True,
        handle_validation_error=_explain,
    )


def _explain(exc: ValidationError | ValidationErrorV1) -> str:
    problems = (
        f"{'.'.join(str(part) for part in error['loc']) or 'arguments'}: {error['msg']}" for error in exc.errors()
    )
    return f"error: {'; '.join(problems)}. Call the tool again with corrected arguments."

"""The language models of a recipe's roles, built from its `llm` section; none is loaded before it is asked."""

from __future__ import annotations

from pathlib import Path

from langchain_core.language_models import BaseChatModel

from ..configs.agents import PromptStyle
from ..configs.llm import ChatModelSettings, LLMSettings
from ..models.language import build_chat_model
from ..tools.protocols import PromptReader
from .prompt_files import WRITER_PLACEHOLDERS, read_prompt_file
from .structured_prompt import StructuredPromptWriter
from .writing import Captioner, PromptWriter

WRITERS: dict[PromptStyle, type[PromptWriter]] = {"caption": PromptWriter, "structured": StructuredPromptWriter}
"""By the style of their prompts."""


def build_writer(llm: LLMSettings, reader: PromptReader, seed: int, style: PromptStyle = "caption") -> PromptWriter:
    """Planner and writer as the recipe names them, for the text encoder that reads what is written.

    Raises:
        InputError: a model's name or key is wrong, or the writer's prompt file.
    """
    planner, writer = llm.of("planner"), llm.of("writer")
    return WRITERS[style](
        planner=build_chat(planner, seed),
        planner_name=planner.model,
        writer=build_chat(writer, seed),
        writer_name=writer.model,
        max_repairs=llm.max_repairs,
        count_tokens=reader.count_tokens,
        max_tokens=reader.max_tokens,
        question=read_prompt_file(Path(llm.writer_prompt), "writer", WRITER_PLACEHOLDERS)
        if llm.writer_prompt
        else None,
    )


def build_captioner(llm: LLMSettings, seed: int) -> Captioner | None:
    """The vision model of the recipe, where it names one; raises as `build_writer`."""
    if llm.captioner is None:
        return None
    return Captioner(model=build_chat(llm.captioner, seed), name=llm.captioner.model, max_repairs=llm.max_repairs)


def build_chat(settings: ChatModelSettings, seed: int) -> BaseChatModel:
    """The chat model of one role; raises as `build_writer`."""
    return build_chat_model(
        settings.model,
        base_url=settings.base_url,
        api_key_env=settings.api_key_env,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        seed=seed,
        timeout_s=settings.timeout_s,
        max_retries=settings.max_retries,
    )

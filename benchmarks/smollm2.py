"""The embedded language model: how fast it is loaded and answers, and how often its JSON is valid.

Speed is a ratio in one run: the GGUF file read by transformers, and the same weights unpacked; weights left packed,
dequantized, and dequantized in a batch. Validity is the share of
answers that Pydantic takes, with the schema held while decoding and with the schema only described in the prompt.
Run: maskwright models fetch smollm2 && python benchmarks/smollm2.py [--tokens 60] [--answers 20]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Literal

import torch
from langchain_core.messages import AIMessage
from pydantic import BaseModel, Field, ValidationError
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from maskwright.models.fetch import locate_model
from maskwright.models.gguf_files import read_weights
from maskwright.models.smollm2 import EmbeddedChatModel

THINGS = ("a red apple", "a dog", "a bicycle", "a zebra", "an umbrella", "a teapot", "a tractor", "a lighthouse")
STORY = "Write a long story about {thing}."


class Prompt(BaseModel):
    prompt: str = Field(max_length=200)


class Prompts(BaseModel):
    prompts: list[Annotated[str, Field(max_length=200)]] = Field(min_length=4, max_length=4)


class Criterion(BaseModel):
    name: str = Field(max_length=30)
    outcome: Literal["meet", "fail", "abstain"]
    reason: str = Field(max_length=120)


class Judgement(BaseModel):
    criteria: list[Criterion] = Field(min_length=1, max_length=4)


QUESTIONS: dict[type[BaseModel], str] = {
    Prompt: 'Write a prompt for a picture of {thing}. Answer in JSON: {{"prompt": "..."}}',
    Prompts: 'Write four prompts for pictures of {thing}. Answer in JSON: {{"prompts": ["...", "...", "...", "..."]}}',
    Judgement: "A picture of {thing} has sharpness 0.2 and one part. Judge the criteria sharp and whole. Answer in "
    'JSON: {{"criteria": [{{"name": "...", "outcome": "meet, fail or abstain", "reason": "..."}}]}}',
}


def time_packed(path: Path, num_tokens: int) -> float:
    """Tokens a second of transformers with the GGUF's weights left packed."""
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    ids = tokenizer(STORY.format(thing=THINGS[0]), return_tensors="pt").input_ids
    start = perf_counter()
    model.generate(ids, max_new_tokens=num_tokens, min_new_tokens=num_tokens, do_sample=False)
    return num_tokens / (perf_counter() - start)


def time_batch(model: EmbeddedChatModel, num_prompts: int) -> float:
    """Tokens a second of `num_prompts` stories in one batch."""
    start = perf_counter()
    answers = model.batch([STORY.format(thing=thing) for thing in THINGS[:num_prompts]])
    return _num_tokens(answers) / (perf_counter() - start)


def _num_tokens(answers: Sequence[AIMessage]) -> int:
    return sum(answer.usage_metadata["output_tokens"] for answer in answers if answer.usage_metadata)


def count_valid(model: EmbeddedChatModel, schema: type[BaseModel], num_answers: int, *, constrained: bool) -> int:
    prompts = [QUESTIONS[schema].format(thing=THINGS[index % len(THINGS)]) for index in range(num_answers)]
    held = {"response_format": {"type": "json_schema", "json_schema": {"schema": schema.model_json_schema()}}}
    valid = 0
    for first in range(0, num_answers, len(THINGS)):
        bound = model.bind(seed=first, **(held if constrained else {}))
        valid += sum(_is_valid(schema, answer.text) for answer in bound.batch(prompts[first : first + len(THINGS)]))
    return valid


def _is_valid(schema: type[BaseModel], text: str) -> bool:
    try:
        schema.model_validate_json(text.strip().removeprefix("```json").strip("`\n "))
    except ValidationError:
        return False
    return True


def report_loading(path: Path, console: Console) -> None:
    with TemporaryDirectory() as folder:
        unpacked = Path(folder) / "unpacked"
        read_weights(path, unpacked)
        packed_s, unpacked_s = (min(time_loading(path, kept) for _ in range(3)) for kept in (None, unpacked))
    table = Table("loaded from", "seconds", "ratio", title="loading, files in the page cache")
    table.add_row("the GGUF file, by transformers", f"{packed_s:.1f}", "1.0")
    table.add_row("the same, kept unpacked", f"{unpacked_s:.1f}", f"{packed_s / unpacked_s:.1f}")
    console.print(table)


def time_loading(path: Path, unpacked: Path | None) -> float:
    """Seconds until every weight was seen once: those of an unpacked file are mapped, and read as they are used."""
    start = perf_counter()
    for weight in read_weights(path, unpacked)[0].parameters():
        weight.sum()
    return perf_counter() - start


def report_speed(path: Path, num_tokens: int, console: Console) -> None:
    model = EmbeddedChatModel(model_path=path, device="cpu", max_tokens=num_tokens)
    model.get_token_ids("load")
    console.print(f"{torch.get_num_threads()} threads")
    runs: dict[str, Callable[[], float]] = {
        f"dequantized, {n} at once": lambda n=n: time_batch(model, n) for n in (1, 4, 8)
    }
    speeds = {name: max(run() for _ in range(3)) for name, run in runs.items()}
    packed = time_packed(path, num_tokens=5)
    table = Table("loaded and asked", "tokens/s", "ratio", title=f"SmolLM2 on the CPU, {num_tokens} tokens a prompt")
    for name, speed in ({"packed, transformers' generate": packed} | speeds).items():
        table.add_row(name, f"{speed:.1f}", f"{speed / packed:.1f}")
    console.print(table)


def report_validity(path: Path, num_answers: int, console: Console) -> None:
    model = EmbeddedChatModel(model_path=path, temperature=0.7, max_tokens=400)
    table = Table("schema", "held", "described only", title=f"valid answers of {num_answers}")
    for schema in QUESTIONS:
        counts = [count_valid(model, schema, num_answers, constrained=constrained) for constrained in (True, False)]
        table.add_row(schema.__name__, *map(str, counts))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--answers", type=int, default=20)
    arguments = parser.parse_args()
    path, console = locate_model("smollm2"), Console()
    report_loading(path, console)
    report_speed(path, arguments.tokens, console)
    report_validity(path, arguments.answers, console)


if __name__ == "__main__":
    main()

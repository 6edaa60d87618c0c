"""The embedded chat model: batches, seeds, stops, streams and schemas, on a tiny checkpoint and on the real weights."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import pytest
import torch
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import RunnableConfig
from model_helpers import fetched
from pydantic import BaseModel, Field, ValidationError
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from maskwright.errors import BrokenRunError, ModelNotFetchedError
from maskwright.graphs.crews import batched_planner
from maskwright.graphs.lockstep import Lockstep, run_in_lockstep
from maskwright.graphs.writing import DiversityElements, PromptWriter, Usage
from maskwright.models import causal_lm, generation, gguf_files
from maskwright.models.causal_lm import CausalLM, load_causal_lm
from maskwright.models.constrained import JsonSchema, UnsupportedSchemaError, bound_schema
from maskwright.models.generation import Piece, Request, answer_all
from maskwright.models.smollm2 import EmbeddedChatModel, NotTextError, PromptTooLongError, invoke_together

TEMPLATE = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""
"""As published with HuggingFaceTB/SmolLM2-135M-Instruct."""

CONTEXT_TOKENS = 512
PROMPTS = ["hi", "paint a red apple on a wooden table", "a dog", "Tell me, in many words, what a bicycle looks like."]


class Verdict(BaseModel):
    name: str = Field(max_length=12)
    outcome: bool
    count: int
    parts: list[Annotated[str, Field(max_length=12)]] = Field(max_length=3)


class Story(BaseModel):
    title: str
    outcome: Literal["meet", "fail"]
    chapters: list[str] = Field(min_length=1, max_length=9)
    share: float


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `save_pretrained` writes it: a byte-level BPE and a Llama of random weights."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    bpe = Tokenizer(tokenizer_models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        PROMPTS, BpeTrainer(vocab_size=300, special_tokens=control, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=control[1], eos_token=control[2])
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def model(checkpoint: Path) -> Iterator[EmbeddedChatModel]:
    num_threads = torch.get_num_threads()
    # OpenMP's threads spin while they wait for each other: with so small a model, on a busy machine, little else.
    torch.set_num_threads(1)
    yield EmbeddedChatModel(model_path=checkpoint, device="cpu", max_tokens=24, temperature=1.0, top_p=1.0)
    torch.set_num_threads(num_threads)


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Prompts that are decoded together, as it happens."""
    sizes: list[int] = []
    decode_all = generation.decode

    def record(lm: CausalLM, requests: Sequence[Request]) -> Iterator[tuple[int, Piece]]:
        sizes.append(len(requests))
        return decode_all(lm, requests)

    monkeypatch.setattr("maskwright.models.generation.decode", record)
    monkeypatch.setattr("maskwright.models.smollm2.decode", record)
    return sizes


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Rows and tokens of each forward, as they happen."""
    found: list[tuple[int, ...]] = []
    step = CausalLM.step

    def record(self: CausalLM, ids: torch.Tensor, attention: torch.Tensor, cache: object) -> torch.Tensor:
        found.append(tuple(ids.shape))
        return step(self, ids, attention, cache)

    monkeypatch.setattr(CausalLM, "step", record)
    return found


def _texts(messages: list[AIMessage]) -> list[str]:
    return [message.text for message in messages]


def _one_by_one(model: EmbeddedChatModel) -> list[AIMessage]:
    return [model.invoke(prompt) for prompt in PROMPTS]


def _batch(model: EmbeddedChatModel) -> list[AIMessage]:
    return model.batch(PROMPTS)


def _abatch(model: EmbeddedChatModel) -> list[AIMessage]:
    return asyncio.run(model.abatch(PROMPTS))


def _ainvoke(model: EmbeddedChatModel) -> list[AIMessage]:
    async def invoke_all() -> list[AIMessage]:
        return await asyncio.gather(*(model.ainvoke(prompt) for prompt in PROMPTS))

    return asyncio.run(invoke_all())


def _generate(model: EmbeddedChatModel) -> list[AIMessage]:
    return _messages(model.generate([[HumanMessage(prompt)] for prompt in PROMPTS]))


def _agenerate(model: EmbeddedChatModel) -> list[AIMessage]:
    return _messages(asyncio.run(model.agenerate([[HumanMessage(prompt)] for prompt in PROMPTS])))


def _messages(result: LLMResult) -> list[AIMessage]:
    return [row[0].message for row in result.generations]


def _stream(model: EmbeddedChatModel) -> list[AIMessage]:
    return [sum(chunks[1:], chunks[0]) for chunks in (list(model.stream(prompt)) for prompt in PROMPTS)]


@pytest.mark.parametrize(
    ("call", "prefills"),
    [
        (_batch, [4]),
        (_abatch, [4]),
        (_generate, [4]),
        (_agenerate, [4]),
        (_ainvoke, [1, 1, 1, 1]),
        (_stream, [1, 1, 1, 1]),
    ],
)
@pytest.mark.parametrize("temperature", [0, 1.0], ids=["greedy", "sampled"])
def test_every_way_of_calling_gives_the_same_answers(
    call: Callable[[EmbeddedChatModel], list[AIMessage]],
    prefills: list[int],
    temperature: float,
    model: EmbeddedChatModel,
    forwards: list[int],
) -> None:
    model.temperature = temperature
    alone = _one_by_one(model)
    assert len({message.text for message in alone}) == len(PROMPTS)
    forwards.clear()
    together = call(model)
    assert forwards == prefills
    assert _texts(together) == _texts(alone)
    assert [m.usage_metadata for m in together] == [m.usage_metadata for m in alone]
    assert [m.response_metadata["finish_reason"] for m in together] == [
        m.response_metadata["finish_reason"] for m in alone
    ]


def test_a_batch_is_no_larger_than_asked(model: EmbeddedChatModel, forwards: list[int]) -> None:
    model.batch_size = 3
    model.batch([*PROMPTS, PROMPTS[0]])
    assert forwards == [3, 1], "equal prompts are decoded once"


def test_what_all_prompts_begin_with_is_read_once(model: EmbeddedChatModel, shapes: list[tuple[int, ...]]) -> None:
    texts = [f"Name the colours of a {thing}." for thing in ("dog", "red fox", "dog")] + ["Name the colours of a "]
    alone = [model.invoke(text).text for text in texts]
    num_tokens = [tokens for rows, tokens in shapes if tokens > 10]
    shapes.clear()
    assert _texts(model.batch(texts)) == alone
    (one, num_shared), (rows, num_left) = shapes[:2]
    assert (one, rows) == (1, 3), "of equal prompts, one is read"
    assert num_shared > num_left
    assert num_shared + num_left == max(num_tokens)


def test_each_prompt_of_a_batch_is_a_call_of_its_own(model: EmbeddedChatModel) -> None:
    class Recorder(BaseCallbackHandler):
        def __init__(self) -> None:
            self.ended: list[str] = []

        def on_llm_end(self, response: LLMResult, **kwargs: object) -> None:
            self.ended.append(response.generations[0][0].text)

    recorders = [Recorder() for _ in PROMPTS]
    answers = model.batch(PROMPTS, [{"callbacks": [recorder]} for recorder in recorders])
    assert [recorder.ended for recorder in recorders] == [[text] for text in _texts(answers)]


def test_a_bad_prompt_fails_alone(model: EmbeddedChatModel, forwards: list[int]) -> None:
    good, bad, other = model.batch(["hi", "x" * CONTEXT_TOKENS, "a dog"], return_exceptions=True)
    assert isinstance(bad, PromptTooLongError)
    assert _texts([good, other]) == _texts([model.invoke("hi"), model.invoke("a dog")])
    assert forwards == [2, 1, 1]


def test_calls_of_several_askers_share_a_batch_and_fail_alone(model: EmbeddedChatModel, forwards: list[int]) -> None:
    class Reply(BaseModel):
        word: str = Field(max_length=3)

    texts = ("hi", "a dog", "x" * CONTEXT_TOKENS, "ho")
    held = [model.with_structured_output(Reply.model_json_schema(), include_raw=True) for _ in texts]
    calls = [(runnable, [HumanMessage(text)], RunnableConfig()) for runnable, text in zip(held, texts, strict=True)]
    first, second, bad, last, plain = invoke_together(model, [*calls, (model, [HumanMessage("hi")], RunnableConfig())])
    assert forwards == [3, 1], "those held to a schema in one batch, the plain one alone"
    assert isinstance(bad, PromptTooLongError)
    alone = [runnable.invoke(messages) for runnable, messages, _ in calls if messages[0].text in ("hi", "a dog", "ho")]
    assert [reply["raw"].text for reply in (first, second, last)] == [reply["raw"].text for reply in alone]
    assert plain.text == model.invoke("hi").text


def test_elements_of_several_classes_are_planned_in_one_batch(model: EmbeddedChatModel, forwards: list[int]) -> None:
    writer = PromptWriter(
        planner=model.model_copy(update={"max_tokens": 200}),
        planner_name="planner",
        writer=model,
        writer_name="writer",
        max_repairs=0,
        count_tokens=len,
        max_tokens=None,
    )

    def plan(category: str, lockstep: Lockstep, place: int) -> DiversityElements:
        return batched_planner(writer, lockstep, place).plan(category, Usage())

    together = list(run_in_lockstep(plan, ["dog", "cat", "cup"], 8, threading.Event()))
    assert forwards[:3] == [3, 3, 3]
    assert together == [writer.plan(category, Usage()) for category in ("dog", "cat", "cup")]


def test_the_seed_decides(model: EmbeddedChatModel) -> None:
    texts = [model.bind(seed=seed).invoke("hi").text for seed in (1, 2, 3)]
    assert len(set(texts)) == 3
    assert [model.invoke("hi", seed=seed).text for seed in (3, 2, 1)] == texts[::-1]


def test_threads_load_once_and_do_not_disturb_each_other(
    model: EmbeddedChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    causal_lm._load.cache_clear()
    loads: list[object] = []
    load = gguf_files.AutoModelForCausalLM.from_pretrained

    def record(*args: object, **kwargs: object) -> object:
        loads.append(args)
        return load(*args, **kwargs)

    monkeypatch.setattr(gguf_files.AutoModelForCausalLM, "from_pretrained", record)
    texts: dict[str, str] = {}

    def answer(prompt: str) -> None:
        texts[prompt] = model.invoke(prompt).text

    threads = [threading.Thread(target=answer, args=(prompt,)) for prompt in PROMPTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert [texts[prompt] for prompt in PROMPTS] == _texts(_one_by_one(model))


def test_a_stop_text_ends_the_answer(model: EmbeddedChatModel) -> None:
    whole = model.invoke("hi").text
    stop = whole[5:8]
    cut = whole[: whole.index(stop)]
    stopped = model.invoke("hi", stop=["never said", stop])
    assert (stopped.text, stopped.response_metadata["finish_reason"]) == (cut, "stop")
    chunks = [chunk.text for chunk in model.bind(stop=[stop]).stream("hi")]
    assert "".join(chunks) == cut
    model.stop = [stop]
    assert model.invoke("hi").text == cut
    assert model.invoke("hi", stop=[]).text == whole


def test_max_tokens_cuts_and_says_so(model: EmbeddedChatModel) -> None:
    answer = model.invoke("hi", max_tokens=3)
    assert answer.response_metadata == {"model_name": "tiny-llama0", "finish_reason": "length"}
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 3


def test_a_stream_shows_whole_characters_as_they_come(model: EmbeddedChatModel) -> None:
    chunks = list(model.stream("hi"))
    assert sum(bool(chunk.text) for chunk in chunks) > 5
    assert [chunk.chunk_position for chunk in chunks] == [None] * (len(chunks) - 1) + ["last"]
    assert sum((chunk.usage_metadata or {})["input_tokens"] > 0 for chunk in chunks) == 1


def test_the_loop_goes_on_while_a_model_answers(model: EmbeddedChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    step = CausalLM.step
    inside, let_go = threading.Event(), threading.Event()

    def held(self: CausalLM, *args: torch.Tensor) -> torch.Tensor:
        inside.set()
        assert let_go.wait(10)
        return step(self, *args)

    monkeypatch.setattr(CausalLM, "step", held)

    async def both() -> AIMessage:
        answer = asyncio.ensure_future(model.ainvoke("hi"))
        while not inside.is_set():
            await asyncio.sleep(0.001)
        let_go.set()
        return await answer

    assert asyncio.run(both()).text


@pytest.mark.parametrize("temperature", [0, 1.0, 5.0])
def test_answers_hold_to_a_schema(temperature: float, model: EmbeddedChatModel) -> None:
    bound = model.with_structured_output(Verdict)
    alone = [bound.invoke(prompt, temperature=temperature, max_tokens=400) for prompt in PROMPTS]
    together = bound.batch(PROMPTS, temperature=temperature, max_tokens=400)
    assert together == alone
    assert all(isinstance(answer, Verdict) for answer in together)


def test_schema_forms_agree(model: EmbeddedChatModel) -> None:
    model.max_tokens = 400
    as_class = model.with_structured_output(Verdict).invoke("hi")
    assert isinstance(as_class, Verdict)
    as_dict = model.with_structured_output(Verdict.model_json_schema(), method="json_mode").invoke("hi")
    assert as_dict.keys() == Verdict.model_fields.keys()
    with_raw = model.with_structured_output(Verdict, include_raw=True).invoke("hi")
    assert with_raw["parsed"] == as_class
    assert Verdict.model_validate_json(with_raw["raw"].text) == as_class
    assert with_raw["raw"].response_metadata["finish_reason"] == "stop"
    *_, streamed = model.with_structured_output(Verdict).stream("hi")
    assert streamed == as_class


@pytest.mark.parametrize("max_tokens", [80, 90, 100, 120, 150])
def test_an_answer_is_closed_before_its_budget_ends(max_tokens: int, model: EmbeddedChatModel) -> None:
    bound = model.bind(response_format={"type": "json_schema", "json_schema": {"schema": Story.model_json_schema()}})
    for answer in bound.batch(PROMPTS, max_tokens=max_tokens):
        assert answer.response_metadata["finish_reason"] == "length"
        assert answer.usage_metadata["output_tokens"] <= max_tokens
        Story.model_validate_json(answer.text)


def test_what_no_budget_can_close_is_never_parsed(model: EmbeddedChatModel) -> None:
    model.max_tokens = 5
    result = model.with_structured_output(Verdict, include_raw=True).invoke("hi")
    assert result["raw"].response_metadata["finish_reason"] == "length"
    assert result["raw"].usage_metadata["output_tokens"] == 5
    assert result["parsed"] is None
    assert result["parsing_error"]


@pytest.mark.parametrize(
    ("response_format", "says"),
    [
        ({"type": "json_schema", "json_schema": {"schema": {"type": "nothing"}}}, "Invalid type: nothing"),
        ({"type": "json_schema", "json_schema": {"schema": {"not": {}}}}, "not"),
        ({"type": "json_schema"}, "unknown response_format"),
        ("json", "unknown response_format 'json'"),
    ],
    ids=["malformed", "keyword", "no schema", "no mapping"],
)
def test_what_cannot_be_held_is_refused(response_format: object, says: str, model: EmbeddedChatModel) -> None:
    with pytest.raises(UnsupportedSchemaError, match=says):
        model.invoke("hi", response_format=response_format)


RANGE = {"minimum": -(10**9), "maximum": 10**9}
TEXT, COUNT = {"type": "string", "maxLength": 400}, {"type": "integer", **RANGE}


@pytest.mark.parametrize(
    ("schema", "bounded"),
    [
        ({"type": "string"}, TEXT),
        ({"type": "string", "maxLength": 900}, {"type": "string", "maxLength": 900}),
        ({"type": "string", "minLength": 500}, {"type": "string", "minLength": 500, "maxLength": 500}),
        ({"type": "string", "enum": ["a"]}, {"type": "string", "enum": ["a"]}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"], "maxLength": 400}),
        ({"type": "integer"}, COUNT),
        ({"type": "integer", "minimum": 0}, {"type": "integer", "minimum": 0, "maximum": 10**9}),
        ({"type": "number"}, {"type": "number", "multipleOf": 1e-6, **RANGE}),
        ({"type": "array", "items": {"type": "string"}}, {"type": "array", "items": TEXT, "maxItems": 16}),
        (
            {"type": "object", "properties": {"type": {"type": "string"}, "items": {"$ref": "#/$defs/A"}}},
            {
                "type": "object",
                "properties": {"type": TEXT, "items": {"$ref": "#/$defs/A"}},
                "additionalProperties": False,
            },
        ),
        ({"properties": {}, "additionalProperties": True}, {"properties": {}, "additionalProperties": True}),
        ({"$defs": {"A": {"type": "string"}}}, {"$defs": {"A": TEXT}}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"anyOf": [TEXT, {"type": "null"}]}),
        ({"allOf": [{"type": "string"}]}, {"allOf": [{"type": "string"}]}),
    ],
    ids=str,
)
def test_only_what_is_open_is_bounded(schema: JsonSchema, bounded: JsonSchema) -> None:
    assert bound_schema(schema) == bounded


@pytest.mark.parametrize(
    ("messages", "options", "error", "says"),
    [
        ("x" * CONTEXT_TOKENS, {}, PromptTooLongError, "512 tokens of tiny-llama0; shorten the prompt"),
        ("hi", {"max_tokens": CONTEXT_TOKENS}, PromptTooLongError, "lower `max_tokens`"),
        ([HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}])], {}, NotTextError, "image_url"),
        ("hi", {"temperature": -1}, ValidationError, "temperature"),
        ("hi", {"top_p": 0}, ValidationError, "top_p"),
        ("hi", {"temprature": 1}, ValidationError, "temprature"),
    ],
    ids=["long prompt", "long answer", "image", "cold", "nothing likely", "misspelt"],
)
def test_bad_calls_fail_before_decoding(
    messages: str | list[BaseMessage],
    options: dict[str, float],
    error: type[Exception],
    says: str,
    model: EmbeddedChatModel,
    forwards: list[int],
) -> None:
    with pytest.raises(error, match=says):
        model.invoke(messages, **options)
    assert forwards == []


def test_missing_or_damaged_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKWRIGHT_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFetchedError, match="maskwright models fetch smollm2"):
        EmbeddedChatModel().invoke("hi")
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF of a kind")
    with pytest.raises(BrokenRunError, match=r"damaged\.gguf"):
        EmbeddedChatModel(model_path=damaged).invoke("hi")


def test_a_full_gpu_halves_the_batch(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, decode, sizes = load_causal_lm(checkpoint, "cpu"), generation.decode, []

    def crowded(lm: CausalLM, requests: list[Request]) -> object:
        sizes.append(len(requests))
        if len(requests) > 1:
            raise torch.OutOfMemoryError
        return decode(lm, requests)

    requests = [
        Request(prompt_ids=(number,), max_tokens=5, temperature=1.0, top_p=0.9, seed=0) for number in range(10, 13)
    ]
    expected: dict[Request, Piece] = answer_all(lm, requests, 3)
    monkeypatch.setattr(generation, "decode", crowded)
    assert answer_all(lm, requests, 3) == expected
    assert sizes == [3, 1, 1, 1]


@pytest.mark.slow
def test_the_real_model_speaks() -> None:
    """Template, tokens and weights as published: greedy answers are right words, alone and in a batch."""
    model = EmbeddedChatModel(model_path=fetched("smollm2"), temperature=0, max_tokens=40)
    lm = load_causal_lm(fetched("smollm2"), "auto")
    assert lm.tokenizer.chat_template == TEMPLATE
    assert lm.context_tokens == 8192
    questions = ["What is the capital of France?", "What colour is the sky on a clear day?"]
    alone = [model.invoke(question) for question in questions]
    assert "Paris" in alone[0].text
    assert "blue" in alone[1].text.lower()
    assert _texts(model.batch(questions)) == _texts(alone)


@pytest.mark.slow
def test_the_real_model_holds_to_a_schema() -> None:
    model = EmbeddedChatModel(model_path=fetched("smollm2"))
    asked = [f"Write one short image prompt for {thing}." for thing in ("a red apple", "a dog", "a zebra", "a bicycle")]
    answers = model.with_structured_output(Verdict).batch(asked)
    assert all(isinstance(answer, Verdict) for answer in answers)

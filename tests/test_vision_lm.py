"""Vision-language checkpoints of random weights, saved as an owner does and loaded by their folder's name."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest
import torch
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage
from PIL import Image
from pydantic import BaseModel, Field
from safetensors.torch import load_file, save_file
from tiny_vlm import CONTEXT_TOKENS, SAVED, ask_about, to_data_url
from tokenizers.decoders import DecodeStream

from maskwright.errors import BrokenRunError, ImageDecodeError, MaskwrightError, ModelRequestError
from maskwright.models.constrained import UnsupportedSchemaError
from maskwright.models.language import build_chat_model
from maskwright.models.smollm2 import EmbeddedChatModel, PromptTooLongError
from maskwright.models.structured import ask
from maskwright.models.vision_chat import VisionChatModel, to_chat
from maskwright.models.vision_lm import UnreadableMessageError, VisionLM, is_vision_checkpoint, load_vision_lm

RED = Image.new("RGB", (64, 48), "red")
BLUE = Image.new("RGB", (64, 48), "blue")
TALL = Image.new("RGB", (20, 48), "green")


class Look(BaseModel):
    description: str = Field(max_length=12)
    single_object: Literal["meet", "fail", "abstain"]
    num_parts: int


class Story(BaseModel):
    text: str = Field(min_length=12)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: save(tmp_path_factory.mktemp(f"{family} ü")) for family, save in SAVED.items()}


@pytest.fixture
def folder(checkpoints: dict[str, Path]) -> Path:
    return checkpoints["qwen2_vl"]


@pytest.fixture(params=sorted(SAVED))
def model(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> BaseChatModel:
    """Of each family; at temperature 0."""
    return _build(checkpoints[request.param], temperature=0)


def _build(folder: Path, temperature: float | None = None, seed: int = 0, max_tokens: int = 16) -> BaseChatModel:
    return build_chat_model(f"huggingface:{folder}", temperature=temperature, seed=seed, max_tokens=max_tokens)


def test_the_picture_matters(model: BaseChatModel) -> None:
    pictures = [[], [RED], [BLUE], [RED, BLUE], [BLUE, RED], [TALL, RED]]
    answers = [model.invoke([ask_about(*shown)]) for shown in pictures]
    assert len({answer.text for answer in answers}) == len(pictures)
    costs = [answer.usage_metadata["input_tokens"] for answer in answers]
    assert costs[0] < costs[1] == costs[2] < costs[3] == costs[4], "a picture takes its room in the prompt"


def test_the_pixels_reach_the_model(checkpoints: dict[str, Path]) -> None:
    lm = load_vision_lm(checkpoints["idefics3"], "auto")
    seen: list[torch.Tensor] = []
    tower = lm.model.get_submodule("model.vision_model")
    hook = tower.register_forward_pre_hook(lambda _, __, inputs: seen.append(inputs["pixel_values"]), with_kwargs=True)
    picture = RED.copy()
    picture.paste("blue", (32, 0, 64, 48))
    try:
        _build(checkpoints["idefics3"]).invoke([ask_about(picture)])
    finally:
        hook.remove()
    [squares] = seen
    overview = squares[-1].float().cpu()
    sides = [overview[:, :, :6].mean((1, 2)), overview[:, :, -6:].mean((1, 2))]
    assert [int(colour.argmax()) for colour in sides] == [0, 2], "red left, blue right"


def test_the_likeliest_tokens_are_those_of_plain_forwards(checkpoints: dict[str, Path]) -> None:
    """Neither the cache nor what the checkpoint recommends, a penalty on repeating, changes what is chosen."""
    lm = load_vision_lm(checkpoints["idefics3"], "cpu")
    inputs = lm.prepare(to_chat([ask_about(RED)]))
    chosen: list[int] = []
    for _ in range(16):
        with torch.inference_mode():
            token = lm.model(**inputs).logits[0, -1].argmax()
        chosen.append(int(token))
        inputs["input_ids"] = torch.cat([inputs["input_ids"], token[None, None]], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    decoder = DecodeStream(skip_special_tokens=True)
    expected = "".join(decoder.step(lm.tokenizer.backend_tokenizer, token) or "" for token in chosen)
    model = _build(checkpoints["idefics3"], temperature=0).model_copy(update={"device": "cpu"})
    assert model.invoke([ask_about(RED)]).text == expected


def test_a_question_is_answered_alike_whatever_came_before(model: BaseChatModel) -> None:
    questions = [[ask_about()], [ask_about(RED)], [SystemMessage("Be brief."), HumanMessage("Hello")]]
    first = [model.invoke(question).text for question in questions]
    assert [model.invoke(question).text for question in reversed(questions)] == first[::-1]


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_threads_take_turns(model: BaseChatModel, temperature: float) -> None:
    questions = [[ask_about(*shown)] for shown in ([RED], [], [BLUE], [TALL], [RED, BLUE])]
    sampled = model.model_copy(update={"temperature": temperature})
    alone = [sampled.invoke(question).text for question in questions]
    assert [answer.text for answer in sampled.batch(questions)] == alone
    with ThreadPoolExecutor(5) as pool:
        assert [answer.text for answer in pool.map(sampled.invoke, questions)] == alone


def test_a_seed_decides_what_is_sampled(folder: Path) -> None:
    answers = [_build(folder, temperature=1.0, seed=seed).invoke([ask_about(RED)]).text for seed in (3, 3, 4)]
    assert answers[0] == answers[1] != answers[2]


def test_a_schema_is_held(model: BaseChatModel) -> None:
    roomy = model.model_copy(update={"max_tokens": 200, "temperature": 1.0})
    answer = ask(roomy, [ask_about(RED, BLUE)], Look)
    assert (answer.rung, answer.attempts) == ("json_schema", 1)
    assert answer.input_tokens > 0
    assert 0 < answer.output_tokens <= 200
    assert isinstance(roomy.with_structured_output(Look).invoke([ask_about(TALL)]), Look)


def test_the_model_reads_what_its_schema_forced(folder: Path) -> None:
    lm = load_vision_lm(folder, "cpu")
    read: list[int] = []
    hook = lm.model.register_forward_pre_hook(
        lambda _, __, inputs: read.append(int(inputs["input_ids"][0, -1])), with_kwargs=True
    )
    held = (
        _build(folder, max_tokens=200)
        .model_copy(update={"device": "cpu"})
        .with_structured_output(Look, include_raw=True)
    )
    try:
        text = held.invoke([ask_about(RED)])["raw"].text
    finally:
        hook.remove()
    assert text.startswith('{"description": "')
    assert len(read) > 40
    assert text.encode().startswith(lm.tokenizer.decode(read[1:]).encode())


def test_an_answer_out_of_room_is_closed(folder: Path) -> None:
    answer = _build(folder, max_tokens=40).with_structured_output(Story, include_raw=True).invoke([ask_about(RED)])
    assert isinstance(answer["parsed"], Story)
    assert answer["raw"].response_metadata["finish_reason"] == "length"
    assert answer["raw"].usage_metadata["output_tokens"] <= 40


def test_a_stop_text_ends_an_answer(folder: Path) -> None:
    model = _build(folder, temperature=0)
    whole = model.invoke([ask_about(RED)]).text
    stop = whole[2:4]
    stopped = model.invoke([ask_about(RED)], stop=[stop])
    assert stopped.text == whole[: whole.index(stop)]
    assert stopped.response_metadata["finish_reason"] == "stop"


def test_a_stream_is_the_answer(folder: Path) -> None:
    model = _build(folder, temperature=0)
    [*chunks, last] = model.stream([ask_about(RED)])
    streamed, whole = sum(chunks, last), model.invoke([ask_about(RED)])
    assert (streamed.text, streamed.usage_metadata) == (whole.text, whole.usage_metadata)


def _image_url(url: str) -> list[dict[str, object]]:
    return [{"type": "image_url", "image_url": {"url": url}}]


def _base64(url: str) -> str:
    return url.partition(",")[2]


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(_image_url(to_data_url(RED))[0], id="openai"),
        pytest.param({"type": "image_url", "image_url": to_data_url(RED)}, id="openai-short"),
        pytest.param({"type": "image", "base64": _base64(to_data_url(RED)), "mime_type": "image/png"}, id="standard"),
        pytest.param({"type": "image", "url": to_data_url(RED)}, id="standard-url"),
        pytest.param(
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": _base64(to_data_url(RED))},
            },
            id="anthropic",
        ),
        pytest.param(_image_url(to_data_url(RED.convert("P"), "GIF"))[0], id="palette"),
    ],
)
def test_every_form_of_picture_block_shows_the_same(block: dict[str, object]) -> None:
    [turn] = to_chat([HumanMessage([block, {"type": "text", "text": "What?"}])])
    picture, question = turn["content"]
    assert question == {"type": "text", "text": "What?"}
    assert picture["image"].mode == "RGB"
    assert picture["image"].size == (64, 48)
    assert picture["image"].getpixel((60, 40))[1:] == (0, 0)


def test_a_cut_out_is_shown_on_white() -> None:
    cut_out = Image.new("RGBA", (64, 48), (255, 0, 0, 0))
    cut_out.paste((0, 0, 255, 255), (0, 0, 32, 48))
    [turn] = to_chat([ask_about(cut_out)])
    shown = turn["content"][0]["image"]
    assert (shown.getpixel((10, 10)), shown.getpixel((50, 10))) == ((0, 0, 255), (255, 255, 255))


def test_a_photograph_is_shown_upright() -> None:
    exif = Image.Exif()
    exif[274] = 6
    url = to_data_url(Image.new("RGB", (64, 48)), "JPEG", exif=exif)
    [turn] = to_chat([HumanMessage(_image_url(url))])
    assert turn["content"][0]["image"].size == (48, 64)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        pytest.param(
            _image_url("https://example.org/cat.png"),
            UnreadableMessageError,
            r"'https://example\.org/cat\.png', and this model fetches none; expected 'data:",
            id="remote",
        ),
        pytest.param(_image_url("/home/cat.png"), UnreadableMessageError, "fetches none", id="path"),
        pytest.param(_image_url("data:image/png,abc"), UnreadableMessageError, "fetches none", id="no-base64"),
        pytest.param(_image_url("data:image/png;base64,a b!"), ImageDecodeError, "is not base64", id="bad-base64"),
        pytest.param(_image_url("data:image/png;base64,"), ImageDecodeError, "0 bytes, cannot be decoded", id="empty"),
        pytest.param(
            _image_url("data:image/png;base64,aGVsbG8="), ImageDecodeError, "cannot be decoded", id="no-picture"
        ),
        pytest.param(_image_url(to_data_url(RED)[:-40]), ImageDecodeError, "cannot be decoded", id="truncated"),
        pytest.param(
            _image_url(to_data_url(Image.new("1", (20_000, 20_000)))), ImageDecodeError, "too large", id="bomb"
        ),
        pytest.param(
            [{"type": "audio", "base64": "aGVsbG8=", "mime_type": "audio/wav"}],
            UnreadableMessageError,
            "holds 'input_audio'; this model takes text and pictures only",
            id="sound",
        ),
        pytest.param([{"type": "image_url"}], UnreadableMessageError, "missing expected key", id="malformed"),
        pytest.param("see <|image_pad|>", UnreadableMessageError, "chat template: Found 1", id="forged-picture"),
        pytest.param("word " * CONTEXT_TOKENS, PromptTooLongError, "do not fit in the 1024 tokens", id="too-long"),
    ],
)
def test_what_cannot_be_shown_is_said(
    content: str | list[str | dict[str, object]], error: type[MaskwrightError], message: str, folder: Path
) -> None:
    with pytest.raises(error, match=message):
        _build(folder).invoke([HumanMessage(content)])


def test_a_bad_picture_is_the_samples_fault_and_a_remote_one_the_requests(folder: Path) -> None:
    model = _build(folder)
    with pytest.raises(ImageDecodeError):
        ask(model, [HumanMessage(_image_url("data:image/png;base64,aGVsbG8="))], Look)
    with pytest.raises(ModelRequestError, match="fetches none"):
        ask(model, [HumanMessage(_image_url("https://example.org/cat.png"))], Look)


def test_a_schema_that_cannot_be_held_is_refused(folder: Path) -> None:
    with pytest.raises(UnsupportedSchemaError):
        _build(folder).with_structured_output({"type": "nothing"}).invoke([ask_about(RED)])


def test_weights_load_once_for_all_threads(folder: Path) -> None:
    loaded: list[VisionLM] = []
    threads = [threading.Thread(target=lambda: loaded.append(load_vision_lm(folder, "cpu"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 4
    assert all(lm is loaded[0] for lm in loaded)
    assert loaded[0].model.dtype == torch.float32


@pytest.mark.parametrize(
    ("config", "is_vision"),
    [
        pytest.param({"model_type": "anything", "vision_config": {"depth": 1}}, True, id="vision-config"),
        pytest.param({"model_type": "qwen2_vl"}, True, id="model-type"),
        pytest.param({"model_type": "llama"}, False, id="text"),
        pytest.param({"model_type": "gemma3_text", "vision_config": None}, False, id="text-half"),
        pytest.param(None, False, id="no-config"),
    ],
)
def test_the_config_decides_which_class_loads_a_folder(
    config: dict[str, object] | None, is_vision: bool, tmp_path: Path
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert is_vision_checkpoint(tmp_path) == is_vision
    model = build_chat_model(f"huggingface:{tmp_path}", seed=3)
    assert type(model) is (VisionChatModel if is_vision else EmbeddedChatModel)
    assert (model.model_path, model.seed) == (tmp_path, 3)


def _cut_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


def _lose_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if "visual" in name)
    save_file({name: value for name, value in weights.items() if name != lost}, folder / "model.safetensors")


def _lose_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def _lose_processor(folder: Path) -> None:
    (folder / "processor_config.json").unlink()


def _break_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{", encoding="utf-8")


def _be_a_mere_encoder(folder: Path) -> None:
    config = {"model_type": "clip", "vision_config": {"patch_size": 4}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(_cut_short, "cannot load the vision-language model", id="truncated-weights"),
        pytest.param(_lose_weights, "1 weights are missing, such as 'model.visual", id="lost-weights"),
        pytest.param(_lose_template, "has no chat template", id="no-template"),
        pytest.param(_lose_processor, "cannot load the vision-language model", id="no-processor"),
        pytest.param(_break_tokenizer, "cannot load the vision-language model", id="broken-tokenizer"),
        pytest.param(_be_a_mere_encoder, "cannot load the vision-language model", id="no-language"),
    ],
)
def test_a_damaged_folder_is_named(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    folder = SAVED["qwen2_vl"](tmp_path / "kaputt ü")
    damage(folder)
    with pytest.raises(BrokenRunError, match=message) as caught:
        _build(folder).invoke("hi")
    assert "kaputt ü" in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "\udcff"], ids=["cut", "list", "not-utf8"])
def test_an_unreadable_config_is_named_before_any_call(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BrokenRunError, match=r"config\.json.*fetch or save the model again"):
        build_chat_model(f"huggingface:{tmp_path}")

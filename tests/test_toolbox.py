"""A recipe's parts as tools, and the example that plugs them into an agent."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from memory_helpers import record
from model_helpers import fetched
from PIL import Image
from pydantic import Field
from text_helpers import WRITER, ScriptedChat
from tiny_pipelines import save_sd
from toolkit_helpers import write_pictures

from maskwright.configs.memory import MemorySettings
from maskwright.errors import InputError, RecipeError
from maskwright.memory.prompt_history import open_prompt_history
from maskwright.serving.toolbox import build_toolkit

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "tools_in_your_agent.py"
EVERYWHERE = {"recall_prompts", "segment", "score_image", "judge_image", "harmonize", "compose_scene"} | {
    "inspect_dataset",
    "export_dataset",
}
INPAINTING = "agents.image_agent.inpainting={model: nowhere}"


def tools_of(recipe: str, root: Path, *overrides: str) -> dict[str, BaseTool]:
    return {tool.name: tool for tool in build_toolkit(recipe, root=root, overrides=overrides).get_tools()}


@pytest.mark.parametrize(
    ("recipe", "overrides", "more"),
    [
        ("instada", [], {"write_prompt", "generate_image", "vary_instance"}),
        ("text_agent", [], {"write_prompt", "generate_image"}),
        ("instances", [], {"vary_instance"}),
        ("instances", [INPAINTING], {"vary_instance", "edit_region"}),
        ("gen_n_val", [], {"write_prompt", "generate_image"}),
    ],
    ids=["instada", "text_agent", "instances", "inpainting", "painter left open"],
)
def test_a_recipe_offers_what_it_has(tmp_path: Path, recipe: str, overrides: list[str], more: set[str]) -> None:
    assert tools_of(recipe, tmp_path / "neu ü", *overrides).keys() == EVERYWHERE | more


def test_prompts_come_from_the_recipes_writer_and_memory(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    settings = [f"llm.model={WRITER}", f"memory.path={memory}"]
    tools = tools_of("instada", tmp_path / "root", *settings)
    assert json.loads(tools["recall_prompts"].invoke({"category": "apple"})) == {"best": [], "worst": []}
    assert not memory.exists()
    open_prompt_history(MemorySettings(path=memory)).upsert([record("a", kept=4)])
    assert len(json.loads(tools["recall_prompts"].invoke({"category": "apple"}))["best"]) == 1
    written = [json.loads(tools["write_prompt"].invoke({"category": "apple", "seed": seed})) for seed in range(4)]
    assert all("apple" in one["prompt"] for one in written)
    assert len({one["prompt"] for one in written}) > 1
    again = tools["write_prompt"].invoke({"category": "apple", "previous_prompt": "an apple", "problem": "blurred"})
    assert json.loads(again)["prompt"].startswith("one shiny")


def test_a_region_is_repainted_and_the_rest_stays(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    inpainting = {"model": str(save_sd(tmp_path / "Modell ü")), "side_px": 64, "num_inference_steps": 2}
    tools = tools_of("instances", tmp_path, f"agents.image_agent.inpainting={json.dumps(inpainting)}")
    asked = {"image": "bilder/foto ü.png", "prompt": "a bolt", "category": "bolt", "box_xyxy": [16, 12, 40, 36]}
    answer = json.loads(tools["edit_region"].invoke(asked))
    before, after = (
        np.asarray(Image.open(tmp_path / name).convert("RGB")) for name in ("bilder/foto ü.png", answer["path"])
    )
    changed = (before != after).any(axis=2)
    assert before.shape == after.shape
    assert changed[16:32, 20:36].mean() > 0.9
    assert not changed[:6].any()
    assert not changed[:, 48:].any()


def test_a_photograph_is_cut_out_without_any_weights(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    tools = tools_of("instada", tmp_path)
    cut = json.loads(tools["segment"].invoke({"image": "bilder/disc.png", "category": "disc"}))
    assert cut["masker"] == "grabcut"


@pytest.mark.parametrize(("recipe", "error"), [("instadda", RecipeError), ("instada", InputError)])
def test_what_is_wrong_is_said_at_once(tmp_path: Path, recipe: str, error: type[InputError]) -> None:
    (tmp_path / "datei").write_text("x", encoding="utf-8")
    with pytest.raises(error, match=r"instadda|is a file"):
        build_toolkit(recipe, root=tmp_path / "datei")


class ToolCallingChat(ScriptedChat):
    """Calls the next tool of its script, and ends in words."""

    calls: list[dict[str, object]] = Field(default_factory=list)
    offered: list[str] = Field(default_factory=list)

    def bind_tools(self, tools: object, **kwargs: object) -> Runnable[LanguageModelInput, AIMessage]:
        self.offered[:] = [tool.name for tool in tools]  # type: ignore[attr-defined]
        return self

    def _generate(self, messages: list[BaseMessage], *args: object, **kwargs: object) -> ChatResult:
        done = sum(isinstance(message, ToolMessage) for message in messages)
        message = AIMessage("done")
        if done < len(self.calls):
            message = AIMessage("", tool_calls=[{**self.calls[done], "id": str(done), "type": "tool_call"}])
        return ChatResult(generations=[ChatGeneration(message=message)])


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tools_in_your_agent", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_with_a_model_that_calls_tools(tmp_path: Path) -> None:
    calls: list[dict[str, object]] = [
        {"name": "generate_image", "args": {"category": "apple", "prompt": "a red apple"}},
        {"name": "score_image", "args": {"image": "outputs/image-1.png", "texts": ["an apple"]}},
    ]
    model = ToolCallingChat(calls=calls)
    messages = example().run("a red apple", tmp_path, model, calls_tools=True)
    assert set(model.offered) == {"write_prompt", "generate_image", "score_image"}
    scored = [message for message in messages if isinstance(message, ToolMessage)][-1]
    assert json.loads(scored.text)["scores"][0]["score"] > 0.5
    assert (tmp_path / "outputs" / "image-1.png").is_file()


@pytest.mark.slow
def test_the_example_on_the_embedded_model(tmp_path: Path) -> None:
    fetched("smollm2")
    command = [sys.executable, str(EXAMPLE), "a red apple", "--root", str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert (tmp_path / "outputs" / "image-1.png").is_file()
    assert json.loads(done.stdout.strip().split("ai: ")[-1])["scores"]

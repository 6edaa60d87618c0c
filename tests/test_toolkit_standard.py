"""LangChain's own suites for tools, over every tool that we have."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests
from memory_helpers import chroma, record
from toolkit_helpers import DISC, PHOTO, Shelf, toolkit, write_pictures

from maskwright.configs.image_agent import VariationSettings
from maskwright.configs.judging import ImageEmbedderSettings, TextScorerSettings
from maskwright.configs.masking import GrabCutSettings
from maskwright.configs.sprites import SpritesSettings
from maskwright.tools.judging.similarity import Lite0Embedder, LitTextScorer
from maskwright.tools.masking.grabcut import GrabCutMasker
from maskwright.tools.painting.sprites import SpritesPainter
from maskwright.tools.painting.variation import VariationPainter

EXAMPLES: dict[str, dict[str, Any]] = {
    "recall_prompts": {"category": "apple"},
    "retrieve_knowledge": {"query": "apples"},
    "write_prompt": {"category": "apple"},
    "generate_image": {"category": "apple", "prompt": "a red apple"},
    "vary_instance": {"category": "disc", "image": DISC},
    "edit_region": {"category": "disc", "image": PHOTO, "prompt": "rust", "box_xyxy": [4, 4, 20, 30]},
    "segment": {"category": "disc", "image": DISC, "box_xyxy": [8, 4, 56, 44]},
    "score_image": {"image": DISC, "texts": ["apple", "disc"]},
    "judge_image": {"image": DISC, "category": "apple", "reference_images": [PHOTO]},
    "harmonize": {"background": PHOTO, "cutout": DISC, "centre_xy": [20, 20]},
    "compose_scene": {"background": PHOTO, "cutouts": [{"image": DISC, "category": "disc"}]},
    "inspect_dataset": {"path": "satz"},
    "export_dataset": {"path": "satz", "to": "yolo"},
}


@pytest.fixture(scope="class", params=EXAMPLES)
def given_tool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BaseTool:
    """Embedded parts, but for the writer and the painter within a region, which need weights."""
    root = tmp_path_factory.mktemp("wurzel")
    write_pictures(root)
    history = chroma(root / "memory")
    history.upsert([record("a", kept=4), record("b", kept=0)])
    kit = toolkit(
        root,
        prompt_memory=history,
        retriever=Shelf(),
        text_painter=SpritesPainter(SpritesSettings(num_inference_steps=1)),
        source_painter=VariationPainter(VariationSettings(max_side_px=64)),
        masker=GrabCutMasker(GrabCutSettings(iterations=1)),
        text_scorer=LitTextScorer(TextScorerSettings()),
        image_embedder=Lite0Embedder(ImageEmbedderSettings()),
    )
    tools = {tool.name: tool for tool in kit.get_tools()}
    assert tools.keys() == EXAMPLES.keys()
    part = {"image": DISC, "category": "disc"}
    scene = json.loads(tools["compose_scene"].invoke({"background": PHOTO, "cutouts": [part]}))
    (root / scene["dataset"]).rename(root / "satz")
    return tools[request.param]


class _EveryTool:
    """The suites ask by properties; each class run is over one tool."""

    @pytest.fixture(autouse=True)
    def _given(self, given_tool: BaseTool) -> None:
        self.given = given_tool

    @property
    def tool_constructor(self) -> BaseTool:
        return self.given

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return EXAMPLES[self.given.name]


class TestToolsUnit(_EveryTool, ToolsUnitTests):  # type: ignore[misc]
    def test_a_model_is_told_what_it_does(self, tool: BaseTool) -> None:
        assert len(tool.description) > 40
        assert not [name for name, argument in tool.args.items() if "description" not in argument]


class TestToolsIntegration(_EveryTool, ToolsIntegrationTests):  # type: ignore[misc]
    pass

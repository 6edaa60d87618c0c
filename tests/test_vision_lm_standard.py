"""LangChain's own suites for chat models that are shown pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from PIL import Image
from tiny_vlm import encode, save_qwen2_vl

from maskwright.models.vision_chat import VisionChatModel


class TestVisionUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[VisionChatModel]:
        return VisionChatModel

    @property
    def supports_image_inputs(self) -> bool:
        return True


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen2_vl(tmp_path_factory.mktemp("tiny vlm"))


class TestVisionIntegration(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _checkpoint(self, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The suite downloads the picture that it shows; it gets one of ours."""
        self.folder = checkpoint
        monkeypatch.setattr(
            httpx, "get", lambda *_, **__: httpx.Response(200, content=encode(Image.new("RGB", (64, 48))))
        )

    @property
    def chat_model_class(self) -> type[VisionChatModel]:
        return VisionChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model_path": self.folder, "device": "cpu", "max_tokens": 200, "temperature": 1.0}

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": "json_schema"}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_urls(self) -> bool:
        return False

    @property
    def supports_model_override(self) -> bool:
        return False

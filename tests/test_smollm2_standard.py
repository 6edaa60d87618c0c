"""LangChain's own suites for chat models; features that ours does not have are declared, not skipped."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from model_helpers import fetched

from maskwright.models.smollm2 import EmbeddedChatModel


class TestSmolLM2Unit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[EmbeddedChatModel]:
        return EmbeddedChatModel


@pytest.mark.slow
class TestSmolLM2Integration(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _weights(self) -> None:
        fetched("smollm2")

    @property
    def chat_model_class(self) -> type[EmbeddedChatModel]:
        return EmbeddedChatModel

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": "json_schema"}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return False

"""LangChain's own suite for vector stores on the store that prompts are kept in, with the embeddings that we ship."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_chroma import Chroma
from langchain_core.embeddings import Embeddings
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from memory_helpers import record
from model_helpers import fetched

from maskwright.configs.memory import MemorySettings
from maskwright.memory.chroma_store import ChromaFolder
from maskwright.memory.prompt_history import PromptHistory, open_prompt_history
from maskwright.models.embeddings import MiniLM


class TestChroma(VectorStoreIntegrationTests):
    @staticmethod
    def get_embeddings() -> Embeddings:
        fetched("minilm")
        return MiniLM()

    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[Chroma]:
        with ChromaFolder(tmp_path, self.get_embeddings(), "embedded:minilm").opened() as table:
            yield table.vectors


def test_rewordings_are_known_again_and_other_scenes_are_new(tmp_path: Path) -> None:
    fetched("minilm")
    history = open_prompt_history(MemorySettings(path=tmp_path / "m"))
    assert isinstance(history, PromptHistory)
    history.upsert([record("a", prompt="a photo of a single red apple on a white background")])
    for prompt, is_novel in {
        "A photo of one red apple on white background": False,
        "a photo of a single red apple, white background.": False,
        "a photo of a single green apple on a white background": True,
        "a bitten apple seen from above, soft light": True,
    }.items():
        assert history.is_novel("apple", prompt) == is_novel, prompt

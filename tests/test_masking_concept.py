"""SAM 3, loaded from a tiny checkpoint with random weights as a user would load the real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from segmenter_helpers import REQUESTS, check_alone_and_together, picture_request, save_checkpoint
from transformers import Sam3Model, Sam3Processor

from maskwright.configs.masking import ConceptSettings
from maskwright.errors import RecipeError
from maskwright.tools.masking.concept import ConceptMasker
from maskwright.tools.protocols import MaskRequest


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("Prüfgewichte ü")
    return {kind: save_checkpoint(kind, root) for kind in ("sam", "sam3", "sam3_video")}


def _concept(folder: Path, **values: float | str) -> ConceptMasker:
    return ConceptMasker(ConceptSettings.model_validate({"model": str(folder), "batch_size": 2, **values}))


@pytest.mark.parametrize("kind", ["sam3", "sam3_video"])
def test_sam_3_finds_and_counts(checkpoints: dict[str, Path], kind: str) -> None:
    found = check_alone_and_together(_concept(checkpoints[kind], score_threshold=0))
    assert [masked.num_instances for masked in found] == [5, 5, 5]
    assert any(masked.alpha.any() and masked.score > 0 for masked in found)


def _instances(folder: Path, request: MaskRequest, threshold: float) -> dict[str, npt.NDArray[np.float32]]:
    """Every instance, as the documentation of transformers gets them."""
    model, processor = Sam3Model.from_pretrained(folder), Sam3Processor.from_pretrained(folder)
    picture = Image.fromarray(request.rgba[..., :3])
    pixels = processor.image_processor(images=picture, return_tensors="pt")
    words = processor.tokenizer("red apple", return_tensors="pt", padding="max_length", max_length=16)
    with torch.no_grad():
        outputs = model(pixel_values=pixels["pixel_values"], **words)
    sizes = [request.rgba.shape[:2]]
    [found] = processor.post_process_instance_segmentation(outputs, threshold, target_sizes=sizes)
    return {name: value.numpy() for name, value in found.items()}


def test_sam_3_counts_what_reaches_the_threshold_and_takes_the_best(checkpoints: dict[str, Path]) -> None:
    scores = np.sort(_instances(checkpoints["sam3"], REQUESTS[0], 0)["scores"])[::-1]
    threshold = float((scores[2] + scores[3]) / 2)
    found = _instances(checkpoints["sam3"], REQUESTS[0], threshold)
    [masked] = _concept(checkpoints["sam3"], score_threshold=threshold).mask(REQUESTS[:1])
    visible = [index for index in range(3) if found["masks"][index].any()]
    best = max(visible, key=lambda index: found["scores"][index])
    assert masked.num_instances == 3
    assert masked.score == pytest.approx(float(found["scores"][best]), abs=1e-4)
    assert (masked.alpha.astype(bool) != found["masks"][best].astype(bool)).mean() < 0.01


def test_sam_3_takes_the_instance_of_a_known_box(checkpoints: dict[str, Path]) -> None:
    found = _instances(checkpoints["sam3"], REQUESTS[0], 0)
    masker = _concept(checkpoints["sam3"], score_threshold=0)
    visible = [index for index in range(5) if found["masks"][index].any()]
    assert len(visible) > 1
    for index in visible:
        x0, y0, x1, y1 = found["boxes"][index].tolist()
        request = MaskRequest(rgba=REQUESTS[0].rgba, category="red apple", box_xyxy=(x0, y0, x1, y1))
        [masked] = masker.mask([request])
        assert masked.score == pytest.approx(float(found["scores"][index]), abs=1e-4)
        assert (masked.alpha.astype(bool) != found["masks"][index].astype(bool)).mean() < 0.01


def test_sam_3_that_finds_nothing_says_so(checkpoints: dict[str, Path]) -> None:
    for masked, request in zip(_concept(checkpoints["sam3"]).mask(REQUESTS), REQUESTS, strict=True):
        assert masked.alpha.shape == request.rgba.shape[:2]
        assert not masked.alpha.any()
        assert (masked.score, masked.num_instances) == (0.0, 0)


@pytest.mark.parametrize("category", ["red apple " * 20, "Löwe 獅子", "_"])
def test_sam_3_takes_any_name(checkpoints: dict[str, Path], category: str) -> None:
    [masked] = _concept(checkpoints["sam3"], score_threshold=0).mask([picture_request(category=category)])
    assert masked.num_instances == 5


def test_sam_3_asks_for_the_name_as_one_says_it(checkpoints: dict[str, Path]) -> None:
    masker = _concept(checkpoints["sam3"], score_threshold=0)
    said, written, other = masker.mask([picture_request(category=name) for name in ("red apple", "red_apple", "bolt")])
    assert said.score == pytest.approx(written.score, abs=1e-6)
    assert said.score != pytest.approx(other.score, abs=1e-6)


def test_half_precision_keeps_sam_3s_scores(checkpoints: dict[str, Path]) -> None:
    exact = _concept(checkpoints["sam3"], score_threshold=0).mask(REQUESTS)
    half = _concept(checkpoints["sam3"], score_threshold=0, dtype="bfloat16").mask(REQUESTS)
    assert [masked.score for masked in half] == pytest.approx([masked.score for masked in exact], abs=0.01)


def test_a_folder_without_sam_3_is_refused(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match="of type 'sam', expected 'sam3'"):
        _concept(checkpoints["sam"]).mask([picture_request()])

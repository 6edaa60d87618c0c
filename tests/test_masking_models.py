"""SAM and SAM 2, each loaded from a tiny checkpoint with random weights as a user would load the real one."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segmenter_helpers import HEIGHT, REQUESTS, WIDTH, check_alone_and_together, picture_request, save_checkpoint
from transformers import Sam2Model, Sam2Processor, SamModel, SamProcessor

from maskwright.configs.masking import SamSettings
from maskwright.data.records import ImageRGB
from maskwright.errors import RecipeError
from maskwright.tools.masking.sam import SamMasker, ask
from maskwright.tools.masking.sam_networks import OriginalSam, SamPrompt
from maskwright.tools.protocols import MaskRequest


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("Prüfgewichte ü")
    return {kind: save_checkpoint(kind, root) for kind in ("sam", "sam2", "sam2_video")}


@pytest.mark.parametrize("kind", ["sam", "sam2", "sam2_video"])
@pytest.mark.parametrize("prompts", [("box",), ("point",), ("corners",), ("box", "point", "corners")], ids="+".join)
def test_sam_answers_alike_alone_and_in_a_batch(
    checkpoints: dict[str, Path], kind: str, prompts: tuple[str, ...]
) -> None:
    values = {"model": str(checkpoints[kind]), "version": kind[:4].rstrip("_"), "prompts": prompts, "batch_size": 2}
    masker = SamMasker(SamSettings.model_validate(values))
    assert any(masked.alpha.any() for masked in check_alone_and_together(masker))
    assert len(masker.revision) == 12
    assert masker.mask([]) == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_sam_computes_in_half_precision(checkpoints: dict[str, Path], kind: str, dtype: str) -> None:
    values = {"model": str(checkpoints[kind]), "version": kind, "prompts": ["point"]}
    exact = SamMasker(SamSettings.model_validate(values)).mask(REQUESTS)
    half = SamMasker(SamSettings.model_validate({**values, "dtype": dtype})).mask(REQUESTS)
    assert [masked.score for masked in half] == pytest.approx([masked.score for masked in exact], abs=0.02)


CORNERS = [[0, 0], [63, 0], [0, 47], [63, 47]]


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        pytest.param("box", {"input_boxes": [[[3, 4, 20, 30]]]}, id="box"),
        pytest.param("point", {"input_points": [[[[11.5, 17]]]], "input_labels": [[[1]]]}, id="point"),
        pytest.param("corners", {"input_points": [[CORNERS]], "input_labels": [[[1] * 4]]}, id="corners"),
    ],
)
@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_sam_gives_the_mask_that_transformers_rates_best(
    checkpoints: dict[str, Path], kind: str, prompt: str, asked: dict[str, object]
) -> None:
    request = picture_request(2, box_xyxy=(3, 4, 20, 30))
    masks, iou = _candidates(checkpoints[kind], request, asked)
    if prompt == "corners":
        masks = ~masks
    settings = SamSettings.model_validate({"model": str(checkpoints[kind]), "version": kind, "prompts": [prompt]})
    masked = SamMasker(settings).mask([REQUESTS[0], request])[1]
    best = max((index for index in range(3) if masks[index].any()), key=lambda index: iou[index])
    assert (masked.alpha.astype(bool) != masks[best]).mean() < 0.01
    assert masked.score == pytest.approx(float(iou[best]), abs=1e-4)


def _candidates(
    folder: Path, request: MaskRequest, asked: dict[str, object]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """The three masks for one picture, as the documentation of transformers gets them."""
    model_class, processor_class = (SamModel, SamProcessor) if folder.name == "sam" else (Sam2Model, Sam2Processor)
    model, processor = model_class.from_pretrained(folder), processor_class.from_pretrained(folder)
    inputs = processor(images=Image.fromarray(request.rgba[..., :3]), return_tensors="pt", **asked)
    sizes = [inputs.pop(name) for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
    with torch.no_grad():
        outputs = model(**{name: value if name == "input_labels" else value.float() for name, value in inputs.items()})
    [masks] = processor.post_process_masks(outputs.pred_masks, *sizes)
    return masks[0].numpy(), outputs.iou_scores[0, 0].numpy()


class Smallest:
    """A scorer that likes white."""

    name = "smallest"
    revision = "1"

    def score(self, images: Sequence[ImageRGB], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        assert list(texts) == ["bolt"]
        return np.array([[image.mean()] for image in images], np.float32)

    def knows(self, category: str) -> bool:
        return category == "bolt"


def test_the_scorer_may_choose_among_the_masks(checkpoints: dict[str, Path]) -> None:
    request = REQUESTS[1]
    masks, iou = _candidates(checkpoints["sam"], request, {"input_boxes": [[list(request.box_xyxy or ())]]})
    smallest = min((index for index in range(3) if masks[index].any()), key=lambda index: masks[index].sum())
    settings = SamSettings(model=str(checkpoints["sam"]), prompts=("box",), choose="scorer")
    [masked] = SamMasker(settings, Smallest()).mask([request])
    assert (masked.alpha.astype(bool) != masks[smallest]).mean() < 0.01
    assert masked.score == pytest.approx(float(iou[smallest]), abs=1e-4)
    other = MaskRequest(rgba=request.rgba, category="nut", box_xyxy=request.box_xyxy)
    [unknown] = SamMasker(settings, Smallest()).mask([other])
    assert unknown.score == pytest.approx(float(iou.max()), abs=1e-4)


@pytest.mark.parametrize(
    ("prompts", "box_xyxy", "points", "labels", "asked_box"),
    [
        pytest.param(["box"], (3, 4, 20, 30), [], [], (3, 4, 20, 30), id="box"),
        pytest.param(["box"], None, [], [], (0, 0, 64, 48), id="whole picture"),
        pytest.param(["box"], (-9, -2, 99, 30), [], [], (0, 0, 64, 30), id="clipped"),
        pytest.param(["point"], (10, 20, 20, 40), [(15, 30)], [1], None, id="middle of the box"),
        pytest.param(["point"], None, [(32, 24)], [1], None, id="middle"),
        pytest.param(["corners"], None, [(0, 0), (63, 0), (0, 47), (63, 47)], [1, 1, 1, 1], None, id="background"),
        pytest.param(
            ["corners", "point"],
            None,
            [(32, 24), (0, 0), (63, 0), (0, 47), (63, 47)],
            [1, 0, 0, 0, 0],
            None,
            id="corners beside a point",
        ),
    ],
)
def test_what_sam_is_asked(
    prompts: list[str],
    box_xyxy: tuple[float, float, float, float] | None,
    points: list[tuple[int, int]],
    labels: list[int],
    asked_box: tuple[float, float, float, float] | None,
) -> None:
    prompt = ask(picture_request(box_xyxy=box_xyxy), SamSettings.model_validate({"model": "x", "prompts": prompts}))
    assert [tuple(point) for point in prompt.points_xy.tolist()] == points
    assert prompt.labels.tolist() == labels
    assert prompt.box_xyxy == asked_box


@pytest.fixture(scope="module")
def tiny_original() -> Sam:
    """Made of segment-anything's own modules, as its builders do it at full size."""
    torch.manual_seed(0)
    encoder = ImageEncoderViT(
        img_size=64, embed_dim=16, depth=1, num_heads=2, out_chans=16, use_rel_pos=True, global_attn_indexes=(0,)
    )
    prompts = PromptEncoder(embed_dim=16, image_embedding_size=(4, 4), input_image_size=(64, 64), mask_in_chans=4)
    transformer = TwoWayTransformer(depth=1, embedding_dim=16, mlp_dim=32, num_heads=2)
    decoder = MaskDecoder(transformer_dim=16, transformer=transformer, iou_head_depth=2, iou_head_hidden_dim=16)
    return Sam(encoder, prompts, decoder).eval()


@pytest.mark.parametrize("prompts", [["box"], ["point"], ["corners"], ["box", "point", "corners"]], ids="+".join)
def test_segment_anything_answers_as_its_own_predictor(tiny_original: Sam, prompts: list[str]) -> None:
    settings = SamSettings.model_validate({"model": "x", "prompts": prompts})
    images = [np.ascontiguousarray(request.rgba[..., :3]) for request in REQUESTS]
    asked: list[SamPrompt] = [ask(request, settings) for request in REQUESTS]
    answers = OriginalSam(tiny_original).predict(images, asked)
    predictor = SamPredictor(tiny_original)
    for image, prompt, answer in zip(images, asked, answers, strict=True):
        predictor.set_image(image)
        has_points = len(prompt.points_xy) > 0
        masks, iou, _ = predictor.predict(
            point_coords=prompt.points_xy if has_points else None,
            point_labels=prompt.labels if has_points else None,
            box=np.array(prompt.box_xyxy) if prompt.box_xyxy else None,
        )
        assert answer.masks.shape == (3, *image.shape[:2])
        assert (answer.masks != masks).mean() < 0.01
        np.testing.assert_allclose(answer.predicted_iou, iou, atol=1e-4)


@pytest.mark.slow  # the builders know full sizes only: 375 MB of random weights, and 1024 pixels a side
def test_a_vit_b_checkpoint_is_loaded_as_published(tmp_path: Path) -> None:
    path = tmp_path / "Gewichte ü" / "sam_vit_b.pth"
    path.parent.mkdir()
    torch.manual_seed(0)
    torch.save(sam_model_registry["vit_b"]().state_dict(), path)
    masker = SamMasker(SamSettings(model=str(path), model_type="vit_b", device="cpu", prompts=("box", "point")))
    [masked] = masker.mask([picture_request()])
    assert masked.alpha.shape == (HEIGHT, WIDTH)
    with pytest.raises(RecipeError, match="is a vit_b, not a vit_h; set `model_type: vit_b`"):
        SamMasker(SamSettings(model=str(path), model_type="vit_h")).mask([picture_request()])


def _write_checkpoint(path: Path, width: int) -> None:
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 1, 1, width)}, path)


class _Trace:
    """Leaves a file behind where a pickle is trusted."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self._path,)


def _write_code(path: Path) -> None:
    path.write_bytes(pickle.dumps(_Trace(path.with_name("it ran")), protocol=2))


@pytest.mark.parametrize(
    ("prepare", "values", "message"),
    [
        pytest.param(
            partial(_write_checkpoint, width=1024), {"model_type": "vit_b"}, "is a vit_l, not a vit_b", id="other type"
        ),
        pytest.param(partial(_write_checkpoint, width=16), {}, "no checkpoint of segment-anything", id="unknown width"),
        pytest.param(partial(_write_checkpoint, width=768), {}, "Missing key", id="other layers"),
        pytest.param(lambda path: path.write_bytes(b"\0" * 99), {}, "no checkpoint of segment-anything", id="garbage"),
        pytest.param(_write_code, {}, "no checkpoint of segment-anything", id="code"),
        pytest.param(lambda path: torch.save([1], path), {}, "no checkpoint of segment-anything", id="a list"),
        pytest.param(
            partial(_write_checkpoint, width=768), {"version": "sam2"}, "only transformers folders", id="file of SAM 2"
        ),
        pytest.param(lambda path: None, {}, "neither a folder or file here nor a Hub id", id="nothing there"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(
    tmp_path: Path, prepare: Callable[[Path], None], values: dict[str, str], message: str
) -> None:
    path = tmp_path / "sam ü.pth"
    prepare(path)
    masker = SamMasker(SamSettings.model_validate({"model": str(path), **values}))
    with pytest.raises(RecipeError, match=message):
        masker.mask([picture_request()])
    assert not path.with_name("it ran").exists()


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        pytest.param("sam2", {}, "of type 'sam2', expected 'sam'", id="SAM 2 for SAM"),
        pytest.param("sam", {"version": "sam2"}, "of type 'sam', expected 'sam2'", id="SAM for SAM 2"),
        pytest.param("sam", {"model_type": "vit_b"}, "says itself what it holds", id="type of a folder"),
    ],
)
def test_a_folder_of_another_kind_is_refused(
    checkpoints: dict[str, Path], kind: str, values: dict[str, str], message: str
) -> None:
    masker = SamMasker(SamSettings.model_validate({"model": str(checkpoints[kind]), **values}))
    with pytest.raises(RecipeError, match=message):
        masker.mask([picture_request()])


def _drop_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["mask_decoder.iou_token.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(_drop_weight, "lacks 1 weights of SamModel, as 'mask_decoder.iou_token.weight'", id="weight"),
        pytest.param(lambda folder: (folder / "config.json").unlink(), "no config.json", id="config"),
        pytest.param(lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded", id="weights"),
        pytest.param(
            lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 64), "cannot be loaded", id="damaged"
        ),
        pytest.param(lambda folder: (folder / "processor_config.json").unlink(), "no SamProcessor", id="processor"),
    ],
)
def test_a_folder_with_parts_missing_is_refused(
    checkpoints: dict[str, Path], tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(checkpoints["sam"], folder)
    damage(folder)
    with pytest.raises(RecipeError, match=message):
        SamMasker(SamSettings(model=str(folder))).mask([picture_request()])


def test_choosing_by_a_scorer_needs_one() -> None:
    with pytest.raises(RecipeError, match="needs an image-text scorer"):
        SamMasker(SamSettings(model="x", choose="scorer"))

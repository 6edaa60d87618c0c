"""The matting masker: a folder with a small network and code of its own, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file
from segmenter_helpers import HEIGHT, WIDTH, check_alone_and_together, picture_request

from maskwright.configs.masking import BirefnetSettings
from maskwright.errors import MaskwrightError, MissingDependencyError, ModelNotFetchedError, RecipeError
from maskwright.tools.masking.birefnet import BirefnetMasker
from maskwright.tools.protocols import MaskRequest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG_CODE = """
from transformers import PretrainedConfig


class MattingConfig(PretrainedConfig):
    model_type = "matting"
"""
NETWORK_CODE = '''
import torch
from torch import nn
from transformers import PreTrainedModel
from .matting_config import MattingConfig


class Matting(PreTrainedModel):
    """Finds what is dark. Like published matting code it calls item() in __init__ and no post_init() after it."""

    config_class = MattingConfig

    def __init__(self, bb_pretrained=True, config=MattingConfig()):
        super().__init__(config)
        self.rates = [rate.item() for rate in torch.linspace(0, 0.1, 3)]
        self.darkness = nn.Conv2d(3, 1, 1)

    def forward(self, x):
        logits = self.darkness(x)
        return [-logits, logits]
'''


def _save_matting(folder: Path, *, code: str = NETWORK_CODE, auto_map: dict[str, str] | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "matting_config.py").write_text(CONFIG_CODE, encoding="utf-8")
    (folder / "matting.py").write_text(code, encoding="utf-8")
    classes = {
        "AutoConfig": "matting_config.MattingConfig",
        "AutoModelForImageSegmentation": "matting.Matting",
    }
    config = {"model_type": "matting", "auto_map": classes if auto_map is None else auto_map}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = {"darkness.weight": torch.full((1, 3, 1, 1), -1.0), "darkness.bias": torch.zeros(1)}
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _own_module_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """transformers copies a model's code there before it runs it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("modules")
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(folder))
        yield


def _matting(folder: Path, **values: int | str) -> BirefnetMasker:
    settings = {"model": str(folder), "trust_remote_code": True, "side_px": 64, "batch_size": 2, **values}
    return BirefnetMasker(BirefnetSettings.model_validate(settings))


def _disc(size: tuple[int, int], darkness: int = 255) -> tuple[MaskRequest, npt.NDArray[np.bool_]]:
    rows, columns = np.mgrid[: size[0], : size[1]]
    mask = ((rows - size[0] / 2) / (size[0] / 3)) ** 2 + ((columns - size[1] / 2) / (size[1] / 4)) ** 2 < 1
    rgba = np.full((*size, 4), 255, np.uint8)
    rgba[mask, :3] -= np.uint8(darkness)
    return MaskRequest(rgba=rgba, category="disc"), mask


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_a_network_of_a_folders_own_code_finds_a_soft_alpha(tmp_path: Path, dtype: str) -> None:
    masker = _matting(_save_matting(tmp_path / "Freisteller ü 1.0"), dtype=dtype)
    discs = [_disc((HEIGHT, WIDTH)), _disc((90, 40)), _disc((64, 80))]
    found = check_alone_and_together(masker, [request for request, _ in discs])
    for (_, mask), masked in zip(discs, found, strict=True):
        inside = masked.alpha >= 128
        assert (inside & mask).sum() / (inside | mask).sum() > 0.9
        assert len(np.unique(masked.alpha)) > 2
        assert masked.score == 1.0
    assert len(masker.revision) == 12


def test_a_matting_that_finds_nothing_says_so(tmp_path: Path) -> None:
    [masked] = _matting(_save_matting(tmp_path / "m")).mask([_disc((HEIGHT, WIDTH), darkness=0)[0]])
    assert masked.alpha.shape == (HEIGHT, WIDTH)
    assert not masked.alpha.any()
    assert masked.score == 0.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({}, "runs Python code of its own", id="untrusted"),
        pytest.param({"revision": COMMIT}, "runs Python code of its own", id="pinned, untrusted"),
        pytest.param({"trust_remote_code": True}, "revision None", id="unpinned"),
        pytest.param({"trust_remote_code": True, "revision": "main"}, "revision 'main'", id="a branch"),
        pytest.param({"trust_remote_code": True, "revision": COMMIT[:7]}, "40 hexadecimal digits", id="short"),
    ],
)
def test_code_that_nobody_vouched_for_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        BirefnetMasker(BirefnetSettings.model_validate({"model": "owner/matting", **values}))


def test_a_folders_code_is_refused_too_and_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    folder = _save_matting(tmp_path / "m", code=f"open({str(trace)!r}, 'w')\n{NETWORK_CODE}")
    with pytest.raises(RecipeError, match="trust_remote_code: true"):
        _matting(folder, trust_remote_code=False).mask([picture_request()])
    assert not trace.exists()
    _matting(folder).mask([picture_request()])
    assert trace.exists()


def test_a_pinned_model_that_is_not_here_is_named_with_its_revision() -> None:
    settings = BirefnetSettings(model="maskwright-tests/not-fetched", revision=COMMIT, trust_remote_code=True)
    with pytest.raises(ModelNotFetchedError, match=f"maskwright models fetch maskwright-tests/not-fetched@{COMMIT}"):
        BirefnetMasker(settings).mask([picture_request()])


def _drop_bias(folder: Path) -> None:
    save_file({"darkness.weight": torch.zeros(1, 3, 1, 1)}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("files", "damage", "error", "message"),
    [
        pytest.param({}, _drop_bias, RecipeError, "lacks 1 weights of its network, as 'darkness.bias'", id="weight"),
        pytest.param(
            {},
            lambda folder: (folder / "model.safetensors").unlink(),
            RecipeError,
            "No such file",
            id="no weights",
        ),
        pytest.param({"auto_map": {}}, None, RecipeError, "names no network of its own", id="no code named"),
        pytest.param(
            {"auto_map": {"AutoModel": "owner/other--matting.Matting"}},
            None,
            RecipeError,
            "from another repository",
            id="code elsewhere",
        ),
        pytest.param({"auto_map": {"AutoModel": "other.Matting"}}, None, RecipeError, "other.py", id="no such module"),
        pytest.param({"auto_map": {"AutoModel": "matting.Other"}}, None, RecipeError, "Other", id="no such class"),
        pytest.param({"code": "def (:"}, None, RecipeError, "cannot be loaded", id="no Python"),
        pytest.param(
            {"code": "import no_such_package\n" + NETWORK_CODE},
            None,
            MissingDependencyError,
            "no_such_package",
            id="package",
        ),
        pytest.param(
            {"code": NETWORK_CODE.replace("[-logits, logits]", "[logits, x]")},
            None,
            RecipeError,
            r"\(1, 3, 64, 64\); expected a list",
            id="no masks",
        ),
    ],
)
def test_a_matting_folder_that_will_not_do_is_refused(
    tmp_path: Path,
    files: dict[str, object],
    damage: Callable[[Path], None] | None,
    error: type[MaskwrightError],
    message: str,
) -> None:
    folder = _save_matting(tmp_path / "m", **files)  # type: ignore[arg-type]
    if damage:
        damage(folder)
    with pytest.raises(error, match=message):
        _matting(folder).mask([picture_request()])

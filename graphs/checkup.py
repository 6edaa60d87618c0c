"""What this installation can do: packages, devices, recipes."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from ..configs.recipe import builtin_recipes, load_recipe
from ..errors import RecipeError
from ..tools.registry import PAINTERS

CORE_PACKAGES = ("torch", "torchvision", "kornia", "diffusers", "transformers", "langgraph", "langchain", "chromadb")
EXTRAS = {"ultralytics": "pip install 'maskwright[yolo]' (AGPL-3.0), for training YOLO on the result"}

Check = tuple[str, str, bool]


def check_installation() -> list[Check]:
    """Rows of (what, what was found, whether it will do); nothing is downloaded."""
    packages = [_check_package(name, "pip install maskwright") for name in CORE_PACKAGES]
    extras = [_check_package(name, advice) for name, advice in EXTRAS.items()]
    return [*packages, _check_opencv(), *extras, *_check_devices(), *map(_check_recipe, builtin_recipes())]


def _check_package(name: str, advice: str) -> Check:
    try:
        return (f"package {name}", version(name), True)
    except PackageNotFoundError:
        return (f"package {name}", f"not installed: {advice}", False)


def _check_opencv() -> Check:
    try:
        import cv2
    except ImportError as exc:
        advice = "on Debian or Ubuntu: apt-get install libgl1 libglib2.0-0 libxcb1"
        return ("package opencv-python", f"does not load ({exc}); {advice}", False)
    return ("package opencv-python", str(cv2.__version__), True)


def _check_devices() -> list[Check]:
    import torch

    rows: list[Check] = [("device cpu", f"{torch.get_num_threads()} threads", True)]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        rows.append((f"device cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB", True))
    if torch.backends.mps.is_available():
        rows.append(("device mps", "Apple GPU", True))
    return rows


def _check_recipe(name: str) -> Check:
    try:
        recipe = load_recipe(name)
    except RecipeError as exc:
        return (f"recipe {name}", str(exc), False)
    painter = recipe.agents.image_agent.painter
    if painter not in PAINTERS:
        return (f"recipe {name}", f"its painter {painter!r} is not known", False)
    data = "brings its own photographs" if recipe.data.path else "needs --data PATH"
    return (f"recipe {name}", f"painter {painter}: no weights, no GPU, no network; {data}", True)

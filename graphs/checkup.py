"""What this installation can do: packages, devices, models, recipes."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from ..configs.label_agent import LabelAgentSettings
from ..configs.recipe import Recipe, builtin_recipes, load_recipe
from ..errors import RecipeError
from ..models.catalogue import EMBEDDED_PREFIX, MODELS, Model, find_model
from ..models.fetch import check_model
from ..tools.registry import PAINTERS, TEXT_PAINTERS
from .choosing import AUTO

CORE_PACKAGES = ("torch", "torchvision", "kornia", "diffusers", "transformers", "langgraph", "langchain", "chromadb")
EXTRAS = {"ultralytics": "pip install 'maskwright[yolo]' (AGPL-3.0), for training YOLO on the result"}

Check = tuple[str, str, bool]


def check_installation() -> list[Check]:
    """Rows of (what, what was found, whether it will do); nothing is downloaded."""
    packages = [_check_package(name, "pip install maskwright") for name in CORE_PACKAGES]
    extras = [_check_package(name, advice) for name, advice in EXTRAS.items()]
    models = map(_check_model, MODELS.values())
    recipes = map(_check_recipe, builtin_recipes())
    return [*packages, _check_opencv(), *extras, *_check_devices(), *models, *recipes]


def models_of_recipe(name_or_path: str) -> list[str]:
    """Models that a recipe works with, those that they need included; without repetition.

    Raises:
        RecipeError: no such recipe, or it is malformed.
        UnknownModelError: it names a model that the catalogue does not have.
    """
    return embedded_models(load_recipe(name_or_path))


def embedded_models(recipe: Recipe) -> list[str]:
    """Models that settings name as `embedded:NAME`, and what these need, in their order.

    Raises:
        UnknownModelError: the catalogue does not have one.
    """
    settings = recipe.model_dump(mode="json")
    if not recipe.writes_prompts:
        settings["llm"] = None
    if not recipe.remembers_prompts:
        settings["memory"] = None
    if recipe.agents.label_agent is not None:
        settings["painter"] = _label_models(recipe.agents.label_agent)
    return models_named(settings)


def _label_models(settings: LabelAgentSettings) -> list[str]:
    """What the label agent's own painters need: sprites, and the notes on defects, which are searched by MiniLM."""
    needed = {"auto": ["embedded:sprites", "embedded:minilm"], "sprites": ["embedded:sprites"]}
    return needed.get(settings.painter, ["embedded:minilm"] if settings.painter == "defects" else [])


def models_named(settings: object) -> list[str]:
    """The same of any part of a recipe, as JSON values."""
    named = [find_model(text) for text in _texts(settings) if text.startswith(EMBEDDED_PREFIX)]
    return list(dict.fromkeys(name for model in named for name in (model.name, *model.needs)))


def _texts(settings: object) -> Iterator[str]:
    if isinstance(settings, str):
        yield settings
    elif isinstance(settings, dict | list):
        for value in settings.values() if isinstance(settings, dict) else settings:
            yield from _texts(value)


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


def _check_model(model: Model) -> Check:
    status = check_model(model)
    return (f"model {model.name}", str(status.path or f"{status.state}; {status.next_step}"), status.path is not None)


def _check_recipe(name: str) -> Check:
    try:
        recipe = load_recipe(name)
    except RecipeError as exc:
        return (f"recipe {name}", str(exc), False)
    agents = recipe.agents
    painters = [agent.painter for agent in (agents.text_agent, agents.image_agent) if agent]
    if unknown := [name for name in painters if name not in {AUTO, *PAINTERS, *TEXT_PAINTERS}]:
        return (f"recipe {name}", f"its painter {unknown[0]!r} is not known", False)
    painters += [agent.painter for agent in (agents.anomaly_agent, agents.label_agent) if agent]
    data = "brings its own photographs" if recipe.data.path else "needs --data PATH"
    missing = [model for model in embedded_models(recipe) if check_model(MODELS[model]).path is None]
    if missing:
        return (f"recipe {name}", f"needs models; run `maskwright models fetch {' '.join(missing)}`", False)
    return (f"recipe {name}", f"painters {', '.join(painters)}: no GPU, no network; {data}", True)

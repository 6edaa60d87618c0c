"""A recipe: one YAML file of settings, validated before anything is spent."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import RecipeError
from .agents import AgentsSettings
from .budget import BudgetSettings
from .compose import ComposeSettings
from .data import DataSettings
from .evaluation import EvaluationSettings
from .export import ExportSettings
from .image_agent import OPAQUE_PAINTERS
from .llm import LLMSettings
from .memory import MemorySettings
from .plan import PlanSettings

RECIPE_FOLDER = Path(__file__).parent


class Recipe(BaseModel):
    """All settings of a run. Unknown keys are refused; every default stands in its section."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: DataSettings = DataSettings()
    agents: AgentsSettings
    plan: PlanSettings = PlanSettings()
    compose: ComposeSettings = ComposeSettings()
    llm: LLMSettings = LLMSettings()
    memory: MemorySettings = MemorySettings()
    budget: BudgetSettings = Field(default_factory=BudgetSettings)
    export: ExportSettings = ExportSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    def fingerprint(self, dataset_digest: str) -> str:
        """Hex sha256 of what decides the result: the settings without budget and evaluation, and the data's content.

        The data set counts by content, not by the path it was read from.
        """
        settings = self.model_dump(mode="json", exclude=self._unfingerprinted())
        decides = {"settings": settings, "data": dataset_digest, "prompts": self._prompt_digests()}
        encoded = orjson.dumps(decides, option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(encoded).hexdigest()

    def _unfingerprinted(self) -> dict[str, Any]:
        """What cannot change a result; without a T-Agent the memory neither, nor language models that nobody asks."""
        without: dict[str, Any] = {"budget": True, "evaluation": True}
        without |= {"data": {"path", "images", "format"}, "memory": {"path"}}
        if self.agents.anomaly_agent:
            without["agents"] = {"anomaly_agent": {"count", "max_tries_ratio"}}
        if self.agents.label_agent:
            without["agents"] = {"label_agent": {"max_tries_ratio": True, "admission": {"stop_after"}}}
        if not self.agents.text_agent:
            without["memory"] = True
        if not self.writes_prompts:
            without["llm"] = set(LLMSettings.model_fields) - {"judge", "second_judge", "max_repairs"}
            if not self.llm.judges:
                without["llm"] = True
        return without

    def _prompt_digests(self) -> dict[str, str]:
        """Content of the prompt files that the recipe names, by path."""
        agents = (self.agents.text_agent, self.agents.image_agent)
        named = [self.llm.writer_prompt, *(agent.validation.prompt for agent in agents if agent)]
        files = {name for name in named if name and Path(name).is_file()}
        return {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in sorted(files)}

    @property
    def writes_prompts(self) -> bool:
        """Whether a language model writes what painters of the recipe read."""
        image_agent = self.agents.image_agent
        return bool(
            self.agents.text_agent
            or (image_agent and image_agent.painter in OPAQUE_PAINTERS)
            or self.writes_scenes_by_model
        )

    @property
    def writes_scenes_by_model(self) -> bool:
        """Whether a language model writes the label agent's prompts; an embedded one is too weak, so a planner does."""
        return bool(self.agents.label_agent) and not self.llm.of("writer").model.startswith("embedded:")

    @property
    def remembers_prompts(self) -> bool:
        """Whether an agent of the recipe writes to the prompt memory."""
        return self.memory.enabled and bool(self.agents.text_agent or self.agents.label_agent)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def builtin_recipes() -> dict[str, Path]:
    """Recipes that ship, by name."""
    return {path.stem: path for path in sorted(RECIPE_FOLDER.glob("*.yaml"))}


def load_recipe(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a built-in recipe or a YAML file, with `key.sub=value` overrides on top.

    Raises:
        RecipeError: no such recipe, not YAML, an unknown key (the nearest known one is named), a value out of bounds.
    """
    path = _find_recipe(name_or_path)
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as exc:
        raise RecipeError(f"{path}: not a readable YAML recipe: {exc}") from exc
    if not isinstance(settings, dict):
        raise RecipeError(
            f"{path}: expected a mapping of sections ({', '.join(Recipe.model_fields)}), got {settings!r}"
        )
    for override in overrides:
        _apply_override(settings, override)
    try:
        return Recipe.model_validate(settings)
    except ValidationError as exc:
        raise RecipeError("\n".join(f"{path}: {_explain(error)}" for error in _problems(exc))) from exc


def _find_recipe(name_or_path: str) -> Path:
    builtin = builtin_recipes()
    if name_or_path in builtin:
        return builtin[name_or_path]
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return path
    if path.suffix in {".yaml", ".yml"}:
        raise RecipeError(f"{name_or_path}: no such recipe file. Built-in recipes: {', '.join(builtin)}")
    raise RecipeError(
        f"unknown recipe {name_or_path!r}{_nearest(name_or_path, builtin)}; "
        f"built-in: {', '.join(builtin)}. Give one of these or the path of a YAML file"
    )


def _apply_override(settings: dict[str, object], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not all(key.split(".")):
        raise RecipeError(f"--set {override!r}: expected key.sub=value, such as plan.at_least=100")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise RecipeError(f"--set {override!r}: {text!r} is not a YAML value") from exc
    *parents, last = key.split(".")
    section = settings
    for parent in parents:
        child = section.get(parent)
        if child is None:
            child = section[parent] = {}
        if not isinstance(child, dict):
            raise RecipeError(f"--set {override!r}: {parent!r} holds {child!r}, not a section")
        section = child
    section[last] = value


def _problems(exc: ValidationError) -> Iterator[Mapping[str, object]]:
    yield from exc.errors(include_url=False)


def _explain(error: Mapping[str, object]) -> str:
    location = [str(part) for part in error["loc"]]  # type: ignore[attr-defined]
    where = ".".join(location)
    if error["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        return f"unknown key `{where}`{_nearest(location[-1], known)}; known here: {', '.join(known)}"
    if error["type"] == "missing":
        return f"`{where}` is missing; add it to the recipe"
    return f"`{where}` is {error['input']!r}: {error['msg']}"


def _known_keys(location: list[str]) -> list[str]:
    model: type[BaseModel] = Recipe
    for part in location:
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(model.model_fields)


def _nearest(name: str, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean `{match[0]}`?" if match else ""

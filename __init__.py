"""maskwright makes labelled images: bigger data sets with exact masks, from the one you have."""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .data.convert import convert_dataset
    from .data.load import load_dataset
    from .graphs.pipeline import plan_recipe, run_recipe

_PUBLIC = {
    "convert_dataset": ".data.convert",
    "load_dataset": ".data.load",
    "plan_recipe": ".graphs.pipeline",
    "run_recipe": ".graphs.pipeline",
}
__all__ = ["__version__", "convert_dataset", "load_dataset", "plan_recipe", "run_recipe"]


def __getattr__(name: str) -> object:
    """Load a public function on first use, so that `import maskwright` stays cheap."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

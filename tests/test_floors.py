"""The house holds: nothing imports upward, the wheel has every room, and importing costs nothing."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "errors": -1,
    "data": 0,
    "models": 1,
    "configs": 1,
    "tools": 2,
    "memory": 2,
    "evaluation": 3,
    "graphs": 4,
    "serving": 5,
    "learning": 5,
    "cli_options": 6,
    "console": 6,
    "console_outcomes": 7,
    "console_plan": 7,
    "cli_evaluate": 8,
    "cli_judging": 8,
    "cli_knowledge": 8,
    "cli_loop": 8,
    "cli_train": 8,
    "cli_wsss": 8,
    "cli": 9,
}
ONLY_GRAPHS_AND_ABOVE = {"langgraph"}


def _modules() -> list[Path]:
    rooms = [ROOT / room for room in FLOORS if (ROOT / room).is_dir()]
    return sorted([*ROOT.glob("*.py"), *(path for room in rooms for path in room.rglob("*.py"))])


def _imports(path: Path) -> list[str]:
    """Dotted names that a module imports; its own package's are given from the root, as `.data.masks`."""
    parents = path.relative_to(ROOT).parts[:-1]
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.append(node.module or "")
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1]
            targets = [node.module] if node.module else [alias.name for alias in node.names]
            names += ["." + ".".join([*base, *([target] if target else [])]) for target in targets]
    return names


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_imports_upward(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    floor = FLOORS.get(room)
    if floor is None:
        assert room == "__init__", f"{path} belongs to no floor; add it to FLOORS"
        return
    for name in _imports(path):
        if name.startswith("."):
            target = name[1:].split(".")[0]
            if target in FLOORS and target != room:
                assert FLOORS[target] < floor, (
                    f"{path.relative_to(ROOT)} (floor {floor}) imports {target} (floor {FLOORS[target]})"
                )
        elif name.split(".")[0] in ONLY_GRAPHS_AND_ABOVE:
            assert floor >= FLOORS["graphs"], f"{path.relative_to(ROOT)} knows {name}; only graphs/ and above may"


def test_every_package_is_declared() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        ".".join(["maskwright", *path.parent.relative_to(ROOT).parts])
        for room in [ROOT, *(ROOT / room for room in FLOORS if (ROOT / room).is_dir())]
        for path in ([room / "__init__.py"] if room == ROOT else room.rglob("__init__.py"))
    }
    weights = ROOT / "models" / "weights"
    # Folders of data alone: setuptools takes each one for a package that was forgotten.
    folders = [ROOT / "configs" / "knowledge", ROOT / "graphs" / "prompts", ROOT / "serving" / "review_page"]
    folders += [weights, *(path for path in weights.rglob("*") if path.is_dir())]
    found |= {".".join(["maskwright", *folder.relative_to(ROOT).parts]) for folder in folders}
    assert declared == found


def test_the_wheel_holds_what_the_tree_holds(tmp_path: Path) -> None:
    """An editable install sees a forgotten package; the wheel does not."""
    # Built from a copy: setuptools packs whatever an earlier build left in build/.
    unwanted = shutil.ignore_patterns(".*", "build", "runs", "*.egg-info", "__pycache__", "tests", "benchmarks")
    shutil.copytree(ROOT, tmp_path / "tree", ignore=unwanted)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*command, str(tmp_path / "tree")], check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {f"maskwright/{path.relative_to(ROOT).as_posix()}" for path in _modules()}
    data = [
        *(ROOT / "configs").glob("*.yaml"),
        *(ROOT / "configs" / "quickstart" / name for name in ("annotations.json", "README.md")),
    ]
    data += [path for kind in ("*.jinja", "*.yaml") for path in (ROOT / "evaluation").glob(kind)]
    data += [*(ROOT / "graphs" / "prompts").glob("*.md"), ROOT / "py.typed"]
    data += [*(ROOT / "serving" / "review_page").iterdir(), *(ROOT / "configs" / "knowledge").glob("*.md")]
    data += [path for path in (ROOT / "models" / "weights").rglob("*") if path.is_file()]
    expected |= {f"maskwright/{path.relative_to(ROOT).as_posix()}" for path in data}
    assert packed == expected


@pytest.mark.parametrize(
    ("statement", "forbidden", "limit_s"),
    [
        ("import maskwright", {"torch", "cv2", "numpy", "langgraph", "pydantic"}, 0.3),
        ("import maskwright.cli", {"torch", "cv2", "numpy", "langgraph", "diffusers", "transformers"}, 1.0),
        ("import maskwright.tools.registry", {"torch", "kornia", "langgraph", "diffusers"}, None),
        ("import maskwright.data.load", {"torch", "kornia", "langgraph"}, None),
        ("import maskwright.models.fetch", {"torch", "transformers", "huggingface_hub"}, None),
    ],
)
def test_importing_is_cheap(statement: str, forbidden: set[str], limit_s: float | None) -> None:
    code = (
        f"import sys, time; t = time.perf_counter(); {statement}; s = time.perf_counter() - t; "
        f"print(s, *sorted({forbidden!r} & set(sys.modules)))"
    )
    seconds = []
    for _ in range(3):
        run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        elapsed, *loaded = run.stdout.split()
        assert not loaded
        seconds.append(float(elapsed))
    assert limit_s is None or min(seconds) < limit_s

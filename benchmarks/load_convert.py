"""COCO to YOLO labels: time and peak memory, against ultralytics' convert_coco and supervision.

    python benchmarks/load_convert.py            100,000 images, 1,000,000 annotations: 1 GB of JSON, 2 GB of labels
    python benchmarks/load_convert.py --small    2,000 images, 20,000 annotations

Each tool runs in a process of its own. Time starts after its imports; memory is the peak of the resident set, in
full and above what the imports alone took (ultralytics brings torch along). supervision decodes every mask on load
and opens every image, so that it gets 10,000 annotations with images, and ours is run on the same.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import orjson
import psutil
from rich.console import Console
from rich.table import Table

WIDTH, HEIGHT = 640, 480
ANNOTATIONS_PER_IMAGE = 10
SUPERVISION_IMAGES = 1_000
MIB_PER_KIB = 1 / 1024


@dataclass(frozen=True, slots=True)
class Measured:
    """One tool's run."""

    seconds: float
    peak_mib: float
    above_imports_mib: float


def random_blob(rng: np.random.Generator) -> list[float]:
    """A star-shaped polygon of 20 to 60 points, flat, with COCO's two decimals."""
    num_points = int(rng.integers(20, 61))
    angle = np.linspace(0, 2 * np.pi, num_points, endpoint=False)
    k = np.arange(1, 6)[:, None]
    waves = (rng.normal(0, 0.25 / k) * np.sin(k * angle + rng.uniform(0, 6.3, k.shape))).sum(axis=0)
    radius = rng.uniform(10, 90) * (1.2 + waves).clip(0.3)
    centre_xy = rng.uniform(100, (WIDTH - 100, HEIGHT - 100))
    ring = centre_xy + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    flat: list[float] = np.round(ring.clip(0, (WIDTH, HEIGHT)), 2).ravel().tolist()
    return flat


def write_coco(path: Path, num_images: int) -> None:
    """Write a COCO file of 10 polygons an image, drawn from 2,000 different ones."""
    rng = np.random.default_rng(0)
    blobs: list[dict[str, object]] = []
    for _ in range(2_000):
        ring = random_blob(rng)
        left, top, right, bottom = min(ring[::2]), min(ring[1::2]), max(ring[::2]), max(ring[1::2])
        area = cv2.contourArea(np.array(ring, dtype=np.float32).reshape(-1, 2))
        bbox = [left, top, round(right - left, 2), round(bottom - top, 2)]
        blobs.append({"segmentation": [ring], "bbox": bbox, "area": round(area, 2), "iscrowd": 0})
    images = [
        {"id": i, "file_name": f"{i:012}.jpg", "width": WIDTH, "height": HEIGHT} for i in range(1, num_images + 1)
    ]
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, 81)]
    path.parent.mkdir()
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(b'{"images":' + orjson.dumps(images) + b',"categories":' + orjson.dumps(categories))
        file.write(b',"annotations":[')
        for at in range(num_images * ANNOTATIONS_PER_IMAGE):
            ids = {"id": at + 1, "image_id": at // ANNOTATIONS_PER_IMAGE + 1, "category_id": at % 80 + 1}
            file.write((b"," if at else b"") + orjson.dumps(blobs[at * 7 % len(blobs)] | ids))
        file.write(b"]}")
    partial.rename(path)


def write_images(folder: Path, num_images: int) -> None:
    folder.mkdir()
    _, jpeg = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8))
    for i in range(1, num_images + 1):
        (folder / f"{i:012}.jpg").write_bytes(jpeg.tobytes())


def prepare(folder: Path, num_images: int, *, with_images: bool) -> None:
    """Make the input once; later calls find it."""
    annotations = folder / "annotations" / "instances_train.json"
    if annotations.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if with_images:
        write_images(folder / "images", num_images)
    write_coco(annotations, num_images)


def ours(data: Path, out: Path) -> Callable[[], object]:
    from maskwright.data.coco import load_coco
    from maskwright.data.records import Findings
    from maskwright.data.yolo import save_yolo

    images = data / "images"

    def convert() -> None:
        files = {"train": data / "annotations" / "instances_train.json"}
        dataset = load_coco(files, {"train": images}, check_images=images.is_dir())
        save_yolo(dataset, out, lambda _record, _destination: None, findings=Findings())

    return convert


def ultralytics(data: Path, out: Path) -> Callable[[], object]:
    from ultralytics.data.converter import convert_coco

    return lambda: convert_coco(str(data / "annotations"), str(out), use_segments=True, cls91to80=False)


def supervision(data: Path, out: Path) -> Callable[[], object]:
    import supervision as sv

    def convert() -> None:
        annotations = str(data / "annotations" / "instances_train.json")
        dataset = sv.DetectionDataset.from_coco(str(data / "images"), annotations, force_masks=True)
        dataset.as_yolo(annotations_directory_path=str(out / "labels"), data_yaml_path=str(out / "data.yaml"))

    return convert


TOOLS: dict[str, Callable[[Path, Path], Callable[[], object]]] = {
    "maskwright": ours,
    "ultralytics": ultralytics,
    "supervision": supervision,
}


def run_tool(name: str, data: Path, out: Path) -> None:
    """Run one tool in this process, and print what it took as JSON."""
    convert = TOOLS[name](data, out)
    imports_kib = psutil.Process().memory_info().rss / 1024
    start = time.perf_counter()
    convert()
    seconds = time.perf_counter() - start
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([seconds, peak_kib * MIB_PER_KIB, (peak_kib - imports_kib) * MIB_PER_KIB]))


def measure(name: str, data: Path, out: Path) -> Measured:
    """Run one tool in a fresh process; the label rows that it wrote are counted."""
    command = [sys.executable, __file__, "--tool", name, "--workdir", str(data), "--out", str(out / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    num_rows = sum(path.read_bytes().count(b"\n") for path in (out / name).rglob("*.txt"))
    print(f"{name}: {num_rows:,} rows written", file=sys.stderr)
    return Measured(*json.loads(done.stdout.splitlines()[-1]))


def compare(title: str, others: str, data: Path, out: Path) -> Table:
    table = Table("tool", "seconds", "peak MiB", "above imports MiB", "slower", "more memory", title=title)
    reference = measure("maskwright", data, out)
    for name, run in {"maskwright": reference, others: measure(others, data, out)}.items():
        table.add_row(
            name,
            f"{run.seconds:.1f}",
            f"{run.peak_mib:,.0f}",
            f"{run.above_imports_mib:,.0f}",
            f"{run.seconds / reference.seconds:.1f}x",
            f"{run.above_imports_mib / reference.above_imports_mib:.1f}x",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000, help="each with 10 annotations (default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="2,000 images")
    parser.add_argument("--workdir", type=Path, default=Path(".benchmarks"), help="keeps the files that are made")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--tool", choices=TOOLS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tool:
        run_tool(args.tool, args.workdir, args.out)
        return
    num_images = 2_000 if args.small else args.images
    large = args.workdir / f"coco_{num_images}"
    small = args.workdir / f"coco_{SUPERVISION_IMAGES}_with_images"
    prepare(large, num_images, with_images=False)
    prepare(small, SUPERVISION_IMAGES, with_images=True)
    console = Console()
    # Nothing is deleted until the end: a file system is slow to create files where it has just removed others.
    with tempfile.TemporaryDirectory(dir=args.workdir) as out:
        title = f"{num_images * ANNOTATIONS_PER_IMAGE:,} annotations, labels only"
        console.print(compare(title, "ultralytics", large, Path(out, "large")))
        title = f"{SUPERVISION_IMAGES * ANNOTATIONS_PER_IMAGE:,} annotations, images opened"
        console.print(compare(title, "supervision", small, Path(out, "small")))


if __name__ == "__main__":
    main()

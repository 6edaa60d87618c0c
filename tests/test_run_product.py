"""Anomaly runs as something to learn from: their samples beside the photographs, and copy-paste in their place."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from anomaly_plates import DEFECT, write_plates
from anomaly_plates import run as run_anomalies
from arm_helpers import OURS, classes_by_image, truth
from detector_helpers import Colours
from run_helpers import QUICK

from maskwright.configs.evaluation import EvaluationSettings
from maskwright.data.images import read_image
from maskwright.data.load import load_dataset
from maskwright.errors import DatasetError
from maskwright.evaluation.arms import build_arms
from maskwright.evaluation.comparison import open_comparison
from maskwright.evaluation.run_product import read_defects, read_product, read_products
from maskwright.graphs.pipeline import run_recipe

FAINT = [f"agents.image_agent.limits.min_{name}=0" for name in ("contrast", "sharpness", "source_difference")]
"""Limits under which the plates' scratch can be varied."""


@pytest.fixture(scope="module")
def defects(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An anomaly run of two scratches, and its data set."""
    folder = tmp_path_factory.mktemp("ß")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data = write_plates(folder / "daten" / "Platte ü")
        outcome = run_anomalies(data, f"agents.anomaly_agent.defects=[{json.dumps(DEFECT, ensure_ascii=False)}]")
    return outcome.folder, data


def test_samples_of_defects_are_mirrored_onto_normal_images(defects: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = defects
    dataset = read_defects(run, data.parent, data.name)
    _, pasted, ours = build_arms(run, dataset, tmp_path / "ü", EvaluationSettings())
    assert pasted.instances == ours.instances
    assert (ours.num_synthetic, list(ours.instances)) == (2, [DEFECT])
    normals = [read_image(one.image) for one in dataset.samples("train") if not one.annotations]
    for sample in load_dataset(tmp_path / "ü/copy_paste/coco").samples("train"):
        if sample.image.file_name.startswith("copy_paste-"):
            changed = [np.any(read_image(sample.image) != normal, axis=2).sum() for normal in normals]
            assert 0 < min(changed) <= sum(one.area for one in sample.annotations)
    coco = classes_by_image(truth(tmp_path / "ü", OURS))
    assert Counter(name.partition("-")[0] for name in coco if name.startswith("anomaly")) == {"anomaly": 2}


def test_defects_of_another_item_or_split_are_refused(defects: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = defects
    dataset = read_defects(run, data.parent, data.name)
    other = replace(dataset, images=[replace(dataset.images[0], stored_as="train/good/neu.png"), *dataset.images[1:]])
    with pytest.raises(DatasetError, match=r"'train/good/neu\.png' is on the side 'train'"):
        read_product(run, other)
    lacking = replace(dataset, categories=(replace(dataset.categories[0], name="Beule"),))
    with pytest.raises(DatasetError, match=f"the run made '{DEFECT}', a class that the data set lacks; it has 'Beule'"):
        read_product(run, lacking)


def test_two_runs_of_one_data_set_are_one_product(defects: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = defects
    outcome = run_recipe("instances", data=data, out=tmp_path / "lauf 2", overrides=[*QUICK, *FAINT])
    settings = EvaluationSettings(split="test", max_bits=0, min_similarity=1)
    alone = open_comparison(run, data, settings, Colours())
    both = open_comparison(run, data, settings, Colours(), also=[outcome.folder], results=tmp_path / "ergebnis")
    scenes = [one for one in both.product.images if one.file_name.startswith("scene")]
    assert (len(both.product.images), len(scenes)) == (2 + len(scenes), outcome.content["scenes"])
    assert both.product.images[:2] == alone.product.images
    real, pasted, ours = both.arms(None)[0]
    assert (real.num_synthetic, pasted.num_synthetic, ours.num_synthetic) == (0, 2 + len(scenes), 2 + len(scenes))
    assert pasted.instances == ours.instances == {DEFECT: 2 + sum(sum(one.instances.values()) for one in scenes)}
    [(_, key), (_, key_alone)] = (one.arms(None) for one in (both, alone))
    assert key != key_alone


def test_a_run_does_not_count_twice(defects: tuple[Path, Path]) -> None:
    run, data = defects
    with pytest.raises(DatasetError, match=r"both made an image 'anomaly-.*'; expected different names"):
        read_products([run, run.parent / "." / run.name / "../" / run.name], read_defects(run, data.parent, data.name))

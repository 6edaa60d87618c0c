"""A small loop over scripted gains."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from run_helpers import QUICK

from maskwright.evaluation.gains import ArmFigures, RoundFigures
from maskwright.graphs.loop import LoopOutcome, run_loop

SEEDS = (1, 2, 3)
BOLT, NUT = "bolt", "Mutter ö"
SMALL = [*QUICK, "plan.at_least=0", f"plan.extra={{{BOLT}: 2, {NUT}: 4}}"]
Gains = Mapping[str, float]
UP, DOWN, SAME = 0.1, -0.1, 0.0


class Killed(BaseException):
    """What no handler catches."""


@dataclass
class ScriptedMeter:
    """Answers with what each round is to add to each class, and remembers where it was asked to measure."""

    script: Sequence[Gains]
    measured: list[Path] = field(default_factory=list)
    killed_at: int = 0

    def measure(self, run_folder: Path, round_number: int) -> RoundFigures:
        if round_number == self.killed_at:
            self.killed_at = 0
            raise Killed
        assert (run_folder / "dataset" / "coco").is_dir()
        self.measured.append(run_folder)
        names = {name for gains in self.script for name in gains}
        added = {name: sum(gains.get(name, 0) for gains in self.script[:round_number]) for name in names}
        overall = sum(added.values()) / len(added)
        return RoundFigures(
            overall=_figures(overall, round_number),
            classes={name: _figures(one, round_number) for name, one in added.items()},
        )


def _figures(added: float, round_number: int) -> ArmFigures:
    noise = {seed: 0.01 * ((seed + round_number) % 3 - 1) for seed in SEEDS}
    return ArmFigures(
        with_synthetic={seed: 0.4 + added + noise[seed] for seed in SEEDS},
        real_alone={seed: 0.4 + 0.001 * seed for seed in SEEDS},
    )


def run_small(data: Path, out: Path, meter: ScriptedMeter, *overrides: str, **options: object) -> LoopOutcome:
    """The recipe `instances`: 2 bolts and 4 nuts a round."""
    settings = [*SMALL, *overrides]
    return run_loop("instances", data=data, out=out, measure=meter, overrides=settings, **options)  # type: ignore[arg-type]


def instances_of(run_folder: Path) -> dict[str, dict[str, object]]:
    lines = (run_folder / "dataset" / "provenance.jsonl").read_text(encoding="utf-8").splitlines()
    return {entry["instance_id"]: entry for entry in map(json.loads, lines)}

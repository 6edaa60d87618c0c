"""Thresholds from an audit: the least similarity score at which people agree with what is kept, often enough."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import orjson

from ..configs.recipe import load_recipe
from ..errors import InputError, RunFolderError
from ..evaluation.audit import Audited, Rate, meets_all, read_audited, to_rate
from ..memory.artifacts import write_or_stop
from ..memory.entries import Attempt, ItemResult
from ..memory.ledger import Ledger
from ..memory.reviews import ReviewBook
from .record import read_run_json
from .run_folder import check_not_anomalies

MIN_SAMPLES = 20
SCORES = {"text_agent": ("image_text", "image_image"), "image_agent": ("image_text",)}
"""By agent, the scores that have a threshold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """The least threshold of one score that reaches a precision, all other criteria as they are.

    It is chosen on the very images that it is reported for, so its precision is somewhat flattered: trust `low`.

    Attributes:
        score: image_text or image_image.
        value: in the score's units; None where no threshold reaches the precision.
        precision: of what would be kept at `value`; where None, at the threshold that comes nearest.
        recall: of the images that a person would keep, how many are kept then.
        num_samples: audited images with the score and a person's verdict.
    """

    score: str
    value: float | None
    precision: Rate
    recall: Rate
    num_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCalibration:
    """An agent's thresholds, each on its own; of those that reach the precision the one that keeps most is chosen.

    Attributes:
        problem: why nothing is chosen, and what to do; empty where something is.
    """

    agent: str
    thresholds: tuple[Threshold, ...]
    chosen: Threshold | None
    problem: str

    @property
    def overrides(self) -> tuple[str, ...]:
        """Settings for `maskwright rejudge --set` that put the choice into effect."""
        if self.chosen is None:
            return ()
        key = f"agents.{self.agent}.similarity.{self.chosen.score}"
        return (f"{key}.mode=fixed", f"{key}.value={self.chosen.value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Thresholds of all agents of a run, for one least precision."""

    precision: float
    agents: tuple[AgentCalibration, ...]

    @property
    def overrides(self) -> tuple[str, ...]:
        """Settings of all agents; empty where no threshold reaches the precision."""
        return tuple(override for agent in self.agents for override in agent.overrides)

    def as_json(self) -> dict[str, object]:
        """As RUN/calibration.json holds it."""
        agents = [{**asdict(agent), "overrides": agent.overrides} for agent in self.agents]
        return {"precision": self.precision, "overrides": self.overrides, "agents": agents}


def calibrate_run(folder: Path, *, precision: float) -> Calibration:
    """Choose the thresholds of a run's agents by what people said of its audit, and write RUN/calibration.json.

    Counted as kept is an audited image that meets all other criteria and scores at least the threshold. An image that
    missed a limit was shown to no vision judge, which makes precision at low thresholds look worse than it would be.

    Args:
        folder: run folder.
        precision: least share, above 0 and at most 1, of kept images that a person would keep (point estimate).

    Raises:
        InputError: the precision is out of bounds, or no agent has enough audited images with scores.
        RunFolderError: the folder holds no run.
        BrokenRunError: an entry of the ledger is damaged, or the folder is not writable.
    """
    if not 0 < precision <= 1:
        raise InputError(f"--precision {precision!r} is out of bounds; expected above 0 and at most 1, such as 0.95")
    if read_run_json(folder) is None:
        raise RunFolderError(f"{str(folder)!r}: no run of ours, it has no run.json; give a run folder, as runs/NAME-1")
    check_not_anomalies(folder)
    agents = load_recipe(str(folder / "recipe.yaml")).agents
    samples = list(read_audited(_results(folder), ReviewBook(folder / "reviews")))
    calibrated = [
        _calibrate_agent(agent, [one for one in samples if _settings_of(one) == agent], precision, folder)
        for agent in SCORES
        if getattr(agents, agent) is not None
    ]
    if not any(agent.thresholds for agent in calibrated):
        raise InputError("; ".join(agent.problem for agent in calibrated))
    calibration = Calibration(precision=precision, agents=tuple(calibrated))
    write_or_stop(folder / "calibration.json", orjson.dumps(calibration.as_json(), option=orjson.OPT_INDENT_2))
    return calibration


def _settings_of(sample: Audited) -> str:
    """Whose settings judged an image: a folder's are those of the T-Agent."""
    return "text_agent" if sample.agent == "validation_agent" else sample.agent


def _results(folder: Path) -> Iterator[ItemResult]:
    ledger: Ledger[ItemResult] = Ledger(folder / "items")
    for item_id in ledger.ids():
        result = ledger.read(item_id)
        if result is not None:
            yield result


def _calibrate_agent(agent: str, samples: Sequence[Audited], precision: float, folder: Path) -> AgentCalibration:
    scored = {name: list(_scored(samples, name)) for name in SCORES[agent]}
    thresholds = [least_threshold(name, some, precision) for name, some in scored.items() if len(some) >= MIN_SAMPLES]
    reached = [threshold for threshold in thresholds if threshold.value is not None]
    chosen = max(reached, key=lambda threshold: threshold.recall.value or 0.0, default=None)
    problem = ""
    if not thresholds:
        problem = _too_few(agent, len(samples), max(map(len, scored.values())), folder)
    elif chosen is None:
        best = max(threshold.precision.value or 0.0 for threshold in thresholds)
        problem = (
            f"{agent}: no threshold reaches a precision of {precision:g}, the best is {best:.3g}; ask for less, or "
            "tighten the limits or the judges"
        )
    return AgentCalibration(agent=agent, thresholds=tuple(thresholds), chosen=chosen, problem=problem)


def _too_few(agent: str, num_audited: int, num_scored: int, folder: Path) -> str:
    if num_audited >= MIN_SAMPLES:
        return (
            f"{agent}: of {num_audited} audited images only {num_scored} have a similarity score, expected at least "
            f"{MIN_SAMPLES}; run with agents.{agent}.similarity set to a scorer that knows the classes"
        )
    return (
        f"{agent}: {num_audited} audited images have a person's verdict, expected at least {MIN_SAMPLES}. Run with "
        f"`--set agents.{agent}.validation.audit_share=0.1` or more, then `maskwright review {folder}`"
    )


class Scored(NamedTuple):
    """An audited image as a threshold sees it."""

    score: float
    meets_rest: bool
    """All criteria but the score's own."""
    keep: bool
    """The person's verdict."""


def _scored(samples: Sequence[Audited], name: str) -> Iterator[Scored]:
    for sample in samples:
        score = sample.attempt["measures"].get(name)
        if score is not None and math.isfinite(score):
            yield Scored(score, _meets_rest(sample.attempt, name), sample.keep)


def _meets_rest(attempt: Attempt, name: str) -> bool:
    rest = [criterion for criterion in attempt["criteria"] if criterion["name"] != name]
    return not rest or meets_all(rest)


def least_threshold(name: str, samples: Sequence[Scored], precision: float) -> Threshold:
    """The least threshold at which the kept images have a precision.

    Args:
        name: of the score.
        samples: at least one.
    """
    num_good = sum(sample.keep for sample in samples)
    candidates = sorted((one for one in samples if one.meets_rest), key=lambda one: one.score, reverse=True)
    good = 0
    rates: list[Rate] = []
    for kept, sample in enumerate(candidates, start=1):
        good += sample.keep
        if kept == len(candidates) or candidates[kept].score < sample.score:  # equal scores are kept together
            rates.append(to_rate(good, kept))
    reaching = [rate for rate in rates if (rate.value or 0.0) >= precision - 1e-9]
    if reaching:
        rate = reaching[-1]
        return _threshold(name, _between(candidates, rate.n), rate, num_good, len(samples))
    nearest = max(rates, key=lambda rate: rate.value or 0.0, default=to_rate(0, 0))
    return _threshold(name, None, nearest, num_good, len(samples))


def _threshold(name: str, value: float | None, rate: Rate, num_good: int, num_samples: int) -> Threshold:
    good = round((rate.value or 0.0) * rate.n)
    recall = to_rate(good, num_good)
    return Threshold(score=name, value=value, precision=rate, recall=recall, num_samples=num_samples)


def _between(candidates: Sequence[Scored], kept: int) -> float:
    """The shortest number that keeps so many of the candidates, best first, and no more."""
    least = candidates[kept - 1].score
    above = candidates[kept].score if kept < len(candidates) else -math.inf
    for digits in range(2, 17):
        scale = 10.0**digits
        value = math.floor(least * scale) / scale
        if above < value <= least:
            return value
    return least

"""Prompts by GEPA (arXiv 2507.19457), reflective evolution on a Pareto front: the `gepa` package over the same task.

Same examples, same engine, same ledger and budget of calls as TextGrad. What differs: the next prompt starts from any
that is best on some held-out example, and comes of one reflection on the batch instead of a loss and a gradient.
GEPA weighs examples alike; which prompt is the result is decided by the task's own score.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import MissingDependencyError
from ..graphs.prompt_files import braced
from .optimize import MAX_TOLD, Revision, find_revision_fault
from .optimize_engine import BudgetSpentError
from .optimize_examples import Example
from .optimize_state import Candidate, OptimizeEnding, OptimizeServices, Step
from .optimize_tasks import Trial, mean_metrics, mean_score

if TYPE_CHECKING:
    from gepa.core.adapter import EvaluationBatch
    from gepa.core.state import GEPAState

log = logging.getLogger(__name__)
COMPONENT = "prompt"
"""GEPA optimizes several texts; ours is one."""
Reflective = Mapping[str, Sequence[Mapping[str, object]]]


class _Log:
    """GEPA's own words, for who asks for them."""

    def log(self, message: str) -> None:
        log.debug("%s", message)


@dataclass(slots=True)
class TaskAdapter:
    """A task as GEPA sees it; it notes what GEPA tries."""

    services: OptimizeServices
    rated: dict[str, Candidate] = field(default_factory=dict)
    """Prompts that were tried on all held-out examples, the base first."""
    history: list[Step] = field(default_factory=list)

    def evaluate(
        self, batch: list[Example], candidate: dict[str, str], capture_traces: bool = False
    ) -> EvaluationBatch[Trial, Trial]:
        from gepa.core.adapter import EvaluationBatch

        prompt = candidate[COMPONENT]
        trials = self.services.trials.of(prompt, batch)
        if batch == list(self.services.held_out):
            self._note_rating(prompt, trials)
        scores = [trial["score"] for trial in trials]
        return EvaluationBatch(outputs=trials, scores=scores, trajectories=trials if capture_traces else None)

    def make_reflective_dataset(
        self,
        candidate: dict[str, str],  # noqa: ARG002  # GEPA's protocol
        eval_batch: EvaluationBatch[Trial, Trial],
        components_to_update: list[str],
    ) -> Reflective:
        told = [{"Feedback": trial["evidence"] or "good", "score": trial["score"]} for trial in eval_batch.outputs]
        return dict.fromkeys(components_to_update, told)

    def propose_new_texts(
        self,
        candidate: dict[str, str],
        reflective_dataset: Reflective,
        components_to_update: list[str],
    ) -> dict[str, str]:
        """A new prompt from what went wrong with this one; the same one where none comes, which wins nothing."""
        services, current = self.services, candidate[COMPONENT]
        records = [record for component in components_to_update for record in reflective_dataset[component]]
        evidence = "\n".join(f"- {record['Feedback']}" for record in records if record["Feedback"] != "good")
        number = len(self.history) + 1
        known = {services.task.base.text, current, *(step["prompt"] for step in self.history)}
        reply = services.engine.ask(
            "optimize_update",
            Revision,
            str(number),
            {
                "purpose": services.task.purpose,
                "prompt": current,
                "gradient": f"These must not happen again:\n{evidence}",
                "tried": "",
                "placeholders": braced(services.task.placeholders),
            },
            lambda revision: find_revision_fault(revision.prompt, services.task, known),
        )
        proposal = reply.value.prompt.strip() if reply.value else ""
        self.history.append(
            {
                "round": number,
                "batch_score": sum(float(str(record["score"])) for record in records) / max(1, len(records)),
                "loss": evidence[:MAX_TOLD],
                "gradient": "",
                "prompt": proposal,
                "score": None,
                "metrics": {},
                "outcome": "reverted" if proposal else "dropped",
                "reason": reply.fault or "no better on its own batch",
            }
        )
        return {COMPONENT: proposal or current}

    def _note_rating(self, prompt: str, trials: Sequence[Trial]) -> None:
        rating: Candidate = {"prompt": prompt, "score": mean_score(trials), "metrics": mean_metrics(trials)}
        self.rated.setdefault(prompt, rating)
        self.history = [
            {**step, "score": rating["score"], "metrics": rating["metrics"], "outcome": "kept", "reason": ""}
            if step["prompt"] == prompt
            else step
            for step in self.history
        ]


def evolve(services: OptimizeServices) -> tuple[Sequence[Candidate], list[Step], OptimizeEnding]:
    """Prompts that were rated on the held-out examples, the base first; the history; and why the search ended.

    Raises:
        MissingDependencyError: `gepa` is not installed.
        ModelOutageError, ModelAccessError: a model cannot be asked.
    """
    try:
        import gepa
    except ImportError as exc:
        raise MissingDependencyError(
            "--method gepa needs the package `gepa`; install it with: pip install 'maskwright[optimize]'"
        ) from exc
    settings, adapter = services.settings, TaskAdapter(services)

    def is_over(state: GEPAState[Trial, int]) -> bool:
        best = max((rating["score"] for rating in adapter.rated.values()), default=0.0)
        return best >= settings.target_score or state.i + 1 >= settings.rounds

    ending: OptimizeEnding = "exhausted"
    try:
        gepa.optimize(
            seed_candidate={COMPONENT: services.task.base.text},
            trainset=list(services.learned),
            valset=list(services.held_out),
            adapter=adapter,
            reflection_minibatch_size=min(settings.batch_size, len(services.learned)),
            stop_callbacks=is_over,
            logger=_Log(),
            seed=settings.seed,
            track_best_outputs=False,
        )
    except BudgetSpentError:
        ending = "budget"
    rated = list(adapter.rated.values())
    if any(rating["score"] >= settings.target_score for rating in rated):
        ending = "accepted"
    return rated, adapter.history, ending

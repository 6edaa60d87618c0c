"""Prompts by textual gradients: TextGrad (arXiv 2406.07496) as a graph, for the agents of Gen-n-Val (arXiv 2506.04676).

verify_base ─> run_batch ─┬─ wrong ────> criticize ─> differentiate ─> update ─┬─ proposed ─> verify ─┬─ better ─> keep
                   ^      └─ all_right ─> skip                                 └─ dropped ──> skip    └─ worse ─> revert
                   └── again ── after keep, revert and skip ─┬─ accepted ──> finish_accepted
                                                             └─ exhausted ─> finish_exhausted
                              any node, without a call left ─> finish_budget

A prompt that does as well on the held-out examples as the one before is kept, as TextGrad has it; the best of all, and
of equals the first, is the result.
"""

# ruff: noqa: ARG001  # every node takes the state

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

from langgraph.errors import NodeError
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command
from pydantic import BaseModel, ConfigDict, Field

from ..graphs.items import OUTAGES
from ..graphs.prompt_files import braced, find_placeholder_fault
from .optimize_engine import BudgetSpentError
from .optimize_examples import Example
from .optimize_state import (
    BaseUpdate,
    BatchUpdate,
    Candidate,
    EndUpdate,
    GradientUpdate,
    KeepUpdate,
    LossUpdate,
    NextUpdate,
    OptimizeServices,
    OptimizeSettings,
    OptimizeState,
    ProposalUpdate,
    ProposedUpdate,
    Step,
    StepOutcome,
)
from .optimize_tasks import Task, mean_score

MAX_TOLD = 600
"""Characters of an answer that stand in for the engine's, where it has none."""
MAX_TRIED = 3
"""Prompts that did worse which the engine is shown, the last ones."""
MAX_PROMPT_CHARS = 6000
AnswerT = TypeVar("AnswerT", bound=BaseModel)


class Loss(BaseModel):
    """A textual loss."""

    model_config = ConfigDict(extra="forbid")

    problem: str = Field(min_length=3, max_length=600, description="what is wrong with the results")


class Gradient(BaseModel):
    """A textual gradient."""

    model_config = ConfigDict(extra="forbid")

    advice: str = Field(min_length=3, max_length=600, description="how the prompt must change")


class Revision(BaseModel):
    """A new prompt."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=3, max_length=MAX_PROMPT_CHARS, description="the whole new prompt")


Services = Runtime[OptimizeServices]
OptimizeGraph = CompiledStateGraph[OptimizeState, OptimizeServices, OptimizeState, OptimizeState]


def verify_base(state: OptimizeState, runtime: Services) -> BaseUpdate:
    """Where it starts from, on the held-out examples."""
    base = runtime.context.rate(runtime.context.task.base.text)
    return {"current": base, "best": base}


def run_batch(state: OptimizeState, runtime: Services) -> BatchUpdate:
    """Answer a few examples with the current prompt."""
    services = runtime.context
    batch = choose_batch(services.learned, state["round"], services.settings)
    return {"trials": services.trials.of(state["current"]["prompt"], batch), "loss": "", "gradient": ""}


def criticize(state: OptimizeState, runtime: Services) -> LossUpdate:
    """The textual loss: what the failures of the batch have in common."""
    evidence = "\n".join(f"- {trial['evidence']}" for trial in state["trials"] if trial["evidence"])
    reply = _ask(runtime, state, "optimize_loss", Loss, {"evidence": evidence})
    return {"loss": reply.problem if reply else evidence[:MAX_TOLD]}


def differentiate(state: OptimizeState, runtime: Services) -> GradientUpdate:
    """The textual gradient: how the prompt must change."""
    reply = _ask(runtime, state, "optimize_gradient", Gradient, {"loss": state["loss"]})
    return {"gradient": reply.advice if reply else f"Avoid this: {state['loss'][:MAX_TOLD]}"}


def update(state: OptimizeState, runtime: Services) -> ProposalUpdate:
    """A new prompt; one whose placeholders are wrong, or that was tried before, is repaired once, else dropped."""
    services, current = runtime.context, state["current"]["prompt"]
    known = {services.task.base.text, current, *(step["prompt"] for step in state["history"])}
    worse = [step for step in state["history"] if step["outcome"] == "reverted"][-MAX_TRIED:]
    reply = services.engine.ask(
        "optimize_update",
        Revision,
        str(state["round"]),
        {
            "purpose": services.task.purpose,
            "prompt": current,
            "gradient": state["gradient"],
            "tried": "".join(
                f"\nThis was tried and did worse:\n<tried>\n{step['prompt']}\n</tried>\n" for step in worse
            ),
            "placeholders": braced(services.task.placeholders),
        },
        lambda revision: find_revision_fault(revision.prompt, services.task, known),
    )
    return {"proposal": reply.value.prompt.strip() if reply.value else "", "fault": reply.fault}


def verify(state: OptimizeState, runtime: Services) -> ProposedUpdate:
    """The new prompt on the held-out examples."""
    return {"proposed": runtime.context.rate(state["proposal"])}


def keep(state: OptimizeState) -> KeepUpdate:
    """Go on from the new prompt."""
    proposed, best = state["proposed"], state["best"]
    return {
        "round": state["round"] + 1,
        "current": proposed,
        "best": proposed if proposed["score"] > best["score"] else best,
        "history": [_to_step(state, "kept", proposed=proposed)],
    }


def revert(state: OptimizeState) -> NextUpdate:
    """Stay with the prompt before."""
    reason = f"{state['proposed']['score']:g} on the held-out examples, {state['current']['score']:g} before"
    return {
        "round": state["round"] + 1,
        "history": [_to_step(state, "reverted", reason, proposed=state["proposed"])],
    }


def skip(state: OptimizeState) -> NextUpdate:
    """Nothing to try: the batch had no failure, or no new prompt came."""
    dropped = bool(state["loss"])
    step = _to_step(state, "dropped" if dropped else "all right", state["fault"] if dropped else "")
    return {"round": state["round"] + 1, "history": [step]}


def finish_accepted(state: OptimizeState) -> EndUpdate:
    return {"ending": "accepted"}


def finish_exhausted(state: OptimizeState) -> EndUpdate:
    return {"ending": "exhausted"}


def finish_budget(state: OptimizeState) -> EndUpdate:
    return {"ending": "budget"}


def route_batch(state: OptimizeState) -> Literal["wrong", "all_right"]:
    """A failure is what a loss is made of."""
    return "wrong" if any(trial["evidence"] for trial in state["trials"]) else "all_right"


def route_proposal(state: OptimizeState) -> Literal["proposed", "dropped"]:
    return "proposed" if state["proposal"] else "dropped"


def route_verdict(state: OptimizeState) -> Literal["better", "worse"]:
    """Worse is what falls below the prompt before; standing still is no reason to revert."""
    return "better" if state["proposed"]["score"] >= state["current"]["score"] else "worse"


def route_next(state: OptimizeState, runtime: Services) -> Literal["again", "accepted", "exhausted"]:
    """Stop on acceptance, or when the rounds are used up."""
    settings = runtime.context.settings
    if state["best"]["score"] >= settings.target_score:
        return "accepted"
    return "again" if state["round"] <= settings.rounds else "exhausted"


def stop_without_budget(state: OptimizeState, error: NodeError) -> Command[Literal["finish_budget"]]:
    """What was found by then stands; every other error ends the command, and the ledger keeps what was paid for."""
    if isinstance(error.error, BudgetSpentError):
        return Command(goto="finish_budget")
    raise error.error


def build_optimize_graph() -> OptimizeGraph:
    """TextGrad for one prompt; its context is `OptimizeServices`."""
    graph = StateGraph(OptimizeState, context_schema=OptimizeServices)
    graph.set_node_defaults(error_handler=stop_without_budget)  # type: ignore[arg-type, unused-ignore]  # see text_agent
    for asker in (verify_base, run_batch, criticize, differentiate, update, verify):
        graph.add_node(asker.__name__, asker, retry_policy=OUTAGES)
    for node in (keep, revert, skip, finish_accepted, finish_exhausted, finish_budget):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "verify_base")
    graph.add_conditional_edges("run_batch", route_batch, {"wrong": "criticize", "all_right": "skip"})
    graph.add_edge("criticize", "differentiate")
    graph.add_edge("differentiate", "update")
    graph.add_conditional_edges("update", route_proposal, {"proposed": "verify", "dropped": "skip"})
    graph.add_conditional_edges("verify", route_verdict, {"better": "keep", "worse": "revert"})
    for node_name in ("verify_base", "keep", "revert", "skip"):
        graph.add_conditional_edges(
            node_name,
            route_next,
            {"again": "run_batch", "accepted": "finish_accepted", "exhausted": "finish_exhausted"},
        )
    for ending in ("finish_accepted", "finish_exhausted", "finish_budget"):
        graph.add_edge(ending, END)
    return graph.compile()


def choose_batch(learned: Sequence[Example], round_number: int, settings: OptimizeSettings) -> list[Example]:
    """The examples of a round: each epoch shuffles them anew, by the seed, and takes batch after batch."""
    size = min(settings.batch_size, len(learned))
    steps = min(settings.steps_per_epoch, -(-len(learned) // size))
    epoch, step = divmod(round_number - 1, steps)

    def place(example: Example) -> bytes:
        return hashlib.sha256(f"{settings.seed}\0{epoch}\0{example.example_id}".encode()).digest()

    shuffled = sorted(learned, key=place)
    return [shuffled[(step * size + offset) % len(learned)] for offset in range(size)]


def find_revision_fault(prompt: str, task: Task, known: set[str]) -> str:
    """What keeps a text from being tried as a prompt; "" where nothing does."""
    if prompt.strip() in {text.strip() for text in known}:
        return "that prompt was tried before; change it"
    return find_placeholder_fault(prompt, task.placeholders)


def _ask(
    runtime: Services, state: OptimizeState, question: str, schema: type[AnswerT], values: Mapping[str, str]
) -> AnswerT | None:
    services = runtime.context
    told = {"purpose": services.task.purpose, "prompt": state["current"]["prompt"], **values}
    return services.engine.ask(question, schema, str(state["round"]), told).value


def _to_step(state: OptimizeState, outcome: StepOutcome, reason: str = "", proposed: Candidate | None = None) -> Step:
    return {
        "round": state["round"],
        "batch_score": mean_score(state["trials"]),
        "loss": state["loss"],
        "gradient": state["gradient"],
        "prompt": state["proposal"] if state["loss"] else "",
        "score": proposed["score"] if proposed else None,
        "metrics": proposed["metrics"] if proposed else {},
        "outcome": outcome,
        "reason": reason,
    }

"""The label agent: a prompt refined before it is painted, a picture filtered before it is kept (IAA, arXiv 2412.20439).

admit ─┬─ drawn ─> draft_prompt ─> score_prompt ─┬─ low ──> rewrite_prompt ─> score_prompt ⟲
       │                 ^                       └─ good ─> paint ─> look ─┬─ admitted ───> finish_accepted
       │                 │                                    ^            ├─ repaint ────> paint (another seed)
       │                 └─ new prompt (told why) ────────────│────────────┤
       └─ quota ─> finish_exhausted <── spent ────────────────│────────────┘
                         any node, unrecovered ─> finish_failed

The draw for an item's place in the quotas depends on nothing painted, so it comes first and costs nothing. Where no
version of a prompt reaches the threshold within `max_refinements`, the best-scored one is painted: the paper says that
a low one is rewritten "again", and not what then; the filter still looks at what comes of it. An item that failed goes
on where it stopped, so that no prompt is asked for, and no picture paid for, twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from ..configs.label_agent import LabelAgentSettings
from ..memory.entries import Ending
from ..tools.scenes import SceneRequest
from .anomaly_planner import json_to_plan
from .items import OUTAGES, image_seed, recover
from .label_filter import UNSEEN, best_version, is_drawn, least, refusals, versions_of
from .label_services import LabelServices
from .label_state import LabelState, PromptEntry, PromptScore, SceneEntry

Services = Runtime[LabelServices]
LabelAgentGraph = CompiledStateGraph[LabelState, LabelServices, LabelState, LabelState]
Step = Literal["quota", "draft", "score", "rewrite", "paint", "look", "admitted", "spent"]


class AdmitUpdate(TypedDict, total=False):
    reason: str


class PromptUpdate(TypedDict):
    prompts: list[PromptEntry]


class ScoreUpdate(TypedDict):
    scores: list[PromptScore]


class PaintUpdate(TypedDict):
    scenes: list[SceneEntry]
    images_usd: float


class LookUpdate(TypedDict):
    scenes: list[SceneEntry]


class FinishUpdate(TypedDict, total=False):
    ending: Ending
    reason: str


def admit(state: LabelState, runtime: Services) -> AdmitUpdate:
    """Draw whether the item is made, by how open its classes' quotas are; what was begun is not drawn for again."""
    services, item = runtime.context, state["item"]
    if state["prompts"] or is_drawn(item["item_id"], item["labels"], services.open_shares, services.run_seed):
        return {}
    return {"reason": "quota"}


def draft_prompt(state: LabelState, runtime: Services) -> PromptUpdate:
    """A new prompt; after pictures of another were refused, the writer is told why, the most frequent reason first."""
    services, prompts = runtime.context, state["prompts"]
    draft = prompts[-1]["draft"] + 1 if prompts else 1
    refused = Counter(reason for scene in _scenes_of(state, draft - 1) for reason in scene["refused"])
    reasons = [reason for reason, _ in refused.most_common()]
    return {"prompts": [services.writer.draft(state["item"], draft, reasons, services.usage)]}


def score_prompt(state: LabelState, runtime: Services) -> ScoreUpdate:
    """What the writer says of its own last prompt."""
    services = runtime.context
    return {"scores": [services.writer.score(state["item"], state["prompts"][-1], services.usage)]}


def rewrite_prompt(state: LabelState, runtime: Services) -> PromptUpdate:
    """The last prompt without what was found wrong with it."""
    services = runtime.context
    last, score = state["prompts"][-1], state["scores"][-1]
    return {"prompts": [services.writer.rewrite(state["item"], last, score, services.usage)]}


def paint(state: LabelState, runtime: Services) -> PaintUpdate:
    """One picture of the best version of the prompt."""
    services, item = runtime.context, state["item"]
    row, number = best_version(state["prompts"], state["scores"]), len(state["scenes"]) + 1
    prompt = state["prompts"][row]
    request = SceneRequest(
        item_id=item["item_id"],
        seed=image_seed(services.run_seed, item["item_id"], prompt["draft"], number),
        prompt=prompt["text"],
        labels=tuple(item["labels"]),
        plans=tuple(json_to_plan(plan) for plan in prompt["plans"]),
        background=item["source_row"],
    )
    [painted] = services.paint([request])
    scene: SceneEntry = {
        "number": number,
        "seed": request.seed,
        "prompt": row,
        "artifact": services.artifacts.put_image(painted.rgb),
        "background": painted.background,
        "parameters": dict(painted.parameters),
        "probabilities": {},
        "refused": [f"flaw: {painted.flaw}" if painted.flaw else UNSEEN],
    }
    return {"scenes": [*state["scenes"], scene], "images_usd": painted.usd}


def look(state: LabelState, runtime: Services) -> LookUpdate:
    """The online filter: every prompted class is there, no other one is, and the picture fits its prompt."""
    services, settings = runtime.context, runtime.context.settings
    *earlier, scene = state["scenes"]
    if scene["refused"] != [UNSEEN]:
        return {"scenes": state["scenes"]}
    if not settings.filter:
        return {"scenes": [*earlier, {**scene, "refused": []}]}
    rgb = services.artifacts.get_image(scene["artifact"])[..., :3]
    seen: SceneEntry = {**scene}
    text_score = None
    if services.classifier is not None:
        scores = services.classifier.score([rgb])[0]
        seen["probabilities"] = {
            name: round(float(p), 5) for name, p in zip(services.classifier.classes, scores, strict=True)
        }
    if services.text_scorer is not None and settings.admission.min_text_score is not None:
        text_score = float(services.text_scorer.score([rgb], [state["prompts"][scene["prompt"]]["text"]])[0, 0])
        seen["text_score"] = round(text_score, 5)
    seen["refused"] = refusals(state["item"]["labels"], seen["probabilities"], settings.admission, text_score)
    return {"scenes": [*earlier, seen]}


def route(state: LabelState, runtime: Services) -> Step:
    """What comes next, by what there is; each node offers only the doors that it can lead to."""
    if "reason" in state:
        return "quota"
    prompts, settings = state["prompts"], runtime.context.settings
    if not prompts:
        return "draft"
    scenes = _scenes_of(state, prompts[-1]["draft"])
    return _after_scenes(state, scenes, settings) if scenes else _after_prompts(state, settings)


def finish_accepted(state: LabelState) -> FinishUpdate:
    return {"ending": "accepted"}


def finish_exhausted(state: LabelState) -> FinishUpdate:
    """Without a picture; the reason is the draw's, an error's, or why the last picture was refused."""
    refused = state["scenes"][-1]["refused"] if state["scenes"] else []
    return {"ending": "exhausted", "reason": state.get("reason", "") or "; ".join(refused)}


def finish_failed(state: LabelState) -> FinishUpdate:
    return {"ending": "failed"}


def build_label_agent_graph() -> LabelAgentGraph:
    """The label agent for one item; its context is `LabelServices`."""
    graph = StateGraph(LabelState, context_schema=LabelServices)
    graph.set_node_defaults(error_handler=recover)  # type: ignore[arg-type, unused-ignore]  # the stubs lack NodeError
    for asker in (draft_prompt, score_prompt, rewrite_prompt, paint, look):
        graph.add_node(asker.__name__, asker, retry_policy=OUTAGES)
    for node in (admit, finish_accepted, finish_exhausted, finish_failed):
        graph.add_node(node.__name__, node)
    resumed: dict[Hashable, str] = {
        "score": "score_prompt",
        "rewrite": "rewrite_prompt",
        "paint": "paint",
        "look": "look",
    }
    doors: dict[str, dict[Hashable, str]] = {
        "admit": {"quota": "finish_exhausted", "draft": "draft_prompt", **resumed},
        "draft_prompt": {"score": "score_prompt", "paint": "paint"},
        "score_prompt": {"rewrite": "rewrite_prompt", "paint": "paint"},
        "look": {"admitted": "finish_accepted", "paint": "paint", "draft": "draft_prompt", "spent": "finish_exhausted"},
    }
    graph.add_edge(START, "admit")
    for node_name, targets in doors.items():
        graph.add_conditional_edges(node_name, route, targets)
    graph.add_edge("rewrite_prompt", "score_prompt")
    graph.add_edge("paint", "look")
    for ending in ("finish_accepted", "finish_exhausted", "finish_failed"):
        graph.add_edge(ending, END)
    return graph.compile()


def _scenes_of(state: LabelState, draft: int) -> list[SceneEntry]:
    """Pictures of one draft, whichever of its versions they were painted from."""
    return [scene for scene in state["scenes"] if state["prompts"][scene["prompt"]]["draft"] == draft]


def _after_prompts(state: LabelState, settings: LabelAgentSettings) -> Step:
    """Where nothing is painted of the draft yet."""
    prompts, scores = state["prompts"], state["scores"]
    if not settings.refine:
        return "paint"
    if len(scores) < len(prompts):
        return "score"
    num_rewrites = len(versions_of(prompts, prompts[-1]["draft"])) - 1
    is_low = least(scores[-1]) < settings.refine_threshold
    return "rewrite" if is_low and num_rewrites < settings.max_refinements else "paint"


def _after_scenes(state: LabelState, scenes: Sequence[SceneEntry], settings: LabelAgentSettings) -> Step:
    """Where a picture is painted of the draft."""
    if scenes[-1]["refused"] == [UNSEEN]:
        return "look"
    if not scenes[-1]["refused"]:
        return "admitted"
    if len(state["scenes"]) > settings.admission.max_repaints:
        return "spent"
    return "paint" if len(scenes) < settings.admission.seeds_per_prompt else "draft"

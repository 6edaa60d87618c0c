"""A small run folder whose images wait for a person, made with the ledger and the artifacts that runs use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from maskwright.configs.recipe import load_recipe
from maskwright.memory.artifacts import ArtifactStore
from maskwright.memory.entries import Attempt, CriterionResult, ItemResult, OpinionEntry, Review, no_cost, review_id
from maskwright.memory.ledger import Ledger
from maskwright.memory.reviews import ReviewBook

HEIGHT, WIDTH = 48, 64
NASTY = "<img src=x onerror=\"document.title='owned'\"> Mutter ö"


def criterion(name: str, outcome: str = "meet", reason: str = "", score: float = 1.0) -> CriterionResult:
    return {"name": name, "outcome": outcome, "score": score, "reason": reason}


def opinion(judge: str, *, keep: bool, reason: str = "a second one stands behind it") -> OpinionEntry:
    said = criterion("single_object", "meet" if keep else "fail", "" if keep else reason)
    return {
        "judge": judge,
        "version": "v1",
        "description": f"A thing, as {judge} sees it.",
        "criteria": [criterion("right_category"), said],
        "rung": "schema",
        "raw_text": "{}",
    }


def draw(number: int, *, whole: bool = False) -> np.ndarray:
    """(48, 64, 4) uint8: an ellipse on transparency, or opaque on a textured background."""
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    inside = ((xs - 30 - number % 5) / 22) ** 2 + ((ys - 24) / 15) ** 2 < 1
    rng = np.random.default_rng(number)
    rgba = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    rgba[..., :3] = rng.integers(60, 120, (HEIGHT, WIDTH, 3))
    rgba[inside, :3] = np.stack([180 + xs, 60 + ys, 40 + 3 * ys], axis=2)[inside].clip(0, 255)
    rgba[..., 3] = 255 if whole else np.where(inside, 255, 0)
    return rgba


class ReviewRun:
    """A run folder that tests fill image by image."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.artifacts = ArtifactStore(folder / "artifacts")
        self.items: Ledger[ItemResult] = Ledger(folder / "items")
        self.book = ReviewBook(folder / "reviews")
        (folder / "run.json").write_text(json.dumps({"fingerprint": "f", "recipe": "instada", "status": "partial"}))
        (folder / "recipe.yaml").write_text(load_recipe("instada").to_yaml(), encoding="utf-8")

    def add(
        self,
        number: int,
        *,
        held: str = "audit",
        category: str = "bolt",
        agent: str = "text_agent",
        criteria: tuple[CriterionResult, ...] = (criterion("sharpness"),),
        opinions: tuple[OpinionEntry, ...] = (),
        measures: dict[str, float] | None = None,
        person: bool | None = None,
    ) -> str:
        """Add an item with one image; returns the id of its review. `person` writes a verdict too."""
        attempt: Attempt = {
            "round": 1,
            "index": 0,
            "seed": number,
            "strength": 0.8,
            "artifact": self.artifacts.put_image(draw(number)),
            "painted": self.artifacts.put_image(draw(number, whole=True)),
            "parameters": {},
            "truncated_sides": [],
            "measures": measures or {},
            "criteria": [*criteria, *(one for said in opinions for one in said["criteria"])],
            "accepted": False,
        }
        if held:
            attempt["held"] = held  # type: ignore[typeddict-item]
        if opinions:
            attempt["opinions"] = list(opinions)
        item_id = f"{agent}-3-{number:04d}"
        self.items.write(item_id, self._item(item_id, agent, category, attempt))
        if person is not None:
            self.decide(item_id, person)
        return review_id(item_id, attempt)

    def _item(self, item_id: str, agent: str, category: str, attempt: Attempt) -> ItemResult:
        source = self.artifacts.put_image(draw(99)) if agent == "image_agent" else None
        return {
            "item": {
                "item_id": item_id,
                "agent": agent,
                "category_id": 3,
                "category": category,
                "source_row": 0 if source else -1,
                "slot": 0,
            },
            "ending": "held",
            "reason": "",
            "source": source
            and {
                "artifact": source,
                "file_name": "bild ü.png",
                "annotation_id": 1,
                "licence": "",
                "truncation": 0.0,
                "truncated_sides": [],
                "side_ratio": 1.0,
            },
            "unreadable_image": "",
            "painter": {"name": "scripted", "revision": ""},
            "attempts": [attempt],
            "instances": [],
            "rounds": [],
            "cost": no_cost(),
            "seconds": 0.0,
        }

    def entry_id(self, item_id: str) -> str:
        """Id of the review of an item's one image."""
        result = self.items.read(item_id)
        assert result is not None
        return review_id(item_id, result["attempts"][0])

    def decide(self, item_id: str, keep: bool, reviewer: str = "Eva") -> Review:
        result = self.items.read(item_id)
        assert result is not None
        return self.book.decide(review_of(item_id, keep, reviewer, result["attempts"][0]["artifact"]))


def review_of(item_id: str, keep: bool, reviewer: str = "Eva", artifact: str = "0123456789abcdef.png") -> Review:
    return {
        "item_id": item_id,
        "round": 1,
        "index": 0,
        "artifact": artifact,
        "keep": keep,
        "reviewer": reviewer,
        "decided": "2025-01-02T03:04:05+00:00",
    }

"""What a round of a loop brought, by YOLO trainings with and without its product."""

from __future__ import annotations

from pathlib import Path

from ..tools.protocols import ImageEmbedder
from .anomaly_evaluation import Progress
from .arm_plans import plan_pair
from .comparison import open_comparison, read_recipe
from .detectors import Detector
from .gains import ArmFigures, RoundFigures
from .yolo_evaluation import measure_arms
from .yolo_summary import FigureKey, main_figure, summarize_arms


class YoloGainMeter:
    """Fits `GainMeter`: AP of masks, or of boxes where no masks are measured, by the recipe's `evaluation`."""

    def __init__(
        self,
        detector: Detector,
        embedder: ImageEmbedder,
        *,
        data: Path | None = None,
        results: Path | None = None,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> None:
        """
        Args:
            embedder: to find near-duplicates with.
            data: what the rounds are made from; None: where their recipes say.
            results: where trainings and figures go, which loops may share; None: evaluation/yolo beside the rounds.
            progress: hears of the stages `trainings` and `steps`.
        """
        self._detector, self._embedder = detector, embedder
        self._data, self._results = data, results
        self._device, self._progress = device, progress

    def measure(self, run_folder: Path, round_number: int) -> RoundFigures:  # noqa: ARG002  # a round is its folder
        """Train and measure; real images are trained on once for all rounds.

        Raises:
            InputError, BrokenRunError: as `open_comparison` and `evaluate_yolo` raise them.
        """
        settings = read_recipe(run_folder).evaluation
        results = self._results or run_folder.parent / "evaluation" / "yolo"
        comparison = open_comparison(run_folder, self._data, settings, self._embedder, results=results)
        planned = plan_pair(comparison)
        measured = measure_arms(comparison, planned, self._detector, device=self._device, progress=self._progress)
        real, ours = summarize_arms(planned, measured, settings.task)
        main = main_figure(settings.task)

        def figures_of(key: FigureKey) -> ArmFigures:
            return ArmFigures(with_synthetic=ours.by_seed[key], real_alone=real.by_seed[key])

        names = [category.name for category in comparison.dataset.categories]
        classes = {name: figures_of(main._replace(scope="classes", name=name)) for name in names}
        return RoundFigures(overall=figures_of(main), classes=classes)

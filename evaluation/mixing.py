"""Which images are learned from: of the user's photographs, and of a run's beside them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from ..configs.evaluation import MixingSettings
from ..data.records import Dataset
from ..errors import RecipeError
from .near_duplicates import keep_images
from .run_product import SyntheticImage


def choose_real(dataset: Dataset, mixing: MixingSettings, *, seed: int, num_more: int = 0) -> Dataset:
    """The data set with at most `mixing.backgrounds` training images without an instance for each one with some.

    Which ones depends on their names and the seed alone, and a higher setting keeps what a lower one does.

    Args:
        num_more: images with an instance that a pass shows beside these: synthetic ones, and real ones again. They
            count like them, so that the share of images without an instance is the same in all arms.
    """
    if mixing.backgrounds is None:
        return dataset
    table = dataset.annotations
    train = [index for index, image in enumerate(dataset.images) if image.split == "train"]
    empty = [index for index in train if not len(table.rows_of_image(index))]
    most = round(mixing.backgrounds * (len(train) - len(empty) + num_more))
    drawn = sorted(empty, key=lambda index: _draw(dataset.images[index].file_name, seed))
    surplus = set(drawn[most:])
    return keep_images(dataset, [index not in surplus for index in range(len(dataset.images))])


def repeat_real(dataset: Dataset, mixing: MixingSettings, num_synthetic: int, *, seed: int) -> dict[str, int]:
    """How often a pass beside synthetic images shows each real training image with an instance, by file name.

    So often that they are `mixing.real_share` of the images with an instance. Where this does not divide evenly, some
    come once more than others, by their names and the seed alone.

    Returns:
        Empty where each comes once: without the setting, where they are that many by themselves, and where none is.
    """
    if mixing.real_share is None:
        return {}
    table = dataset.annotations
    shown = [
        image.file_name
        for index, image in enumerate(dataset.images)
        if image.split == "train" and len(table.rows_of_image(index))
    ]
    wanted = round(num_synthetic * mixing.real_share / (1 - mixing.real_share))
    if not shown or wanted <= len(shown):
        return {}
    times, rest = divmod(wanted, len(shown))
    drawn = sorted(shown, key=lambda name: _draw(name, seed))
    return {name: times + (number < rest) for number, name in enumerate(drawn)}


def count_train_images(dataset: Dataset) -> int:
    """Training images, with an instance or without."""
    return sum(image.split == "train" for image in dataset.images)


def choose_synthetic(
    images: Sequence[SyntheticImage], num_real: int, mixing: MixingSettings, *, seed: int
) -> tuple[SyntheticImage, ...]:
    """Draw synthetic images up to `mixing.ratio`, past those that would lift a class over `mixing.max_per_class`.

    The draw depends on the images' names and the seed alone. What a lower ratio chooses, a higher one chooses too, so
    that a curve over ratios compares like with like.

    Args:
        num_real: real training images.

    Returns:
        In the order given.

    Raises:
        RecipeError: not one image is left.
    """
    most = len(images) if mixing.ratio is None else round(mixing.ratio * num_real)
    chosen: set[str] = set()
    totals: Counter[int] = Counter()
    for one in sorted(images, key=lambda image: _draw(image.file_name, seed)):
        if len(chosen) >= most:
            break
        if _fits(totals, one, mixing.max_per_class):
            totals.update(one.instances)
            chosen.add(one.file_name)
    if not chosen:
        raise RecipeError(
            f"evaluation.mixing (ratio {mixing.ratio!r}, max_per_class {mixing.max_per_class!r}) leaves none of "
            f"{len(images)} synthetic images beside {num_real} real ones; expected some. Raise it, or set it to null."
        )
    return tuple(one for one in images if one.file_name in chosen)


def _fits(totals: Counter[int], image: SyntheticImage, most: int | None) -> bool:
    return most is None or all(totals[key] + number <= most for key, number in image.instances.items())


def _draw(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()

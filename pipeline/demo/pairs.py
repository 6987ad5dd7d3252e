"""Verification pairs in ten folds, in the text format of LFW's ``pairs.txt``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

FOLDS = 10
MIN_PAIRS = 2  # genuine or impostor pairs in a fold


def pairs_text(names: Sequence[str], images: int, rng: np.random.Generator) -> str:
    r"""Draws ten folds with about as many genuine and as many impostor pairs as there are images.

    Folds share people only if there are fewer than two people per fold. A fold repeats pairs only if it has too few.

    Args:
        names: of the people, at least two.
        images: number of images of each person, at least two.

    Returns:
        The content of ``pairs.txt``. The first line is ``folds\tpairs``. Each fold then has lines ``name\ti\tj`` for
        genuine and ``name1\ti\tname2\tj`` for impostor pairs; images are numbered from 1.
    """
    count = max(len(names) * images // FOLDS, MIN_PAIRS)
    groups = min(len(names) // 2, FOLDS)
    order = rng.permutation(len(names))
    lines = [f"{FOLDS}\t{count}"]
    for fold in range(FOLDS):
        people = [names[person] for person in order[fold % groups :: groups]]
        lines += [*_genuine(people, images, count, rng), *_impostors(people, images, count, rng)]
    return "\n".join(lines) + "\n"


def _genuine(people: Sequence[str], images: int, count: int, rng: np.random.Generator) -> Iterator[str]:
    choices = list(itertools.combinations(range(1, images + 1), 2))
    for number in _draw(len(people) * len(choices), count, rng):
        first, second = choices[number % len(choices)]
        yield f"{people[number // len(choices)]}\t{first}\t{second}"


def _impostors(people: Sequence[str], images: int, count: int, rng: np.random.Generator) -> Iterator[str]:
    couples = list(itertools.combinations(people, 2))
    for number in _draw(len(couples) * images**2, count, rng):
        couple, first, second = np.unravel_index(number, (len(couples), images, images))
        yield f"{couples[couple][0]}\t{first + 1}\t{couples[couple][1]}\t{second + 1}"


def _draw(total: int, count: int, rng: np.random.Generator) -> list[int]:
    """Draws ``count`` sorted numbers below ``total``, without replacement if there are enough."""
    return sorted(rng.choice(total, count, replace=total < count).tolist())

"""Verification pairs in ten folds, and the text format of LFW's ``pairs.txt``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

Pair = tuple[int, int, int, int]  # person, image, person, image; numbered from 0
Fold = tuple[list[Pair], list[Pair]]  # genuine, impostor

FOLDS = 10
MIN_PAIRS = 2  # genuine or impostor pairs in a fold


def draw_pairs(people: int, images: int, rng: np.random.Generator) -> list[Fold]:
    """Draws ten folds with about as many genuine and as many impostor pairs as there are images.

    Folds share people only if there are fewer than two people per fold. A fold repeats pairs only if it has too few.

    Args:
        people: number of people, at least two.
        images: number of images of each person, at least two.
    """
    count = max(people * images // FOLDS, MIN_PAIRS)
    groups = min(people // 2, FOLDS)
    order = rng.permutation(people)
    return [
        (_genuine(group, images, count, rng), _impostors(group, images, count, rng))
        for group in (order[fold % groups :: groups].tolist() for fold in range(FOLDS))
    ]


def _genuine(people: Sequence[int], images: int, count: int, rng: np.random.Generator) -> list[Pair]:
    choices = list(itertools.combinations(range(images), 2))
    pairs = []
    for number in _draw(len(people) * len(choices), count, rng):
        person, choice = divmod(number, len(choices))
        first, second = choices[choice]
        pairs.append((people[person], first, people[person], second))
    return pairs


def _impostors(people: Sequence[int], images: int, count: int, rng: np.random.Generator) -> list[Pair]:
    couples = list(itertools.combinations(people, 2))
    pairs = []
    for number in _draw(len(couples) * images**2, count, rng):
        couple, rest = divmod(number, images**2)
        (one, other), (first, second) = couples[couple], divmod(rest, images)
        pairs.append((one, first, other, second))
    return pairs


def _draw(total: int, count: int, rng: np.random.Generator) -> list[int]:
    """Draws ``count`` sorted numbers below ``total``, without replacement if there are enough."""
    return sorted(rng.choice(total, count, replace=total < count).tolist())


def pairs_text(names: Sequence[str], folds: Sequence[Fold]) -> str:
    r"""Formats ``pairs.txt``.

    The first line is ``folds\tpairs``. Each fold then has lines ``name\ti\tj`` for genuine and
    ``name1\ti\tname2\tj`` for impostor pairs; images are numbered from 1.
    """
    lines = [f"{len(folds)}\t{len(folds[0][0])}"]
    for genuine, impostors in folds:
        lines += [f"{names[a]}\t{i + 1}\t{j + 1}" for a, i, _, j in genuine]
        lines += [f"{names[a]}\t{i + 1}\t{names[b]}\t{j + 1}" for a, i, b, j in impostors]
    return "\n".join(lines) + "\n"

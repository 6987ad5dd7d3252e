"""Pair lists in LFW's form: ten folds of genuine and impostor pairs, people kept to one fold where they are enough."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

Pair = tuple[int, int, int, int]  # person, image, person, image; from 0
Fold = tuple[list[Pair], list[Pair]]  # genuine, impostor

_FOLDS = 10
_LEAST = 2  # pairs of a kind in a fold


def draw_pairs(people: int, images: int, rng: np.random.Generator) -> list[Fold]:
    """Draws ten folds, in all about as many pairs of a kind as there are images.

    Folds share people only where there are fewer than two for each; pairs of a fold repeat only where it has too few.

    Args:
        people, images: at least two, and that many images of each.
    """
    count = max(people * images // _FOLDS, _LEAST)
    groups = min(people // 2, _FOLDS)
    order = rng.permutation(people)
    return [
        (_genuine(group, images, count, rng), _impostors(group, images, count, rng))
        for group in (order[fold % groups :: groups].tolist() for fold in range(_FOLDS))
    ]


def _genuine(people: Sequence[int], images: int, count: int, rng: np.random.Generator) -> list[Pair]:
    choices = list(itertools.combinations(range(images), 2))
    pairs = []
    for number in _numbers(len(people) * len(choices), count, rng):
        person, choice = divmod(number, len(choices))
        first, second = choices[choice]
        pairs.append((people[person], first, people[person], second))
    return pairs


def _impostors(people: Sequence[int], images: int, count: int, rng: np.random.Generator) -> list[Pair]:
    couples = list(itertools.combinations(people, 2))
    pairs = []
    for number in _numbers(len(couples) * images**2, count, rng):
        couple, rest = divmod(number, images**2)
        (one, other), (first, second) = couples[couple], divmod(rest, images)
        pairs.append((one, first, other, second))
    return pairs


def _numbers(total: int, count: int, rng: np.random.Generator) -> list[int]:
    """``count`` of ``range(total)``, each once where they are enough."""
    return sorted(rng.choice(total, count, replace=total < count).tolist())


def pairs_text(names: Sequence[str], folds: Sequence[Fold]) -> str:
    r"""``pairs.txt``: ``folds\tpairs``, then per fold ``name\ti\tj`` and ``name1\ti\tname2\tj``, images from 1."""
    lines = [f"{len(folds)}\t{len(folds[0][0])}"]
    for genuine, impostors in folds:
        lines += [f"{names[a]}\t{i + 1}\t{j + 1}" for a, i, _, j in genuine]
        lines += [f"{names[a]}\t{i + 1}\t{names[b]}\t{j + 1}" for a, i, b, j in impostors]
    return "\n".join(lines) + "\n"

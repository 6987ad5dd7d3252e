"""Images of a protocol to show: the pairs that a network gets most wrong, and some of each kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from pipeline.prepare import Request

HARDEST_PAIRS = 8  # genuine ones, and as many impostor ones
EXAMPLES = 6  # images of each kind


@dataclasses.dataclass(frozen=True, kw_only=True)
class HardPair:
    """A genuine pair with a low, or an impostor pair with a high, cosine similarity (``score``)."""

    first: Request
    second: Request
    score: float


def hardest_pairs(
    requests: Sequence[Request], scores: np.ndarray, first: np.ndarray, second: np.ndarray, sign: int = 1
) -> list[HardPair]:
    """The pairs with the lowest scores; with ``sign`` -1, the highest.

    No image is in two of them: one gallery image may be the nearest of most probes.

    Args:
        scores: (P,) cosines.
        first: (P,) rows of ``requests``.
        second: (P,) rows of ``requests``.
    """
    shown: set[str] = set()
    pairs: list[HardPair] = []
    for row in np.argsort(sign * scores, kind="stable"):
        pair = HardPair(first=requests[first[row]], second=requests[second[row]], score=float(scores[row]))
        if not shown & {pair.first.name, pair.second.name}:
            shown |= {pair.first.name, pair.second.name}
            pairs.append(pair)
            if len(pairs) == HARDEST_PAIRS:
                break
    return pairs


def spread_images(requests: Sequence[Request], rows: np.ndarray) -> list[Request]:
    """Up to ``EXAMPLES`` requests of distinct images, evenly spread over (R,) ``rows`` of ``requests``."""
    distinct: dict[str, Request] = {}
    for row in rows:
        distinct.setdefault(requests[row].name, requests[row])
    places = np.linspace(0, len(distinct) - 1, min(EXAMPLES, len(distinct))).astype(int)
    return [list(distinct.values())[place] for place in places]

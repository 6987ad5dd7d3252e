"""Identification of the user's own probes at several sizes: closed set, and open set if there are strangers."""

from __future__ import annotations

import dataclasses

import numpy as np

from benchmarks.scoring.protocols import ScoredSetting
from benchmarks.scoring.searches import ClosedSetProtocol, Search, score_open


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentificationProtocol(ClosedSetProtocol):
    """Identification of mated probes among all gallery images; with strangers, against a watch list, too.

    In the open set a gallery identity is the mean of its embeddings, scaled to unit length.

    Attributes:
        open_searches: setting -> search of mated probes, and of strangers with identity -1; empty without strangers.
        people: (P,) int code of the person on each probe of an open search, for the bootstrap.
        rates: FPIRs at which TPIR is a metric.
        within: rank up to which a probe of an open search counts as identified.
    """

    open_searches: dict[str, Search]
    people: np.ndarray
    rates: tuple[float, ...]
    within: int = 1

    @property
    def counts(self) -> dict[str, int]:
        search = next(iter(self.searches.values()))
        identities = len(set(search.gallery_ids.tolist()))
        counts = {"gallery": len(search.gallery), "identities": identities, "probes": len(search.probes)}
        unmated = len(self.people) - len(search.probes)
        return {**counts, **({"unmated_probes": unmated} if self.open_searches else {})}

    def score(self, vectors: np.ndarray, valid: np.ndarray) -> dict[str, ScoredSetting]:
        return super().score(vectors, valid) | {
            setting: score_open(self, search, self.people, self.rates, self.within, vectors, valid)
            for setting, search in self.open_searches.items()
        }

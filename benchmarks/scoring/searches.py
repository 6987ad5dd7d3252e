"""Protocols that search a gallery: closed-set and open-set identification."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from benchmarks.errors import ProtocolError
from benchmarks.scoring.curves import MISSED, OpenSetSamples
from benchmarks.scoring.digests import protocol_digest
from benchmarks.scoring.examples import hardest_pairs
from benchmarks.scoring.metrics import TIE, rank_gallery
from benchmarks.scoring.protocols import Protocol, ScoredSetting
from benchmarks.scoring.samples import RankSamples
from benchmarks.scoring.vectors import identity_templates, rows_of, unit_length


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """P probes to find in a gallery of G images.

    Attributes:
        probes: (P,) rows of the protocol's requests.
        probe_ids: (P,) int identities, -1 for a probe without a mate.
        gallery: (G,) rows of the protocol's requests.
        gallery_ids: (G,) int identities, -1 for an image that is nobody's mate.
    """

    probes: np.ndarray
    probe_ids: np.ndarray
    gallery: np.ndarray
    gallery_ids: np.ndarray

    def subset(self, probes: np.ndarray, gallery: np.ndarray) -> Search:
        """The search of some probes in some gallery images, given by (P,) and (G,) masks."""
        return Search(
            probes=self.probes[probes],
            probe_ids=self.probe_ids[probes],
            gallery=self.gallery[gallery],
            gallery_ids=self.gallery_ids[gallery],
        )

    def usable_probes(self, valid: np.ndarray) -> np.ndarray:
        """(P,) bool: probes with an embedding and, unless they have no mate, a mate with one."""
        mates = self.gallery_ids[valid[self.gallery]]
        return valid[self.probes] & ((self.probe_ids == -1) | np.isin(self.probe_ids, mates[mates != -1]))

    def digest(self, digests: np.ndarray) -> np.ndarray:
        """(16,) uint8 digest of the search, from those of the protocol's requests."""
        return protocol_digest([digests[self.probes], digests[self.gallery]], [self.probe_ids, self.gallery_ids])


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class ClosedSetProtocol(Protocol):
    """Identification of probes whose identities are all in the gallery.

    Attributes:
        searches: setting -> search.
        reported: ranks that are metrics.
        mean_precision: whether mAP is a metric.
    """

    searches: dict[str, Search]
    reported: Sequence[int]
    mean_precision: bool = False

    @property
    def counts(self) -> dict[str, int]:
        largest = max(self.searches.values(), key=lambda search: len(search.probes))
        return {"gallery": len(largest.gallery), "probes": len(largest.probes)}

    def score(self, vectors: np.ndarray, valid: np.ndarray) -> dict[str, ScoredSetting]:
        unit = unit_length(vectors)
        return {setting: self._score(setting, search, unit, valid) for setting, search in self.searches.items()}

    def _kinds(self) -> dict[str, np.ndarray]:
        # of the subsets of probes, such as SCface's subjects 51-130, and of a degraded gallery there are none
        whole = {name: one for name, one in self.searches.items() if name.startswith("{}") and "/" not in name}
        gallery = next(iter(whole.values())).gallery
        return {"gallery": gallery, **{name: search.probes for name, search in whole.items()}}

    def _score(self, setting: str, search: Search, unit: np.ndarray, valid: np.ndarray) -> ScoredSetting:
        kept = search.usable_probes(valid)
        used = search.subset(kept, valid[search.gallery])
        if not kept.any() or len(set(used.gallery_ids)) < 2:
            raise ProtocolError(f"bench {self.name}: {setting.format('rank1')}: too few usable images")
        ranking = rank_gallery(unit[used.probes], used.probe_ids, rows_of(unit, used.gallery), used.gallery_ids)
        return ScoredSetting(
            samples=RankSamples(
                protocol_digest=used.digest(self.digests),
                identities=_identity_codes(used.probe_ids),
                ranks=ranking.rank.astype(np.int32),
                reported=np.array(self.reported, np.int32),
                precisions=ranking.precision if self.mean_precision else np.empty(0),
            ),
            hardest={
                "genuine": hardest_pairs(self.requests, ranking.mate_score, used.probes, used.gallery[ranking.mate]),
                "impostors": hardest_pairs(
                    self.requests, ranking.impostor_score, used.probes, used.gallery[ranking.impostor], -1
                ),
            },
            left_out=int((~kept).sum()),
        )


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class OpenSetProtocol(Protocol):
    """Identification against a watch list; some probes show people who are not on it.

    Attributes:
        search: mated probes, and unmated probes with identity -1, against the gallery.
        people: (P,) int code of the person on each probe, for the bootstrap.
        rates: FPIRs at which TPIR is a metric.
        within: rank up to which a probe counts as identified.
    """

    search: Search
    people: np.ndarray
    rates: Sequence[float]
    within: int

    @property
    def counts(self) -> dict[str, int]:
        mated = int((self.search.probe_ids != -1).sum())
        return {
            "gallery": len(self.search.gallery),
            "identities": len(set(self.search.gallery_ids.tolist())),
            "mated_probes": mated,
            "unmated_probes": len(self.search.probes) - mated,
        }

    def _kinds(self) -> dict[str, np.ndarray]:
        probes, mated = self.search.probes, self.search.probe_ids != -1
        return {"gallery": self.search.gallery, "mated probes": probes[mated], "unmated probes": probes[~mated]}

    def score(self, vectors: np.ndarray, valid: np.ndarray) -> dict[str, ScoredSetting]:
        return {"{}": score_open(self, self.search, self.people, self.rates, self.within, vectors, valid)}


def score_open(
    protocol: Protocol,
    search: Search,
    people: np.ndarray,
    rates: Sequence[float],
    within: int,
    vectors: np.ndarray,
    valid: np.ndarray,
) -> ScoredSetting:
    """Scores an open-set search; arguments and errors as in ``OpenSetProtocol`` and ``score``."""
    kept = search.usable_probes(valid)
    used = search.subset(kept, valid[search.gallery])
    ids, first_rows = np.unique(used.gallery_ids, return_index=True)
    genuine, shown = used.probe_ids != -1, used.gallery[first_rows]
    if not genuine.any() or genuine.all() or len(ids) < 2:
        raise ProtocolError(f"bench {protocol.name}: too few usable images")
    templates = identity_templates(vectors, used.gallery, used.gallery_ids)
    ranking = rank_gallery(unit_length(vectors[used.probes]), used.probe_ids, templates, ids)
    scores = np.where(ranking.rank <= within, ranking.mate_score, MISSED)
    scores = np.where(genuine, scores, ranking.impostor_score)
    return ScoredSetting(
        samples=OpenSetSamples(
            protocol_digest=used.digest(protocol.digests),
            identities=_identity_codes(people[kept]),
            scores=(np.round(scores / TIE) * TIE).astype(np.float32),  # equal cosines become equal
            genuine=genuine,
            rates=np.array(rates, np.float64),
            within=np.array([within], np.int32),
        ),
        hardest={
            "genuine": hardest_pairs(
                protocol.requests, ranking.mate_score[genuine], used.probes[genuine], shown[ranking.mate[genuine]]
            ),
            "impostors": hardest_pairs(
                protocol.requests,
                ranking.impostor_score[~genuine],
                used.probes[~genuine],
                shown[ranking.impostor[~genuine]],
                -1,
            ),
        },
        left_out=int((~kept).sum()),
    )


def _identity_codes(ids: np.ndarray) -> np.ndarray:
    """(N, 2) int32 codes of (N,) identities: both columns are equal."""
    codes = np.unique(ids, return_inverse=True)[1].astype(np.int32)
    return np.stack([codes, codes], axis=1)

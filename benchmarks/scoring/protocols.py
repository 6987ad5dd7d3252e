"""The three kinds of protocol: verification of pairs, closed-set and open-set identification."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.errors import ProtocolError
from benchmarks.scoring.digests import protocol_digest, request_digests
from benchmarks.scoring.metrics import TIE, Ranking, rank_gallery
from benchmarks.scoring.samples import MISSED, OpenSetSamples, PairSamples, RankSamples, Samples
from benchmarks.scoring.vectors import identity_templates, rows_of, unit_length
from pipeline.prepare import Request
from pipeline.sources.finder import is_generated

HARDEST_PAIRS = 8  # genuine ones, and as many impostor ones


@dataclasses.dataclass(frozen=True, kw_only=True)
class HardPair:
    """A genuine pair of low, or an impostor pair of high cosine similarity (``score``)."""

    first: Request
    second: Request
    score: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoredSetting:
    """The scores of one setting of a protocol.

    Attributes:
        samples: the scored samples.
        hardest: ``genuine`` and ``impostors`` -> pairs, hardest first.
        left_out: number of pairs or probes without a usable image.
    """

    samples: Samples
    hardest: dict[str, list[HardPair]]
    left_out: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """A benchmark read from a data set: the images to embed, and how to score their embeddings.

    A setting is a condition such as a resolution. Its name is a template of its metrics' names: ``lr-lr/{}@8``.

    Attributes:
        name: as in ``bench NAME``.
        title: display name.
        root: folder of the data set.
        requests: the N distinct images and preparations.
        main: name of the headline metric.
        published_counts: sizes of the data set that published metrics refer to.
        caveat: another reason why this is not that data set, if any.
    """

    name: str
    title: str
    root: Path
    requests: list[Request]
    main: str
    published_counts: dict[str, int]
    caveat: str = ""

    @property
    def caveats(self) -> list[str]:
        """Reasons why metrics on this data set are not comparable with published ones; empty if they are."""
        if is_generated(self.root):
            return ["generated faces"]
        counts = self.counts
        mismatches = [
            f"{name.replace('_', ' ')} {counts[name]:,}, published {count:,}"
            for name, count in self.published_counts.items()
            if counts[name] != count
        ]
        return mismatches + ([self.caveat] if self.caveat else [])

    @functools.cached_property
    def digests(self) -> np.ndarray:
        """(N, 16) uint8 digests of ``requests``."""
        return request_digests(self.requests)

    @property
    def counts(self) -> dict[str, int]:
        """Sizes of the protocol."""
        raise NotImplementedError

    def score(self, vectors: np.ndarray, valid: np.ndarray) -> dict[str, ScoredSetting]:
        """Scores every setting.

        Args:
            vectors: (N, D) float32 embeddings of ``requests``, of any norm.
            valid: (N,) bool, False where there is no embedding.

        Raises:
            ProtocolError: too few images have an embedding.
        """
        raise NotImplementedError

    def _least_similar(
        self, scores: np.ndarray, first: np.ndarray, second: np.ndarray, mask: np.ndarray
    ) -> list[HardPair]:
        """The ``HARDEST_PAIRS`` pairs (rows of ``requests``) of lowest score in ``mask``."""
        rows = np.flatnonzero(mask)
        rows = rows[np.argsort(scores[rows], kind="stable")[:HARDEST_PAIRS]]
        return [
            HardPair(first=self.requests[first[row]], second=self.requests[second[row]], score=float(scores[row]))
            for row in rows
        ]

    def _most_similar(
        self, scores: np.ndarray, first: np.ndarray, second: np.ndarray, mask: np.ndarray
    ) -> list[HardPair]:
        pairs = self._least_similar(-scores, first, second, mask)
        return [dataclasses.replace(pair, score=-pair.score) for pair in pairs]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairProtocol(Protocol):
    """Verification of P pairs.

    Attributes:
        members: setting -> (P, 2) rows of ``requests``.
        identities: (P, 2) int codes of the identities.
        genuine: (P,) bool.
        folds: (P,) int.
        rates: FARs at which TAR is a metric.
    """

    members: dict[str, np.ndarray]
    identities: np.ndarray
    genuine: np.ndarray
    folds: np.ndarray
    rates: Sequence[float] = ()

    @property
    def counts(self) -> dict[str, int]:
        return {
            "pairs": len(self.genuine),
            "genuine": int(self.genuine.sum()),
            "folds": len(set(self.folds.tolist())),
        }

    def score(self, vectors: np.ndarray, valid: np.ndarray) -> dict[str, ScoredSetting]:
        unit = unit_length(vectors)
        return {setting: self._score(setting, members, unit, valid) for setting, members in self.members.items()}

    def _score(self, setting: str, members: np.ndarray, unit: np.ndarray, valid: np.ndarray) -> ScoredSetting:
        kept = valid[members].all(1)
        if not (kept & self.genuine).any() or not (kept & ~self.genuine).any() or len(set(self.folds[kept])) < 2:
            raise ProtocolError(f"bench {self.name}: {setting.format('accuracy')}: too few usable pairs")
        first, second = members[kept].T
        scores = np.einsum("nd,nd->n", unit[first], unit[second])
        identities, genuine, folds = self.identities[kept], self.genuine[kept], self.folds[kept]
        return ScoredSetting(
            samples=PairSamples(
                protocol_digest=protocol_digest(
                    [self.digests[first], self.digests[second]], [identities, genuine, folds]
                ),
                identities=identities.astype(np.int32),
                scores=scores,
                genuine=genuine,
                folds=folds.astype(np.int16),
                rates=np.array(self.rates, np.float64),
            ),
            hardest={
                "genuine": self._least_similar(scores, first, second, genuine),
                "impostors": self._most_similar(scores, first, second, ~genuine),
            },
            left_out=int((~kept).sum()),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """P probes to find in a gallery of G images.

    Attributes:
        probes: (P,) rows of the protocol's requests.
        probe_ids: (P,) int identities.
        gallery: (G,) rows of the protocol's requests.
        gallery_ids: (G,) int identities.
    """

    probes: np.ndarray
    probe_ids: np.ndarray
    gallery: np.ndarray
    gallery_ids: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
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

    def _score(self, setting: str, search: Search, unit: np.ndarray, valid: np.ndarray) -> ScoredSetting:
        usable = valid[search.gallery]
        gallery, gallery_ids = search.gallery[usable], search.gallery_ids[usable]
        kept = valid[search.probes] & np.isin(search.probe_ids, gallery_ids[gallery_ids != -1])
        if not kept.any() or len(set(gallery_ids)) < 2:
            raise ProtocolError(f"bench {self.name}: {setting.format('rank1')}: too few usable images")
        probes, ids = search.probes[kept], search.probe_ids[kept]
        ranking = rank_gallery(unit[probes], ids, rows_of(unit, gallery), gallery_ids)
        every = np.ones(len(probes), bool)
        return ScoredSetting(
            samples=RankSamples(
                protocol_digest=protocol_digest([self.digests[probes], self.digests[gallery]], [ids, gallery_ids]),
                identities=_identity_codes(ids),
                ranks=ranking.rank.astype(np.int32),
                reported=np.array(self.reported, np.int32),
                precisions=ranking.precision if self.mean_precision else np.empty(0),
            ),
            hardest={
                "genuine": self._least_similar(ranking.mate_score, probes, gallery[ranking.mate], every),
                "impostors": self._most_similar(ranking.impostor_score, probes, gallery[ranking.impostor], every),
            },
            left_out=int((~kept).sum()),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenSetProtocol(Protocol):
    """Identification against a watch list, by probes of which some are not on it.

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

    def score(self, vectors: np.ndarray, valid: np.ndarray) -> dict[str, ScoredSetting]:
        usable = valid[self.search.gallery]
        gallery, gallery_ids = self.search.gallery[usable], self.search.gallery_ids[usable]
        ids, first_rows = np.unique(gallery_ids, return_index=True)
        mated = self.search.probe_ids != -1
        kept = valid[self.search.probes] & (~mated | np.isin(self.search.probe_ids, ids))
        if not (kept & mated).any() or not (kept & ~mated).any() or len(ids) < 2:
            raise ProtocolError(f"bench {self.name}: too few usable images")
        probes, probe_ids = self.search.probes[kept], self.search.probe_ids[kept]
        templates = identity_templates(vectors, gallery, gallery_ids)
        ranking = rank_gallery(unit_length(vectors[probes]), probe_ids, templates, ids)
        genuine, shown = probe_ids != -1, gallery[first_rows]
        scored = ScoredSetting(
            samples=OpenSetSamples(
                protocol_digest=protocol_digest(
                    [self.digests[probes], self.digests[gallery]], [probe_ids, gallery_ids]
                ),
                identities=_identity_codes(self.people[kept]),
                scores=self._scores(ranking, genuine),
                genuine=genuine,
                rates=np.array(self.rates, np.float64),
                within=np.array([self.within], np.int32),
            ),
            hardest={
                "genuine": self._least_similar(ranking.mate_score, probes, shown[ranking.mate], genuine),
                "impostors": self._most_similar(ranking.impostor_score, probes, shown[ranking.impostor], ~genuine),
            },
            left_out=int((~kept).sum()),
        )
        return {"{}": scored}

    def _scores(self, ranking: Ranking, genuine: np.ndarray) -> np.ndarray:
        """(P,) float32 scores, rounded to ``TIE`` so that equal cosines are equal."""
        identified = np.where(ranking.rank <= self.within, ranking.mate_score, MISSED)
        scores = np.where(genuine, identified, ranking.impostor_score)
        return (np.round(scores / TIE) * TIE).astype(np.float32)


def _identity_codes(ids: np.ndarray) -> np.ndarray:
    """(N, 2) int32 codes of (N,) identities: both columns are equal."""
    codes = np.unique(ids, return_inverse=True)[1].astype(np.int32)
    return np.stack([codes, codes], axis=1)

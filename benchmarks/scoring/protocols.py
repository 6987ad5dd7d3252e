"""The three kinds of protocol: pairs of images, probes against a gallery, probes against a watch list."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.errors import ProtocolError
from benchmarks.scoring.digests import question_digest, request_digests
from benchmarks.scoring.metrics import TIE, Ranking, rank_gallery
from benchmarks.scoring.samples import MISSED, OpenSetSamples, PairSamples, RankSamples, Samples
from benchmarks.scoring.vectors import identity_templates, rows_of, unit_length
from pipeline.prepare import Request
from pipeline.sources.finder import is_generated

HARDEST = 8  # pairs shown of a kind


@dataclasses.dataclass(frozen=True, kw_only=True)
class HardPair:
    """Two requests (their rows) that the network found too unlike or too alike; score: their cosine."""

    first: int
    second: int
    score: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """One setting of a protocol, scored.

    Attributes:
        genuine, impostors: the hardest pairs, hardest first.
        left_out: samples that could not be scored for want of an image.
    """

    samples: Samples
    genuine: list[HardPair]
    impostors: list[HardPair]
    left_out: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """What a benchmark asks of a network.

    Attributes:
        name: as in ``bench NAME``.  title: for people.  root: the data set's folder.
        requests: the distinct (image, preparation)s, N of them.
        main: the figure that stands for all.
        published: counts of the set that published figures are of.
        doubt: another sign that this is not that set.
    """

    name: str
    title: str
    root: Path
    requests: list[Request]
    main: str
    published: dict[str, int]
    doubt: str = ""

    @property
    def data(self) -> str:
        """Path of the data set's folder."""
        return str(self.root)

    @property
    def doubts(self) -> list[str]:
        """Why figures on these data are not comparable with those published; empty if they are."""
        if is_generated(self.root):
            return ["generated faces"]
        differing = [
            f"{name.replace('_', ' ')} {self.counts[name]:,}, published {count:,}"
            for name, count in self.published.items()
            if self.counts[name] != count
        ]
        return differing + [self.doubt] * bool(self.doubt)

    @functools.cached_property
    def asked(self) -> np.ndarray:
        """(N, 16) uint8 digests of ``requests``."""
        return request_digests(self.requests)

    @property
    def counts(self) -> dict[str, int]:
        """Sizes of what the protocol asks."""
        raise NotImplementedError

    def score(self, vectors: np.ndarray, good: np.ndarray) -> dict[str, Scored]:
        """Scores by setting; a setting is a template of its figures' names, ``lr-lr/{}@8``.

        Args:
            vectors: (N, D) float32 embeddings of ``requests``, of any length.
            good: (N,) bool, False where there is none.

        Raises:
            ProtocolError: too little is left to score.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairProtocol(Protocol):
    """Verification.

    Attributes:
        members: setting -> (P, 2) rows of ``requests``.
        identities: (P, 2) codes of the people.  genuine: (P,) bool.  folds: (P,) int.
        rates: FAR at which TAR is a figure.
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

    def score(self, vectors: np.ndarray, good: np.ndarray) -> dict[str, Scored]:
        unit = unit_length(vectors)
        return {setting: self._scored(setting, members, unit, good) for setting, members in self.members.items()}

    def _scored(self, setting: str, members: np.ndarray, unit: np.ndarray, good: np.ndarray) -> Scored:
        kept = good[members].all(1)
        if not (kept & self.genuine).any() or not (kept & ~self.genuine).any() or len(set(self.folds[kept])) < 2:
            raise ProtocolError(f"bench {self.name}: {setting.format('accuracy')}: too few pairs are left to score")
        first, second = members[kept].T
        scores = np.einsum("nd,nd->n", unit[first], unit[second])
        genuine = self.genuine[kept]
        return Scored(
            samples=PairSamples(
                questions=question_digest(
                    [self.asked[first], self.asked[second]], [self.identities[kept], genuine, self.folds[kept]]
                ),
                identities=self.identities[kept].astype(np.int32),
                scores=scores,
                genuine=genuine,
                folds=self.folds[kept].astype(np.int16),
                rates=np.array(self.rates, np.float64),
            ),
            genuine=_hardest(scores, first, second, genuine),
            impostors=_hardest(-scores, first, second, ~genuine, sign=-1),
            left_out=int((~kept).sum()),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """Probes to look up in a gallery: rows of ``requests``, (P,) and (G,), and the identity of each."""

    probes: np.ndarray
    probe_ids: np.ndarray
    gallery: np.ndarray
    gallery_ids: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClosedSetProtocol(Protocol):
    """Identification of people who are all in the gallery.

    Attributes:
        searches: setting -> search.
        reported: ranks that are figures.
        mean_precision: mAP is one too.
    """

    searches: dict[str, Search]
    reported: Sequence[int]
    mean_precision: bool = False

    @property
    def counts(self) -> dict[str, int]:
        largest = max(self.searches.values(), key=lambda search: len(search.probes))
        return {"gallery": len(largest.gallery), "probes": len(largest.probes)}

    def score(self, vectors: np.ndarray, good: np.ndarray) -> dict[str, Scored]:
        unit = unit_length(vectors)
        return {setting: self._scored(setting, search, unit, good) for setting, search in self.searches.items()}

    def _scored(self, setting: str, search: Search, unit: np.ndarray, good: np.ndarray) -> Scored:
        here = good[search.gallery]
        gallery, gallery_ids = search.gallery[here], search.gallery_ids[here]
        kept = good[search.probes] & np.isin(search.probe_ids, gallery_ids[gallery_ids != -1])
        if not kept.any() or len(set(gallery_ids)) < 2:
            raise ProtocolError(f"bench {self.name}: {setting.format('rank1')}: too few images are left to score")
        probes, ids = search.probes[kept], search.probe_ids[kept]
        found = rank_gallery(unit[probes], ids, rows_of(unit, gallery), gallery_ids)
        every = np.ones(len(probes), bool)
        return Scored(
            samples=RankSamples(
                questions=question_digest([self.asked[probes], self.asked[gallery]], [ids, gallery_ids]),
                identities=_codes(ids),
                ranks=found.rank.astype(np.int32),
                reported=np.array(self.reported, np.int32),
                precisions=found.precision if self.mean_precision else np.empty(0),
            ),
            genuine=_hardest(found.mate_score, probes, gallery[found.mate], every),
            impostors=_hardest(-found.rival_score, probes, gallery[found.rival], every, sign=-1),
            left_out=int((~kept).sum()),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenSetProtocol(Protocol):
    """Identification against a watch list, by probes of whom not all are on it.

    Attributes:
        search: mated probes, and unmated ones with identity -1, against the gallery's images.
        people: (P,) code of the person on each probe, for the bootstrap.
        rates: FPIR at which TPIR is a figure.  within: ranks that count as identified.
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

    def score(self, vectors: np.ndarray, good: np.ndarray) -> dict[str, Scored]:
        here = good[self.search.gallery]
        gallery, gallery_ids = self.search.gallery[here], self.search.gallery_ids[here]
        ids, first = np.unique(gallery_ids, return_index=True)
        mated = self.search.probe_ids != -1
        kept = good[self.search.probes] & (~mated | np.isin(self.search.probe_ids, ids))
        if not (kept & mated).any() or not (kept & ~mated).any() or len(ids) < 2:
            raise ProtocolError(f"bench {self.name}: too few images are left to score")
        templates = identity_templates(vectors, gallery, gallery_ids)
        probes, probe_ids = self.search.probes[kept], self.search.probe_ids[kept]
        found = rank_gallery(unit_length(vectors[probes]), probe_ids, templates, ids)
        genuine, shown = probe_ids != -1, gallery[first]
        return {
            "{}": Scored(
                samples=OpenSetSamples(
                    questions=question_digest([self.asked[probes], self.asked[gallery]], [probe_ids, gallery_ids]),
                    identities=_codes(self.people[kept]),
                    scores=self._scores(found, genuine),
                    genuine=genuine,
                    rates=np.array(self.rates, np.float64),
                    within=np.array([self.within], np.int32),
                ),
                genuine=_hardest(found.mate_score, probes, shown[found.mate], genuine),
                impostors=_hardest(-found.rival_score, probes, shown[found.rival], ~genuine, sign=-1),
                left_out=int((~kept).sum()),
            )
        }

    def _scores(self, found: Ranking, genuine: np.ndarray) -> np.ndarray:
        identified = np.where(found.rank <= self.within, found.mate_score, MISSED)
        scores = np.where(genuine, identified, found.rival_score)
        return (np.round(scores / TIE) * TIE).astype(np.float32)  # so that equal ones are


def _codes(ids: np.ndarray) -> np.ndarray:
    """(N, 2) int32: each sample has one person."""
    codes = np.unique(ids, return_inverse=True)[1].astype(np.int32)
    return np.stack([codes, codes], axis=1)


def _hardest(
    scores: np.ndarray, first: np.ndarray, second: np.ndarray, which: np.ndarray, sign: int = 1
) -> list[HardPair]:
    """The ``HARDEST`` of ``which`` with the lowest scores."""
    rows = np.flatnonzero(which)
    rows = rows[np.argsort(scores[rows], kind="stable")[:HARDEST]]
    return [HardPair(first=int(first[row]), second=int(second[row]), score=float(sign * scores[row])) for row in rows]

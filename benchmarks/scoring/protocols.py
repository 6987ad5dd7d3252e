"""The three kinds of protocol: verification of pairs, closed-set and open-set identification."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.errors import ProtocolError
from benchmarks.scoring.digests import protocol_digest, request_digests
from benchmarks.scoring.examples import HardPair, hardest_pairs, spread_images
from benchmarks.scoring.metrics import TIE, rank_gallery
from benchmarks.scoring.samples import MISSED, OpenSetSamples, PairSamples, RankSamples, Samples
from benchmarks.scoring.vectors import identity_templates, rows_of, unit_length
from pipeline.prepare import Request
from pipeline.sources.finder import is_generated

CHUNK_PAIRS = 1 << 15


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
        caveat: another reason why the data differ from those of published metrics; empty if there is none.
        source: what results name as the data; empty for ``root``.
        folders: of images outside ``root``.
        notes: how the questions were put, for results.
        alignment_stated: False if nobody said whether and how the images are aligned: then only a network that was
            trained on unaligned images can be scored.
    """

    name: str
    title: str
    root: Path
    requests: list[Request]
    main: str
    published_counts: dict[str, int]
    caveat: str = ""
    source: str = ""
    folders: Sequence[Path] = ()
    notes: Sequence[str] = ()
    alignment_stated: bool = True

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

    def examples(self, valid: np.ndarray) -> dict[str, list[Request]]:
        """Some images of each kind, spread over the protocol, to show what the network sees.

        Args:
            valid: (N,) bool, False where there is no embedding.

        Returns:
            Setting, or ``gallery``, ``mated probes`` and so on -> a few requests.
        """
        return {kind: spread_images(self.requests, rows[valid[rows]]) for kind, rows in self._kinds().items()}

    def _kinds(self) -> dict[str, np.ndarray]:
        """Kind of image -> rows of ``requests``."""
        raise NotImplementedError

    def _score_open(
        self,
        search: Search,
        people: np.ndarray,
        rates: Sequence[float],
        within: int,
        vectors: np.ndarray,
        valid: np.ndarray,
    ) -> ScoredSetting:
        """Scores an open-set search; arguments as in ``OpenSetProtocol`` and ``score``."""
        kept = search.usable_probes(valid)
        used = search.subset(kept, valid[search.gallery])
        ids, first_rows = np.unique(used.gallery_ids, return_index=True)
        genuine, shown = used.probe_ids != -1, used.gallery[first_rows]
        if not genuine.any() or genuine.all() or len(ids) < 2:
            raise ProtocolError(f"bench {self.name}: too few usable images")
        templates = identity_templates(vectors, used.gallery, used.gallery_ids)
        ranking = rank_gallery(unit_length(vectors[used.probes]), used.probe_ids, templates, ids)
        scores = np.where(ranking.rank <= within, ranking.mate_score, MISSED)
        scores = np.where(genuine, scores, ranking.impostor_score)
        return ScoredSetting(
            samples=OpenSetSamples(
                protocol_digest=used.digest(self.digests),
                identities=_identity_codes(people[kept]),
                scores=(np.round(scores / TIE) * TIE).astype(np.float32),  # equal cosines become equal
                genuine=genuine,
                rates=np.array(rates, np.float64),
                within=np.array([within], np.int32),
            ),
            hardest={
                "genuine": hardest_pairs(
                    self.requests, ranking.mate_score[genuine], used.probes[genuine], shown[ranking.mate[genuine]]
                ),
                "impostors": hardest_pairs(
                    self.requests,
                    ranking.impostor_score[~genuine],
                    used.probes[~genuine],
                    shown[ranking.impostor[~genuine]],
                    -1,
                ),
            },
            left_out=int((~kept).sum()),
        )


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

    def _kinds(self) -> dict[str, np.ndarray]:
        return {setting: members[:, 1] for setting, members in self.members.items() if setting.startswith("{}")}

    def _score(self, setting: str, members: np.ndarray, unit: np.ndarray, valid: np.ndarray) -> ScoredSetting:
        kept = valid[members].all(1)
        if not (kept & self.genuine).any() or not (kept & ~self.genuine).any() or len(set(self.folds[kept])) < 2:
            raise ProtocolError(f"bench {self.name}: {setting.format('accuracy')}: too few usable pairs")
        first, second = members[kept].T
        scores = _cosines(unit, first, second)
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
                "genuine": hardest_pairs(self.requests, scores[genuine], first[genuine], second[genuine]),
                "impostors": hardest_pairs(self.requests, scores[~genuine], first[~genuine], second[~genuine], -1),
            },
            left_out=int((~kept).sum()),
        )


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


@dataclasses.dataclass(frozen=True, kw_only=True)
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
        return {"{}": self._score_open(self.search, self.people, self.rates, self.within, vectors, valid)}


def _cosines(unit: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(P,) cosines of pairs of rows of (N, D) unit vectors, in chunks: the rows of all pairs may not fit into memory."""
    scores = np.empty(len(first), unit.dtype)
    for start in range(0, len(first), CHUNK_PAIRS):
        chunk = slice(start, start + CHUNK_PAIRS)
        scores[chunk] = np.einsum("nd,nd->n", unit[first[chunk]], unit[second[chunk]])
    return scores


def _identity_codes(ids: np.ndarray) -> np.ndarray:
    """(N, 2) int32 codes of (N,) identities: both columns are equal."""
    codes = np.unique(ids, return_inverse=True)[1].astype(np.int32)
    return np.stack([codes, codes], axis=1)

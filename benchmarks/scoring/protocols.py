"""What a protocol is, and verification of pairs; ``searches`` has identification."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.errors import ProtocolError
from benchmarks.scoring.curves import PairSamples
from benchmarks.scoring.digests import protocol_digest, request_digests
from benchmarks.scoring.examples import HardPair, hardest_pairs, spread_images
from benchmarks.scoring.samples import Samples
from benchmarks.scoring.vectors import unit_length
from pipeline.degradation.presets import Degradation, check_size
from pipeline.images.lookup import is_generated
from pipeline.prepare import Request

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


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
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
        notes: how the protocol was made, for results.
        alignment_stated: False if it is not known whether and how the images are aligned: then only a network that was
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

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in self.counts.items())
        return f"{type(self).__name__}({self.name}, {str(self.root)!r}: {counts})"

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

    def degraded(self, degradation: Degradation) -> Protocol:
        """The same protocol, with images that are degraded to their sizes as a preset says.

        Raises:
            ProtocolError: it degrades no images.
            PresetError: it degrades images to sizes that no preset is for, or the preset's file cannot be used.
        """
        sizes = [request.down for request in self.requests if request.down is not None]
        if not sizes:
            raise ProtocolError(
                f"bench {self.name}: degrades no images, it compares them at the size that they have; leave out --degrade"
            )
        check_size(max(sizes))
        return dataclasses.replace(
            self,
            requests=[dataclasses.replace(request, degradation=degradation) for request in self.requests],
            caveat="; ".join(filter(None, [self.caveat, f"images degraded by {degradation.label}"])),
            notes=[
                *self.notes,
                f"degradation: {degradation.label}, digest {degradation.digest}, drawn by the content of each image file",
            ],
        )

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


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
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


def _cosines(unit: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(P,) cosines of pairs of rows of (N, D) unit vectors, in chunks: the rows of all pairs may not fit into memory."""
    scores = np.empty(len(first), unit.dtype)
    for start in range(0, len(first), CHUNK_PAIRS):
        chunk = slice(start, start + CHUNK_PAIRS)
        scores[chunk] = np.einsum("nd,nd->n", unit[first[chunk]], unit[second[chunk]])
    return scores

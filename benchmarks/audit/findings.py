"""The findings of an audit as rows, and the images that they exclude from training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.audit.against import Overlap
from benchmarks.audit.labels import WRONG, Labels
from benchmarks.audit.people import Matches
from benchmarks.audit.photographs import Copies
from pipeline.prepare import Request
from shards.files import whole_file

SURE = 0.9  # probability from which a wrong label is excluded
MIN_SUPPORT = 1.5  # other images of the identity: with one, nobody can say which of the two is wrong
WRONG_LABEL, SAME_PERSON, SAME_PHOTOGRAPH = "wrong-label", "same-person", "same-photograph"
BENCHMARK_PHOTOGRAPH, BENCHMARK_PERSON = "benchmark-photograph", "benchmark-person"
KINDS = (WRONG_LABEL, SAME_PERSON, SAME_PHOTOGRAPH, BENCHMARK_PHOTOGRAPH, BENCHMARK_PERSON)
SCHEMA = pa.schema(
    [
        pa.field("finding", pa.string(), nullable=False),  # one of KINDS
        pa.field("key", pa.string()),  # of the image; null where the finding is about the whole identity
        pa.field("identity", pa.string(), nullable=False),
        pa.field("other_key", pa.string()),  # of an image of the set, or benchmark:path
        pa.field("other_identity", pa.string()),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("threshold", pa.float32(), nullable=False),  # the score from which it is a finding
        pa.field("excluded", pa.bool_(), nullable=False),  # whether exclude.txt names ``key``, or else ``identity``
    ]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding by rows of the index and positions of identities.

    Attributes:
        kind: one of ``KINDS``.
        identity: position.
        row: of the image; None for the whole identity.
        other: name of the other image in a benchmark, or its row.
        other_identity: position; None if there is none.
        picture: the other image, in a benchmark.
        excluded: whether training should leave the image, or the identity, out.
    """

    kind: str
    identity: int
    score: float
    threshold: float
    row: int | None = None
    other: int | str | None = None
    other_identity: int | None = None
    picture: Request | None = None
    excluded: bool = False


def label_findings(labels: Labels, identity: np.ndarray, nearest: np.ndarray) -> Iterator[Finding]:
    """Yields images with a wrong label, the surest first."""
    rows = np.flatnonzero(labels.wrong >= WRONG)
    for row in rows[np.argsort(-labels.wrong[rows], kind="stable")].tolist():
        yield Finding(
            kind=WRONG_LABEL,
            identity=int(identity[row]),
            row=row,
            other_identity=int(nearest[row]) if labels.resembles[row] else None,
            score=float(labels.wrong[row]),
            threshold=WRONG,
            excluded=bool(labels.wrong[row] >= SURE and labels.support[row] >= MIN_SUPPORT),
        )


def people_findings(matches: Matches) -> Iterator[Finding]:
    """Yields pairs of identities, the most similar first."""
    for place in np.argsort(-matches.similarity, kind="stable").tolist():
        first, second = matches.pairs[place].tolist()
        score = float(matches.similarity[place])
        yield Finding(kind=SAME_PERSON, identity=first, other_identity=second, score=score, threshold=matches.threshold)


def copy_findings(copies: Copies, labels: Labels, identity: np.ndarray, people: Matches) -> Iterator[Finding]:
    """Yields pairs of images; of a photograph under two names, the one that fits its name worse comes first.

    That one is excluded, unless both names seem to be of one person, or the network cannot say which fits worse.
    """
    one_person = set(map(tuple, people.pairs.tolist()))
    fit = np.nan_to_num(labels.similarity, nan=-1.0)
    for place in np.argsort(-copies.similarity, kind="stable").tolist():
        row, other = sorted(copies.pairs[place].tolist(), key=lambda image: float(fit[image]))
        names = (int(identity[row]), int(identity[other]))
        yield Finding(
            kind=SAME_PHOTOGRAPH,
            identity=names[0],
            row=row,
            other=other,
            other_identity=names[1],
            score=float(copies.similarity[place]),
            threshold=copies.threshold,
            excluded=labels.strong and names[0] != names[1] and (min(names), max(names)) not in one_person,
        )


def overlap_findings(overlap: Overlap, identity: np.ndarray) -> Iterator[Finding]:
    """Yields images, then identities, that a benchmark shows; all of them are excluded."""
    for (shown, row), score in zip(overlap.copies.pairs.tolist(), overlap.copies.similarity.tolist(), strict=True):
        yield Finding(
            kind=BENCHMARK_PHOTOGRAPH,
            identity=int(identity[row]),
            row=row,
            other=overlap.image_name(shown),
            picture=overlap.requests[shown],
            score=score,
            threshold=overlap.copies.threshold,
            excluded=True,
        )
    for (shown, position), score in zip(overlap.people.pairs.tolist(), overlap.people.similarity.tolist(), strict=True):
        yield Finding(
            kind=BENCHMARK_PERSON,
            identity=position,
            other=overlap.image_name(shown),
            picture=overlap.requests[shown],
            score=score,
            threshold=overlap.people.threshold,
            excluded=True,
        )


def write_findings(findings: Sequence[Finding], keys: pa.Array, identities: pa.Array, path: Path) -> None:
    """Writes ``audit.parquet``.

    Args:
        keys: (N,) of the images.
        identities: (I,) names.
    """
    others = [keys[one.other].as_py() if isinstance(one.other, int) else one.other for one in findings]
    columns = [
        [one.kind for one in findings],
        [None if one.row is None else keys[one.row].as_py() for one in findings],
        [identities[one.identity].as_py() for one in findings],
        others,
        [None if one.other_identity is None else identities[one.other_identity].as_py() for one in findings],
        [one.score for one in findings],
        [one.threshold for one in findings],
        [one.excluded for one in findings],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    with whole_file(path) as temporary, open(temporary, "wb") as stream:  # a path with a colon would be a URI
        pq.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), stream, compression="zstd")

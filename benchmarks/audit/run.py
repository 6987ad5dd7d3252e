"""Runs an audit and writes what it finds."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.audit.against import Overlap, compare_benchmark
from benchmarks.audit.centres import Others, Space, compare_with_others, identity_sums, place
from benchmarks.audit.exclusions import write_exclusions
from benchmarks.audit.findings import (
    KINDS,
    SAME_PHOTOGRAPH,
    WRONG_LABEL,
    Finding,
    copy_findings,
    label_findings,
    overlap_findings,
    people_findings,
    write_findings,
)
from benchmarks.audit.labels import MIN_SEPARATION, Labels, judge_labels
from benchmarks.audit.people import MIN_IDENTITIES, Matches, half_similarities, same_people
from benchmarks.audit.photographs import Copies, LookAlikes, Looks, learn_ordinary, neighbours, ordinary_pairs
from benchmarks.audit.picture import detail
from benchmarks.audit.sheet import Sheet, write_sheet
from benchmarks.audit.stored import Embeddings, StoredImages, embed_set, scratch
from benchmarks.engine.runner import Engine
from benchmarks.scoring.protocols import Protocol
from pipeline.progress import Progress
from pipeline.spec import spec_of
from shards.index import ShardIndex
from shards.messages import counted, print_stderr
from shards.schema import INDEX, INDEX_SCHEMA
from shards.tables import read_table

TABLE, SHEET, EXCLUDE = "audit.parquet", "audit.html", "exclude.txt"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Audit:
    """What was found in a shard set.

    Attributes:
        others: the images and the centres of other identities.
        labels: judgement of every label.
        people: pairs of identities that look like one person.
        copies: pairs of images that show one photograph.
        overlaps: what the set shares with benchmarks.
    """

    others: Others
    labels: Labels
    people: Matches
    copies: Copies
    overlaps: list[Overlap]

    def findings(self, identity: np.ndarray) -> list[Finding]:
        """All findings, in the order of ``KINDS``."""
        found = [
            *label_findings(self.labels, identity, self.others.nearest),
            *people_findings(self.people),
            *copy_findings(self.copies, self.labels, identity, self.people),
        ]
        for overlap in self.overlaps:
            found += overlap_findings(overlap, identity)
        return sorted(found, key=lambda finding: KINDS.index(finding.kind))


def audit_set(root: Path, engine: Engine, out: Path, against: Sequence[Protocol], facts: dict[str, Any]) -> list[str]:
    """Audits a shard set; writes ``audit.parquet``, ``audit.html`` and ``exclude.txt`` into ``out``.

    Args:
        against: benchmarks whose images and people should not be in the set.
        facts: about the network, for the page.

    Returns:
        A summary, line by line.

    Raises:
        ShardError: not a finished shard set, or an image is damaged.
        ProtocolError: the network does not fit the set or a benchmark.
    """
    index = ShardIndex(root)
    out.mkdir(parents=True, exist_ok=True)
    with StoredImages(index) as images:
        identity = np.repeat(np.arange(len(index.first), dtype=np.int32), index.count)
        found = _examine(engine, images, identity, out, against)
        findings = found.findings(identity)
        keys, names = read_table(root / INDEX, pa.schema([INDEX_SCHEMA.field("key"), INDEX_SCHEMA.field("identity")]))
        names = names.take(index.first)
        summary = list(_summary(found, findings, identity))
        write_findings(findings, keys, names, out / TABLE)
        sheet = Sheet(images, keys, names, found.labels.similarity)
        own = (found.labels.similarity - found.others.mean) / np.maximum(found.others.spread, 1e-6)
        sections = list(sheet.sections(findings, own[np.isfinite(own)]))
    words = {"path": "", "digest": "digest ", "precision": "", "device": ""}
    network = ", ".join(f"{word}{facts[name]}" for name, word in words.items() if name in facts)
    about = [
        ("shard set", os.path.realpath(root)),
        ("network", network or "none given"),
        *(line.partition(": ")[::2] for line in summary),
    ]
    write_sheet(f"Audit of {os.path.basename(os.path.realpath(root))}", about, sections, out / SHEET)
    if lost := write_exclusions(findings, keys, names, out / EXCLUDE):
        print_stderr(f"{out / EXCLUDE}: leaves out {counted(len(lost), 'name')} that no line can stand for ({lost[0]})")
    return [f"{root}: {counted(len(index), 'image')} of {counted(len(index.first), 'identity')}", *summary]


def _examine(
    engine: Engine, images: StoredImages, identity: np.ndarray, out: Path, against: Sequence[Protocol]
) -> Audit:
    index = images.index
    embeddings = embed_set(engine, images, out)
    vectors = embeddings.vectors
    sums = identity_sums(vectors, index.first, np.ones(len(index), np.float32))
    with Progress("centres", len(index)) as progress:
        others = compare_with_others(vectors, sums, identity, progress)
    labels = judge_labels(vectors, index.first, identity, others)
    halves = half_similarities(vectors, index.first, index.count, 1 - labels.wrong)
    people = Space(vectors=vectors, centres=sums, cells=others.cells)
    copies, alike = _copies(images, embeddings, people, out)
    return Audit(
        others=others,
        labels=labels,
        people=same_people(labels.sums, halves),
        copies=copies,
        overlaps=[compare_benchmark(protocol, engine, images, embeddings, labels, alike) for protocol in against],
    )


def _copies(images: StoredImages, embeddings: Embeddings, people: Space, out: Path) -> tuple[Copies, LookAlikes]:
    """Pairs of images of one photograph, and the fitted thresholds."""
    index, template = images.index, spec_of(images.index.manifest).template

    def detail_of(row: int) -> np.ndarray:
        return detail(images.grey(row), template)

    looks = Looks(embeddings.views)
    vectors = looks.vectors(embeddings.views, scratch(out, (len(index), looks.pivots.shape[1]), np.float16))
    pictures = Space(vectors=vectors, centres=looks.pivots, cells=place(vectors, looks.pivots, "picture"))
    found = np.concatenate([neighbours(people, "person"), neighbours(pictures, "picture")])
    candidates = np.unique(found, axis=0)
    within = float((index.count.astype(float) * (index.count - 1) / 2).sum())
    pairs = ordinary_pairs(index.first, index.count)
    alike = LookAlikes(
        people=people,
        looks=looks,
        pictures=pictures,
        views=embeddings.views,
        detail=detail_of,
        ordinary=learn_ordinary(pairs, embeddings.views, detail_of, within + len(candidates)),
    )
    return alike.copies(candidates), alike


def _summary(audit: Audit, findings: Sequence[Finding], identity: np.ndarray) -> Iterator[str]:
    """Yields a line for each kind: how many, how many of them are excluded, and the threshold."""
    count, excluded = Counter(one.kind for one in findings), Counter(one.kind for one in findings if one.excluded)
    model, people = audit.labels.model, audit.people
    if model is None:
        yield f"{WRONG_LABEL}: too few images to judge labels"
    elif not audit.labels.strong:
        yield (
            f"{WRONG_LABEL}: not judged, the network is too weak: images are {model.mean:.1f} deviations nearer to their"
            f" identity than strangers are, at least {MIN_SEPARATION:g} are needed; train it for longer"
        )
    else:
        share = f"an estimated {100 * model.share:.2f} % of all labels are wrong"
        yield f"{WRONG_LABEL}: {counted(count[WRONG_LABEL], 'image')}, {excluded[WRONG_LABEL]:,} excluded; {share}"
    if np.isnan(people.threshold):
        yield f"same-person: fewer than {MIN_IDENTITIES} identities, too few to judge"
    else:
        yield f"same-person: {counted(len(people.pairs), 'pair')} of identities{_from(people.threshold)}"
    across = int((identity[audit.copies.pairs[:, 0]] != identity[audit.copies.pairs[:, 1]]).sum())
    yield (
        f"{SAME_PHOTOGRAPH}: {counted(len(audit.copies.pairs), 'pair')} of images, {across:,} under two names,"
        f" {excluded[SAME_PHOTOGRAPH]:,} excluded; correlation from {audit.copies.threshold:.3f}"
    )
    for overlap in audit.overlaps:
        images, identities = (len(np.unique(found.pairs[:, 1])) for found in (overlap.copies, overlap.people))
        yield (
            f"{overlap.name}: {counted(images, 'image')} of the set also there;"
            f" {counted(identities, 'identity')} with a person of it"
            f"{_from(overlap.people.threshold)}{'; all excluded' if images or identities else ''}"
        )


def _from(threshold: float) -> str:
    return f", cosine from {threshold:.3f}" if np.isfinite(threshold) else ""

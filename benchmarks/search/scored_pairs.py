"""Scored pairs to calibrate on: those of a benchmark, or of the rows of two tables of embeddings."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.errors import ProtocolError, SearchError
from benchmarks.scoring.curves import PairSamples
from benchmarks.scoring.saved import SavedResult, read_results
from benchmarks.search.calibration import CONDITIONS, NETWORK, Calibration, counted_pairs
from benchmarks.search.exact import pair_scores
from benchmarks.search.likelihood import fit
from benchmarks.search.run import check_one_network
from benchmarks.search.table import EmbeddingTable
from shards.files import open_regular

MIN_COUNTS = {"genuine": 50, "people": 20, "impostors": 200}
MAX_PAIRS = 100_000  # of each kind; more are sampled at random
CHUNK_PAIRS = 4096  # scored at a time
DIGEST_DIGITS = 8  # tell networks of one file apart


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoredPairs:
    """N pairs of images of one network, with what ``Calibration`` says of network and images.

    Attributes:
        scores: (N,) cosines.
        genuine: (N,) bool.
        identities: (N, 2) int codes of the people.
        network: see ``Calibration``.
        source: see ``Calibration``.
    """

    scores: np.ndarray
    genuine: np.ndarray
    identities: np.ndarray
    network: dict[str, str]
    source: dict[str, str]

    def calibrate(self) -> Calibration:
        """Raises: SearchError: there are too few pairs or people, or genuine pairs do not score higher."""
        counts = {
            "genuine": int(self.genuine.sum()),
            "impostors": int((~self.genuine).sum()),
            "people": len(np.unique(self.identities[self.genuine])),
        }
        name = self.source["pairs"]
        if any(counts[kind] < number for kind, number in MIN_COUNTS.items()):
            raise SearchError(
                f"{name}: {counted_pairs(counts)}; a calibration needs {counted_pairs(MIN_COUNTS)}, or more of each"
            )
        if not self.scores[self.genuine].mean() > self.scores[~self.genuine].mean():
            raise SearchError(f"{name}: genuine pairs do not score higher than impostors: these scores say nothing")
        codes = np.unique(self.identities, return_inverse=True)[1].reshape(self.identities.shape)
        return Calibration(
            fitted=fit(self.scores, self.genuine, codes),
            network=self.network,
            source=self.source,
            counts=counts,
            date=datetime.date.today().isoformat(),
        )


def read_pairs(paths: Sequence[Path], setting: str | None) -> ScoredPairs:
    """The pairs of a ``bench --json`` file, of two tables of embeddings, or of one table with itself.

    Raises:
        SearchError, ProtocolError: see ``pairs_of_result`` and ``pairs_of_tables``; or a setting of tables is given.
    """
    if len(paths) == 1 and not _is_parquet(paths[0]):
        return pairs_of_result(paths[0], setting)
    if setting is not None:
        raise SearchError(f"--setting {setting}: only files of bench --json have settings; leave it out")
    return pairs_of_tables(paths[0], paths[-1])


def _is_parquet(path: Path) -> bool:
    try:
        with open_regular(path) as stream:
            return stream.read(4) == b"PAR1"
    except OSError as error:
        raise SearchError(f"{path}: {error.strerror}; expected a bench --json file, or files of embed") from None


def pairs_of_result(path: Path, setting: str | None) -> ScoredPairs:
    """The pairs of a setting of a ``bench --json`` file.

    Args:
        setting: such as ``lfw@8`` or ``lfw/lr-lr@8``, of several networks ``lfw@8:0123abcd`` with digits of the digest; None
            if the file has only one.

    Raises:
        SearchError, ProtocolError: the file is not a results file, or has no such setting.
    """
    found = _settings(path)
    if not found:
        raise SearchError(f"{path}: has no scores of pairs; calibrate on two files of embed --identity")
    chosen = next(iter(found)) if setting is None and len(found) == 1 else setting
    if chosen not in found:
        choices = ", ".join(found)
        problem = "has several sets of pairs" if chosen is None else f"has no {chosen}"
        raise SearchError(f"{path}: {problem}; choose --setting from {choices}")
    result, samples = found[chosen]
    network = {name: str(result.checkpoint[name]) for name in NETWORK if name in result.checkpoint}
    if not network.get("digest"):
        raise ProtocolError(f"{path}: does not say which network was scored; score it again")
    return ScoredPairs(
        scores=samples.scores,
        genuine=samples.genuine,
        identities=samples.identities,
        network=network,
        source={"pairs": chosen, "gallery_group": "", "probes_group": ""},
    )


def _settings(path: Path) -> dict[str, tuple[SavedResult, PairSamples]]:
    """The sets of pairs of a file, by their names."""
    pairs = [
        (_setting_name(result.benchmark, template), result, samples)
        for result in read_results(path)
        for template, samples in result.settings.items()
        if isinstance(samples, PairSamples)
    ]
    names = [name for name, _, _ in pairs]
    found: dict[str, tuple[SavedResult, PairSamples]] = {}
    for name, result, samples in pairs:
        if names.count(name) > 1:  # of several networks
            name = f"{name}:{str(result.checkpoint.get('digest'))[:DIGEST_DIGITS]}"
        found[f"{name}-{len(found)}" if name in found else name] = (result, samples)
    return found


def _setting_name(benchmark: str, template: str) -> str:
    """``lfw``, ``lr-lr/{}@8`` -> ``lfw/lr-lr@8``."""
    before, _, after = template.partition("{}")
    return f"{benchmark}/{before}".rstrip("/") + after


def pairs_of_tables(gallery: Path, probes: Path) -> ScoredPairs:
    """All pairs of a gallery row and a probe, at most ``MAX_PAIRS`` of each kind; images of one path are no pair.

    Raises:
        SearchError: a table is invalid or names no identities, or the tables are not of one network.
    """
    with EmbeddingTable(gallery) as faces, EmbeddingTable(probes) as queries:
        check_one_network(faces, queries)
        for table in (faces, queries):
            if not table.has_identities:
                raise SearchError(
                    f"{table.path}: does not say who is on its images; embed them with --identity folder, --identity"
                    " prefix, or --group"
                )
        same_file = gallery.samefile(probes)
        members = _members(faces, queries)
        rng = np.random.default_rng(0)
        genuine, impostors = (_chosen(pairs, members, same_file, rng) for pairs in _candidates(members, rng))
        pairs = np.concatenate([genuine, impostors])
        return ScoredPairs(
            scores=_scores(faces, queries, members, pairs),
            genuine=np.arange(len(pairs)) < len(genuine),
            identities=np.stack([members[1].identities[pairs[:, 1]], members[0].identities[pairs[:, 0]]], axis=1),
            network={name: faces.metadata[name] for name in NETWORK if name in faces.metadata},
            source={
                "pairs": f"{gallery} and {probes}",
                **{f"gallery_{name}": faces.metadata.get(name, "") for name in CONDITIONS},
                **{f"probes_{name}": queries.metadata.get(name, "") for name in CONDITIONS},
            },
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Members:
    """The M rows of a table with an embedding and an identity: row numbers, codes of identities and of paths."""

    rows: np.ndarray
    identities: np.ndarray
    paths: np.ndarray


def _members(*tables: EmbeddingTable) -> list[_Members]:
    """Those of each table; one identity, or path, has one code in all."""
    rows = [np.concatenate([block.rows for block in table.blocks()]) for table in tables]
    texts = [table.texts(["path", "identity"], some) for table, some in zip(tables, rows, strict=True)]
    both = pa.concat_tables(texts)
    codes = {name: pc.dictionary_encode(both[name].combine_chunks()).indices for name in ("path", "identity")}
    named = pc.not_equal(both["identity"], "").fill_null(False).to_numpy()
    members, start = [], 0
    for some in rows:
        part = {name: column.slice(start, len(some)) for name, column in codes.items()}
        known = named[start : start + len(some)]
        members.append(
            _Members(
                rows=some[known],
                identities=part["identity"].filter(pa.array(known)).to_numpy(),
                paths=part["path"].filter(pa.array(known)).to_numpy(),
            )
        )
        start += len(some)
    return members


def _candidates(members: list[_Members], rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yields (N, 2) members of gallery and probes: first of pairs of one person, then of two."""
    gallery, probes = members
    by_person = np.argsort(gallery.identities, kind="stable")
    people = gallery.identities[by_person]
    first = np.searchsorted(people, probes.identities)
    counts = np.searchsorted(people, probes.identities, side="right") - first
    ends = np.cumsum(counts)
    drawn = _drawn(int(counts.sum()), rng)
    probe = np.searchsorted(ends, drawn, side="right")
    yield np.stack([by_person[first[probe] + drawn - (ends - counts)[probe]], probe], axis=1)
    drawn = _drawn(len(gallery.rows) * len(probes.rows), rng)
    pairs = np.stack([drawn % max(len(gallery.rows), 1), drawn // max(len(gallery.rows), 1)], axis=1)
    yield pairs[gallery.identities[pairs[:, 0]] != probes.identities[pairs[:, 1]]]


def _drawn(total: int, rng: np.random.Generator) -> np.ndarray:
    """All numbers below ``total``, or 4 * ``MAX_PAIRS`` different ones of them, at random."""
    if total <= 4 * MAX_PAIRS:
        return np.arange(total)
    return np.unique(rng.integers(0, total, 4 * MAX_PAIRS))


def _chosen(pairs: np.ndarray, members: list[_Members], same_file: bool, rng: np.random.Generator) -> np.ndarray:
    """At most ``MAX_PAIRS`` of the pairs, without those of one path; in one table, each pair once."""
    gallery, probes = members
    kept = gallery.paths[pairs[:, 0]] != probes.paths[pairs[:, 1]]
    if same_file:
        kept &= pairs[:, 0] < pairs[:, 1]
    pairs = pairs[kept]
    return pairs if len(pairs) <= MAX_PAIRS else pairs[np.sort(rng.permutation(len(pairs))[:MAX_PAIRS])]


def _scores(gallery: EmbeddingTable, probes: EmbeddingTable, members: list[_Members], pairs: np.ndarray) -> np.ndarray:
    """(N,) cosines of the pairs."""
    sides = []
    for side, table in enumerate((gallery, probes)):
        needed, places = np.unique(pairs[:, side], return_inverse=True)
        sides.append((table.vectors_of(members[side].rows[needed]), places))
    (faces, face), (queries, query) = sides
    parts = [
        pair_scores(queries[query[start : start + CHUNK_PAIRS]], faces[face[start : start + CHUNK_PAIRS]])
        for start in range(0, len(pairs), CHUNK_PAIRS)
    ]
    return np.concatenate([np.empty(0, np.float32), *parts])

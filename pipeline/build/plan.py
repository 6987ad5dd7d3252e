"""The build plan: label, rejection reason and shard of every input row. Pure; opens no image."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.philox import permutation
from pipeline.sources.landmarks import LandmarkTable, clean_keys
from pipeline.sources.listing import ImageList
from shards.messages import counted

_SHARD_SEED = 0
CHUNK_ROWS = 200_000  # rows compared at a time
_BAD_KEY = r"^\.{1,2}/|[\x00-\x1f\x7f\\]"
_ONE_SLASH = r"^[^/]+/[^/]+$"
UNLABELLED = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a build with N input rows."""

    keys: pa.StringArray  # (N,) strings
    identities: pa.DictionaryArray  # (N,) strings, dictionary-encoded
    points: np.ndarray | None  # (N, 10) float32; None if images are not aligned
    # (N,) int32, rank of the identity among the stored ones; -1 for identities without a stored image
    labels: np.ndarray
    rejected: dict[int, tuple[str, str]]  # row -> (status, reason); all other rows will be stored
    shards: list[np.ndarray]  # for each shard its rows, in tar order
    unmatched_exclusions: list[str]  # entries of the exclusion list that match no row

    @property
    def identity_count(self) -> int:
        """Number of labels."""
        return int(self.labels.max()) + 1


def make_plan(
    table: LandmarkTable | ImageList,
    *,
    exclude: Sequence[str] = (),
    min_images: int = 1,
    images_per_shard: int | None = None,
) -> Plan:
    """Assigns labels, rejections and shards.

    Labels are the ranks of the identities that have a usable row, in sorted order. Stored rows are assigned to shards
    at random, with a fixed seed; rejected rows follow them, distributed evenly.

    Args:
        exclude: identities, or keys ``identity/image``, to leave out.
        min_images: identities with fewer usable rows are left out.
        images_per_shard: None for 1/32 of the images, at least 250 (fast reads) and at most 5000 (an interrupted build
            loses only seconds).
    """
    identities = pc.replace_substring_regex(table.keys, r"/[^/]*$", "")
    encoded = identities.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    rejected = _bad_rows(table, codes)
    unmatched = _exclude(table.keys, identities, exclude, rejected)
    usable = np.ones(len(codes), bool)
    usable[list(rejected)] = False
    counts = np.bincount(codes[usable], minlength=len(encoded.dictionary))
    for row in np.flatnonzero(usable & (counts[codes] < min_images)).tolist():
        found = int(counts[codes[row]])
        rejected[row] = (
            "too-few-images",
            f"its identity has {counted(found, 'usable image')}, --min-images is {min_images}",
        )
    labelled = counts >= max(min_images, 1)
    labels = _ranks(encoded.dictionary, labelled)[codes].astype(np.int32)
    stored = np.ones(len(codes), bool)
    stored[list(rejected)] = False
    return Plan(
        keys=table.keys,
        identities=encoded,
        points=table.points,
        labels=labels,
        rejected=rejected,
        shards=_shards(stored, images_per_shard),
        unmatched_exclusions=unmatched,
    )


def _bad_rows(table: LandmarkTable | ImageList, identities: np.ndarray) -> dict[int, tuple[str, str]]:
    """Rejects rows with bad landmarks, bad keys or repeated keys.

    Args:
        identities: (N,) identity code of each row.
    """
    rejected = {row: ("bad-landmarks", reason) for row, reason in table.problems.items()}
    well_formed = pc.and_(
        pc.match_substring_regex(table.keys, _ONE_SLASH), pc.invert(pc.match_substring_regex(table.keys, _BAD_KEY))
    )
    for row in np.flatnonzero(~well_formed.to_numpy(zero_copy_only=False)).tolist():
        rejected[row] = ("bad-key", "the name is not identity/image")
    usable = np.ones(len(identities), bool)
    usable[list(rejected)] = False
    repeated = dict(_repeated(table.keys, identities, usable))
    return rejected | {row: ("duplicate-key", table.duplicate_of(repeated[row])) for row in sorted(repeated)}


def _repeated(keys: pa.StringArray, identities: np.ndarray, usable: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields usable rows whose key occurs in an earlier usable row, and the first such row.

    Works on a few identities at a time, because a hash table of all keys would take twice the memory of the keys.
    """
    rows = np.flatnonzero(usable)
    rows = rows[np.argsort(identities[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(identities[rows], prepend=-1))
    cuts = starts[np.unique(np.searchsorted(starts, np.arange(0, len(rows), CHUNK_ROWS)).clip(max=len(starts) - 1))]
    for part in np.split(rows, cuts[1:]) if len(rows) else []:
        codes = keys.take(pa.array(part)).dictionary_encode().indices.to_numpy(zero_copy_only=False)
        first = np.unique(codes, return_index=True)[1][codes]
        duplicates = np.flatnonzero(first != np.arange(len(part)))
        yield from zip(part[duplicates].tolist(), part[first[duplicates]].tolist(), strict=True)


def _exclude(
    keys: pa.StringArray, identities: pa.StringArray, exclude: Sequence[str], rejected: dict[int, tuple[str, str]]
) -> list[str]:
    """Adds the excluded rows to ``rejected``; returns the entries that match no row."""
    if not exclude:
        return []
    wanted = clean_keys(pa.array(exclude, pa.string()))
    bare = pc.replace_substring_regex(wanted, r"^(?:train|test)/([^/]+)$", r"\1")  # train/n000004 is an identity
    wanted = pc.if_else(pc.is_in(wanted, pc.unique(keys)), wanted, bare)
    excluded = pc.or_(pc.is_in(keys, wanted), pc.is_in(identities, wanted)).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(excluded).tolist():
        rejected.setdefault(row, ("excluded", "named by the exclusion list"))
    matched = pc.or_(pc.is_in(wanted, pc.unique(keys)), pc.is_in(wanted, pc.unique(identities)))
    return wanted.filter(pc.invert(matched)).to_pylist()


def _ranks(names: pa.StringArray, labelled: np.ndarray) -> np.ndarray:
    """Returns the rank of each labelled name among the labelled ones in sorted order; ``UNLABELLED`` for the others."""
    order = pc.array_sort_indices(names).to_numpy()
    ranks = np.full(len(names), UNLABELLED)
    chosen = order[labelled[order]]
    ranks[chosen] = np.arange(len(chosen))
    return ranks


def _shards(stored: np.ndarray, images_per_shard: int | None) -> list[np.ndarray]:
    """Returns the rows of each shard: a random share of the stored rows, then a share of the others."""
    rows = np.flatnonzero(stored)
    rows = rows[permutation(_SHARD_SEED, 0, len(rows))]
    size = images_per_shard or min(max(-(-len(rows) // 32), 250), 5000)
    count = max(-(-len(rows) // size), 1)
    others = np.flatnonzero(~stored)
    return [np.concatenate([part, others[shard::count]]) for shard, part in enumerate(np.array_split(rows, count))]

"""The build plan: label, rejection reason and shard of every input row. Pure; opens no image."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.build.groups import grouped_shards
from pipeline.build.rejected import Rejected
from pipeline.images.lookup import IMAGE_SUFFIXES
from pipeline.philox import permutation
from pipeline.sources.source import Rows
from pipeline.tables.landmark_table import clean_keys, composed_column, last_two_parts
from shards.messages import counted
from shards.system_names import SYSTEM_NAMES

_SHARD_SEED = 0
CHUNK_ROWS = 200_000  # rows whose names are compared at a time
SORTED_ROWS = COUNTED_ROWS = 4_000_000  # rows sorted by identity, and counted, at a time
_ONE_SLASH = r"^[^/]+/[^/]+$"
_NO_NAME = r"^\.{1,2}/|\x00"
_SYSTEM_NAME = rf"(?i)(?:^|/)(?:\.|(?:{'|'.join(map(re.escape, SYSTEM_NAMES))})(?:/|$))"
_SYSTEM_REASON = "a hidden or system folder or file"
_IMAGE_NAME = rf"(?i)\.(?:{'|'.join(suffix[1:] for suffix in IMAGE_SUFFIXES)})$"
_FOLDER_ENTRY = r"[/\\]$|^(?:/|[A-Za-z]:)|(?:^|[/\\])(?:train|test)[/\\][^/\\]+$"
UNLABELLED = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a build with N input rows."""

    keys: pa.StringArray  # (N,) ``identity/image``
    places: pa.BinaryArray | None  # (N,) where the reader finds each image; None: by its key
    identities: pa.DictionaryArray  # (N,) strings, dictionary-encoded
    points: np.ndarray | None  # (N, 10) float32; None if images are not aligned by landmarks
    # (N,) int32, rank of the identity among those with a row to store; -1 for the others
    labels: np.ndarray
    rejected: Rejected  # row -> (status, reason); all other rows will be stored
    shards: list[np.ndarray]  # for each shard its rows, in tar order; int32
    unmatched_exclusions: list[str]  # entries of the exclusion list that match no row

    @property
    def identity_count(self) -> int:
        """Number of labels."""
        return int(self.labels.max()) + 1

    def first_rows(self) -> np.ndarray:
        """The first row to store of each identity that has one, in the order of the table."""
        rows = np.flatnonzero(self.rejected.stored)[::-1]
        first = np.full(len(self.identities.dictionary), -1)
        for start in range(0, len(rows), COUNTED_ROWS):
            part = rows[start : start + COUNTED_ROWS]
            first[self.identities.indices.to_numpy()[part]] = part  # the last assignment counts
        return first[first >= 0]


def make_plan(
    rows: Rows,
    *,
    exclude: Sequence[str] = (),
    min_images: int = 1,
    images_per_shard: int | None = None,
    group: int | None = None,
) -> Plan:
    """Assigns labels, rejections and shards.

    Labels are the ranks of the identities that have a usable row, in sorted order. Stored rows are assigned to shards
    at random, with a fixed seed; rejected rows follow them, distributed evenly.

    Args:
        exclude: identities, or keys ``identity/image``, to leave out.
        min_images: identities with fewer usable rows are left out.
        images_per_shard: None for 1/32 of the images, at least 250 (fast reads) and at most 5000 (an interrupted build
            loses only seconds).
        group: images of an identity that stay together in a shard; None spreads each one by itself.
    """
    keys = last_two_parts(rows.keys)
    identities = _identities(keys)
    names = identities.dictionary
    codes = _merged(names, identities.indices.to_numpy())
    rejected = _bad_rows(rows, keys, codes)
    unmatched = _exclude(keys, identities, exclude, rejected)
    counts = _counts(codes, rejected.stored, len(names))
    _reject_small(codes, counts, min_images, rejected)
    labels = _ranks(names, counts >= max(min_images, 1))[codes]
    return Plan(
        keys=keys,
        places=rows.places,
        identities=identities,
        points=rows.points,
        labels=labels,
        rejected=rejected,
        shards=_shards(rejected.stored, images_per_shard, labels, group),
        unmatched_exclusions=unmatched,
    )


def _slices(column: pa.Array, rows: int) -> Iterator[pa.Array]:
    """Some rows at a time, because the result of a function on text takes up to twice its size while it grows."""
    return (column.slice(start, rows) for start in range(0, max(len(column), 1), rows))


def _identities(keys: pa.StringArray) -> pa.DictionaryArray:
    """The identity of each key."""
    chunks = [
        pc.replace_substring_regex(part, r"/[^/]*$", "").dictionary_encode() for part in _slices(keys, SORTED_ROWS)
    ]
    encoded = pa.chunked_array(chunks).unify_dictionaries()
    codes, names = pa.concat_arrays([chunk.indices for chunk in encoded.chunks]), encoded.chunk(0).dictionary
    del chunks, encoded
    pa.default_memory_pool().release_unused()
    return pa.DictionaryArray.from_arrays(codes, names)


def _merged(names: pa.StringArray, codes: np.ndarray) -> np.ndarray:
    """(N,) int32 codes of the identities, with one code for names that differ by Unicode normal form at most."""
    composed = composed_column(names)
    if composed is names:  # ASCII
        return codes
    equal = composed.dictionary_encode().indices.to_numpy()
    return np.unique(equal, return_index=True)[1].astype(np.int32)[equal][codes]


def _counts(codes: np.ndarray, stored: np.ndarray, identities: int) -> np.ndarray:
    """(I,) int64, number of rows of each identity that will be stored."""
    counts = np.zeros(identities, np.int64)
    for start in range(0, len(codes), COUNTED_ROWS):
        part = slice(start, start + COUNTED_ROWS)
        counts += np.bincount(codes[part][stored[part]], minlength=identities)
    return counts


def _reject_small(codes: np.ndarray, counts: np.ndarray, min_images: int, rejected: Rejected) -> None:
    """Rejects the rows of identities with fewer than ``min_images``."""
    small = counts < min_images
    rows = np.flatnonzero(rejected.stored & small[codes])
    found = counts[codes[rows]]
    for count in np.unique(found).tolist():
        reason = f"its identity has {counted(count, 'usable image')}, --min-images is {min_images}"
        rejected.add(rows[found == count], "too-few-images", reason)


def _bad_rows(rows: Rows, keys: pa.StringArray, identities: np.ndarray) -> Rejected:
    """Rejects rows with problems such as bad landmarks, bad keys or repeated keys.

    Args:
        keys: (N,) ``identity/image``.
        identities: (N,) identity code of each row.
    """
    rejected = Rejected(len(keys))
    if rows.of_other_files and (shared := list(_repeated(keys, identities, rejected.stored))):
        rejected.update(rows.of_other_files(np.unique(np.concatenate(sum(shared, ())))))
    rejected.update(rows.problems)
    no_name = pc.or_(pc.invert(pc.match_substring_regex(keys, _ONE_SLASH)), pc.match_substring_regex(keys, _NO_NAME))
    system = pc.and_not(pc.match_substring_regex(keys, _SYSTEM_NAME), no_name)
    for bad, reason in ((no_name, "the name is not identity/image"), (system, _SYSTEM_REASON)):
        rejected.add(bad.to_numpy(zero_copy_only=False), "bad-key", reason)
    repeated = list(_repeated(keys, identities, rejected.stored))
    if repeated:
        later, first = map(np.concatenate, zip(*repeated, strict=True))
        rejected.add_duplicates(later, first, rows.duplicate_of)
    return rejected


def _repeated(
    keys: pa.StringArray, identities: np.ndarray, usable: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields usable rows whose key occurs in an earlier usable row, and the first such row of each.

    Works on a few identities at a time, because a hash table of all keys would take twice the memory of the keys.
    """
    for rows in _by_identity(identities, usable):
        codes = composed_column(keys.take(pa.array(rows))).dictionary_encode().indices.to_numpy(zero_copy_only=False)
        first = np.unique(codes, return_index=True)[1][codes]
        duplicates = np.flatnonzero(first != np.arange(len(rows)))
        if len(duplicates):
            yield rows[duplicates], rows[first[duplicates]]


def _by_identity(identities: np.ndarray, usable: np.ndarray) -> Iterator[np.ndarray]:
    """Yields all usable rows, about ``CHUNK_ROWS`` at a time; those of an identity together, in order."""
    total = np.cumsum(_counts(identities, usable, int(identities.max(initial=-1)) + 1))
    bounds = np.searchsorted(total, np.arange(SORTED_ROWS, total[-1:].sum(), SORTED_ROWS))
    for low, high in itertools.pairwise([0, *np.unique(bounds).tolist(), len(total)]):
        rows = np.flatnonzero(usable & (identities >= low) & (identities < high))
        rows = rows[np.argsort(identities[rows], kind="stable")]
        starts = np.flatnonzero(np.diff(identities[rows], prepend=-1))
        cuts = starts[np.unique(np.searchsorted(starts, np.arange(0, len(rows), CHUNK_ROWS)).clip(max=len(starts) - 1))]
        yield from np.split(rows, cuts[1:]) if len(rows) else []


def _exclude(
    keys: pa.StringArray, identities: pa.DictionaryArray, exclude: Sequence[str], rejected: Rejected
) -> list[str]:
    """Adds the excluded rows to ``rejected``; returns the entries that match no row."""
    if not exclude:
        return []
    people, wanted, no_name = (
        composed_column(identities.dictionary),
        _exclusion_names(exclude),
        pa.scalar(None, pa.string()),
    )
    candidates = pc.unique(pa.chunked_array(wanted)).drop_null()
    there = [
        pc.unique(found)
        for part in _slices(keys, CHUNK_ROWS)
        if len(found := _among(composed_column(part), candidates))
    ]
    there = pc.unique(pa.chunked_array([_among(people, candidates), *there]))
    known = [pc.if_else(pc.is_in(names, there), names, no_name) for names in wanted]
    found = pc.coalesce(*known)
    named = found.drop_null()
    excluded = pc.is_in(people, named).to_numpy(zero_copy_only=False)[identities.indices.to_numpy()]
    excluded |= np.concatenate(
        [pc.is_in(composed_column(part), named).to_numpy(zero_copy_only=False) for part in _slices(keys, CHUNK_ROWS)]
    )
    rejected.add(excluded & rejected.stored, "excluded", "named by the exclusion list")
    return wanted[0].filter(found.is_null()).to_pylist()


def _among(names: pa.Array, wanted: pa.Array) -> pa.Array:
    return names.filter(pc.is_in(names, wanted))


def _exclusion_names(exclude: Sequence[str]) -> list[pa.StringArray]:
    """The keys or identities that each entry may stand for, the likeliest first; null where there is none.

    An entry is ``identity``, ``identity/image``, or a path that ends in one of them. ``n4/5`` never stands for identity
    ``5``, but ``train/5``, ``n4/5/`` and ``/faces/5`` do.
    """
    entries = pa.array(exclude, pa.string())
    bare = composed_column(pc.utf8_rtrim(entries, "/\\"))
    names = clean_keys(bare)
    is_folder = pc.and_not(
        pc.match_substring_regex(entries, _FOLDER_ENTRY), pc.match_substring_regex(bare, _IMAGE_NAME)
    )
    last = pc.if_else(is_folder, pc.replace_substring_regex(names, r"(?s)^.*/", ""), pa.scalar(None, pa.string()))
    return [names, last_two_parts(names), last, bare]  # bare: an identity whose name ends as an image's


def _ranks(names: pa.StringArray, labelled: np.ndarray) -> np.ndarray:
    """(I,) int32, rank of each labelled name among the labelled ones in sorted order; ``UNLABELLED`` for the others."""
    order = pc.array_sort_indices(names).to_numpy()
    ranks = np.full(len(names), UNLABELLED, np.int32)
    chosen = order[labelled[order]]
    ranks[chosen] = np.arange(len(chosen))
    return ranks


def _shards(
    stored: np.ndarray, images_per_shard: int | None, labels: np.ndarray, group: int | None
) -> list[np.ndarray]:
    """Returns the rows of each shard: a random share of the stored rows, then a share of the others."""
    rows, others = _numbers(stored), _numbers(~stored)
    size = images_per_shard or min(max(-(-len(rows) // 32), 250), 5000)
    count = max(-(-len(rows) // size), 1)
    if group is None:
        parts = np.array_split(rows[permutation(_SHARD_SEED, 0, len(rows), np.int32)], count)
    else:
        parts = grouped_shards(labels, rows, group=group, shards=count, seed=_SHARD_SEED)
    return [np.concatenate([part, others[shard :: len(parts)]]) for shard, part in enumerate(parts)]


def _numbers(chosen: np.ndarray) -> np.ndarray:
    """(n,) int32, numbers of the chosen rows."""
    starts = range(0, len(chosen), COUNTED_ROWS)
    return np.concatenate(
        [(np.flatnonzero(chosen[start : start + COUNTED_ROWS]) + start).astype(np.int32) for start in starts]
    )

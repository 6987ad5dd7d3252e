"""The build plan: label, rejection reason and shard of every input row. Pure; opens no image."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.build.groups import grouped_shards
from pipeline.philox import permutation
from pipeline.sources.finder import IMAGE_SUFFIXES
from pipeline.sources.landmarks import clean_keys, composed_column
from pipeline.sources.source import Rows
from shards.files import SYSTEM_NAMES
from shards.messages import counted

_SHARD_SEED = 0
CHUNK_ROWS = 200_000  # rows compared at a time
_ONE_SLASH = r"^[^/]+/[^/]+$"
_NO_NAME = r"^\.{1,2}/|\x00"
_SYSTEM_NAME = rf"(?i)(?:^|/)(?:\.|(?:{'|'.join(map(re.escape, SYSTEM_NAMES))})(?:/|$))"
_SYSTEM_REASON = "a hidden or system folder or file"
_IMAGE_NAME = rf"(?i)\.(?:{'|'.join(suffix[1:] for suffix in IMAGE_SUFFIXES)})$"
_FOLDER_ENTRY = r"[/\\]$|^(?:/|[A-Za-z]:)|(?:^|[/\\])(?:train|test)[/\\][^/\\]+$"
_LAST_TWO = r"(?s)^(?:.*/)?(?:[^/.]|\.[^/.]|\.\.[^/])[^/]*/([^/]+/[^/]+)$"  # below a folder other than ..
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
    rejected: dict[int, tuple[str, str]]  # row -> (status, reason); all other rows will be stored
    shards: list[np.ndarray]  # for each shard its rows, in tar order
    unmatched_exclusions: list[str]  # entries of the exclusion list that match no row

    @property
    def identity_count(self) -> int:
        """Number of labels."""
        return int(self.labels.max()) + 1


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
    keys = _last_two_parts(rows.keys)
    identities = pc.replace_substring_regex(keys, r"/[^/]*$", "")
    encoded = identities.dictionary_encode()
    codes = _first_of_equals(encoded.dictionary)[encoded.indices.to_numpy(zero_copy_only=False)]
    rejected = _bad_rows(rows, keys, codes)
    unmatched = _exclude(keys, identities, exclude, rejected)
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
        keys=keys,
        places=rows.places,
        identities=encoded,
        points=rows.points,
        labels=labels,
        rejected=rejected,
        shards=_shards(stored, images_per_shard, labels, group),
        unmatched_exclusions=unmatched,
    )


def _last_two_parts(keys: pa.StringArray) -> pa.StringArray:
    """Drops the folders above the identity, such as those of an absolute path."""
    deep = pc.greater(pc.count_substring(keys, "/"), 1)
    return pc.replace_substring_regex(keys, _LAST_TWO, r"\1") if pc.any(deep).as_py() else keys


def _first_of_equals(names: pa.StringArray) -> np.ndarray:
    """Maps each name to the first one that differs from it by Unicode normal form at most; (N,) positions."""
    codes = composed_column(names).dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return np.unique(codes, return_index=True)[1][codes]


def _bad_rows(rows: Rows, keys: pa.StringArray, identities: np.ndarray) -> dict[int, tuple[str, str]]:
    """Rejects rows with problems such as bad landmarks, bad keys or repeated keys.

    Args:
        keys: (N,) ``identity/image``.
        identities: (N,) identity code of each row.
    """
    rejected = dict(rows.problems)
    no_name = pc.or_(pc.invert(pc.match_substring_regex(keys, _ONE_SLASH)), pc.match_substring_regex(keys, _NO_NAME))
    system = pc.and_not(pc.match_substring_regex(keys, _SYSTEM_NAME), no_name)
    for bad, reason in ((no_name, "the name is not identity/image"), (system, _SYSTEM_REASON)):
        for row in np.flatnonzero(bad.to_numpy(zero_copy_only=False)).tolist():
            rejected[row] = ("bad-key", reason)
    usable = np.ones(len(identities), bool)
    usable[list(rejected)] = False
    repeated = dict(_repeated(keys, identities, usable))
    return rejected | {row: ("duplicate-key", rows.duplicate_of(repeated[row])) for row in sorted(repeated)}


def _repeated(keys: pa.StringArray, identities: np.ndarray, usable: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields usable rows whose key occurs in an earlier usable row, and the first such row.

    Works on a few identities at a time, because a hash table of all keys would take twice the memory of the keys.
    """
    rows = np.flatnonzero(usable)
    rows = rows[np.argsort(identities[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(identities[rows], prepend=-1))
    cuts = starts[np.unique(np.searchsorted(starts, np.arange(0, len(rows), CHUNK_ROWS)).clip(max=len(starts) - 1))]
    for part in np.split(rows, cuts[1:]) if len(rows) else []:
        codes = composed_column(keys.take(pa.array(part))).dictionary_encode().indices.to_numpy(zero_copy_only=False)
        first = np.unique(codes, return_index=True)[1][codes]
        duplicates = np.flatnonzero(first != np.arange(len(part)))
        yield from zip(part[duplicates].tolist(), part[first[duplicates]].tolist(), strict=True)


def _exclude(
    keys: pa.StringArray, identities: pa.StringArray, exclude: Sequence[str], rejected: dict[int, tuple[str, str]]
) -> list[str]:
    """Adds the excluded rows to ``rejected``; returns the entries that match no row."""
    if not exclude:
        return []
    keys, identities = composed_column(keys), composed_column(identities)
    wanted, no_name = _exclusion_names(exclude), pa.scalar(None, pa.string())
    known = [
        pc.if_else(pc.or_(pc.is_in(names, pc.unique(keys)), pc.is_in(names, pc.unique(identities))), names, no_name)
        for names in wanted
    ]
    found = pc.coalesce(*known)
    excluded = pc.or_(pc.is_in(keys, found.drop_null()), pc.is_in(identities, found.drop_null()))
    for row in np.flatnonzero(excluded.to_numpy(zero_copy_only=False)).tolist():
        rejected.setdefault(row, ("excluded", "named by the exclusion list"))
    return wanted[0].filter(found.is_null()).to_pylist()


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
    return [names, _last_two_parts(names), last, bare]  # bare: an identity whose name ends as an image's


def _ranks(names: pa.StringArray, labelled: np.ndarray) -> np.ndarray:
    """Returns the rank of each labelled name among the labelled ones in sorted order; ``UNLABELLED`` for the others."""
    order = pc.array_sort_indices(names).to_numpy()
    ranks = np.full(len(names), UNLABELLED)
    chosen = order[labelled[order]]
    ranks[chosen] = np.arange(len(chosen))
    return ranks


def _shards(
    stored: np.ndarray, images_per_shard: int | None, labels: np.ndarray, group: int | None
) -> list[np.ndarray]:
    """Returns the rows of each shard: a random share of the stored rows, then a share of the others."""
    rows = np.flatnonzero(stored)
    size = images_per_shard or min(max(-(-len(rows) // 32), 250), 5000)
    count = max(-(-len(rows) // size), 1)
    if group is None:
        parts = np.array_split(rows[permutation(_SHARD_SEED, 0, len(rows))], count)
    else:
        chosen = grouped_shards(labels[rows], group=group, shards=count, seed=_SHARD_SEED)
        parts = [rows[part] for part in chosen]
    others = np.flatnonzero(~stored)
    return [np.concatenate([part, others[shard :: len(parts)]]) for shard, part in enumerate(parts)]

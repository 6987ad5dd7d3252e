"""What a build will do with every input row, decided before the first image is opened. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.philox import permutation
from pipeline.sources.landmarks import LandmarkTable, clean_keys
from pipeline.sources.listing import ImageList

_SPREAD_SEED = 0
_AT_ONCE = 200_000  # rows compared
_BAD_KEY = r"^\.{1,2}/|[\x00-\x1f\x7f\\]"
_ONE_SLASH = r"^[^/]+/[^/]+$"
UNLABELLED = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Every input row, its label, its fate so far and its shard.

    Attributes:
        keys, identities: (N,) strings; of the latter each is kept once.  points: (N, 10) float32; None where images are not aligned.
        labels: (N,) int32, rank of the identity among those that take part; -1 for those that do not.
        rejected: row -> (status, reason); all other rows are to be stored.
        shards: for each shard its rows, in tar order.
        unmatched_exclusions: entries of the exclusion list that named nothing.
    """

    keys: pa.StringArray
    identities: pa.DictionaryArray
    points: np.ndarray | None
    labels: np.ndarray
    rejected: dict[int, tuple[str, str]]
    shards: list[np.ndarray]
    unmatched_exclusions: list[str]

    @property
    def identity_count(self) -> int:
        """Number of labels."""
        return int(self.labels.max()) + 1


def default_images_per_shard(images: int) -> int:
    """Shards large enough to read well, small enough that an interrupted build loses seconds of work."""
    return min(max(-(-images // 32), 250), 5000)


def make_plan(
    table: LandmarkTable | ImageList,
    *,
    exclude: Iterable[str] = (),
    min_images: int = 1,
    images_per_shard: int | None = None,
) -> Plan:
    """Decides labels, rejections and shards.

    Labels are the ranks of the identities in sorted order, of those that have a usable row. Rows to be stored
    are spread over the shards at random, by a fixed seed; rejected rows follow them, shared out evenly.

    Args:
        exclude: identities, or keys ``identity/image``, to leave out.
        min_images: identities with fewer usable rows are left out.
    """
    identities = pc.replace_substring_regex(table.keys, r"/[^/]*$", "")
    encoded = identities.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    rejected = _bad_rows(table, codes)
    exclude = list(exclude)
    unmatched = _exclude(table.keys, identities, exclude, rejected)
    usable = np.ones(len(codes), bool)
    usable[list(rejected)] = False
    counts = np.bincount(codes[usable], minlength=len(encoded.dictionary))
    for row in np.flatnonzero(usable & (counts[codes] < min_images)).tolist():
        found = int(counts[codes[row]])
        rejected[row] = (
            "too-few-images",
            f"its identity has {found} usable image{'s' if found > 1 else ''}, --min-images is {min_images}",
        )
    taking_part = (counts >= max(min_images, 1)) & (counts > 0)
    labels = _ranks(encoded.dictionary, taking_part)[codes].astype(np.int32)
    stored = np.ones(len(codes), bool)
    stored[list(rejected)] = False
    return Plan(
        keys=table.keys,
        identities=encoded,
        points=table.points,
        labels=labels,
        rejected=rejected,
        shards=_spread(stored, images_per_shard),
        unmatched_exclusions=unmatched,
    )


def _bad_rows(table: LandmarkTable | ImageList, identities: np.ndarray) -> dict[int, tuple[str, str]]:
    """Args: identities: (N,) code of each row's."""
    rejected = {row: ("bad-landmarks", reason) for row, reason in table.problems.items()}
    well_formed = pc.and_(
        pc.match_substring_regex(table.keys, _ONE_SLASH), pc.invert(pc.match_substring_regex(table.keys, _BAD_KEY))
    )
    for row in np.flatnonzero(~well_formed.to_numpy(zero_copy_only=False)).tolist():
        rejected[row] = ("bad-key", "the name is not identity/image")
    usable = np.ones(len(identities), bool)
    usable[list(rejected)] = False
    repeated = dict(_repeated(table.keys, identities, usable))
    return rejected | {row: ("duplicate-key", table.repeats(repeated[row])) for row in sorted(repeated)}


def _repeated(keys: pa.StringArray, identities: np.ndarray, usable: np.ndarray) -> Iterator[tuple[int, int]]:
    """Usable rows whose key an earlier usable one has, and that one, the first; some identities at a time.

    A table of all keys there are would take twice the memory of the keys.
    """
    rows = np.flatnonzero(usable)
    rows = rows[np.argsort(identities[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(identities[rows], prepend=-1))
    cuts = starts[np.unique(np.searchsorted(starts, np.arange(0, len(rows), _AT_ONCE)).clip(max=len(starts) - 1))]
    for part in np.split(rows, cuts[1:]) if len(rows) else []:
        codes = keys.take(pa.array(part)).dictionary_encode().indices.to_numpy(zero_copy_only=False)
        first = np.unique(codes, return_index=True)[1][codes]
        again = np.flatnonzero(first != np.arange(len(part)))
        yield from zip(part[again].tolist(), part[first[again]].tolist(), strict=True)


def _exclude(
    keys: pa.StringArray, identities: pa.StringArray, exclude: list[str], rejected: dict[int, tuple[str, str]]
) -> list[str]:
    if not exclude:
        return []
    wanted = clean_keys(pa.array(exclude, pa.string()))
    bare = pc.replace_substring_regex(wanted, r"^(?:train|test)/([^/]+)$", r"\1")  # train/n000004 is an identity
    wanted = pc.if_else(pc.is_in(wanted, pc.unique(keys)), wanted, bare)
    hit = pc.or_(pc.is_in(keys, wanted), pc.is_in(identities, wanted)).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(hit).tolist():
        rejected.setdefault(row, ("excluded", "named by the exclusion list"))
    known = pc.or_(pc.is_in(wanted, pc.unique(keys)), pc.is_in(wanted, pc.unique(identities)))
    return wanted.filter(pc.invert(known)).to_pylist()


def _ranks(names: pa.StringArray, taking_part: np.ndarray) -> np.ndarray:
    order = pc.array_sort_indices(names).to_numpy()
    ranks = np.full(len(names), UNLABELLED)
    chosen = order[taking_part[order]]
    ranks[chosen] = np.arange(len(chosen))
    return ranks


def _spread(stored: np.ndarray, images_per_shard: int | None) -> list[np.ndarray]:
    rows = np.flatnonzero(stored)
    rows = rows[permutation(_SPREAD_SEED, 0, len(rows))]
    size = images_per_shard or default_images_per_shard(len(rows))
    count = max(-(-len(rows) // size), 1)
    others = np.flatnonzero(~stored)
    return [np.concatenate([part, others[shard::count]]) for shard, part in enumerate(np.array_split(rows, count))]

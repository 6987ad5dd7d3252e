"""The user's own verification pairs: a list of image files, or insightface's file of crops."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from benchmarks.datasets.locate import Landmarks
from benchmarks.datasets.own_images import Preparation, check_people, own_requests
from benchmarks.datasets.pair_list import PairList, read_pair_list
from benchmarks.datasets.resolutions import RESOLUTIONS, at_resolutions
from benchmarks.errors import ProtocolError
from benchmarks.scoring.protocols import PairProtocol
from pipeline.prepare import Request
from pipeline.sources.verification_bin import read_bin
from shards.files import StrPath
from shards.messages import counted, print_stderr, printable

FOLDS = 10
FALSE_ACCEPT_RATES = (0.01, 0.001)
FURTHER_RATES = (1e-4, 1e-5, 1e-6)  # of pairs enough
MIN_FALSE_ACCEPTS = 10  # of a further rate
BIN_ALIGNED = "arcface"  # template of insightface's crops


def read_pair_set(
    path: Path,
    aligned: StrPath | None = None,
    *,
    root: Path | None = None,
    landmarks: Landmarks = (),
    sizes: Sequence[int] = RESOLUTIONS,
    name: str = "pairs",
) -> PairProtocol:
    """Reads pairs: accuracy over folds, TAR at FAR 1 and 0.1 % (and less, if the pairs are enough), AUC.

    HR to LR degrades the second image of a pair, LR to LR both.

    Who is on an image is taken from the list, or from the folders of the images if these fit all pairs. Otherwise
    images that are equal or a genuine pair show one person; this is for the bootstrap only.

    Args:
        path: a list of pairs (see ``pair_list``), or insightface's ``.bin`` file.
        aligned: see ``Preparation``; insightface's crops are ``arcface`` by default.
        root: the folder of a list's images; by default that of the list.
        landmarks: see ``Preparation``.
        sizes: see ``Preparation``.
        name: of the protocol, part of the names of metrics in a training run.

    Raises:
        BinError: the file cannot be read.
        SourceError: there is no such template.
        LandmarkError: a landmark table is invalid.
        ProtocolError: the list is invalid, has too few pairs, or pairs of one kind only.
    """
    is_bin = path.suffix.lower() == ".bin"
    if is_bin and (root is not None or landmarks):
        raise ProtocolError(f"{path}: holds its images, which are aligned crops; leave out root and landmarks")
    aligned = BIN_ALIGNED if is_bin and aligned is None else aligned
    how = Preparation(landmarks=landmarks, aligned=aligned, sizes=sizes)
    pairs = _from_bin(path, how) if is_bin else _from_list(path, root or path.parent, how)
    identities, who = _identities(path, pairs)
    check_people(identities, str(path))
    requests, settings = at_resolutions(pairs.images(), pairs.members, "{}@full", sizes)
    return PairProtocol(
        name=name,
        title=printable(path.name),
        root=root or path.parent,
        source=os.path.abspath(path),
        notes=[pairs.note, who],
        alignment_stated=how.stated,
        published_counts={},
        requests=requests,
        main=f"accuracy@{sizes[0] if sizes else 'full'}",
        members=settings,
        identities=identities,
        genuine=pairs.genuine,
        folds=pairs.folds,
        rates=_rates(pairs.genuine),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pairs:
    """P pairs of N distinct images.

    Attributes:
        images: makes the requests of the images, undegraded, which may take long: their landmarks may have to be found.
        members: (P, 2) rows of the images.
        genuine: (P,) bool.
        folds: (P,) int.
        note: how the folds were made.
        people: who is on each image, and who says so; None if nobody does.
    """

    images: Callable[[], list[Request]]
    members: np.ndarray
    genuine: np.ndarray
    folds: np.ndarray
    note: str
    people: tuple[list[str], str] | None = None


def _from_bin(path: Path, how: Preparation) -> _Pairs:
    template, pairs = how.template, read_bin(path)
    _check_kinds(path, pairs.genuine)
    distinct: dict[bytes, int] = {}
    members = np.array([distinct.setdefault(part.digest, len(distinct)) for part in pairs.images]).reshape(-1, 2)
    parts = {part.digest: part for part in reversed(pairs.images)}  # of equal ones the first
    return _Pairs(
        images=lambda: [Request(path=path, part=parts[digest], template=template) for digest in distinct],
        members=members,
        genuine=pairs.genuine,
        folds=_contiguous(pairs.genuine),
        note="folds: ten contiguous parts of the file",
    )


def _from_list(path: Path, root: Path, how: Preparation) -> _Pairs:
    pairs = read_pair_list(path, root)
    _check_kinds(path, pairs.genuine)
    folds, note = _folds_of(pairs)
    return _Pairs(
        images=lambda: own_requests(pairs.paths, how),
        members=pairs.members,
        genuine=pairs.genuine,
        folds=folds,
        note=note,
        people=_named_people(pairs),
    )


def _check_kinds(path: Path, genuine: np.ndarray) -> None:
    if len(genuine) < FOLDS or genuine.all() or not genuine.any():
        raise ProtocolError(
            f"{path}: {counted(len(genuine), 'pair')}, {int(genuine.sum()):,} of them genuine, expected at least"
            f" {FOLDS}, genuine ones and others"
        )


def _rates(genuine: np.ndarray) -> Sequence[float]:
    impostors = int((~genuine).sum())
    return *FALSE_ACCEPT_RATES, *(rate for rate in FURTHER_RATES if rate * impostors >= MIN_FALSE_ACCEPTS)


def _folds_of(pairs: PairList) -> tuple[np.ndarray, str]:
    """(P,) folds, and how they were made."""
    if pairs.folds is not None:
        return pairs.folds, f"folds: {len(np.unique(pairs.folds)):,}, as the list states"
    folds = _contiguous(pairs.genuine)
    kinds = [set(pairs.genuine[folds == fold].tolist()) for fold in range(FOLDS)]
    if all(len(kind) == 2 for kind in kinds):
        return folds, "folds: ten contiguous parts of the list"
    folds = np.empty(len(pairs.genuine), np.int64)
    for kind in (False, True):
        rows = np.flatnonzero(pairs.genuine == kind)
        folds[rows] = np.arange(len(rows)) * FOLDS // len(rows)
    return folds, "folds: ten contiguous parts of the genuine pairs, and of the others (the list is sorted by kind)"


def _contiguous(genuine: np.ndarray) -> np.ndarray:
    """(P,) folds as scikit-learn's KFold makes them without shuffling."""
    return np.repeat(np.arange(FOLDS), [len(part) for part in np.array_split(genuine, FOLDS)])


def _named_people(pairs: PairList) -> tuple[list[str], str] | None:
    """Who is on each image, and who says so; None if nobody does."""
    if pairs.people is not None:
        return pairs.people, "named by the list"
    folders = [str(path.parent) for path in pairs.paths]
    codes = np.unique(folders, return_inverse=True)[1][pairs.members]
    fits = np.array_equal(codes[:, 0] == codes[:, 1], pairs.genuine)
    return (folders, "as the folders of the images say, which fit all pairs") if fits else None


def _identities(path: Path, pairs: _Pairs) -> tuple[np.ndarray, str]:
    """(P, 2) codes of the people, and how they are known."""
    if pairs.people is None:
        codes = _joined(pairs.members, pairs.genuine, path)
        who = (
            f"{counted(int(codes.max()) + 1, 'group')} of images that genuine pairs join, as nobody says who is on them"
        )
    else:
        codes = np.unique(pairs.people[0], return_inverse=True)[1]
        who = f"{counted(int(codes.max()) + 1, 'identity')}, {pairs.people[1]}"
    return codes[pairs.members], f"intervals: bootstrap over {who}"


def _joined(members: np.ndarray, genuine: np.ndarray, path: Path) -> np.ndarray:
    """(N,) codes of the people on N images, as far as genuine pairs tell; warns of pairs that contradict them."""
    first, second = members[genuine].T
    count = int(members.max()) + 1
    joined = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    people = connected_components(joined, directed=False)[1]
    first, second = people[members[~genuine]].T
    if wrong := int((first == second).sum()):
        print_stderr(
            f"{path}: {counted(wrong, 'impostor pair')} of images that genuine pairs give to one person; check the truth"
            " values"
        )
    return people

"""The user's own verification pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from benchmarks.datasets.resolutions import at_resolutions
from benchmarks.errors import ProtocolError
from benchmarks.scoring.protocols import PairProtocol
from pipeline.prepare import Request
from pipeline.sources.templates import crop_template
from pipeline.sources.verification_bin import read_bin
from pipeline.spec import NO_TEMPLATE
from shards.files import StrPath
from shards.messages import counted, print_stderr

FOLDS = 10
FALSE_ACCEPT_RATES = (0.01, 0.001)


def read_pair_set(path: Path, aligned: StrPath = "arcface") -> PairProtocol:
    """Reads insightface's ``.bin`` file of pairs: ten contiguous folds, TAR at FAR 1 and 0.1 %, AUC.

    At 8, 12, 16 and 20 px, HR to LR degrades the second image of a pair, LR to LR both.

    The file does not say who is on an image. For the bootstrap, images that are equal or a genuine pair show one person.

    Args:
        aligned: the template that the images, aligned crops, follow: its name, or a TOML file. ``none`` for images that
            follow no template: they are resized whole.

    Raises:
        BinError: the file cannot be read.
        SourceError: there is no such template.
        ProtocolError: it has too few pairs, or pairs of one kind only.
    """
    template = None if aligned == NO_TEMPLATE else crop_template(aligned)
    pairs = read_bin(path)
    genuine = pairs.genuine
    if len(genuine) < FOLDS or genuine.all() or not genuine.any():
        raise ProtocolError(
            f"{path}: {counted(len(genuine), 'pair')}, {int(genuine.sum()):,} of them genuine, expected at least"
            f" {FOLDS}, genuine ones and others"
        )
    distinct: dict[bytes, int] = {}
    members = np.array([distinct.setdefault(part.digest, len(distinct)) for part in pairs.images]).reshape(-1, 2)
    parts = {part.digest: part for part in reversed(pairs.images)}  # of equal ones the first
    images = [Request(path=path, part=parts[digest], template=template) for digest in distinct]
    requests, settings = at_resolutions(images, members, "{}@full")
    return PairProtocol(
        name="pairs",
        title=path.name,
        root=path.parent,
        published_counts={},
        requests=requests,
        main="accuracy@8",
        members=settings,
        identities=_people(members, genuine, path)[members],
        genuine=genuine,
        folds=np.repeat(np.arange(FOLDS), [len(part) for part in np.array_split(genuine, FOLDS)]),
        rates=FALSE_ACCEPT_RATES,
    )


def _people(members: np.ndarray, genuine: np.ndarray, path: Path) -> np.ndarray:
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

"""A few pairs of LFW's list that repeat images as often as the whole of it does."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path

import numpy as np

from benchmarks.datasets.lfw import RESOLUTIONS
from benchmarks.errors import ProtocolError
from benchmarks.scoring.protocols import PairProtocol
from pipeline.prepare import Request
from pipeline.sources.images import ImageError, decode

_FOLDS = 2
_LANDMARKS = 5


def hr_to_lr(protocol: PairProtocol) -> PairProtocol:
    """LFW's first image as it is against the second at five resolutions, without the settings that degrade both."""
    settings = ["{}@128", *(f"{{}}@{size}" for size in RESOLUTIONS)]
    members = np.stack([protocol.members[setting] for setting in settings])
    used, rows = np.unique(members, return_inverse=True)
    return dataclasses.replace(
        protocol,
        requests=[protocol.requests[row] for row in used],
        members=dict(zip(settings, rows.reshape(members.shape), strict=True)),
    )


def image_pairs(protocol: PairProtocol) -> list[tuple[Request, Request]]:
    """The two undegraded images of each of LFW's pairs."""
    return [(protocol.requests[first], protocol.requests[second]) for first, second in protocol.members["{}@128"]]


def write_excerpt(whole: PairProtocol, folder: Path, each: int) -> Path:
    """Lays out an excerpt of LFW under ``folder``: a list and a table of its own, the images linked; returns ``folder``.

    Args:
        each: pairs of a kind in each of two folds; fewer if there are fewer whose images can be read and have landmarks.

    Raises:
        ProtocolError: there are none.
    """
    pairs, chosen = image_pairs(whole), choose_pairs(whole, each)
    home = folder / "LFW"
    home.mkdir(parents=True)
    (home / "lfw").symlink_to(pairs[0][0].path.parent.parent.resolve())
    lines = [f"{_FOLDS}\t{len(chosen) // (2 * _FOLDS)}"]
    table = {}
    for row in chosen:
        (name, number), (other, its_number) = (_name(request) for request in pairs[row])
        lines.append("\t".join([name, number, its_number] if whole.genuine[row] else [name, number, other, its_number]))
        table.update({request.path: request for request in pairs[row]})
    (home / "pairs.txt").write_text("\n".join(lines) + "\n")
    (home / "LFW.csv").write_text("".join(_row(request) for request in table.values()))
    return folder


def choose_pairs(whole: PairProtocol, each: int) -> list[int]:
    """Rows of pairs, fold after fold, genuine ones first; each one brings the passes a pair nearest to the list's.

    Raises:
        ProtocolError: there are none.
    """
    members, pairs = whole.members["{}@128"], image_pairs(whole)
    groups = [np.flatnonzero(whole.genuine == genuine).tolist() for genuine in (True, False)]
    share = _distinct(members) / len(members)
    chosen: list[list[int]] = [[] for _ in groups]
    usable = functools.cache(lambda row: all(map(_usable, pairs[row])))  # files, so they are looked at once
    for _ in range(_FOLDS * each):
        for its, group in zip(chosen, groups, strict=True):
            so_far = [row for rows in chosen for row in rows]
            off = {
                row: abs(_distinct(members[[*so_far, row]]) - share * (len(so_far) + 1))
                for row in group
                if row not in its
            }
            its += itertools.islice(filter(usable, sorted(off, key=off.__getitem__)), 1)
    each = min(map(len, chosen)) // _FOLDS
    if not each:
        raise ProtocolError(
            f"{whole.root}: {_FOLDS} pairs of each kind are needed whose images can be read and have landmarks;"
            " --root names the folder with LFW in it; without --root faces are generated"
        )
    return [row for start in range(0, _FOLDS * each, each) for rows in chosen for row in rows[start : start + each]]


def _distinct(members: np.ndarray) -> int:
    """Passes that (P, 2) images need: each as it is, each second one at every low resolution."""
    return len(set(members.ravel().tolist())) + len(RESOLUTIONS) * len(set(members[:, 1].tolist()))


def _usable(request: Request) -> bool:
    if len(request.points or ()) != _LANDMARKS:
        return False
    try:
        decode(request.path)
    except ImageError:
        return False
    return True


def _name(request: Request) -> tuple[str, str]:
    """Person, and number of the image."""
    return request.path.parent.name, request.path.stem.rpartition("_")[2]


def _row(request: Request) -> str:
    values = [str(value) for point in request.points or () for value in point]
    return ",".join([f"{request.path.parent.name}/{request.path.name}", *values]) + "\n"
